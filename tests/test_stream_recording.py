"""Recording a stream's raw frames and events, and living through them again by the same code."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from stream_support import FIRST_ID, SYMBOL, ManualClock, MemorySink, ScriptedExchange, authority, clock, eventually, exchange, reaches

from quantai_tui.market.wire import agg_trade_frame
from quantai_tui.stream import FailureKind, LinkFault, ResilientStream, RestClient, StreamConfig, classify
from quantai_tui.stream.advice import RULES
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder, RecordingHistory, RecordingTransport
from quantai_tui.stream.recording_file import RecordingError, is_recording
from quantai_tui.stream.replaying import Replay, stream_from_recording
from quantai_tui.stream.tls import tls_context
from quantai_tui.stream.websockets_link import WebsocketsTransport
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock, StreamState

__all__ = ["authority", "clock", "exchange"]  # fixtures

S = StreamState
MB = 1_000_000


class Recorded:
    """A stream on a scripted exchange, whose transport and history can be recorded."""

    def __init__(self, exchange: ScriptedExchange, clock: Clock, **changes: object) -> None:
        self.sink = MemorySink()
        self.recorder = Recorder(clock)
        config = exchange.config(**changes)
        gate = Gate(clock)

        def context():
            return tls_context(config.ca_file)

        self.stream = ResilientStream(
            config,
            self.sink,
            gate=gate,
            transport=RecordingTransport(WebsocketsTransport(context, clock), self.recorder),
            history=RecordingHistory(RestClient(config.rest_url, context, gate, clock=clock), self.recorder),
            clock=clock,
            rng=random.Random(1),
        )


@pytest.fixture
async def recorded(exchange: ScriptedExchange) -> AsyncIterator[Callable[..., Recorded]]:
    async with AsyncExitStack() as stack:

        def make(clock: Clock = SYSTEM_CLOCK, **changes: object) -> Recorded:
            made = Recorded(exchange, clock, **{"initial_delay": 0.05, **changes})
            stack.push_async_callback(made.recorder.stop)
            stack.push_async_callback(made.stream.stop)
            return made

        yield make


async def an_outage(exchange: ScriptedExchange, made: Recorded, path: Path) -> None:
    """Trades; a malformed frame among them; a cut while trades happen; a repair over REST; more trades; then it is stopped."""
    made.recorder.start(path, 10 * MB)
    await made.stream.start()
    await reaches(made.stream, S.LIVE)
    await exchange.trade(20)
    await exchange.send_raw(b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTr')
    await exchange.trade(5)
    await eventually(lambda: made.sink.appended == 25)
    exchange.cut()
    exchange.make(30)
    await reaches(made.stream, S.BACKOFF, S.CONNECTING)
    await reaches(made.stream, S.LIVE)
    await exchange.trade(10)
    await eventually(lambda: made.sink.holds(FIRST_ID, FIRST_ID + 64))
    await eventually(lambda: not made.stream.snapshot().repairing)
    await made.recorder.stop()
    await made.stream.stop()


def story(stream: ResilientStream) -> dict[str, object]:
    """What a replay has to show again."""
    snapshot = stream.snapshot()
    symbol = snapshot.symbols[SYMBOL]
    return {
        "states": [change.state for change in stream.machine.changes if change.state is not S.STOPPED],
        "kind": snapshot.last_error.kind if snapshot.last_error else None,
        "errors": snapshot.error_counts,
        "messages": snapshot.messages,
        "bad": stream.get_connection_stats()["bad_frames"],
        "reconnects": snapshot.reconnects,
        "stored": symbol.stored,
        "repaired": symbol.repaired,
        "duplicates": symbol.duplicates,
        "lost": (symbol.missing, symbol.venue_holes, symbol.unrecoverable),
        "price": symbol.price,
    }


async def replayed(path: Path, sink: MemorySink, **options: object) -> ResilientStream:
    """A stream that has lived through a recording."""
    recording = Recording.open(path)
    stream, replay = stream_from_recording(recording, sink, **options)
    await stream.start()
    try:
        async with asyncio.timeout(15):
            await replay.over()
        await eventually(lambda: not stream.queued and not stream.snapshot().symbols[SYMBOL].missing)
        await eventually(lambda: not stream.snapshot().repairing)
    finally:
        await stream.stop()
        recording.close()
    return stream


@pytest.mark.parametrize("speed", [float("inf"), 4.0])
async def test_a_recorded_outage_is_lived_through_again_the_same(exchange, recorded, tmp_path, speed):
    made = recorded()
    path = tmp_path / "outage.qrec"
    await an_outage(exchange, made, path)
    sink = MemorySink()
    stream = await replayed(path, sink, speed=speed)
    assert sink.trades == made.sink.trades
    assert sink.holds(FIRST_ID, FIRST_ID + 64)
    assert [gap[:2] for gap in sink.gaps] == [gap[:2] for gap in made.sink.gaps] == [(FIRST_ID + 25, FIRST_ID + 54)]
    assert story(stream) == story(made.stream)
    assert story(stream)["kind"] == FailureKind.RESET
    assert story(stream)["bad"] == 1


async def test_two_replays_of_a_recording_come_to_the_same(exchange, recorded, tmp_path):
    made = recorded()
    path = tmp_path / "outage.qrec"
    await an_outage(exchange, made, path)
    first, second = MemorySink(), MemorySink()
    assert story(await replayed(path, first)) == story(await replayed(path, second))
    assert first.order == second.order
