"""Recording a stream on demand: what its transport and its history bring, put down in a file while it goes on as ever.

`RecordingTransport` and `RecordingHistory` stand around the real ones and share a `Recorder`. While nothing is recorded a message
takes the way that it would take without them: the receiver's `take` is then the inner receiver's own. A recording never slows the
stream: when the disk does not keep up it is the recording that ends.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

from ..market.trades import AggTrade, Bar
from ..telemetry import SYSTEM_CLOCK, Clock, RecordingSnapshot
from .config import StreamConfig
from .facts import failed, public_config
from .failures import Phase
from .recording_events import (
    Asked,
    Dialled,
    Ended,
    Event,
    Failed,
    Fetched,
    FetchedBars,
    Opened,
    PhaseBegan,
    Pinged,
    Ponged,
    Received,
    Refused,
    Sent,
)
from .recording_file import RecordingError, RecordingWriter
from .rest import PAGE, History
from .transport import Link, Receiver, TlsInfo, Transport

STOPPED = "stopped"

_QUEUE_BYTES = 32 * 1024 * 1024  # some seconds at the highest rates
_TRADE_BYTES = 120
_BAR_BYTES = 160


class Recorder:
    """At most one recording at a time, of everything that the decorators see."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, queue_bytes: int = _QUEUE_BYTES) -> None:
        """`queue_bytes` is what may wait in memory for the disk."""
        self._clock = clock
        self._queue_bytes = queue_bytes
        self._writer: RecordingWriter | None = None  # of the recording under way
        self._last: RecordingWriter | None = None
        self._seconds = 0.0
        self._frames = 0
        self._taps: dict[int, LinkTap] = {}
        self._links = itertools.count(1)
        self._requests = itertools.count(1)

    def start(self, path: Path, limit_bytes: int) -> RecordingSnapshot:
        """Begin to record into a new file of at most so many bytes. Connections that are open are recorded from here on.

        Raises:
            RecordingError: one is under way, the file exists, or it cannot be made.
        """
        if self._writer is not None:
            raise RecordingError(f"recording already, into {self._writer.path}; stop that first")
        loop = asyncio.get_running_loop()

        def ended() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._forget, writer)

        writer = RecordingWriter(path, limit_bytes, self._clock, queue_bytes=self._queue_bytes, on_end=ended)
        self._writer = self._last = writer
        self._frames = 0
        for tap in self._taps.values():
            tap.begin()
        return self._shown(writer)

    async def stop(self) -> RecordingSnapshot | None:
        """End the recording and wait until its file is closed. The last one's state is returned; None when there was none."""
        writer = self._writer
        if writer is not None:
            writer.finish(STOPPED)
            self._forget(writer)
        if self._last is not None:
            await asyncio.wrap_future(self._last.finished)
        return self.snapshot()

    def snapshot(self) -> RecordingSnapshot | None:
        """The recording under way, or the last one; None before the first."""
        return None if self._last is None else self._shown(self._last)

    def put(self, event: Event, size: int = 0) -> None:
        """Record an event; nothing happens while nothing is recorded."""
        if self._writer is not None:
            self._writer.put(event, size)

    def received(self, link: int, data: bytes) -> None:
        """Record a message; only called while recording."""
        writer = self._writer
        if writer is not None:
            self._frames += 1
            writer.put(Received(writer.now(), link, bytes(data)), len(data))

    @property
    def on(self) -> bool:
        return self._writer is not None

    def now(self) -> float:
        """Seconds since the recording began; 0 while there is none."""
        return 0.0 if self._writer is None else self._writer.now()

    def new_request(self) -> int:
        return next(self._requests)

    def new_link(self, config: StreamConfig, receiver: Receiver) -> LinkTap:
        tap = LinkTap(self, next(self._links), config, receiver)
        self._taps[tap.number] = tap
        if self.on:
            tap.begin()
        return tap

    def drop(self, tap: LinkTap) -> bool:
        """Forget a connection that is over. False when it was over already."""
        return self._taps.pop(tap.number, None) is not None

    def _forget(self, writer: RecordingWriter) -> None:
        if self._writer is not writer:
            return
        self._seconds = writer.now()
        self._writer = None
        for tap in self._taps.values():
            tap.end()

    def _shown(self, writer: RecordingWriter) -> RecordingSnapshot:
        on = self._writer is writer
        return RecordingSnapshot(
            path=str(writer.path),
            size_bytes=writer.size_bytes,
            limit_bytes=writer.limit_bytes,
            frames=self._frames,
            seconds=writer.now() if on else self._seconds,
            ended="" if on else writer.ended or STOPPED,
        )


