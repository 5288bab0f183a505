"""The receive path against a real server: nothing that came is dropped, whatever the frames and however slow the store."""

from __future__ import annotations

import asyncio

import pytest
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
    settle_loop,
    start,
    trade,
)
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.market.wire import agg_trade_frame
from quantai_tui.stream import supervisor
from quantai_tui.stream.feed import Feeds
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


async def test_duplicates_are_dropped_and_counted(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    made = exchange.make(6)
    await exchange.send([*made[:4], *made[1:4], *made[4:]])
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 5))
    assert stream.snapshot().symbols[SYMBOL].duplicates == 3


async def test_trades_out_of_order_are_kept_and_close_the_gap_they_seemed_to_be(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    exchange.rest_reaches = FIRST_ID + 1  # should a batch end between them, REST is not quicker than the stream
    made = exchange.make(8)
    await exchange.send([*made[:2], made[4], made[3], made[2], *made[5:]])
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 7))
    symbol = stream.snapshot().symbols[SYMBOL]
    assert (symbol.missing, symbol.duplicates, symbol.complete_through_id) == (0, 0, FIRST_ID + 7)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xfe not text",
        b"{",
        b"[" * 5000,
        b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","a":"x"}}',
        b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","s":"ETHUSDT","a":1,"p":"NaN","q":"1","f":1,"l":1,"T":1,"m":true}}',
        b"null",
    ],
    ids=["not-utf8", "cut", "deep", "wrong-type", "nan", "null"],
)
async def test_a_frame_that_makes_no_sense_is_counted_and_its_neighbours_live(exchange, start, bad):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    made = exchange.make(4)
    await exchange.send(made[:2])
    await exchange.send_raw(bad)
    await exchange.send(made[2:])
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 3))
    assert stream.get_connection_stats()["bad_frames"] == 1
    assert exchange.dials == 1


async def test_an_oversized_frame_costs_a_reconnect_and_no_trade(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    await eventually(lambda: len(sink.order) == 2)
    await exchange.send_raw(b"[" + b"0," * 600_000 + b"0]")
    await reaches(stream, S.BACKOFF)
    assert stream.snapshot().last_error.kind == "oversized"
    exchange.make(3)
    await clock.advance(1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 5))


async def test_a_symbol_nobody_asked_for_is_not_stored(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.send(exchange.make(3, "BTCUSDT"))
    await eventually(lambda: stream.get_connection_stats()["unasked_trades"] == 3)
    assert sink.order == []


async def get_stuck(exchange, sink):
    """One trade is on its way into a store that does not take it."""
    sink.gate.clear()
    await exchange.trade(1)
    await eventually(lambda: sink.stuck)


async def test_a_slow_store_slows_the_reading_and_loses_nothing(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, buffer_trades=200)
    await reaches(stream, S.LIVE)
    await get_stuck(exchange, sink)
    sending = asyncio.create_task(exchange.trade(29_999))
    await eventually(lambda: stream.paused)
    assert "the store is behind" in stream.snapshot().cause
    assert stream.state is S.LIVE
    assert stream.queued < 6000, "the limit, and what two reads of the socket bring"
    await clock.advance(5.0)
    assert stream.paused
    assert stream.queued < 6000, "the limit, and what two reads of the socket bring"
    sink.gate.set()
    await sending
    await eventually(lambda: sink.appended == 30_000)
    assert sink.order == list(range(FIRST_ID, FIRST_ID + 30_000))
    await eventually(lambda: not stream.paused)
    assert exchange.dials == 1


async def test_a_store_that_stays_stuck_ends_the_link_as_local_overload_and_the_rest_is_repaired(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, buffer_trades=100)
    await reaches(stream, S.LIVE)
    await get_stuck(exchange, sink)
    await exchange.trade(500)
    await eventually(lambda: stream.paused)
    await clock.advance(15.0)
    await reaches(stream, S.BACKOFF)
    assert stream.snapshot().last_error.kind == "overload"
    sink.gate.set()
    await clock.advance(1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 501))


async def test_a_dead_link_is_not_diagnosed_while_reading_is_paused_on_purpose(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, buffer_trades=100, pong_timeout=5.0, ping_interval=5.0)
    await reaches(stream, S.LIVE)
    await get_stuck(exchange, sink)
    await exchange.trade(500)
    await eventually(lambda: stream.paused)
    await clock.advance(12.0)
    assert stream.state is S.LIVE
    sink.gate.set()
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 500))


async def test_a_store_that_refuses_is_asked_again_and_nothing_in_hand_is_lost(exchange, start, clock):
    sink = MemorySink()
    sink.refuse = 2
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(4)
    await eventually(lambda: "No space left" in stream.snapshot().cause)
    await clock.advance(1.0)
    await clock.advance(1.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 3))
    assert "No space left" not in stream.snapshot().cause


async def test_what_is_in_hand_is_stored_before_a_stop_returns(exchange, start, monkeypatch):
    monkeypatch.setattr(supervisor, "_FLUSH_TIMEOUT_S", 8.0)  # how long is waited for a slow sink is not asked here
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(50)
    await eventually(lambda: stream.queued + sink.appended == 50)
    await stream.stop()
    assert sink.holds(FIRST_ID, FIRST_ID + 49)


async def test_a_trade_that_comes_in_fragments_is_a_trade_like_any_other(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    (one,) = exchange.make(1)
    frame = agg_trade_frame(one, one.time, True).decode()
    for connection in exchange.subscribed:
        await connection.send(iter([frame[:50], frame[50:120], frame[120:]]))
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID))


def test_a_store_that_hangs_is_not_taken_for_a_silent_market() -> None:
    async def hanging() -> None:
        async with Rig(13, rates={"BTCUSDT": 0.5}) as rig:
            await rig.live()
            await asyncio.sleep(200.0)
            rig.sink.hold()
            await asyncio.sleep(1500.0)
            snapshot = rig.stream.snapshot()
            assert (snapshot.state, snapshot.probes, len(rig.venue.dialled)) == (S.LIVE, 0, 1)
            rig.sink.release()
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(hanging())


async def test_what_was_taken_first_is_written_first_whoever_brought_it():
    clock, sink = ManualClock(), MemorySink()
    feeds = Feeds(sink, clock)
    await feeds.load((SYMBOL,), seed=False)
    feed = feeds.get(SYMBOL)
    await feeds.take_live(feed, [trade(1)])
    sink.refuse = 1
    writing = [asyncio.create_task(feeds.take_fetched(feed, [trade(2)]))]
    await settle_loop()
    writing.append(asyncio.create_task(feeds.take_live(feed, [trade(3)])))
    await clock.advance(1.0)
    await asyncio.gather(*writing)
    assert sink.order == [1, 2, 3]
