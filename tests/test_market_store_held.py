"""The store waits for and names another program that locks it; a damaged file gets its own remedy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from market_support import SYMBOL, assert_bars_are_those_of_the_trades, dump, opened, walk, write_batches

from quantai_tui.cli.options import Wanted
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.host import headless
from quantai_tui.engine.registry import running
from quantai_tui.engine.starting import EXIT_STORE_FAILED
from quantai_tui.market import StoreError, StoreReader, TradeStore
from quantai_tui.market.holders import who_holds

_LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock")

_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.read()
"""
_IMMEDIATE = ("BEGIN IMMEDIATE",)
_EXCLUSIVE = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "SELECT count(*) FROM trades")


@contextmanager
def held(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Another process locks the database until the block ends or its standard input is closed."""
    command = [sys.executable, "-c", _HOLDER, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all waits: a try to write ends after 20 ms."""
    monkeypatch.setattr("quantai_tui.market.schema._WRITE_TRY_MS", 20)
    monkeypatch.setattr("quantai_tui.market.schema._OPEN_WITHIN_S", 0.1)
    monkeypatch.setattr("quantai_tui.market.schema._READ_WITHIN_S", 0.1)
    monkeypatch.setattr("quantai_tui.market.store._PAUSE_S", 0.001)
    monkeypatch.setattr("quantai_tui.market.store._CLOSE_TRIES", 3)


async def until_held(store: TradeStore) -> str:
    async with asyncio.timeout(10):
        while not store.held_by:
            await asyncio.sleep(0.005)
    return store.held_by


@_LINUX
async def test_locked_store_is_waited_for_and_its_holder_named(tmp_path: Path, quick: None) -> None:
    path = tmp_path / "store.db"
    trades = walk(3000)
    told: list[str] = []
    async with opened(path, max_queued=1000) as store:
        store.on_held = told.append
        await store.write(SYMBOL, trades[:100])
        with held(path, *_IMMEDIATE) as other:

            async def feed() -> None:
                for at in range(100, 3000, 100):
                    await store.append(SYMBOL, trades[at : at + 100])

            feeding = asyncio.create_task(feed())
            assert f"(pid {other.pid})" in await until_held(store)
            async with asyncio.timeout(10):
                while not store.paused:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.2)  # ten tries, after which the previous release gave up
            assert (store.queued, store.failure, feeding.done()) == (1000, None, False)
            assert store.snapshot().held_by == store.held_by
        async with asyncio.timeout(20):
            await feeding
            await store.flush()
        assert (store.held_by, store.counts(SYMBOL).stored) == ("", 3000)
    assert told[0].endswith(f"(pid {other.pid})")
    assert told[-1] == ""
    assert_bars_are_those_of_the_trades(path)


@_LINUX
async def test_closing_a_store_that_stays_locked_is_an_error(tmp_path: Path, quick: None) -> None:
    path = tmp_path / "store.db"
    store = await TradeStore.open(path)
    await store.write(SYMBOL, walk(100))
    with held(path, *_IMMEDIATE) as other:
        await store.append(SYMBOL, walk(100, first_id=101))
        with pytest.raises(StoreError, match=rf"held by .*\(pid {other.pid}\): the last trades were not written; close it there"):
            await store.close()
    assert len(dump(path)["trades"]) == 100


@_LINUX
async def test_headless_tells_that_the_last_trades_were_not_written(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(Wanted("demo", seed=3).source(), overrides=("TRAIN_AUTOSTART=False",))
    with (tmp_path / "lines").open("w") as out:
        run = asyncio.create_task(headless(lambda: engine, as_json=False, for_s=None, out=out))
        async with asyncio.timeout(60):
            while not running() or not any(one.stored for one in engine.snapshot().stream.symbols.values()):
                await asyncio.sleep(0.05)
            with held(engine.folder.store, *_IMMEDIATE) as other:
                await until_held(engine.store)
                engine.request_stop()
                assert await run == EXIT_STORE_FAILED
    assert f"(pid {other.pid}): the last trades were not written" in capsys.readouterr().err


async def test_closing_a_held_store_with_nothing_left_to_write_is_clean(tmp_path: Path, quick: None) -> None:
    path = tmp_path / "store.db"
    store = await TradeStore.open(path)
    await store.write(SYMBOL, walk(100))
    with held(path, *_IMMEDIATE):
        await store.close()
    write_batches(path, [])
    assert len(dump(path)["trades"]) == 100


@_LINUX
@pytest.mark.parametrize("statements", [_IMMEDIATE, _EXCLUSIVE])
async def test_opening_a_held_store_names_the_holder_and_the_remedy(
    tmp_path: Path, quick: None, statements: tuple[str, ...]
) -> None:
    path = tmp_path / "store.db"
    write_batches(path, [walk(10)])
    remedy = r"held by .*\(pid {}\): close it there, then start again"
    with held(path, *statements) as other, pytest.raises(StoreError, match=remedy.format(other.pid)):
        await TradeStore.open(path)
    async with opened(path) as store:
        assert store.counts(SYMBOL).stored == 10


@_LINUX
async def test_a_reader_of_a_held_store_names_the_holder(tmp_path: Path, quick: None) -> None:
    path = tmp_path / "store.db"
    write_batches(path, [walk(10)])
    with held(path, *_EXCLUSIVE) as other, pytest.raises(StoreError, match=rf"held by .*\(pid {other.pid}\)"):
        StoreReader(path)


async def test_reading_works_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.write(SYMBOL, walk(10))
        with held(path, *_IMMEDIATE), StoreReader(path) as reader:
            assert len(reader.trades(SYMBOL, 0, 100)) == 10


async def test_process_with_the_file_open_is_named_when_locks_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    write_batches(path, [walk(10)])
    assert who_holds(path) == "another program"
    with held(path, "SELECT count(*) FROM trades") as other:
        assert who_holds(path).endswith(f"(pid {other.pid})")
        monkeypatch.setattr("quantai_tui.market.holders._PROC", tmp_path / "no such folder")
        assert who_holds(path) == "another program"


async def test_a_store_damaged_in_use_gets_the_remedy_for_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write_batches(path, [walk(20_000)])
    with path.open("r+b") as file:
        for at in range(8192, path.stat().st_size - 4096, 4096):
            file.seek(at)
            file.write(b"\xa5" * 4096)
    with pytest.raises(StoreError, match=r"the database is damaged: move store\.db and .* away and start again") as caught:
        async with opened(path) as store:
            await store.write(SYMBOL, walk(20_000, first_id=1))
    assert "check the disk" not in str(caught.value)
    with pytest.raises(StoreError, match="the database is damaged"), StoreReader(path) as reader:
        reader.trades(SYMBOL, 0, 100)
