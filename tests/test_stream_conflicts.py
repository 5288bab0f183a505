"""Trades with the same id but different content are counted and shown, whatever their source."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from market_support import opened, walk
from stream_support import (
    FIRST_ID,
    SYMBOL,
    ManualClock,
    MemorySink,
    authority,
    clock,
    eventually,
    exchange,
    reaches,
    start,
    trade,
)

from quantai_tui.cli.importing import import_files
from quantai_tui.market.conflicts import Conflict, RecentTrades, conflicts_between
from quantai_tui.market.importer import import_archive
from quantai_tui.market.trades import AggTrade
from quantai_tui.stream.feed import Feeds
from quantai_tui.stream.quarantine import Quarantine
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


def other(one: AggTrade, **changes: object) -> AggTrade:
    return msgspec.structs.replace(one, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"price": "1.00"}, {"quantity": "7"}, {"first_id": 0}, {"last_id": 1}, {"time": 5}, {"buyer_is_maker": False}],
)
def test_each_field_of_a_trade_can_conflict(changes: dict[str, object]) -> None:
    one = trade(10)
    assert conflicts_between({10: one}, [other(one, **changes)]) == [Conflict(one, other(one, **changes))]


def test_zeros_and_microseconds_are_no_conflict() -> None:
    one = trade(10)
    same = other(one, price=one.price + "000", quantity="0.25", time=one.time * 1000 + 999)
    assert conflicts_between({10: one}, [same, trade(11)]) == []


async def test_conflicting_trade_on_the_stream_is_counted_and_shown(exchange, start, tmp_path):
    async with opened(tmp_path / "store.db") as store:
        stream = await start(store)
        await reaches(stream, S.LIVE)
        await exchange.trade(3)
        await exchange.send([exchange.trades[0], other(exchange.trades[1], price="1.00")])
        await exchange.trade(1)
        await eventually(lambda: stream.snapshot().symbols[SYMBOL].conflicts)
        snapshot = stream.snapshot()
        symbol = snapshot.symbols[SYMBOL]
        assert (symbol.duplicates, symbol.conflicts, snapshot.bad_frames) == (2, 1, 1)
        shown = snapshot.quarantine[-1]
        assert f"{SYMBOL} {FIRST_ID + 1}: content differs from the stored trade" in shown.reason
        assert f"price {exchange.trades[1].price}" in shown.reason
        assert "price 1.00" in shown.excerpt
        assert stream.get_connection_stats()["symbols"][SYMBOL]["conflicts"] == 1
        await stream.stop()
        assert await store.find_conflicts(SYMBOL, exchange.trades) == []  # the first content is kept


async def test_without_a_readable_sink_recent_trades_are_compared():
    clock, sink = ManualClock(), MemorySink()
    quarantine = Quarantine(clock)
    feeds = Feeds(sink, clock, quarantine=quarantine)
    await feeds.load((SYMBOL,), seed=False)
    feed = feeds.get(SYMBOL)
    assert feed is not None
    await feeds.take_live(feed, [trade(id) for id in range(1, 50)])
    await feeds.take_live(feed, [trade(3), other(trade(4), quantity="9")])
    assert (feed.conflicts, quarantine.count, sink.appended) == (1, 1, 49)


async def test_rest_trade_that_differs_from_the_stream_is_a_conflict():
    clock, sink = ManualClock(), MemorySink()
    feeds = Feeds(sink, clock)
    await feeds.load((SYMBOL,), seed=False)
    feed = feeds.get(SYMBOL)
    assert feed is not None
    await feeds.take_live(feed, [trade(1), trade(2)])
    await feeds.take_fetched(feed, [other(trade(2), price="1.00")])
    assert feed.conflicts == 1


async def test_two_connections_that_differ_are_a_conflict(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    stream.rotate()
    await eventually(lambda: len(exchange.subscribed) == 2)
    first, second = exchange.connections
    made = exchange.make(2)
    for connection, trades in ((first, made), (second, [made[0], other(made[1], price="1.00")])):
        exchange.subscribed = {connection}
        await exchange.send(trades)
        await eventually(lambda: sink.appended == 5)
    await eventually(lambda: stream.snapshot().symbols[SYMBOL].conflicts == 1)


async def test_recent_trades_are_bounded():
    recent = RecentTrades(most=10)
    for id in range(100):
        recent.add(SYMBOL, [trade(id)])
    again = [other(trade(id), price="1.00") for id in range(100)]
    assert [conflict.kept.id for conflict in await recent.find_conflicts(SYMBOL, again)] == list(range(90, 100))
    assert await recent.find_conflicts("BTCUSDT", again) == []


def write_archive(path: Path, trades: list[AggTrade]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [t.id, t.price, t.quantity, t.first_id, t.last_id, t.time, t.buyer_is_maker, True] for t in trades
        )
    return path


async def test_an_import_counts_conflicts_and_shows_the_first(tmp_path: Path) -> None:
    trades = walk(2000)
    file = write_archive(tmp_path / "XRPETH-aggTrades-2019-10.csv", trades)
    wrong = {3: "9.5", 700: "9.5", 1900: "9.5"}
    spoilt = [other(one, price=wrong.get(one.id, one.price)) for one in trades]
    spoilt_file = write_archive(tmp_path / "XRPETH-aggTrades-2019-11.csv", spoilt)
    async with opened(tmp_path / "store.db") as store:
        assert (await import_archive(file, store)).conflicts == 0
        assert (await import_archive(file, store)).conflicts == 0
        result = await import_archive(spoilt_file, store)
    assert (result.stored, result.duplicates, result.conflicts) == (0, 2000, 3)
    assert [example.kept.id for example in result.examples] == [3, 700, 1900]
    assert result.examples[0].text == f"XRPETH 3: kept / dropped: price {trades[2].price} / 9.5"


def test_the_import_command_prints_conflicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    trades = walk(30)
    file = write_archive(tmp_path / "XRPETH-aggTrades-1.csv", trades)
    late_ms = 99_999_999_999_999
    spoilt = [other(trades[0], quantity="5.5"), other(trades[1], time=late_ms), *trades[2:]]
    again = write_archive(tmp_path / "XRPETH-aggTrades-2.csv", spoilt)
    run = CliRunner().invoke(import_files, [str(file), str(again)])
    assert run.exit_code == 0, run.output
    assert "0 stored, 30 were there already" in run.output
    assert "2 of those differ from the stored trade with the same id, which was kept. The first:" in run.output
    assert f"XRPETH 1: kept / dropped: quantity {trades[0].quantity} / 5.5" in run.output
    assert f"XRPETH 2: kept / dropped: time in us {trades[1].time_us} / {late_ms * 1000}" in run.output
    assert "1 trades are ahead of this machine's clock; their times are not used" in run.output


async def test_conflict_within_a_batch_is_counted(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        written = await store.write(SYMBOL, [trade(1), trade(2), other(trade(1), price="1.00")])
    assert (written.stored, written.duplicates, [one.dropped.price for one in written.conflicts]) == (2, 1, ["1.00"])
