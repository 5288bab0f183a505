"""One connection's life: dial, subscribe, prove the subscription, then watch over it until it ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

from ..market.wire import ControlReply, OtherEvent, ServerShutdown, agg_trade_stream, subscribe_frame
from ..telemetry import SYSTEM_CLOCK, Clock, StreamState
from .advice import FailureKind
from .config import StreamConfig
from .failures import LinkFault, Phase, one_line
from .heartbeat import WebSocketHeartbeat
from .intake import Intake, Notice
from .states import StateMachine
from .tasks import until_first_ends
from .transport import Link, Transport

log = logging.getLogger("quantai_tui.stream")

# Binance wants SUBSCRIBE frames under about 8,000 characters; the rest is room for the envelope.
_MAX_PARAMS_CHARS = 7000
_LONGEST_WATCH_S = 1.0


class Session:
    """One connection to the stream, from the dial to its end."""

    def __init__(
        self,
        config: StreamConfig,
        transport: Transport,
        machine: StateMachine,
        intake: Intake,
        on_live: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._transport = transport
        self._machine = machine
        self._intake = intake
        self._on_live = on_live
        self._clock = clock
        self._ids = itertools.count(1)
        self._replies: dict[int | str, asyncio.Future[ControlReply]] = {}
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.phase = Phase.CONNECT
        self.link: Link | None = None
        self.heartbeat: WebSocketHeartbeat | None = None
        self.live_since: float | None = None

    async def run(self) -> None:
        """Live until the connection ends; always ends with the exception that ended it, and leaves nothing open."""
        self._intake.on_notice = self._on_notice
        self._machine.to(StreamState.CONNECTING, f"dialling {self._config.ws_url}")
        link = await self._transport.dial(self._config, self._intake, self._on_phase)
        self.link = link
        heartbeat = self.heartbeat = WebSocketHeartbeat(
            link.ping,
            interval=self._config.ping_interval,
            timeout=self._config.pong_timeout,
            paused=lambda: self._intake.paused_since is not None,
            clock=self._clock,
        )
        try:
            self.phase = Phase.SUBSCRIBE
            self._machine.to(StreamState.SUBSCRIBING, f"asking for {len(self._config.symbols)} streams")
            # The reader is named first: when a link breaks it has the first-hand account of why.
            await until_first_ends(self._intake.attend(link), self._conduct(link, heartbeat), self._announced_end())
        finally:
            self._ending.cancel()
            await heartbeat.stop()
            await link.close()

    def _on_phase(self, phase: Phase) -> None:
        self.phase = phase
        if phase is Phase.TLS:
            self._machine.to(StreamState.HANDSHAKING, "TLS and websocket handshake")
        elif phase is Phase.UPGRADE:
            self._machine.to(StreamState.HANDSHAKING, "websocket upgrade")

    async def _conduct(self, link: Link, heartbeat: WebSocketHeartbeat) -> None:
        await self._subscribe(link)
        self.phase = Phase.LIVE
        self.live_since = self._clock.monotonic()
        self._machine.to(StreamState.LIVE, "subscribed")
        self._on_live()
        await heartbeat.start()
        await until_first_ends(heartbeat.wait_dead(), self._watch_for_silence())

    async def _subscribe(self, link: Link) -> None:
        streams = [agg_trade_stream(symbol) for symbol in self._config.symbols]
        for part in _in_frames(streams):
            number = next(self._ids)
            reply: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
            self._replies[number] = reply
            await link.send(subscribe_frame("SUBSCRIBE", part, number))
            try:
                async with asyncio.timeout(self._config.subscribe_timeout):
                    answer = await reply
            except TimeoutError:
                message = f"no answer to SUBSCRIBE within {self._config.subscribe_timeout:g} s"
                raise LinkFault(FailureKind.SUBSCRIBE_TIMEOUT, message) from None
            finally:
                del self._replies[number]
            if not answer.ok:
                message = f"SUBSCRIBE refused with code {answer.error_code}: {one_line(answer.error_msg or '')}"
                raise LinkFault(FailureKind.SUBSCRIBE_REJECTED, message)

    async def _watch_for_silence(self) -> None:
        """Data alone is a sign of life here; pings are the heartbeat's business. Paused reading is not the venue's silence."""
        warn_after, give_up_after = self._config.message_warning_timeout, self._config.message_timeout
        heard = self._clock.monotonic()
        while True:
            await self._clock.sleep(min(warn_after / 4, _LONGEST_WATCH_S))
            now = self._clock.monotonic()
            if self._intake.paused_since is not None:
                heard = now
            heard = max(heard, self._intake.last_data_at or heard)
            silent = now - heard
            if silent >= give_up_after:
                raise LinkFault(FailureKind.DATA_STALL, f"no data for {silent:.0f} s")
            if silent >= warn_after:
                self._machine.to(StreamState.STALLED, f"no data for {silent:.0f} s; reconnecting at {give_up_after:.0f} s")
            elif self._machine.state is StreamState.STALLED:
                self._machine.to(StreamState.LIVE, "data again")

    async def _announced_end(self) -> None:
        await self._ending
        raise LinkFault(FailureKind.SERVER_SHUTDOWN, "the venue announced that this server shuts down")

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, ControlReply):
            reply = self._replies.get(notice.id) if notice.id is not None else self._only_pending(notice)
            if reply is not None and not reply.done():
                reply.set_result(notice)
        elif isinstance(notice, ServerShutdown):
            if not self._ending.done():
                self._ending.set_result(None)
        elif isinstance(notice, OtherEvent):
            log.debug("an event nobody asked for: %s %s", one_line(notice.kind), one_line(notice.symbol))

    def _only_pending(self, notice: ControlReply) -> asyncio.Future[ControlReply] | None:
        """An error without an id can only be about the one request under way."""
        return next(iter(self._replies.values()), None) if not notice.ok else None


def _in_frames(streams: Sequence[str]) -> Iterator[list[str]]:
    """The stream names in portions that fit into one SUBSCRIBE frame each."""
    part: list[str] = []
    size = 0
    for stream in streams:
        if part and size + len(stream) + 3 > _MAX_PARAMS_CHARS:
            yield part
            part, size = [], 0
        part.append(stream)
        size += len(stream) + 3
    yield part
