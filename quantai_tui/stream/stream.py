"""The resilient stream: keeps one connection alive, decides what follows a failure, and takes the operator's commands."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from ..market.trades import Bar
from ..telemetry import SYSTEM_CLOCK, Clock, StreamSnapshot, StreamState
from .backoff import ExponentialBackoffReconnector
from .config import StreamConfig
from .failures import Failure, classify
from .feed import Feeds
from .gate import Gate
from .intake import Intake
from .repair import Repairer
from .report import Parts, connection_stats, stream_snapshot
from .rest import History, RestClient
from .session import Session
from .sink import TradeSink
from .states import StateMachine
from .tasks import unless, until_first_ends
from .tls import tls_context
from .transport import Transport
from .websockets_link import WebsocketsTransport

log = logging.getLogger("quantai_tui.stream")

# What a stop waits for the sink to take the trades in hand; what it does not take is fetched at the next start.
_FLUSH_TIMEOUT_S = 0.4
# Settings that a running stream cannot change: they belong to its ledgers and its place.
_FIXED = ("symbols", "ws_url", "rest_url", "ca_file", "proxy", "backfill_start", "buffer_trades", "exit_on_failure")


class ResilientStream:
    """A market-data stream that reconnects, and fetches what it missed.

    `start` returns at once; `stop` ends it for good. Commands may be given in every state and answer with one line that says
    what was done. `failed` is set when the stream has given up and was told to (`exit_on_failure`).
    """

    def __init__(
        self,
        config: StreamConfig,
        sink: TradeSink,
        *,
        gate: Gate | None = None,
        transport: Transport | None = None,
        history: History | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        rng = rng or random.Random()
        self._config = config
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._gate = gate or Gate(clock)
        self._transport = transport or WebsocketsTransport(self._tls, clock)
        self._rest: History = history or RestClient(config.rest_url, self._tls, self._gate, proxy=config.proxy, clock=clock)
        self._feeds = Feeds(sink, clock)
        self._repairer = Repairer(self._feeds, self._rest, config, rng=rng, clock=clock)
        self._intake = Intake(self._feeds, limit=config.buffer_trades, overload_after=config.overload_after, clock=clock)
        self._intake.on_gap = self._repairer.wake
        self._reconnector = ExponentialBackoffReconnector(
            config.initial_delay,
            config.max_delay,
            config.backoff_factor,
            config.max_retries,
            jitter=config.jitter,
            stable_after=config.stable_after,
            rng=rng,
            clock=clock,
        )
        self._intake.on_data = self._reconnector.on_data
        self.machine = StateMachine(clock)
        self._parts = Parts(clock, self.machine, self._reconnector, self._feeds, self._intake, self._repairer, config.ws_url)
        self._wake = asyncio.Event()
        self._wanted = True
        self._stopping = False
        self._main: asyncio.Task[None] | None = None
        self._waiting_since: float | None = None
        self._down_cause = ""
        self._was_live = False
        self._dialled = False
        self._failure: Failure | None = None
        self.failed = asyncio.Event()

    @property
    def state(self) -> StreamState:
        return self.machine.state

    @property
    def paused(self) -> bool:
        """Whether the socket is read more slowly because the sink is behind."""
        return self._intake.paused_since is not None

    @property
    def queued(self) -> int:
        """Trades received that the sink has not taken yet."""
        return self._intake.waiting

    async def start(self) -> None:
        """Read where the sink stands, then begin to connect, in the background. May be called once."""
        if self._main is not None or self._stopping:
            raise RuntimeError("a stream is started once; make a new one")
        await self._feeds.load(self._config.symbols, seed=self._config.backfill_start != "now")
        self._main = asyncio.create_task(self._run(), name="stream")

    async def stop(self) -> None:
        """End everything: connection, repair, REST. Idempotent, and takes about a second at most."""
        self._stopping = True
        self._wake.set()
        if self._main is not None:
            await asyncio.wait([self._main])
        await self._rest.close()
        if self.machine.state is not StreamState.STOPPED:
            self.machine.to(StreamState.STOPPED, "stopped")

    def reconnect_now(self) -> str:
        """Dial at once: skips a backoff, drops a live link. A ban and the venue's dial limit it does not skip."""
        if (refusal := self._not_running()) is not None:
            return refusal
        state = self.machine.state
        self._wanted = True
        self._reconnector.reset()
        self._interrupt("reconnect asked for by the operator")
        wait, why = self._gate.dial_wait()
        if wait > 0:
            return f"will dial in {wait:.0f} s, not before: {why}"
        if state in (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING):
            return "dropped the live link, dialling again"
        return "dialling now"

    def disconnect(self) -> str:
        """Close the link and stay away until `connect` or `reconnect_now`."""
        if (refusal := self._not_running()) is not None:
            return refusal
        if not self._wanted:
            return "is disconnected already"
        self._wanted = False
        self._interrupt("disconnected by the operator")
        return "disconnected; connect brings it back, and what is missed meanwhile is fetched then"

    def connect(self) -> str:
        """Undo `disconnect`, or leave a failed state; does nothing to a stream that is connecting or live."""
        if (refusal := self._not_running()) is not None:
            return refusal
        state = self.machine.state
        if self._wanted and state not in (StreamState.FAILED, StreamState.COOLING_DOWN):
            return f"is at it already: {state.value}"
        return self.reconnect_now()

    def reset(self) -> str:
        """Forget the failed attempts; a stream that waits or has failed dials at once, a live one goes on undisturbed."""
        if (refusal := self._not_running()) is not None:
            return refusal
        self._reconnector.reset()
        if self._wanted and self.machine.state in (StreamState.BACKOFF, StreamState.COOLING_DOWN, StreamState.FAILED):
            return f"attempts forgotten; {self.reconnect_now()}"
        return "attempts forgotten"

    def apply(self, config: StreamConfig) -> str:
        """Take over the numbers of `config` and reconnect with them. Symbols, addresses and the like wait for the next start."""
        kept = {name: getattr(self._config, name) for name in _FIXED}
        later = [name for name, value in kept.items() if getattr(config, name) != value]
        self._reconnector.configure(
            config.initial_delay, config.max_delay, config.backoff_factor, config.max_retries, jitter=config.jitter
        )
        self._config = replace(config, **kept)
        self._repairer.max_age_h = config.backfill_max_age_h
        told = "stream reconnects with the new numbers"
        if self._main is None or self._stopping or not self._wanted:
            told = "the stream takes the new numbers when it next connects"
        else:
            self._interrupt("new settings")
        return told + (f"; at the next start: {', '.join(later)}" if later else "")

    def snapshot(self) -> StreamSnapshot:
        """The stream at this moment. Cheap enough for several calls a second, and nothing of it happens on the receive path."""
        return stream_snapshot(self._parts, max_attempts=self._config.max_retries)

    def get_connection_stats(self) -> dict[str, Any]:
        """Counters as plain values; `["reconnect_statistics"]` is `ExponentialBackoffReconnector.get_statistics()`."""
        return connection_stats(self._parts)

    async def warm_klines(self, symbol: str, interval: str, limit: int) -> list[Bar]:
        """The last `limit` finished bars of the venue, oldest first, over REST. Raises what `RestClient` raises."""
        return await self._rest.recent_klines(symbol, interval, limit)

    async def wait_failed(self) -> Failure:
        """Wait until the stream has given up; with `exit_on_failure` only. Exit code 3 is the caller's."""
        await self.failed.wait()
        assert self._failure is not None
        return self._failure

    def _not_running(self) -> str | None:
        if self._stopping:
            return "the stream has been stopped"
        if self._main is None:
            return "the stream has not been started yet"
        if self._main.done():
            return "the stream has ended by a fault of its own: see the log, and start the engine again"
        return None

    def _interrupt(self, cause: str) -> None:
        self._link_ends(cause)
        self._waiting_since = None
        self._wake.set()

    def _link_ends(self, cause: str) -> None:
        """Remember why there is no link: the first reason since it was last live, which is what gaps are put down to."""
        if self._was_live and not self._down_cause:
            self._down_cause = cause

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._config.ca_file)
        return self._context

    async def _run(self) -> None:
        try:
            await until_first_ends(self._supervise(), self._intake.consume(), self._repairer.run())
            self.machine.to(StreamState.STOPPED, "stopped")
        except Exception as error:
            # Only a fault of this program comes here: it is shown like any failure, and does not hide in a task.
            log.critical("the stream ended by a fault of its own", exc_info=error)
            advice = "A fault of this program: the log has the trace; start the engine again, and report it."
            self._give_up(replace(classify(error), advice=advice))

    async def _supervise(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if not self._wanted:
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
            self._reconnector.on_reconnect_attempt(waited)
        self._waiting_since = None
        self._gate.note_dial()
        self._feeds.new_link(self._down_cause)
        failure = None
        session = None
        try:
            session = Session(self._config, self._transport, self.machine, self._intake, self._on_live, self._clock)
            self._parts.session = session
            await unless(self._wake, session.run())
        except Exception as error:
            failure = classify(error, session.phase) if session else classify(error)
            log.warning("link: %s (%s)", failure.message, failure.kind.value, exc_info=error)
            self._note(failure, was_live=session is not None and session.live_since is not None)
        else:
            self._reconnector.on_link_down()
        finally:
            self._parts.session = None
            self._dialled = True
        return failure

    async def _may_dial(self) -> bool:
        """Wait for ban, dial limit and the sink. False when a command came instead."""
        while (permit := self._gate.dial_wait())[0] > 0:
            wait, why = permit
            self.machine.to(StreamState.BACKOFF, why)
            if await self._wait(wait):
                return False
        self.machine.to(StreamState.CONNECTING, "storing what is in hand" if self._intake.waiting else "dialling")
        # Trades of the last link must be in the ledger before those of the next: else a gap between them gets a wrong cause.
        return await unless(self._wake, _done(self._intake.wait_stored())) is not None

    def _note(self, failure: Failure, *, was_live: bool) -> None:
        self._parts.last_failure = (failure, self._clock.time())
        self._link_ends(failure.message)
        self._reconnector.on_link_down(failure)
        if failure.min_wait_s:
            self._gate.close_for(failure.min_wait_s, failure.message)
        if was_live:
            return
        if self._dialled:
            self._reconnector.on_reconnect_failure(failure)
        else:
            self._reconnector.on_first_failure(failure)

    def _on_live(self) -> None:
        self._was_live = True
        self._down_cause = ""
        self._reconnector.on_reconnect_success()
        self._reconnector.on_link_up()
        self._repairer.on_live()

    async def _recover(self, failure: Failure) -> None:
        """What follows a failure: wait and retry, cool down, or give up."""
        config = self._config
        may_probe = config.cooldown > 0 and not config.exit_on_failure
        # A certificate that was good an hour ago and is not now may be good again: a captive portal, a venue's mistake.
        hopeless = failure.fatal and not self._was_live
        if not failure.fatal and self._reconnector.should_retry():
            delay = max(self._reconnector.calculate_next_delay(), self._gate.closed_for)
            self.machine.to(StreamState.BACKOFF, failure.message)
        elif may_probe and not hopeless:
            delay = max(config.cooldown, self._gate.closed_for)
            spent = "not to be retried" if failure.fatal else f"{config.max_retries} retries used up"
            self.machine.to(StreamState.COOLING_DOWN, f"{spent}, one probe every {config.cooldown:g} s: {failure.message}")
        else:
            self._give_up(failure)
            await asyncio.Event().wait()
            return
        self._waiting_since = self._clock.monotonic()
        await self._wait(delay)

    async def _wait(self, seconds: float) -> bool:
        """Wait where the snapshot can see it. True when a command ended it early."""
        self._parts.wait = (self._clock.monotonic() + seconds, seconds)
        try:
            return await unless(self._wake, _done(self._clock.sleep(seconds))) is None
        finally:
            self._parts.wait = None

    def _give_up(self, failure: Failure) -> None:
        self._failure = failure
        self.machine.to(StreamState.FAILED, f"{failure.message} - {failure.advice}")
        log.error("the stream has given up: %s; %s", failure.message, failure.advice)
        if self._config.exit_on_failure:
            self.failed.set()


async def _done(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True
