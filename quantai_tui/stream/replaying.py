"""A recording played: transport, history and clock that make a stream live through it again, by the same code.

The n-th dial of the replay meets what the n-th recorded one met: the same messages in the same order, the same kind of failure at
the same point. What the stream asks for on a connection is answered as it was then, or, where the recording shows no such
question, as a venue in order would. REST answers from all trades in the recording, as far as the venue had issued them; what is
in none of its messages and answers is a hole.

At speed N the stream's whole time runs N times as fast. At `max` messages follow each other as fast as they are taken; time runs
as usual meanwhile, and 60 times as fast while no connection delivers, so that a backoff or a dead link is not sat through. Either
way it runs as usual while the stream does not read: its patience is with this machine, not with the recorded one.

Not played again: REST's refusals, and what only the recording machine's or its operator's doing ended (such a connection ends as
`closed`, if the stream does not end it before by itself).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..market.trades import AggTrade, Bar
from ..telemetry import SYSTEM_CLOCK, Clock
from .config import StreamConfig
from .failures import Phase
from .gate import Gate
from .recorded import LinkScript, Recording
from .recorded_link import GRACE_S, RecordedLink, fault_of
from .replay_clock import ReplayClock, is_set
from .rest import PAGE
from .sink import TradeSink
from .stream import ResilientStream
from .tasks import until_first_ends
from .transport import Receiver

MAX_SPEED = math.inf

_IDLE_RATE = 60.0
_CHOOSE_S = 10.0
_PHASES = (Phase.CONNECT, Phase.TLS, Phase.UPGRADE)


class Replay:
    """One playing of a recording, from its first dial on. `transport`, `history` and `clock` are for one stream."""

    def __init__(self, recording: Recording, speed: float = MAX_SPEED, clock: Clock = SYSTEM_CLOCK) -> None:
        """`speed`: so many times as fast as it was, or MAX_SPEED."""
        self.recording = recording
        self.at_max = math.isinf(speed)
        self._speed = 1.0 if self.at_max else speed
        self.clock = ReplayClock(_IDLE_RATE if self.at_max else self._speed, clock)
        self.transport = RecordedTransport(self)
        self.history = RecordedHistory(self)
        self._waiting = list(recording.links)
        self._dialling = 0  # handed out, and neither open nor failed yet
        self._up: set[RecordedLink] = set()
        self._delivering = 0
        self._blocked = 0
        self._moved = asyncio.Event()
        self._over = asyncio.Event()
        self._over_at = 0.0
        self._lasted = False
        self._at = 0.0  # of the last event that was met
        self._met_at = self.clock.monotonic()

    @property
    def at(self) -> float:
        """How far it is, in seconds of the recording."""
        if self.at_max or not self._up:
            return self._at
        return min(self._at + self.clock.monotonic() - self._met_at, self.recording.seconds)

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def is_settled(self) -> bool:
        """Whether it is over, and the stream has had the time to choose between two connections, where it was about to."""
        if not self.is_over:
            return False
        return len(self._up) <= 1 or self.clock.monotonic() - self._over_at > _CHOOSE_S

    @property
    def progress(self) -> float:
        """From 0 to 1; 1 only when it is over."""
        return 1.0 if self.is_over else min(0.999, self.at / max(self.recording.seconds, 1e-9))

    async def over(self) -> None:
        """Wait until all of the recording has been met; further dials wait for ever."""
        await self._over.wait()

    # For the transport and its links

    async def next_dial(self) -> LinkScript:
        """The next recorded connection, not before its time while another one still delivers."""
        while True:
            moved = self._moved
            if self._waiting:
                left = self._waiting[0].dialled_at - self.at
                if left <= 0 or all(link.dry for link in self._up):
                    self._dialling += 1
                    return self._waiting.pop(0)
                if not self.at_max:
                    await until_first_ends(self.clock.sleep(left), is_set(moved))
                    continue
            await moved.wait()

    def give_back(self, script: LinkScript) -> None:
        """A dial was dropped before it met anything."""
        self._dialling -= 1
        self._waiting.insert(0, script)
        self._move()

    def reached(self, at: float) -> None:
        """An event of the recording is met."""
        if at < self._at:
            return
        self._at, self._met_at = at, self.clock.monotonic()
        if self._waiting and self._up and at >= self._waiting[0].dialled_at:
            self._move()

    def opened(self, link: RecordedLink) -> None:
        self._dialling -= 1
        self._up.add(link)

    def dial_ended(self, *, lasted: bool = False) -> None:
        """A dial has failed, or `lasted` until the recording was over."""
        self._dialling -= 1
        self.look_for_end(lasted=lasted)

    def ran_dry(self) -> None:
        """A connection has delivered all that it had."""
        self._move()

    def left(self, link: RecordedLink) -> None:
        """A connection is over, in the recording or because the stream closed it."""
        self._at = self.at
        self._up.discard(link)
        self._move()
        self.look_for_end()

    def look_for_end(self, *, lasted: bool = False) -> None:
        """The recording is over when nothing is left to be met; or when a connection `lasted` as long as it did."""
        self._lasted = self._lasted or lasted
        if self._dialling or self.is_over:
            return
        all_met = not self._waiting and not self._up
        if all_met or (self._lasted and all(link.dry for link in self._up)):
            self._waiting.clear()
            self._at = self.recording.seconds
            self._over_at = self.clock.monotonic()
            self._over.set()
            self._set_rate()

    @contextlib.contextmanager
    def delivering(self) -> Iterator[None]:
        """While a connection has messages to deliver."""
        self._delivering += 1
        self._set_rate()
        try:
            yield
        finally:
            self._delivering -= 1
            self._set_rate()

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """While the stream does not read."""
        self._blocked += 1
        self._set_rate()
        try:
            yield
        finally:
            self._blocked -= 1
            self._set_rate()

    def _set_rate(self) -> None:
        if self._blocked or self.is_over:
            self.clock.rate = 1.0
        elif self.at_max:
            self.clock.rate = 1.0 if self._delivering else _IDLE_RATE
        else:
            self.clock.rate = self._speed

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


class RecordedTransport:
    """Opens the connections of a recording, one after the other; see `Transport`."""

    name = "recording"

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> RecordedLink:
        replay = self._replay
        script = await replay.next_dial()
        begun = replay.clock.monotonic()

        async def reach(at: float) -> None:
            if not replay.at_max and not script.joined:
                await replay.clock.sleep(begun + at - script.dialled_at - replay.clock.monotonic())
            replay.reached(at)

        try:
            for at, phase in script.phases or [(script.dialled_at, phase) for phase in _PHASES]:
                await reach(at)
                on_phase(phase)
            if script.opened_at is not None:
                await reach(script.opened_at)
                return RecordedLink(replay, script, receiver)
            await reach(replay.recording.seconds if script.end is None else script.end.at)
            if script.end is not None and script.end.failure is None:
                # Given up by this program, by a bound that it should come upon again; or by a command.
                await replay.clock.sleep(GRACE_S)
        except asyncio.CancelledError:
            replay.give_back(script)
            raise
        replay.dial_ended(lasted=script.end is None)
        if script.end is None:
            await asyncio.Event().wait()  # the recording knows no more of it
            raise AssertionError("waits until it is cancelled")
        raise fault_of(script.end.failure, "this dial was given up here when it was recorded")


class RecordedHistory:
    """The venue's REST side, out of a recording; see `History`."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.used_weight: int | None = None
        self.weight_wait_s = 0.0

    def renew(self) -> None:
        """A recording has no connections."""

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        await asyncio.sleep(0)
        replay = self._replay
        return replay.recording.known_trades(symbol, from_id, min(limit, PAGE), replay.at)

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        await asyncio.sleep(0)
        bars = self._replay.recording.bars.get((symbol, interval), {})
        return [bars[at] for at in sorted(bars)][-count:] if count > 0 else []

    async def server_time(self) -> int | None:
        """A recording has no venue time."""
        return None

    async def close(self) -> None:
        """There is nothing open: the recording belongs to whoever has opened it."""


def stream_from_recording(
    recording: Recording,
    sink: TradeSink | None,
    *,
    speed: float = MAX_SPEED,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
    **changes: Any,
) -> tuple[ResilientStream, Replay]:
    """A stream, not started yet, that will live through a recording as it was configured then, but for `changes`.

    A user's outage becomes a test so: open the recording, start the stream, wait for `Replay.over` and until nothing is missing,
    stop, and look at what the sink has and at what the snapshot shows. `changes` are fields of `StreamConfig`. The same seed, the
    same end. Close the recording afterwards. Without a sink, iterate over the stream.
    """
    replay = Replay(recording, speed, clock)
    stream = ResilientStream(
        replace(recording.config, **changes),
        sink,
        transport=replay.transport,
        history=replay.history,
        replayed=True,
        gate=Gate(replay.clock),
        clock=replay.clock,
        rng=rng or random.Random(0),
    )
    return stream, replay
