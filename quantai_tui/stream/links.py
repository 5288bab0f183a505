"""The connection in use, and its successor when one is wanted: the new one is made before the old is broken.

A successor is wanted before the venue's 24 hours are over, when the venue announces that a server shuts down, on demand, and when
the present link is suspected: then the second connection tells whether the market is quiet or the link is dead.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NoReturn, Protocol

from ..telemetry import SYSTEM_CLOCK, Clock, StreamState
from .advice import FailureKind
from .backoff import ExponentialBackoffReconnector
from .config import StreamConfig, public_address
from .failures import Failure, LinkFault, Phase, classify
from .gate import Gate
from .inlet import Inlet, Notice
from .intake import Intake
from .line import Line
from .liveness import Liveness
from .overlap import Occasion, Standing, Verdict
from .quarantine import Quarantine
from .session import Session
from .silence import SilenceLooks
from .states import StateMachine
from .suspicion import Suspicion
from .tasks import all_ended, first_of, settle, until_first_ends
from .transport import Transport

log = logging.getLogger("quantai_tui.stream")

_LONGEST_WATCH_S = 1.0
_LONGEST_RETRY_S = 300.0
_SETTLED_AFTER_S = 60.0  # a link that is to be replaced sooner than that is waited with, longer each time


class LinkOwner(Protocol):
    """Who is told what becomes of links."""

    def on_link_up(self) -> None:
        """A link that follows none, or a lost one, is live."""
        ...

    def on_link_lost(self, error: BaseException, phase: Phase) -> None:
        """The present link has ended while its successor is on the way, which is to take its place."""
        ...

    def on_stall_confirmed(self, cause: str) -> None:
        """A successor takes over from a link that had stalled: what that did not bring is missing."""
        ...

    def on_successor_failed(self, failure: Failure) -> None: ...

    def on_verdict(self, failure: Failure) -> None:
        """How any link has ended, at once: what the venue said with it counts, even if nobody asks for the link any more."""
        ...


class Links:
    """Runs the present link and replaces it when there is an occasion. One `run` lasts until there is no link left."""

    def __init__(
        self,
        config: StreamConfig,
        transport: Transport,
        machine: StateMachine,
        intake: Intake,
        gate: Gate,
        liveness: Liveness,
        silence: SilenceLooks,
        quarantine: Quarantine,
        owner: LinkOwner,
        *,
        rng: random.Random,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self._transport = transport
        self._machine = machine
        self._intake = intake
        self._gate = gate
        self._liveness = liveness
        self._looks = silence
        self._suspicion = Suspicion(liveness, silence)
        self._quarantine = quarantine
        self._owner = owner
        self._clock = clock
        self._backoff = ExponentialBackoffReconnector(
            1.0,
            _LONGEST_RETRY_S,
            2.0,
            max_retries=0,
            jitter=config.jitter,
            stable_after=_SETTLED_AFTER_S,
            rng=rng,
            clock=clock,
        )
        self._not_before = clock.monotonic()  # the next successor
        self._present: Line | None = None
        self._second: Line | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._asked: str | None = None
        self._look = asyncio.Event()
        self.last_phase = Phase.CONNECT
        """How far the link that ended last had come."""
        self.successor = ""
        self.rotations = 0
        self.probes = 0

    @property
    def session(self) -> Session | None:
        """The present one."""
        return self._present.session if self._present else None

    @property
    def rotates_in_s(self) -> float | None:
        session = self.session
        if session is None or session.live_since is None:
            return None
        return max(0.0, session.live_since + self.config.rotate_after - self._clock.monotonic())

    def rotate(self, why: str) -> bool:
        """Replace the present link without a break. False when there is none to replace."""
        if self.session is None or not self.session.live.is_set():
            return False
        if self._machine.state is StreamState.ROTATING:
            return True  # it is being replaced
        self._asked = why
        self._not_before = self._clock.monotonic()
        self._look.set()
        return True

    def suspect(self) -> None:
        """Something happened that links do not always survive: have the present one prove that it is alive."""
        if self.session is not None:
            self.session.suspect()

    async def run(self) -> NoReturn:
        """Live until no link is left; always ends with the exception that ended the last, and leaves nothing open."""
        self._asked = None
        self._backoff.reset()
        self._not_before = self._clock.monotonic()
        try:
            self._present = self._open()
            self._intake.attach(self._present.session.inlet)
            await self._present.during(self._present.session.live.wait())
            self._owner.on_link_up()
            self._went_live("subscribed")
            while True:
                await self._replace(await self._until_wanted())
        finally:
            await self._close_all()

    async def _close_all(self) -> None:
        self._intake.end_overlap()
        lines = [line for line in (self._second, self._present) if line is not None]
        self._present = self._second = None
        self.successor = ""
        for line in lines:
            self.last_phase = line.session.phase  # the present one's, which comes last
            self._retire(line)
        await all_ended(self._retiring)

    def _open(self) -> Line:
        session = Session(self.config, self._transport, self._inlet, self._show, self._clock)
        return Line(session, self._owner.on_verdict)

    def _inlet(self, on_notice: Callable[[Notice], None]) -> Inlet:
        return Inlet(self.config.buffer_trades, self._quarantine, on_notice, hurry=self._intake.hurry, clock=self._clock)

    def _retire(self, line: Line) -> None:
        """End a link in the background: half a second for its good-bye must hold up nobody."""
        task = asyncio.create_task(settle(line.task), name="link ends")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _show(self, session: Session) -> None:
        """A session has reached a phase. One that is being closed is neither, and shows nothing any more."""
        if self._second is not None and session is self._second.session:
            self.successor = f"second connection: {session.phase.value}"
        elif session is self.session:
            self._follow(session.phase)

    def _follow(self, phase: Phase) -> None:
        if phase is Phase.CONNECT:
            self._machine.to(StreamState.CONNECTING, f"dialling {public_address(self.config.ws_url)}")
        elif phase is Phase.TLS:
            self._machine.to(StreamState.HANDSHAKING, "TLS and websocket handshake")
        elif phase is Phase.UPGRADE:
            self._machine.to(StreamState.HANDSHAKING, "websocket upgrade")
        elif phase is Phase.SUBSCRIBE:
            self._machine.to(StreamState.SUBSCRIBING, f"asking for {len(self.config.symbols)} streams")

    def _went_live(self, cause: str) -> None:
        self._liveness.on_link()
        self._machine.to(StreamState.LIVE, cause)

    # When a second connection is wanted

    async def _until_wanted(self) -> Occasion:
        assert self._present is not None
        while True:
            self._look.clear()
            occasion = self._occasion(self._present.session)
            if occasion is not None and self._clock.monotonic() >= self._not_before:
                return occasion
            leaving = self._present.session.leaving
            signal = self._look if leaving.is_set() else leaving
            await self._present.during(until_first_ends(self._clock.sleep(self._tick_s), self._look.wait(), signal.wait()))

    def _occasion(self, session: Session) -> Occasion | None:
        silence = self._silence()
        if self._asked is not None:
            return Occasion(self._asked)
        if session.leaving.is_set():
            return Occasion("the venue announced that this server shuts down")
        if self.rotates_in_s == 0.0:
            return Occasion(f"the connection is {self.config.rotate_after / 3600:.3g} h old, and the venue ends each after 24 h")
        return silence

    @property
    def _tick_s(self) -> float:
        return min(self.config.message_warning_timeout / 4, _LONGEST_WATCH_S)

    def _silent_s(self) -> float:
        """For how long there was no data. A sink that hangs is not the venue's silence.

        Raises:
            LinkFault: with kind DATA_STALL, at WS_MESSAGE_TIMEOUT.
        """
        session = self.session
        if (session is not None and session.inlet.paused_since is not None) or self._intake.stuck_s > _LONGEST_WATCH_S:
            self._liveness.hold()
        silent = self._liveness.any_silent_s()
        if silent >= self.config.message_timeout:
            raise LinkFault(FailureKind.DATA_STALL, f"no data for {silent:.0f} s")
        return silent

    def _silence(self) -> Occasion | None:
        """Data alone is a sign of life here; pings are the heartbeat's business."""
        warn_after, give_up_after = self.config.message_warning_timeout, self.config.message_timeout
        silent = self._silent_s()
        if silent >= warn_after:
            self._machine.to(StreamState.STALLED, f"no data for {silent:.0f} s; reconnecting at {give_up_after:.0f} s")
        elif not self._suspicion.unexplained() and self._machine.state is StreamState.STALLED:
            self._machine.to(StreamState.LIVE, "data again")
        return self._suspicion.occasion()

    # From one to the other

    async def _replace(self, occasion: Occasion) -> None:
        present = self._present
        assert present is not None
        wait, why = await present.during(self._gate.take_dial())
        if wait > 0:
            self._put_off(wait, f"a second connection is wanted ({occasion.why}), but {why}")
            return
        self._asked = None
        if occasion.suspects:
            self.probes += 1
            present.session.suspect()
            self._machine.to(StreamState.STALLED, f"{occasion.why}; asking on a second connection")
        else:
            self._machine.to(StreamState.ROTATING, occasion.why)
        log.info("opening a second connection: %s", occasion.why)
        successor = self._second = self._open()
        took_over = await self._bring_in(occasion, present, successor)
        self._intake.end_overlap()
        self._second = None
        self.successor = ""
        if took_over:
            self._retire(present)
            return
        self._retire(successor)
        if not present.task.done():
            self._stay(occasion)

    def _stay(self, occasion: Occasion) -> None:
        """The present link goes on. A suspicion that nobody could answer is shown until it is over."""
        silent = self._suspicion.unexplained() or self._liveness.any_silent_s() >= self.config.message_warning_timeout
        if self._machine.state is StreamState.STALLED and silent:
            self._machine.to(StreamState.STALLED, f"{occasion.why}; stays on the present connection")
        elif self._machine.state in (StreamState.ROTATING, StreamState.STALLED):
            self._machine.to(StreamState.LIVE, "stays on the present connection")

    async def _bring_in(self, occasion: Occasion, present: Line, successor: Line) -> bool:
        """Dial, overlap, decide. Whether the successor is the present link now."""
        live = successor.session.live
        while not live.is_set():
            await self._first_of(present, successor, live)
            if successor.task.done():
                return self._refuse(successor.error, successor.session.phase)
            if present.task.done():
                await self._step_in(present, successor)
                return True
        overlap = self._intake.begin_overlap(successor.session.inlet, self.config.symbols)
        while True:
            overlap.looked.clear()
            await self._first_of(present, successor, overlap.looked)
            if successor.task.done():
                return self._refuse(successor.error, successor.session.phase)
            if present.task.done():
                await self._lose(present)
                await self._take_over(successor, f"moved to a second connection when the first ended ({occasion.why})")
                self._owner.on_link_up()
                return True
            verdict = overlap.verdict(occasion, self._liveness)
            if verdict is Verdict.TAKE_OVER:
                if occasion.suspects:
                    await self._intake.hand_over()
                    self._owner.on_stall_confirmed(f"the link had stalled: {occasion.why}")
                else:
                    self.rotations += 1
                await self._take_over(successor, f"moved to a fresh connection: {occasion.why}")
                return True
            if verdict is Verdict.USELESS:
                silent = ", ".join(overlap.symbols(Standing.BEHIND))
                fault = LinkFault(FailureKind.DATA_STALL, f"the second connection brings no trades of {silent}")
                return self._refuse(fault, Phase.LIVE)
            if verdict is Verdict.KEEP:
                self._looks.probed(overlap.explained(self._liveness))
                return False

    async def _first_of(self, present: Line, successor: Line, signal: asyncio.Event) -> None:
        """Until one of them ends, or the signal. The limit of silence holds however much is still to be found out.

        Raises:
            LinkFault: with kind DATA_STALL, when neither link has brought anything for WS_MESSAGE_TIMEOUT.
        """
        limit = asyncio.create_task(self._outlast_silence())
        try:
            await first_of(present.task, successor.task, limit, signal=signal)
            if limit.done():
                limit.result()
        finally:
            await settle(limit)

    async def _outlast_silence(self) -> None:
        while True:
            if not self._intake.held:
                self._silent_s()
            await self._clock.sleep(self._tick_s)

    async def _take_over(self, successor: Line, cause: str) -> None:
        await self._intake.promote()
        self._make_present(successor)
        self._went_live(cause)
        # A link that wants to be replaced as soon as it is there must not make us dial without end.
        self._backoff.on_link_up()
        self._backoff.on_reconnect_attempt(0.0)
        self._backoff.on_reconnect_success()
        self._backoff.on_data()
        self._put_off(self._backoff.calculate_next_delay(), "")

    async def _lose(self, present: Line) -> None:
        """The present link has ended. First what it still has brought: what is missing after that is put down to its end."""
        await self._intake.hand_over()
        self._owner.on_link_lost(present.error, present.session.phase)

    def _make_present(self, successor: Line) -> None:
        self._present, self._second, self.successor = successor, None, ""

    async def _step_in(self, present: Line, successor: Line) -> None:
        """The present link has ended and the successor is not there yet: it is the dial that matters now.

        Raises what ends the successor before it is live.
        """
        await self._lose(present)
        self._intake.attach(successor.session.inlet)
        self._make_present(successor)
        self._retire(present)
        for phase in Phase:
            self._follow(phase)
            if phase is successor.session.phase:
                break
        await successor.during(successor.session.live.wait())
        self._owner.on_link_up()
        self._went_live("subscribed")

    def _refuse(self, error: BaseException, phase: Phase) -> bool:
        """The successor came to nothing."""
        failure = classify(error, phase)
        log.warning("second connection: %s (%s)", failure.message, failure.kind.value, exc_info=error)
        self._owner.on_successor_failed(failure)
        self._backoff.on_reconnect_failure(failure)
        self._put_off(max(self._backoff.calculate_next_delay(), failure.min_wait_s), f"second connection: {failure.message}")
        return False

    def _put_off(self, seconds: float, why: str) -> None:
        self._not_before = self._clock.monotonic() + seconds
        if why:
            log.info("%s; next try in %.0f s", why, seconds)
