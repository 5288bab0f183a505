"""Continuity by aggregate id: whatever the order and the losses, the ledger tells exactly what is there and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stream_support import trade

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.stream import Origin, Outcome, SymbolLedger

ids = st.integers(100, 160)
batch = st.lists(ids, max_size=12)
LOST = (Outcome.VENUE_HOLE, Outcome.UNRECOVERABLE)
LOSSES = {Outcome.VENUE_HOLE: "venue_holes", Outcome.UNRECOVERABLE: "unrecoverable"}


def of(numbers):
    return [trade(number) for number in numbers]


def ids_in(spans) -> set[int]:
    return {id for span in spans for id in range(span[0], span[1] + 1)}


class ModelLedger(RuleBasedStateMachine):
    """The ledger against plain sets of ids: what is held, what was settled and how; the rest from begin to last is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = SymbolLedger()
        self.held: set[int] = set()
        self.settled: dict[int, Outcome] = {}
        self.begin: int | None = None
        self.last: int | None = None
        self.duplicates = self.repaired = self.late = 0

    @property
    def missing(self) -> set[int]:
        if self.begin is None:
            return set()
        return set(range(self.begin, self.last + 1)) - self.held - self.settled.keys()

    @rule(numbers=batch, origin=st.sampled_from(Origin))
    def observe(self, numbers, origin):
        if numbers and self.begin is None:
            self.begin, self.last = min(numbers), min(numbers) - 1
        before = self.missing | self.settled.keys()
        new: set[int] = set()
        highest = -1 if self.last is None else self.last
        for number in numbers:
            if number < (self.begin or 0) or number in self.held | new:
                self.duplicates += origin is Origin.LIVE
            else:
                new.add(number)
                self.late += origin is Origin.LIVE and number < highest
                highest = max(highest, number)
        self.repaired += len(new) if origin is Origin.FETCHED else 0
        old_last = self.last
        self.held |= new
        self.settled = {number: outcome for number, outcome in self.settled.items() if number not in new}
        if new:
            self.last = max(self.last, *new)
        seen = self.ledger.observe(of(numbers), origin)
        assert [one.id for one in seen.accepted] == sorted(new)
        assert ids_in(seen.filled) == new & before
        assert ids_in(seen.opened) == {number for number in self.missing if number > (old_last or 0)}

    @precondition(lambda self: self.begin is not None)
    @rule(a=ids, b=ids, outcome=st.sampled_from(LOST))
    def settle(self, a, b, outcome):
        concerned = {number for number in self.missing if min(a, b) <= number <= max(a, b)}
        assert ids_in(self.ledger.settle(min(a, b), max(a, b), outcome)) == concerned
        self.settled |= dict.fromkeys(concerned, outcome)

    @rule(first=ids)
    def move_the_beginning(self, first):
        gap = self.ledger.begin(first)
        if self.begin is None:
            self.begin, self.last = first, first - 1
            assert gap is None
        elif first < self.begin:
            assert gap == (first, self.begin - 1)
            self.begin = first
        else:
            assert gap is None

    @precondition(lambda self: self.held)
    @rule()
    def restart(self):
        """As the store would give it back; counters of this run begin anew."""
        self.ledger = SymbolLedger(
            LedgerPosition(
                begin_id=self.begin,
                last_id=self.last,
                stored=len(self.held),
                missing=tuple((number, number) for number in sorted(self.missing)),
                venue_holes=sum(outcome is Outcome.VENUE_HOLE for outcome in self.settled.values()),
                unrecoverable=sum(outcome is Outcome.UNRECOVERABLE for outcome in self.settled.values()),
                settled=tuple((number, number, str(outcome)) for number, outcome in sorted(self.settled.items())),
            )
        )
        self.duplicates = self.repaired = self.late = 0

    @invariant()
    def all_is_accounted_for(self):
        ledger = self.ledger
        assert (ledger.begin_id, ledger.last_id) == (self.begin, self.last)
        assert ids_in(ledger.gaps) == ids_in(ledger.still_missing(0, 1000)) == self.missing
        assert ledger.missing == len(self.missing)
        assert ledger.stored == len(self.held)
        assert (ledger.duplicates, ledger.repaired, ledger.late) == (self.duplicates, self.repaired, self.late)
        for outcome, count in ((Outcome.VENUE_HOLE, ledger.venue_holes), (Outcome.UNRECOVERABLE, ledger.unrecoverable)):
            assert count == sum(one is outcome for one in self.settled.values())
        if self.begin is not None:
            whole = min(self.missing, default=self.last + 1) - 1
            assert ledger.complete_through_id == (whole if whole >= self.begin else None)
        assert ledger.lowest_gaps(2) == list(ledger.gaps[:2])


