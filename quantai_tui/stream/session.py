"""One connection's life: dial, subscribe, then its heartbeat and its subscriptions until it ends. It knows of no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from ..cleaning import one_line
from ..market.wire import ControlReply, OtherEvent, ServerShutdown, agg_trade_stream
from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .config import StreamConfig
from .failures import LinkFault, Phase, classify
from .heartbeat import WebSocketHeartbeat
from .inlet import Inlet, Notice
from .subscriptions import Subscriptions
from .tasks import until_first_ends
from .transport import Link, Transport

log = logging.getLogger("quantai_tui.stream")

# One message a minute of the five a second that the venue allows: soon enough to notice a subscription that it has forgotten.
_RECONCILE_EVERY_S = 60.0


class Session:
    """One connection to the stream, from the dial to its end.

    `live` is set once every stream is acknowledged, `leaving` when the venue has announced that this server shuts down.
    `make_inlet` gets the session's own handler of notices and makes the receiver.
    """

    def __init__(
        self,
        config: StreamConfig,
        transport: Transport,
        make_inlet: Callable[[Callable[[Notice], None]], Inlet],
        on_phase: Callable[[Session], None] = lambda session: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._transport = transport
        self._on_phase = on_phase
        self._clock = clock
        self._answered = asyncio.Event()
        self._check = asyncio.Event()
        self._fault: LinkFault | None = None
        self.inlet = make_inlet(self._on_notice)
        self.subscriptions = Subscriptions([agg_trade_stream(symbol) for symbol in config.symbols])
        self.phase = Phase.CONNECT
        self.link: Link | None = None
        self.heartbeat: WebSocketHeartbeat | None = None
        self.live = asyncio.Event()
        self.live_since: float | None = None
        self.leaving = asyncio.Event()

    async def run(self) -> NoReturn:
        """Live until the connection ends; always ends with the exception that ended it, and leaves nothing open."""
        link = self.link = await self._transport.dial(self._config, self.inlet, self._enter)
        heartbeat = self.heartbeat = WebSocketHeartbeat(
            link.ping,
            interval=self._config.ping_interval,
            timeout=self._config.pong_timeout,
            paused=lambda: self.inlet.paused_since is not None,
            clock=self._clock,
        )
        try:
            self._enter(Phase.SUBSCRIBE)
            # The reader is named first: when a link breaks it has the first-hand account of why.
            await until_first_ends(self.inlet.attend(link, self._config.overload_after), self._conduct(link, heartbeat))
            raise AssertionError("a session ends by an exception")
        except Exception as error:
            if self.leaving.is_set() and classify(error, self.phase).kind is FailureKind.CLOSED:
                message = "the venue has shut this server down, as it had announced"
                raise LinkFault(FailureKind.SERVER_SHUTDOWN, message) from error
            raise
        finally:
            await heartbeat.stop()
            await link.close()

    def suspect(self) -> None:
        """Something is odd: ping now, and ask the venue what it thinks is subscribed."""
        if self.heartbeat is not None:
            self.heartbeat.beat_now()
        self._check.set()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._on_phase(self)

    async def _conduct(self, link: Link, heartbeat: WebSocketHeartbeat) -> None:
        await self._subscribe(link)
        self.live_since = self._clock.monotonic()
        self._enter(Phase.LIVE)
        self.live.set()
        await heartbeat.start()
        await until_first_ends(heartbeat.wait_dead(), self._keep_subscribed(link))

    async def _subscribe(self, link: Link) -> None:
        while (frame := self.subscriptions.next_frame()) is not None:
            await link.send(frame)
            await self._wait_for_answer("SUBSCRIBE")

    async def _keep_subscribed(self, link: Link) -> None:
        """Compare with the venue's own list from time to time: it acknowledges, and may forget."""
        while True:
            self._check.clear()
            await until_first_ends(self._clock.sleep(_RECONCILE_EVERY_S), self._check.wait())
            await link.send(self.subscriptions.list_frame())
            if not await self._is_answered("LIST_SUBSCRIPTIONS"):
                continue
            while (frame := self.subscriptions.unwanted_frame()) is not None:
                await link.send(frame)
                if not await self._is_answered("UNSUBSCRIBE"):
                    break
            if not self.subscriptions.settled:
                log.warning("the venue had forgotten subscriptions (%d so far): asking again", self.subscriptions.lost)
                await self._subscribe(link)

    async def _is_answered(self, what: str) -> bool:
        """Wait for an answer to what is not vital: whether the link is any good, the pongs and the data tell."""
        try:
            await self._wait_for_answer(what)
        except LinkFault as fault:
            if self._fault is not None:
                raise
            log.warning("%s; the connection goes on", fault)
            return False
        return True

    async def _wait_for_answer(self, what: str) -> None:
        """Wait until nothing is pending. Raises LinkFault, when the venue refuses or does not answer."""
        limit = self._config.subscribe_timeout
        try:
            async with asyncio.timeout(limit):
                while self.subscriptions.pending_requests and self._fault is None:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            raise LinkFault(FailureKind.SUBSCRIBE_TIMEOUT, f"no answer to {what} within {limit:g} s") from None
        if self._fault is not None:
            raise self._fault

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, ControlReply):
            try:
                self.subscriptions.on_reply(notice)
            except LinkFault as fault:
                self._fault = fault
            self._answered.set()
        elif isinstance(notice, ServerShutdown):
            self.leaving.set()
        elif isinstance(notice, OtherEvent):
            log.debug("an event nobody asked for: %s %s", one_line(notice.kind), one_line(notice.symbol))
