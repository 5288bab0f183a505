"""The store: every trade once, every bar exact, whatever the order in which trades come."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_support import (
    EPOCH_MS,
    SYMBOL,
    assert_bars_are_those_of_the_trades,
    dump,
    opened,
    plain,
    plain_bars,
    walk,
    write_batches,
)

from quantai_tui.market import INTERVALS, Gap, StoreReader, import_archive, read_archive
from quantai_tui.market.schema import open_for_reading, read_open_gaps

_HOUR_US = 3_600_000_000


async def test_unordered_file_is_stored_completely_and_counted(tmp_path: Path) -> None:
    trades = walk(40)
    lines = [f"{t.id},{t.price},{t.quantity},{t.first_id},{t.last_id},{t.time},{t.buyer_is_maker},True\n" for t in trades]
    path = tmp_path / f"{SYMBOL}-aggTrades-2019-10-11.csv"
    path.write_text("".join([*lines[20:], *lines[:20], lines[0]]))
    async with opened(tmp_path / "store.db") as store:
        result = await import_archive(path, store)
        position = await store.position(SYMBOL)
    assert (result.read, result.stored, result.duplicates, result.unordered) == (41, 40, 1, 21)
    assert (result.first_id, result.last_id) == (trades[0].id, trades[-1].id)
    assert (position.begin_id, position.complete_through_id) == (trades[0].id, trades[-1].id)


async def test_the_real_file_is_stored_exactly_once_to_the_last_digit(xrpeth: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    progress: list[tuple[int, int]] = []
    async with opened(path) as store:
        first = await import_archive(xrpeth, store, progress=lambda done, total: progress.append((done, total)))
        again = await import_archive(xrpeth, store)
        position = await store.position(SYMBOL)
    assert (first.read, first.stored, first.duplicates) == (12477, 12477, 0)
    assert (first.symbol, first.first_id, first.last_id) == (SYMBOL, 13519807, 13532283)
    assert (again.read, again.stored, again.duplicates) == (12477, 0, 12477)
    assert (position.begin_id, position.last_id, position.complete_through_id) == (13519807, 13532283, 13532283)
    assert progress[-1] == (xrpeth.stat().st_size,) * 2
    trades = [one for batch in read_archive(xrpeth).batches() for one in batch]
    tables = dump(path)
    assert tables["trades"] == [
        (SYMBOL, t.id, t.price, t.quantity, t.first_id, t.last_id, t.time_us, t.buyer_is_maker) for t in trades
    ]
    for interval_s in INTERVALS.values():
        expected = {bar.open_time_us: bar for bar in plain_bars(trades, interval_s)}
        with StoreReader(path) as reader:
            given_bars = reader.bars(SYMBOL, interval_s)
        begin, through = trades[0].time_us, trades[-1].time_us
        width = interval_s * 1_000_000
        assert [bar.open_time_us for bar in given_bars] == list(
            range((begin // width + 1) * width, through // width * width, width)
        )
        assert {b.open_time_us: plain(b) for b in given_bars if b.trades} == {
            opened: bar for opened, bar in expected.items() if begin < opened and opened + width <= through
        }


async def test_a_bad_line_keeps_what_came_before_it(tmp_path: Path) -> None:
    trades = walk(6000)
    path = tmp_path / "XRPETH-aggTrades-2019-10.csv"
    lines = [f"{t.id},{t.price},{t.quantity},{t.first_id},{t.last_id},{t.time},true,true" for t in trades]
    path.write_text("\n".join([*lines, "broken"]))
    async with opened(tmp_path / "store.db") as store:
        with pytest.raises(Exception, match="line 6001"):
            await import_archive(path, store)
        assert (await store.position(SYMBOL)).stored == 5000


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_and_repetition_of_batches_leads_to_the_same_store(data: st.DataObject) -> None:
    trades = walk(60, first_id=100, step_ms=40_000, seed=data.draw(st.integers(0, 5)))
    lost = data.draw(st.sets(st.integers(100, 159), max_size=4))
    kept = [one for one in trades if one.id not in lost]
    begin = data.draw(st.sampled_from([None, 100]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(kept) - 1), max_size=6)))
    batches = [kept[a:b] for a, b in zip([0, *cuts], [*cuts, len(kept)], strict=True)]
    shuffled = data.draw(st.permutations(batches + data.draw(st.lists(st.sampled_from(batches), max_size=3))))
    shuffled = [data.draw(st.permutations(batch)) for batch in shuffled]
    with tempfile.TemporaryDirectory() as folder:
        straight, other = Path(folder, "straight.db"), Path(folder, "other.db")
        write_batches(straight, [kept], begin)
        write_batches(other, shuffled, begin)
        assert dump(other) == dump(straight)
        assert_bars_are_those_of_the_trades(other)
        begins = kept[0].id if begin is None else begin
        missing = [id for id in lost if begins <= id < kept[-1].id]
        through = min(missing) - 1 if missing else kept[-1].id
        with StoreReader(other) as reader:
            assert reader.position(SYMBOL).complete_through_id == (through if through >= begins else None)


async def test_a_repair_in_the_past_changes_the_bars_it_falls_into(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(400, step_ms=500)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:100])
        await store.add_gap(SYMBOL, 101, 150, "reset", 12.0)
        await store.append(SYMBOL, trades[150:])
        before = await store.position(SYMBOL)
        assert (before.complete_through_id, before.last_id, before.missing) == (100, 400, ((101, 150),))
        assert before.gaps == (Gap(101, 150, "reset", 12.0),)
        await store.append(SYMBOL, trades[100:150])
        await store.close_gap(SYMBOL, 101, 150, "repaired")
        after = await store.position(SYMBOL)
    assert (after.complete_through_id, after.gaps, after.missing) == (400, (), ())
    assert_bars_are_those_of_the_trades(path)


@pytest.mark.parametrize("outcome", ["venue_hole", "unrecoverable"])
async def test_ids_that_will_never_come_are_settled_and_stay_so(outcome: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(30)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:10])
        await store.append(SYMBOL, trades[20:])
        await store.add_gap(SYMBOL, 11, 20, "outage", 5.0)
        await store.append(SYMBOL, trades[10:12])
        await store.close_gap(SYMBOL, 11, 12, "repaired")
        await store.close_gap(SYMBOL, 13, 20, outcome)
        position = await store.position(SYMBOL)
        assert (position.complete_through_id, position.gaps, position.missing) == (30, (), ())
    assert [row[1:6] for row in dump(path)["gaps"]] == [
        (11, 12, "outage", 5.0, "repaired"),
        (13, 20, "outage", 5.0, outcome),
    ]
    async with opened(path) as store:
        assert (await store.position(SYMBOL)).complete_through_id == 30


async def test_ids_settled_before_their_neighbours_come_are_not_missed(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await store.begin(SYMBOL, 1, EPOCH_MS * 1000)
        await store.close_gap(SYMBOL, 4, 6, "venue_hole")
        await store.append(SYMBOL, walk(3))
        await store.append(SYMBOL, walk(3, first_id=7))
        position = await store.position(SYMBOL)
    assert (position.complete_through_id, position.missing) == (9, ())


async def test_settled_ids_are_counted_by_outcome_until_they_come_after_all(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(40)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:10])
        await store.append(SYMBOL, trades[30:])
        await store.add_gap(SYMBOL, 11, 30, "outage", 5.0)
        await store.close_gap(SYMBOL, 11, 20, "unrecoverable")
        await store.close_gap(SYMBOL, 21, 24, "venue_hole")
        position = await store.position(SYMBOL)
        assert (position.unrecoverable, position.venue_holes, position.missing) == (10, 4, ((25, 30),))
        await store.append(SYMBOL, [trades[id - 1] for id in (12, 13, 20, 21, 25)])
        after = await store.position(SYMBOL)
        assert (after.unrecoverable, after.venue_holes, after.stored) == (7, 3, 25)
        await store.close_gap(SYMBOL, 18, 30, "venue_hole")
        last = await store.position(SYMBOL)
        assert (last.unrecoverable, last.venue_holes, last.missing) == (5, 10, ()), "25 is stored, 18 and 19 count once"
        with StoreReader(path) as reader:
            position = reader.position(SYMBOL)
        assert (position.unrecoverable, position.venue_holes) == (5, 10)
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        position = await store.position(SYMBOL)
        assert (position.unrecoverable, position.venue_holes, position.stored) == (0, 0, 40)
    assert {row[5] for row in dump(path)["gaps"]} == {"repaired"}
    assert_bars_are_those_of_the_trades(path)


async def test_a_gap_that_is_repaired_page_by_page_is_closed_as_fast_at_its_end_as_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.add_gap(SYMBOL, 1, 100_000, "outage", 5.0)
        for first in range(1, 100_000, 50):
            await store.close_gap(SYMBOL, first, first + 49, "repaired")
        assert (await store.position(SYMBOL)).gaps == ()
    assert len(dump(path)["gaps"]) == 2000
    connection = open_for_reading(path)
    try:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(count, 10)
        assert read_open_gaps(connection, SYMBOL) == ()
        assert steps < 10, "the 2000 closed rows are not looked at"
    finally:
        connection.close()


async def test_a_gap_recorded_twice_is_one_gap(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await store.add_gap(SYMBOL, 10, 20, "first", 1.0)
        await store.add_gap(SYMBOL, 15, 25, "second", 2.0)
        position = await store.position(SYMBOL)
    assert position.gaps == (Gap(10, 20, "first", 1.0), Gap(21, 25, "second", 2.0))


async def test_a_ledger_begins_where_it_is_told_and_grows_back_only_without_a_hole(tmp_path: Path) -> None:
    trades = walk(100)
    async with opened(tmp_path / "store.db") as store:
        await store.begin(SYMBOL, 61, trades[60].time_us)
        await store.begin(SYMBOL, 80, trades[79].time_us)
        empty = await store.position(SYMBOL)
        assert (empty.begin_id, empty.last_id, empty.complete_through_id) == (61, None, None)
        await store.append(SYMBOL, trades[60:])
        await store.append(SYMBOL, trades[:40])
        apart = await store.position(SYMBOL)
        assert (apart.begin_id, apart.complete_through_id, apart.stored) == (61, 100, 80)
        await store.append(SYMBOL, trades[40:60])
        joined = await store.position(SYMBOL)
        assert (joined.begin_id, joined.begin_time_us, joined.complete_through_id) == (1, trades[0].time_us, 100)


async def test_a_ledger_told_to_begin_earlier_misses_what_lies_between(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(100)
    async with opened(path) as store:
        await store.begin(SYMBOL, 61, trades[60].time_us)
        await store.append(SYMBOL, trades[60:])
        await store.append(SYMBOL, trades[10:20])
        await store.begin(SYMBOL, 1, trades[0].time_us)
        position = await store.position(SYMBOL)
        assert (position.begin_id, position.complete_through_id, position.missing) == (1, None, ((1, 10), (21, 60)))
    async with opened(path) as store:
        assert (await store.position(SYMBOL)).missing == ((1, 10), (21, 60))
        await store.append(SYMBOL, trades)
        assert (await store.position(SYMBOL)).complete_through_id == 100


async def test_files_imported_in_the_wrong_order_join(tmp_path: Path) -> None:
    trades = walk(300)
    async with opened(tmp_path / "store.db") as store:
        for first in (200, 0, 100):
            path = tmp_path / f"XRPETH-aggTrades-{first}.csv"
            part = trades[first : first + 100]
            path.write_text("".join(f"{t.id},{t.price},{t.quantity},{t.first_id},{t.last_id},{t.time},true,true\n" for t in part))
            await import_archive(path, store)
        position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id, position.stored) == (1, 300, 300)


async def test_symbols_have_ledgers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.append(SYMBOL, walk(5))
        await store.append("ETHBTC", walk(7, first_id=1000))
        await store.flush()
        assert store.symbols() == ["ETHBTC", SYMBOL]
        assert (store.counts(SYMBOL).stored, store.counts("ETHBTC").stored, store.counts("X").stored) == (5, 7, 0)
        assert (await store.position("X")).begin_id is None
    async with opened(path) as store:
        assert (store.counts(SYMBOL).stored, store.counts("ETHBTC").stored) == (5, 7)


async def test_pruning_goes_by_market_time_and_keeps_the_ledger_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000, step_ms=5000)  # about seven hours in 2019
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        await store.flush()
        removed = await store.prune(2 * _HOUR_US)
        assert removed > 0
        assert await store.prune(2 * _HOUR_US) == 0
        again = await store.write(SYMBOL, random.Random(1).sample(trades, 500))
        assert (again.stored, again.duplicates) == (0, 500)
        position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id, position.stored) == (1, 5000, 5000)
    tables = dump(path)
    cutoff = (trades[-1].time_us - 2 * _HOUR_US) // _HOUR_US * _HOUR_US
    assert [row[1] for row in tables["trades"]] == [one.id for one in trades if one.time_us >= cutoff]
    with StoreReader(path) as reader:
        seconds, minutes = reader.bars(SYMBOL, 1), reader.bars(SYMBOL, 60)
    assert seconds[0].open_time_us == tables["trades"][0][6] // 1_000_000 * 1_000_000
    expected = {bar.open_time_us: bar for bar in plain_bars(trades, 60)}
    assert minutes[0].open_time_us < cutoff
    assert all(plain(bar) == expected[bar.open_time_us] for bar in minutes if bar.trades)
    async with opened(path) as store:
        assert (await store.position(SYMBOL)).complete_through_id == 5000


async def test_pruning_stops_where_a_repair_is_still_awaited(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000, step_ms=5000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:100])
        await store.append(SYMBOL, trades[110:])
        await store.prune(_HOUR_US)
        await store.append(SYMBOL, trades[100:110])
        assert (await store.position(SYMBOL)).complete_through_id == 5000
    assert len(dump(path)["trades"]) == 5000
    assert_bars_are_those_of_the_trades(path)


async def test_trades_older_than_what_was_removed_by_age_are_not_asked_for_and_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000, step_ms=5000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[1000:])
        await store.prune(_HOUR_US)
        await store.begin(SYMBOL, 1, trades[0].time_us)
        assert (await store.position(SYMBOL)).begin_id == 1001
        written = await store.write(SYMBOL, trades)
        assert (written.stored, written.duplicates) == (1000, 4000)
    async with opened(path) as store:
        position = await store.position(SYMBOL)
        assert (position.begin_id, position.complete_through_id, position.missing) == (1, 5000, ())
