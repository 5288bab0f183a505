"""The store when the disk is slow, full or not ours, and when the program dies: nothing lost unseen, and a clear word."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from market_support import SYMBOL, assert_bars_are_those_of_the_trades, dump, opened, trade, walk, write_batches

from quantai_tui.market import StoreError, StoreReader, TradeStore


async def test_a_full_queue_makes_append_wait_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(3000)
    blocker = None
    async with opened(path, max_queued=1000) as store:
        await store.flush()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")  # another program holds the file: the disk is behind

        async def feed() -> None:
            for at in range(0, 3000, 100):
                await store.append(SYMBOL, trades[at : at + 100])

        feeding = asyncio.create_task(feed())
        async with asyncio.timeout(10):
            while not store.paused:
                await asyncio.sleep(0.005)
        assert store.queued == 1000
        assert not feeding.done()
        blocker.execute("ROLLBACK")
        async with asyncio.timeout(20):
            await feeding
            await store.flush()
        assert (store.queued, store.paused, store.counts(SYMBOL).stored) == (0, False, 3000)
    blocker.close()


async def test_a_batch_given_up_while_it_waits_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(30)
    async with opened(path, max_queued=10) as store:
        await store.flush()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await store.append(SYMBOL, trades[:10])
        waiting = asyncio.create_task(store.append(SYMBOL, trades[10:20]))
        async with asyncio.timeout(10):
            while not store.paused:
                await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        blocker.execute("ROLLBACK")
        blocker.close()
        assert (await store.position(SYMBOL)).stored == 10


async def test_closing_commits_what_was_accepted_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    store = await TradeStore.open(path)
    await store.append(SYMBOL, walk(2000))
    assert store.size_bytes > 0
    await store.close()
    await store.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["store.db"]
    assert len(dump(path)["trades"]) == 2000
    with pytest.raises(StoreError, match="is closed"):
        await store.append(SYMBOL, walk(1))


_ENDLESS_WRITER = """
import asyncio, sys
from pathlib import Path
from market_support import walk
from quantai_tui.market import TradeStore

async def main():
    store = await TradeStore.open(Path(sys.argv[1]))
    trades = walk(200_000, step_ms=60)
    for at in range(0, len(trades), 250):
        await store.append("XRPETH", trades[at : at + 250])
        if at % 1000 == 0:
            await store.flush()
            print(at, flush=True)

asyncio.run(main())
"""


def test_a_killed_writer_leaves_a_whole_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_WRITER, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parent, text=True
    ) as process:
        assert process.stdout is not None
        reported = 0
        for line in process.stdout:
            reported = int(line)
            if reported >= 5000:
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL
    write_batches(path, [])
    assert_bars_are_those_of_the_trades(path)
    (symbol,) = dump(path)["symbols"]
    assert symbol[6] == symbol[8] >= reported + 250, "complete through the last stored, and all that was flushed is there"


async def test_a_full_disk_is_told_to_whoever_writes_next(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await TradeStore.open(path)
    await store.write(SYMBOL, walk(100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.size_bytes, hard))
    try:
        with pytest.raises(StoreError, match=r"store\.db failed: .*; check the disk"):
            await store.write(SYMBOL, walk(20_000, first_id=101))
        assert store.failure is not None
        for call in (store.flush(), store.append(SYMBOL, walk(1)), store.position(SYMBOL)):
            with pytest.raises(StoreError, match="check the disk"):
                await call
        await store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_batches(path, [])
    assert_bars_are_those_of_the_trades(path)


async def test_a_failure_nobody_has_heard_of_is_told_at_the_latest_by_close(tmp_path: Path) -> None:
    store = await TradeStore.open(tmp_path / "store.db")
    await store.append(SYMBOL, [trade(1, price="not a price")])
    with pytest.raises(StoreError, match="failed"):
        await store.close()
    assert store.failure is not None


async def test_whoever_waits_for_room_hears_of_the_failure(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await TradeStore.open(path, max_queued=10)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    await store.append(SYMBOL, [trade(id, price="not a price") for id in range(10)])
    waiting = asyncio.create_task(store.append(SYMBOL, walk(10)))
    async with asyncio.timeout(10):
        while not store.paused:
            await asyncio.sleep(0.005)
    blocker.execute("ROLLBACK")
    blocker.close()
    with pytest.raises(StoreError):
        await waiting
    await store.close()


async def _refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        await TradeStore.open(path)
    return str(caught.value)


async def test_what_is_no_store_of_ours_is_refused_with_a_remedy(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to be looked at as one\n" * 50)
    assert "not a SQLite database" in await _refused(text)

    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert "another program" in await _refused(foreign)

    newer = tmp_path / "newer.db"
    write_batches(newer, [walk(3)])
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer quantai-tui" in await _refused(newer)

    for path in (text, foreign, newer):
        with pytest.raises(StoreError):
            StoreReader(path)


async def test_a_folder_that_cannot_be_written_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "choose a data folder" in await _refused(tmp_path / "file" / "store.db")
    (tmp_path / "store.db").mkdir()
    assert "choose a data folder" in await _refused(tmp_path / "store.db")


async def test_arguments_that_make_no_sense_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_queued"):
        await TradeStore.open(tmp_path / "store.db", max_queued=0)
    async with opened(tmp_path / "store.db") as store:
        with pytest.raises(ValueError, match="below its first"):
            await store.add_gap(SYMBOL, 5, 4, "x", 0.0)
        with pytest.raises(ValueError, match="venue_hole"):
            await store.close_gap(SYMBOL, 4, 5, "forgotten")
        with pytest.raises(ValueError, match="positive"):
            await store.prune(0)
        await store.flush()