class _TappedReceiver:
    """A receiver whose `take` can be exchanged while its link is up."""

    def __init__(self, inner: Receiver) -> None:
        self._inner = inner
        self.take: Callable[[bytes], None] = inner.take
        self.is_full: Callable[[], bool] = inner.is_full

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LinkTap:
    """One connection as a recorder sees it: what it needs to know to begin in the middle, and the tap on its messages."""

    def __init__(self, recorder: Recorder, number: int, config: StreamConfig, inner: Receiver) -> None:
        self.number = number
        self.receiver = _TappedReceiver(inner)
        self._recorder = recorder
        self._inner = inner
        self._config = config
        self._transport = ""
        self._phases: list[Phase] = []
        self._tls: TlsInfo | None = None
        self._open = False
        self._heard = False
        self._pings = 0

    def begin(self) -> None:
        """Put down how far the connection has come, and tap it."""
        recorder, inner_take, number = self._recorder, self._inner.take, self.number
        self._pings = 0
        self._heard = self._open
        recorder.put(Dialled(recorder.now(), number, public_config(self._config), joined=self._open))
        for phase in self._phases:
            recorder.put(PhaseBegan(recorder.now(), number, phase.value))
        if self._open:
            recorder.put(Opened(recorder.now(), number, self._transport, self._tls))

        def take(data: bytes) -> None:
            self._heard = True
            recorder.received(number, data)
            inner_take(data)

        self.receiver.take = take

    def end(self) -> None:
        self.receiver.take = self._inner.take

    def phase(self, phase: Phase) -> None:
        self._phases.append(phase)
        self._recorder.put(PhaseBegan(self._recorder.now(), self.number, phase.value))

    def opened(self, transport: str, tls: TlsInfo | None) -> None:
        self._open, self._transport, self._tls = True, transport, tls
        self._recorder.put(Opened(self._recorder.now(), self.number, transport, tls))

    def sent(self, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else bytes(frame)
        self._recorder.put(Sent(self._recorder.now(), self.number, data), len(data))

    def pinged(self, pong: asyncio.Future[float]) -> None:
        self._pings += 1
        number = self._pings
        self._recorder.put(Pinged(self._recorder.now(), self.number, number))

        def answered(pong: asyncio.Future[float]) -> None:
            if not pong.cancelled() and pong.exception() is None:
                self._recorder.put(Ponged(self._recorder.now(), self.number, number, pong.result()))

        pong.add_done_callback(answered)

    def ended(self, error: BaseException | None) -> None:
        """The connection is over: by `error`, or without one by this program's own doing. Only the first account counts."""
        if self._recorder.drop(self) and self._recorder.on:
            failure = None if error is None else self._failed(error)
            self._recorder.put(Ended(self._recorder.now(), self.number, failure))

    def _failed(self, error: BaseException) -> Failed:
        phase = self._phases[-1] if self._phases else Phase.CONNECT
        if self._open:
            # The venue's first message answers the subscription; until then it is that which has failed.
            phase = Phase.LIVE if self._heard else Phase.SUBSCRIBE
        return failed(error, phase, self._config.proxy)


class RecordingLink:
    """An open connection that is, or can be, recorded; see `Link`."""

    def __init__(self, inner: Link, tap: LinkTap, recorder: Recorder) -> None:
        self._inner = inner
        self._tap = tap
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def tls(self) -> TlsInfo | None:
        return self._inner.tls

    async def until_closed(self) -> NoReturn:
        try:
            await self._inner.until_closed()
        except Exception as error:
            self._tap.ended(error)
            raise

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    async def send(self, frame: str | bytes) -> None:
        await self._inner.send(frame)
        if self._recorder.on:
            self._tap.sent(frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        pong = await self._inner.ping(payload)
        if not self._recorder.on:
            return pong
        future = asyncio.ensure_future(pong)
        self._tap.pinged(future)
        return future

    async def close(self) -> None:
        self._tap.ended(None)
        await self._inner.close()

    def abort(self) -> None:
        self._tap.ended(None)
        self._inner.abort()


class RecordingTransport:
    """Opens the links of another transport so that they can be recorded; see `Transport`."""

    def __init__(self, inner: Transport, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def name(self) -> str:
        return self._inner.name

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> RecordingLink:
        tap = self._recorder.new_link(config, receiver)

        def announce(phase: Phase) -> None:
            tap.phase(phase)
            on_phase(phase)

        try:
            link = await self._inner.dial(config, tap.receiver, announce)
        except BaseException as error:
            tap.ended(error if isinstance(error, Exception) else None)
            raise
        tap.opened(self._inner.name, link.tls)
        return RecordingLink(link, tap, self._recorder)


class RecordingHistory:
    """Another history whose answers can be recorded; see `History`."""

    def __init__(self, inner: History, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def used_weight(self) -> int | None:
        return self._inner.used_weight

    @property
    def weight_wait_s(self) -> float:
        return self._inner.weight_wait_s

    def renew(self) -> None:
        self._inner.renew()

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        recorder = self._recorder
        request = self._asked("aggTrades", symbol, from_id, limit)
        try:
            trades = await self._inner.agg_trades(symbol, from_id, limit)
        except Exception as error:
            self._refused(request, error)
            raise
        if recorder.on:
            recorder.put(Fetched(recorder.now(), request, symbol, list(trades)), _TRADE_BYTES * len(trades))
        return trades

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        recorder = self._recorder
        request = self._asked(f"klines {interval}", symbol, None, count)
        try:
            bars = await self._inner.recent_klines(symbol, interval, count)
        except Exception as error:
            self._refused(request, error)
            raise
        if recorder.on:
            recorder.put(FetchedBars(recorder.now(), request, symbol, interval, list(bars)), _BAR_BYTES * len(bars))
        return bars

    async def server_time(self) -> int | None:
        return await self._inner.server_time()

    async def close(self) -> None:
        await self._inner.close()

    def _asked(self, what: str, symbol: str, start: int | None, limit: int) -> int:
        request = self._recorder.new_request()
        self._recorder.put(Asked(self._recorder.now(), request, what, symbol, start, limit))
        return request

    def _refused(self, request: int, error: Exception) -> None:
        self._recorder.put(Refused(self._recorder.now(), request, failed(error, Phase.REST, None)))
