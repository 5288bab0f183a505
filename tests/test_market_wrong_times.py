"""Bars, ages and prunes ignore a stored wrong time, and no prune empties a store by mistake."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from market_support import EPOCH_MS, SYMBOL, dump, opened, trade, walk

from quantai_tui.market import StoreReader
from quantai_tui.market.importer import import_archive
from quantai_tui.market.times import believed_us

_HOUR_US = 3600 * 1_000_000
_DAY_US = 24 * _HOUR_US
_WRONG_MS = 99_999_999_999_999 - EPOCH_MS  # the year 5138


def stored_ids(path: Path) -> list[int]:
    return [row[1] for row in dump(path)["trades"]]


def spoil(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("wrong_ms", [_WRONG_MS, -EPOCH_MS])
async def test_wrong_time_at_the_end_affects_neither_position_nor_bars(tmp_path: Path, wrong_ms: int) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:500])
        await store.append(SYMBOL, [trade(501, wrong_ms)])
        position = await store.position(SYMBOL)
        assert position.last_time_us == position.complete_through_time_us == trades[499].time_us
        with StoreReader(path) as reader:
            last = reader.bars(SYMBOL, 60)[-1]
        assert trades[499].time_us - 120_000_000 < last.open_time_us < trades[499].time_us
        await store.append(SYMBOL, trades[501:])
        assert (await store.position(SYMBOL)).last_time_us == trades[-1].time_us


async def test_a_wrong_time_at_the_beginning_hides_no_bars(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000)
    async with opened(path) as store:
        await store.begin(SYMBOL, 1, (EPOCH_MS + _WRONG_MS) * 1000)
        await store.append(SYMBOL, [trade(1, _WRONG_MS), *trades[1:]])
        assert (await store.position(SYMBOL)).begin_time_us == trades[1].time_us
    with StoreReader(path) as reader:
        assert len(reader.bars(SYMBOL, 60)) > 5


async def test_wrong_time_beside_a_gap_hides_no_bars(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(4000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:100])
        await store.append(SYMBOL, [trade(110, _WRONG_MS), *trades[110:]])
        await store.close_gap(SYMBOL, 101, 109, "unrecoverable")
        assert (await store.position(SYMBOL)).complete_through_id == 4000
    with StoreReader(path) as reader:
        assert reader.bars(SYMBOL, 60, limit=5)[-1].open_time_us < trades[-1].time_us


async def test_prune_after_a_wrong_time_deletes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(10_000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        await store.append(SYMBOL, [trade(10_001, _WRONG_MS)])
        assert await store.prune(30 * _DAY_US) == 0
        assert store.prune_refused == ""
    assert stored_ids(path) == list(range(1, 10_002))


async def test_wrong_time_does_not_stop_pruning_older_trades(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000, step_ms=5000)
    async with opened(path) as store:
        await store.append(SYMBOL, [trade(1, _WRONG_MS), *trades[1:]])
        await store.prune(2 * _HOUR_US)
    assert stored_ids(path)[0] > 1000


async def test_prune_of_more_than_half_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000)
    ahead_ms = trades[-1].time - EPOCH_MS + 40 * 86_400_000  # not detectable with this machine's clock
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        await store.append(SYMBOL, [trade(1001, ahead_ms)])
        assert await store.prune(30 * _DAY_US) == 0
        assert "XRPETH: 1,000 of 1,001 trades would be deleted as older than 30 days" in store.prune_refused
        assert "those that stay cover 0 days" in store.prune_refused
        await store.append(SYMBOL, [trade(1002, trades[-1].time - EPOCH_MS + 1000)])
    assert stored_ids(path) == list(range(1, 1003))


async def test_a_changed_retention_lets_a_large_prune_run(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000, step_ms=5000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        await store.prune(30 * _DAY_US)
        later_ms = trades[-1].time - EPOCH_MS + 20 * 86_400_000
        await store.append(SYMBOL, [trade(1001, later_ms)])
        await store.prune(30 * _DAY_US)
    async with opened(path) as store:  # also after a restart
        assert await store.prune(10 * _DAY_US) > 1000
        assert store.prune_refused == ""
    assert stored_ids(path) == [1001]


async def test_changing_the_retention_after_a_first_refusal_lets_it_run(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000)
    async with opened(path) as store:
        await store.append(SYMBOL, [*trades, trade(1001, trades[-1].time - EPOCH_MS + 40 * 86_400_000)])
        assert await store.prune(30 * _DAY_US) == 0
        assert store.prune_refused
        assert await store.prune(30 * _DAY_US) == 0
        assert await store.prune(29 * _DAY_US) > 1000
        assert store.prune_refused == ""
    assert stored_ids(path) == [1001]


async def test_keeping_all_trades_ends_a_refusal(tmp_path: Path) -> None:
    trades = walk(100)
    async with opened(tmp_path / "store.db") as store:
        await store.append(SYMBOL, [*trades, trade(101, trades[-1].time - EPOCH_MS + 40 * 86_400_000)])
        await store.prune(30 * _DAY_US)
        assert store.snapshot().prune_refused
        store.keep_all()
        assert store.snapshot().prune_refused == ""


async def test_a_large_prune_runs_when_the_rest_covers_the_retention(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000, step_ms=5000)  # seven hours
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        assert await store.prune(2 * _HOUR_US) > 0
        assert store.prune_refused == ""
    assert len(stored_ids(path)) < 2500


async def test_a_refusal_ends_when_nothing_is_to_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(1000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades)
        await store.append(SYMBOL, [trade(1001, trades[-1].time - EPOCH_MS + 40 * 86_400_000)])
        await store.prune(30 * _DAY_US)
        assert store.prune_refused
        await store.append(SYMBOL, [trade(id, trades[-1].time - EPOCH_MS + id) for id in range(1002, 1100)])
        await store.prune(30 * _DAY_US)
        assert store.prune_refused == ""


async def test_opening_repairs_wrong_times_of_an_older_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(5000)
    async with opened(path) as store:
        await store.append(SYMBOL, trades[:4000])
    wrong_us = 99_999_999_999_999_000
    spoil(path, f"UPDATE symbols SET last_time_us = {wrong_us}, begin_time_us = {wrong_us}, pruned_before_us = {wrong_us}")
    async with opened(path) as store:
        await store.append(SYMBOL, trades[4000:])
        await store.flush()
        await store.append(SYMBOL, [trade(5001, trades[-1].time - EPOCH_MS + 200_000)])
        await store.flush()
    with StoreReader(path) as reader:
        assert len(reader.bars(SYMBOL, 1)) > 100


def test_a_majority_of_times_outvotes_the_clock() -> None:
    assert believed_us([], 0) is None
    assert believed_us([5], 0) == 5
    slow = 1_000_000_000
    assert believed_us([slow + 7_200_000_000, slow + 7_201_000_000, slow + 7_202_000_000], slow) == slow + 7_202_000_000
    assert believed_us([10**17, slow + 1, slow], slow) == slow + 1


async def test_an_import_keeps_trades_ahead_of_the_clock_and_counts_them(tmp_path: Path) -> None:
    trades = walk(50)
    file = tmp_path / "XRPETH-aggTrades-2019-10.csv"
    lines = [f"{t.id},{t.price},{t.quantity},{t.first_id},{t.last_id},{t.time},true,true" for t in trades]
    file.write_text("\n".join([*lines, f"51,1.0,1.0,102,103,{99_999_999_999_999},true,true"]))
    async with opened(tmp_path / "store.db") as store:
        result = await import_archive(file, store)
        assert (result.stored, result.ahead) == (51, 1)
        assert (await store.position(SYMBOL)).last_time_us == trades[-1].time_us
