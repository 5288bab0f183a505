"""A transport in memory whose every step a test decides, and what the tests of recordings share."""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from stream_support import SYMBOL, MemorySink, ScriptedExchange, eventually

from quantai_tui.market.wire import agg_trade_frame
from quantai_tui.stream import Phase, ResilientStream, StreamConfig
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder, RecordingTransport
from quantai_tui.stream.recording_events import Header
from quantai_tui.stream.recording_file import MAGIC, VERSION
from quantai_tui.stream.replaying import stream_from_recording
from quantai_tui.stream.transport import Receiver, TlsInfo

MB = 1_000_000
CONFIG = StreamConfig(symbols=(SYMBOL,), ws_url="wss://venue.example:9443", rest_url="https://venue.example")


def a_file(path: Path, *blocks: bytes, header: bytes = msgspec.msgpack.encode(Header(started=1.0))) -> Path:
    """A recording as somebody else may have made it."""
    raw = MAGIC + struct.pack(">HI", VERSION, len(header)) + header
    for body in map(zlib.compress, blocks):
        raw += struct.pack(">II", len(body), zlib.crc32(body)) + body
    path.write_bytes(raw)
    return path


def a_block(*events: object) -> bytes:
    return msgspec.msgpack.encode([0.0, 0.0, events])


class MemoryLink:
    """A link that ends when it is told to."""

    tls = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "A test", 2_000_000_000.0)

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.sent: list[str | bytes] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pongs: list[asyncio.Future[float]] = []

    def deliver(self, data: bytes) -> None:
        self.receiver.take(data)

    async def until_closed(self):
        await self.over

    def resume_reading(self) -> None:
        pass

    async def send(self, frame: str | bytes) -> None:
        self.sent.append(frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        self.pongs.append(asyncio.get_running_loop().create_future())
        return self.pongs[-1]

    async def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class MemoryTransport:
    """Opens memory links, or fails as it is told to, after so many phases."""

    name = "memory"
    colour = "green"

    def __init__(self) -> None:
        self.links: list[MemoryLink] = []
        self.failure: Exception | None = None
        self.phases = [Phase.CONNECT, Phase.TLS, Phase.UPGRADE]

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> MemoryLink:
        for phase in self.phases:
            on_phase(phase)
        if self.failure is not None:
            raise self.failure
        self.links.append(MemoryLink(receiver))
        return self.links[-1]


class Basket:
    """A receiver that keeps what it takes."""

    def __init__(self, limit: int = 1 << 60) -> None:
        self.taken: list[bytes] = []
        self.limit = limit

    def take(self, data: bytes, /) -> None:
        self.taken.append(bytes(data))

    def is_full(self) -> bool:
        return len(self.taken) >= self.limit


async def a_link(recorder: Recorder, basket: Basket, config: StreamConfig = CONFIG):
    """A recorded link, and the one in memory beneath it."""
    inner = MemoryTransport()
    link = await RecordingTransport(inner, recorder).dial(config, basket, lambda phase: None)
    return link, inner.links[-1]


def frames_of(path: Path) -> list[bytes]:
    """All messages in a recording, in order of their connections."""
    recording = Recording.open(path)
    try:
        return [data for link in recording.links for _, data in recording.messages(link)]
    finally:
        recording.close()


def frame(trade) -> bytes:
    return agg_trade_frame(trade, trade.time, True)


async def replayed(
    path: Path, sink: MemorySink, *, until: Callable[[ResilientStream], object] = lambda stream: True, **options: object
) -> ResilientStream:
    """A stream that has lived through a recording, `until` it shows what is waited for, and is stopped."""
    recording = Recording.open(path)
    stream, replay = stream_from_recording(recording, sink, **options)
    await stream.start()
    try:
        async with asyncio.timeout(15):
            await replay.over()
        await eventually(lambda: replay.is_settled, timeout=15)
        await eventually(lambda: not stream.queued and not stream.snapshot().symbols[SYMBOL].missing)
        await eventually(lambda: not stream.snapshot().repairing and until(stream))
    finally:
        await stream.stop()
        recording.close()
    return stream


Begin = Callable[..., ResilientStream]


@pytest.fixture
async def begin(exchange: ScriptedExchange) -> AsyncIterator[Begin]:
    """Makes streams on the real clock, and stops them after the test."""
    async with AsyncExitStack() as stack:

        def make(sink: MemorySink, **changes: object) -> ResilientStream:
            stream = ResilientStream(exchange.config(**{"initial_delay": 0.05, **changes}), sink, rng=random.Random(1))
            stack.push_async_callback(stream.stop)
            return stream

        yield make
