"""What time it is at the venue: asked for over REST, carried on by the monotonic clock, and bounded by its own trades."""

from __future__ import annotations

from dataclasses import dataclass

from ..telemetry import SYSTEM_CLOCK, Clock

# The two clocks of this machine run apart by more than this only when it slept or its clock was set (`drift.DriftWatch`).
_DRIFT_US = 2_000_000


@dataclass(frozen=True, slots=True)
class _Reading:
    """A time of the venue, and what this machine's two clocks showed at that moment; all in microseconds."""

    venue_us: int
    monotonic_us: int
    wall_us: int


class VenueClock:
    """The venue's time in microseconds since 1970.

    An answer of the venue (`answered`) holds until this machine sleeps or its clock is set. Without one, there is a bound: the
    machine's own clock, or the newest trade that was believed (`heard`) and the time since, whichever is earlier. A bound may be
    too early, by a suspend or a wrong clock, so a later time is a reason to ask the venue and no proof of anything.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._answer: _Reading | None = None
        self._newest: _Reading | None = None
        self._wall_is_wrong = False
        self.follows_trades = True
        """False where trades come faster than time passes, as in a replay: then they say nothing of the present time."""

    def answered(self, venue_ms: int) -> None:
        """The venue has said what time it is, now."""
        self._answer = self._read(venue_ms * 1000)

    def heard(self, time_us: int) -> None:
        """A trade has come whose time is believed."""
        newest = self._newest
        if newest is None or time_us > newest.venue_us:
            self._newest = self._read(time_us)

    def outvoted(self, time_us: int) -> None:
        """Trades in number come at this time, later than the bound: the machine's clock is wrong, and so is what came before."""
        self._wall_is_wrong = True
        self._newest = self._read(time_us)

    def now_us(self) -> int | None:
        """By the venue's answer; None where there is none that still holds."""
        if self._answer is None:
            return None
        now = self._read(0)
        elapsed_us = now.monotonic_us - self._answer.monotonic_us
        if abs(now.wall_us - self._answer.wall_us - elapsed_us) > _DRIFT_US:
            self._answer = None
            return None
        return self._answer.venue_us + elapsed_us

    def bound_us(self) -> int:
        """By this machine's clock and by the trades: not a time that is known, but one to ask about what lies beyond."""
        now = self._read(0)
        if self._newest is None:
            return now.wall_us
        trades_us = self._newest.venue_us + now.monotonic_us - self._newest.monotonic_us
        if self._wall_is_wrong:
            return trades_us
        return min(now.wall_us, trades_us) if self.follows_trades else now.wall_us

    def _read(self, venue_us: int) -> _Reading:
        return _Reading(venue_us, int(self._clock.monotonic() * 1e6), int(self._clock.time() * 1e6))