TestAgainstPlainSets = ModelLedger.TestCase


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3000), min_size=1, unique=True).map(sorted), st.integers(2, 20))
def test_the_number_of_gaps_stays_bounded_and_none_of_the_missing_is_forgotten(numbers, most):
    ledger = SymbolLedger(max_gaps=most)
    for number in numbers:
        ledger.observe(of([number]))
    assert len(ledger.gaps) <= most
    missing = ids_in(ledger.gaps)
    assert set(range(numbers[0], numbers[-1] + 1)) - set(numbers) <= missing
    assert ledger.missing == len(missing)
    assert ledger.missing + ledger.stored == numbers[-1] - numbers[0] + 1


def test_a_gap_is_reported_once_when_it_opens_and_as_stretches_when_it_is_filled():
    ledger = SymbolLedger()
    assert ledger.observe(of([10, 11])).opened == []
    seen = ledger.observe(of([15, 16]))
    assert (seen.opened, [one.id for one in seen.accepted]) == ([(12, 14)], [15, 16])
    assert ledger.complete_through_id == 11
    repaired = ledger.observe(of([11, 12, 13, 14, 15]), Origin.FETCHED)
    assert (repaired.filled, [one.id for one in repaired.accepted]) == ([(12, 14)], [12, 13, 14])
    assert (ledger.complete_through_id, ledger.duplicates, ledger.repaired) == (16, 0, 3)


def test_a_re_ordering_within_a_batch_opens_no_gap_and_is_counted():
    ledger = SymbolLedger()
    ledger.observe(of([10]))
    seen = ledger.observe(of([11, 14, 12, 13, 15]))
    assert ([one.id for one in seen.accepted], seen.opened, seen.filled) == ([11, 12, 13, 14, 15], [], [])
    assert (ledger.late, ledger.duplicates) == (2, 0)


def test_a_ledger_that_begins_with_a_batch_out_of_order_begins_with_its_lowest_id():
    ledger = SymbolLedger()
    assert [one.id for one in ledger.observe(of([12, 10, 11])).accepted] == [10, 11, 12]
    assert (ledger.begin_id, ledger.duplicates, ledger.late) == (10, 0, 2)


def test_a_second_link_that_repeats_the_first_and_fills_its_hole_counts_nowhere_but_as_stored():
    ledger = SymbolLedger()
    ledger.observe(of([10, 11, 15]))
    seen = ledger.observe(of([11, 12, 13, 14, 15, 16]), Origin.OVERLAP)
    assert ([one.id for one in seen.accepted], seen.filled) == ([12, 13, 14, 16], [(12, 14)])
    assert (ledger.stored, ledger.duplicates, ledger.repaired, ledger.late) == (7, 0, 0, 0)


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


@pytest.mark.parametrize("outcome", LOST)
def test_a_late_trade_of_a_hole_that_was_settled_before_a_restart_is_stored(outcome):
    position = LedgerPosition(
        begin_id=5, last_id=20, stored=12, settled=((1, 2, "venue_hole"), (8, 11, outcome.value)), **{LOSSES[outcome]: 4}
    )
    ledger = SymbolLedger(position)
    seen = ledger.observe(of([2, 9]))
    assert ([one.id for one in seen.accepted], seen.filled) == ([9], [(9, 9)])
    assert (ledger.stored, ledger.duplicates, ledger.venue_holes + ledger.unrecoverable) == (13, 1, 3)
