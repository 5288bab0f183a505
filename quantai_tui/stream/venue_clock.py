"""The venue's time: requested over REST, advanced by the monotonic clock, and bounded by the venue's trades."""

from __future__ import annotations

from dataclasses import dataclass

from ..telemetry import SYSTEM_CLOCK, Clock

# This machine's two clocks diverge by more than this only after a suspend or a clock change (`drift.DriftWatch`).
_DRIFT_US = 2_000_000


@dataclass(frozen=True, slots=True)
class _Reading:
    """A venue time, and this machine's two clocks at that moment; all in microseconds."""

    venue_us: int
    monotonic_us: int
    wall_us: int


class VenueClock:
    """The venue's time in microseconds since 1970.

    An answer of the venue (`answered`) is valid until this machine sleeps or its clock is set. Without one, there is a bound: the
    machine's own clock, or the newest accepted trade (`heard`) plus the time since, whichever is earlier. A bound may be
    too early after a suspend or with a wrong clock, so a later time is a reason to ask the venue, not proof.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._answer: _Reading | None = None
        self._newest: _Reading | None = None
        self._wall_is_wrong = False
        self.follows_trades = True
        """False where trades arrive faster than real time, as in a replay: they say nothing of the present time."""

    def answered(self, venue_ms: int) -> None:
        """Take the venue's answer: its time now."""
        self._answer = self._read(venue_ms * 1000)

    def heard(self, time_us: int) -> None:
        """Take the time of an accepted trade."""
        newest = self._newest
        if newest is None or time_us > newest.venue_us:
            self._newest = self._read(time_us)

    def outvoted(self, time_us: int) -> None:
        """Many trades have this time, later than the bound: this machine's clock and earlier times are wrong."""
        self._wall_is_wrong = True
        self._newest = self._read(time_us)

    def now_us(self) -> int | None:
        """The time by the venue's answer; None without a valid one."""
        if self._answer is None:
            return None
        now = self._read(0)
        elapsed_us = now.monotonic_us - self._answer.monotonic_us
        if abs(now.wall_us - self._answer.wall_us - elapsed_us) > _DRIFT_US:
            self._answer = None
            return None
        return self._answer.venue_us + elapsed_us

    def bound_us(self) -> int:
        """A bound by this machine's clock and the trades: not exact, but a later time is a reason to ask the venue."""
        now = self._read(0)
        if self._newest is None:
            return now.wall_us
        trades_us = self._newest.venue_us + now.monotonic_us - self._newest.monotonic_us
        if self._wall_is_wrong:
            return trades_us
        return min(now.wall_us, trades_us) if self.follows_trades else now.wall_us

    def _read(self, venue_us: int) -> _Reading:
        return _Reading(venue_us, int(self._clock.monotonic() * 1e6), int(self._clock.time() * 1e6))
