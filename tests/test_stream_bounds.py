"""Limits that hold whatever else is going on: of silence while a second connection is asked, of answers that do not come."""

from __future__ import annotations

import json
from dataclasses import replace

from stream_support import (
    MemorySink,
    ScriptedExchange,
    authority,
    clock,
    eventually,
    exchange,
    reaches,
    start,
)

from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


async def test_the_limit_of_silence_holds_while_a_second_connection_is_still_being_asked(exchange, start, clock):
    stream = await start(MemorySink(), message_warning_timeout=600.0, message_timeout=610.0, ping_interval=5000.0)
    await reaches(stream, S.LIVE)
    await clock.advance(600.0)
    await reaches(stream, S.STALLED)
    await eventually(lambda: stream.snapshot().successor.startswith("second connection: live"))
    both = list(exchange.connections)
    await clock.advance(10.0)
    await eventually(lambda: stream.snapshot().last_error is not None)
    snapshot = stream.snapshot()
    assert (snapshot.last_error.kind, snapshot.last_error.message) == ("data_stall", "no data for 610 s")
    assert len(both) == 2
    await eventually(lambda: not set(both) & set(exchange.connections))


async def test_a_failed_second_connection_counts_among_the_errors_and_is_no_reconnect(exchange, start):
    stream = await start(MemorySink())
    await reaches(stream, S.LIVE)
    exchange.upgrade_status = (503, {})
    stream.rotate()
    await eventually(lambda: stream.snapshot().error_counts)
    snapshot = stream.snapshot()
    assert snapshot.error_counts == {"network_error": 1}
    assert (snapshot.attempts_total, snapshot.attempt, snapshot.failed_last_5min) == (2, 0, 0)


async def test_an_unsubscribe_that_nobody_answers_is_no_reason_to_drop_the_link(exchange: ScriptedExchange, start, clock, caplog):
    stream = await start(MemorySink(), ping_interval=5000.0)
    await reaches(stream, S.LIVE)
    connection = exchange.connections[0]
    exchange.acks = False
    await clock.advance(60.0)
    await eventually(lambda: "LIST_SUBSCRIPTIONS" in exchange.received[-1])
    request = json.loads(exchange.received[-1])
    listed = {"result": ["ethusdt@aggTrade", "btcusdt@aggTrade"], "id": request["id"]}
    session = stream._supervisor.links.session
    session._config = replace(session._config, subscribe_timeout=0.1)  # from here on: all before is answered
    await connection.send(json.dumps(listed), text=True)
    await eventually(lambda: "UNSUBSCRIBE" in exchange.received[-1])
    await eventually(lambda: "no answer to UNSUBSCRIBE within 0.1 s; the connection goes on" in caplog.text)
    await exchange.trade(2)
    await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].stored == 2)
    assert (stream.state, exchange.connections) == (S.LIVE, [connection])
