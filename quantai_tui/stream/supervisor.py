"""Decides when to dial, and what follows when the last link has ended: wait and retry, cool down, or give up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from ..telemetry import SYSTEM_CLOCK, Clock, StreamState
from .advice import FailureKind, WebSocketErrorType
from .backoff import ExponentialBackoffReconnector
from .config import StreamConfig
from .drift import DriftWatch
from .failures import Failure, Phase, classify
from .feed import Feeds
from .gate import Gate
from .intake import Intake
from .links import Links
from .liveness import Liveness
from .quarantine import Quarantine
from .repair import Repairer
from .states import StateMachine
from .tasks import unless, until_first_ends
from .transport import Transport

log = logging.getLogger("quantai_tui.stream")

# What a stop waits for the sink to take the trades in hand; what it does not take is fetched at the next start.
_FLUSH_TIMEOUT_S = 0.4
_DRIFT_CHECK_S = 1.0
_NO_NETWORK = frozenset({FailureKind.DNS, FailureKind.UNREACHABLE})


class Supervisor:
    """Keeps a link, through all failures. `interrupt` tells it that a command has changed what is wanted."""

    def __init__(
        self,
        config: StreamConfig,
        transport: Transport,
        gate: Gate,
        feeds: Feeds,
        intake: Intake,
        repairer: Repairer,
        quarantine: Quarantine,
        *,
        rng: random.Random,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self._gate = gate
        self._feeds = feeds
        self._intake = intake
        self._repairer = repairer
        self._clock = clock
        self.machine = StateMachine(clock)
        self.reconnector = ExponentialBackoffReconnector(
            config.initial_delay,
            config.max_delay,
            config.backoff_factor,
            config.max_retries,
            jitter=config.jitter,
            stable_after=config.stable_after,
            rng=rng,
            clock=clock,
        )
        self.liveness = Liveness(config.symbols, longest=config.message_warning_timeout, clock=clock)
        self.links = Links(
            config,
            transport,
            self.machine,
            intake,
            gate,
            self.liveness,
            repairer.silence,
            quarantine,
            self,
            rng=rng,
            clock=clock,
        )
        intake.on_heard = self._on_heard
        self._wake = asyncio.Event()
        self._stopping = False
        self._waiting_since: float | None = None
        self._down_cause = ""
        self._was_live = False
        self._dialled = False
        self.wanted = True
        self.suspends = 0
        self.wait: tuple[float, float] | None = None  # monotonic end and whole length of the present backoff, in seconds
        self.last_failure: tuple[Failure, float] | None = None  # and its Unix time
        self.on_given_up: Callable[[Failure], None] = lambda failure: None
        self._line_was_dead = False
        self.on_dead_line: Callable[[], None] = lambda: None
        """Called when the line to the venue is found dead, and when it is back: other requests on it get no answer."""

    def reconfigure(self, config: StreamConfig) -> None:
        """Take other numbers from the next connection on."""
        self.config = self.links.config = config
        self.reconnector.configure(
            config.initial_delay, config.max_delay, config.backoff_factor, config.max_retries, jitter=config.jitter
        )
        self.liveness.longest = config.message_warning_timeout
        self._repairer.reconfigure(config)

    def interrupt(self, cause: str) -> None:
        """Drop the present link, wait or rest, and look again at what is wanted."""
        self._link_ends(cause)
        self._waiting_since = None
        self._wake.set()

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Until `stop`. Raises only what is a fault of this program."""
        await until_first_ends(self._supervise(), self._watch_clocks())

    # LinkOwner

    def on_link_up(self) -> None:
        self._was_live = True
        self._down_cause = ""
        self.reconnector.on_reconnect_success()
        self.reconnector.on_link_up()
        if self._line_was_dead:
            self._line_was_dead = False
            self.on_dead_line()
        self._repairer.on_live()

    def on_link_lost(self, error: BaseException, phase: Phase) -> None:
        failure = classify(error, phase)
        log.warning("link: %s (%s)", failure.message, failure.kind.value, exc_info=error)
        self._note(failure, was_live=True)
        self.reconnector.on_reconnect_attempt(0.0)
        self._feeds.new_link(self._down_cause)

    def on_stall_confirmed(self, cause: str) -> None:
        self._feeds.new_link(cause)
        self._repairer.on_live()

    def on_successor_failed(self, failure: Failure) -> None:
        self.reconnector.on_second_failure(failure)
        self.last_failure = (failure, self._clock.time())

    def on_verdict(self, failure: Failure) -> None:
        if failure.min_wait_s:
            self._gate.close_for(failure.min_wait_s, failure.message)
        if failure.type is WebSocketErrorType.TIMEOUT_ERROR or failure.kind in _NO_NETWORK:
            self._line_was_dead = True
            if failure.phase is Phase.LIVE:
                self.on_dead_line()

    # Dialling

    async def _supervise(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if not self.wanted:
                self.machine.to(StreamState.IDLE, "disconnected by the operator")
                await self._wake.wait()
                continue
            failure = await self._attempt()
            if failure is not None:
                await unless(self._wake, self._recover(failure))
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                await self._intake.wait_stored()
        except TimeoutError:
            log.warning("stopped with %d trades in hand; they are fetched at the next start", self._intake.waiting)

    async def _attempt(self) -> Failure | None:
        """One dial and the connection that comes of it. None when a command ended it."""
        if not await self._may_dial():
            return None
        if self._dialled:
            waited = 0.0 if self._waiting_since is None else self._clock.monotonic() - self._waiting_since
            self.reconnector.on_reconnect_attempt(waited)
        else:
            self.reconnector.on_first_attempt()
        self._waiting_since = None
        self._feeds.new_link(self._down_cause)
        try:
            await unless(self._wake, self.links.run())
        except Exception as error:
            failure = classify(error, self.links.last_phase)
            log.warning("link: %s (%s)", failure.message, failure.kind.value, exc_info=error)
            self._note(failure, was_live=self.links.last_phase is Phase.LIVE)
            return failure
        else:
            self.reconnector.on_reconnect_abandoned()
            self.reconnector.on_link_down()
            return None
        finally:
            self._dialled = True

    async def _may_dial(self) -> bool:
        """Wait for ban, dial budget and the sink. False when a command came instead."""
        while True:
            permit = await unless(self._wake, self._gate.take_dial())
            if permit is None:
                return False
            wait, why = permit
            if wait <= 0:
                break
            self.machine.to(StreamState.BACKOFF, why)
            if await self._wait(wait):
                return False
        self.machine.to(StreamState.CONNECTING, "storing what is in hand" if self._intake.waiting else "dialling")
        # Trades of the last link must be in the ledger before those of the next: else a gap between them gets a wrong cause.
        return await unless(self._wake, _done(self._intake.wait_stored())) is not None

    def _note(self, failure: Failure, *, was_live: bool) -> None:
        self.last_failure = (failure, self._clock.time())
        self._link_ends(failure.message)
        if was_live and self._intake.waiting:
            self.reconnector.on_data()  # it has delivered what is about to be handed over
        self.reconnector.on_link_down(failure)
        if was_live:
            return
        if self._dialled:
            self.reconnector.on_reconnect_failure(failure)
        else:
            self.reconnector.on_first_failure(failure)

    def _on_heard(self, symbol: str, count: int) -> None:
        self.liveness.heard(symbol, count)
        self.reconnector.on_data()

    def _link_ends(self, cause: str) -> None:
        """Remember why there is no link: the first reason since it was last live, which is what gaps are put down to."""
        self._repairer.on_link_down()
        if self._was_live and not self._down_cause:
            self._down_cause = cause

    async def _recover(self, failure: Failure) -> None:
        """What follows a failure: wait and retry, cool down, or give up."""
        config = self.config
        may_probe = config.cooldown > 0 and not config.exit_on_failure
        # A certificate that was good an hour ago and is not now may be good again: a captive portal, a venue's mistake.
        hopeless = failure.fatal and not self._was_live
        if not failure.fatal and self.reconnector.should_retry():
            delay = max(self.reconnector.wait_left(self.reconnector.calculate_next_delay()), self._gate.closed_for)
            self.machine.to(StreamState.BACKOFF, failure.message)
        elif may_probe and not hopeless:
            delay = max(self.reconnector.wait_left(config.cooldown), self._gate.closed_for)
            spent = "not to be retried" if failure.fatal else f"{config.max_retries} retries used up"
            self.machine.to(StreamState.COOLING_DOWN, f"{spent}, one probe every {config.cooldown:g} s: {failure.message}")
        else:
            self.give_up(failure)
            await asyncio.Event().wait()
            return
        self._waiting_since = self._clock.monotonic()
        await self._wait(delay)

    async def _wait(self, seconds: float) -> bool:
        """Wait where the snapshot can see it. True when a command ended it early."""
        self.wait = (self._clock.monotonic() + seconds, seconds)
        try:
            return await unless(self._wake, _done(self._clock.sleep(seconds))) is None
        finally:
            self.wait = None

    def give_up(self, failure: Failure) -> None:
        """Go to FAILED, where only a command leads out of."""
        self.last_failure = (failure, self._clock.time())
        self.machine.to(StreamState.FAILED, f"{failure.message} - {failure.advice}")
        log.error("the stream has given up: %s; %s", failure.message, failure.advice)
        if self.config.exit_on_failure:
            self.on_given_up(failure)

    async def _watch_clocks(self) -> None:
        """Notice that the machine slept or its clock was set: what the network did meanwhile, nobody here has seen."""
        drift = DriftWatch(self._clock)
        while True:
            await self._clock.sleep(_DRIFT_CHECK_S)
            jump = drift.check()
            if jump is None:
                continue
            self.suspends += 1
            log.warning("the clock jumped by %+.0f s (suspended, or set): forgetting the backoff, asking the link", jump)
            self.reconnector.reset()
            self.on_dead_line()
            if self.wait is not None:
                self.interrupt(f"the clock jumped by {jump:+.0f} s")
            else:
                self.links.suspect()


async def _done(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True
