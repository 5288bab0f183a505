"""A link that takes over while it lags behind the one before: what it repeats is no fault of the venue's, and not counted."""

from __future__ import annotations

from stream_support import FIRST_ID, MemorySink, ScriptedExchange, authority, clock, eventually, exchange, reaches, start

from quantai_tui.market import AggTrade
from quantai_tui.market.wire import agg_trade_frame
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures


async def send_on(exchange: ScriptedExchange, number: int, trades: list[AggTrade]) -> None:
    for one in trades:
        await exchange.connections[number].send(agg_trade_frame(one, one.time, True), text=True)


async def test_trades_that_a_successor_brings_late_are_no_duplicates(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(3)
    await eventually(lambda: len(sink.order) == 3)
    stream.rotate()
    await eventually(lambda: stream.snapshot().successor.startswith("second connection: live"))
    made = exchange.make(4)
    await send_on(exchange, 0, made)
    await eventually(lambda: len(sink.order) == 7)
    await send_on(exchange, 1, made[:1])
    await eventually(lambda: stream.snapshot().rotations == 1 and len(exchange.connections) == 1)
    await send_on(exchange, 0, [*made[1:], *exchange.make(2)])
    await eventually(lambda: sink.order == list(range(FIRST_ID, exchange.next_id)))
    assert stream.snapshot().symbols["ETHUSDT"].duplicates == 0
    await send_on(exchange, 0, made)  # by now it is no overlap any more
    await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].duplicates == len(made))
    assert exchange.rest_requests == []


async def test_what_neither_link_brought_is_put_down_to_the_end_of_the_first(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(3)
    await eventually(lambda: len(sink.order) == 3)
    stream.rotate()
    await eventually(lambda: stream.snapshot().successor.startswith("second connection: live"))
    made = exchange.make(3)
    await send_on(exchange, 1, made[2:])
    await exchange.connections[0].close(1012, "restarting")
    await eventually(lambda: sink.holds(FIRST_ID, made[-1].id))
    error = stream.snapshot().last_error
    assert error is not None
    assert sink.gaps == [(made[0].id, made[1].id, error.message)]
    assert (error.kind, stream.snapshot().symbols["ETHUSDT"].repaired) == ("closed", 2)
