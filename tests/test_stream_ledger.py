"""Continuity by aggregate id: whatever the order and the losses, the ledger tells exactly what is there and what is not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_support import trade

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.stream import Outcome, SymbolLedger

ids = st.integers(100, 160)
batches = st.lists(st.lists(ids, max_size=12), min_size=1, max_size=20)


def of(numbers):
    return [trade(number) for number in numbers]


def check(ledger: SymbolLedger, held: set[int], settled: set[int] = frozenset()) -> None:
    """The ledger against a plain set of the ids that were accepted."""
    missing = {id for first, last in ledger.gaps for id in range(first, last + 1)}
    expected = set(range(ledger.begin_id, ledger.last_id + 1)) - held - settled
    assert missing == expected
    assert ledger.missing == len(missing)
    through = ledger.complete_through_id
    whole = list(range(ledger.begin_id, ledger.last_id + 1))
    prefix = next((i for i, id in enumerate(whole) if id in missing), len(whole))
    assert through == (whole[prefix - 1] if prefix else None)


@given(batches)
def test_every_id_is_accepted_exactly_once_and_gaps_are_exactly_what_is_absent(stream):
    ledger = SymbolLedger()
    accepted: list[int] = []
    dropped = 0
    for numbers in stream:
        seen = ledger.observe(of(numbers))
        new = [one.id for one in seen.accepted]
        dropped += len(numbers) - len(new)
        accepted += new
        filled = {id for first, last in seen.filled for id in range(first, last + 1)}
        assert filled <= set(new)
    assert len(accepted) == len(set(accepted)) == ledger.stored
    assert ledger.duplicates == dropped
    came = [id for numbers in stream for id in numbers]
    if came:
        assert set(accepted) == {id for id in came if id >= came[0]}
        check(ledger, set(accepted))


@given(batches, st.lists(st.tuples(ids, ids), max_size=8), st.lists(ids, max_size=40))
def test_after_repair_and_settling_nothing_is_both_held_and_missing(stream, given_up, fetched):
    ledger = SymbolLedger()
    ledger.begin(100)
    held = {one.id for numbers in stream for one in ledger.observe(of(numbers)).accepted}
    settled: set[int] = set()
    for a, b in given_up:
        for first, last in ledger.settle(min(a, b), max(a, b), Outcome.VENUE_HOLE):
            settled |= set(range(first, last + 1))
    assert ledger.venue_holes == len(settled)
    seen = ledger.observe(of(sorted(set(fetched))), repair=True)
    new = {one.id for one in seen.accepted}
    assert not new & held
    assert ledger.repaired == len(new)
    check(ledger, held | new, settled - new)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3000), min_size=1, unique=True).map(sorted), st.integers(2, 20))
def test_the_number_of_gaps_stays_bounded_and_none_of_the_missing_is_forgotten(numbers, most):
    ledger = SymbolLedger(max_gaps=most)
    for number in numbers:
        ledger.observe(of([number]))
    assert len(ledger.gaps) <= most
    missing = {id for first, last in ledger.gaps for id in range(first, last + 1)}
    assert set(range(numbers[0], numbers[-1] + 1)) - set(numbers) <= missing
    assert ledger.missing == len(missing)
    assert ledger.missing + ledger.stored == numbers[-1] - numbers[0] + 1


def test_a_gap_is_reported_once_when_it_opens_and_as_stretches_when_it_is_filled():
    ledger = SymbolLedger()
    assert ledger.observe(of([10, 11])).opened == []
    seen = ledger.observe(of([15, 16]))
    assert (seen.opened, [one.id for one in seen.accepted]) == ([(12, 14)], [15, 16])
    assert ledger.complete_through_id == 11
    repaired = ledger.observe(of([11, 12, 13, 14, 15]), repair=True)
    assert (repaired.filled, [one.id for one in repaired.accepted]) == ([(12, 14)], [12, 13, 14])
    assert (ledger.complete_through_id, ledger.duplicates, ledger.repaired) == (16, 0, 3)


def test_a_beginning_can_move_back_and_only_back():
    ledger = SymbolLedger()
    ledger.observe(of([50, 51]))
    assert ledger.begin(60) is None
    assert ledger.begin(45) == (45, 49)
    assert (ledger.begin_id, ledger.missing, ledger.complete_through_id) == (45, 5, None)


def test_a_ledger_resumes_where_the_store_stands():
    ledger = SymbolLedger(LedgerPosition(begin_id=5, last_id=20, stored=14, missing=((8, 9),)))
    assert (ledger.missing, ledger.complete_through_id) == (2, 7)
    assert ledger.observe(of([23])).opened == [(21, 22)]
    told_only = SymbolLedger(LedgerPosition(begin_id=5))
    assert told_only.observe(of([7])).opened == [(5, 6)]
