"""Notices that the machine was suspended, or that its clock was set: wall time and monotonic time run apart."""

from __future__ import annotations

from ..telemetry import SYSTEM_CLOCK, Clock

_TRIES = 3


class DriftWatch:
    """Compares the two clocks from one check to the next.

    The monotonic clock stands still while the machine is suspended (CLOCK_MONOTONIC on Linux, mach_absolute_time on macOS), so
    that the wall clock is ahead by the time slept. Setting the clock looks alike, either way. A clock that is slewed into
    place by NTP (0.5 ms a second at most) stays far below the tolerance, since each check begins anew.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, tolerance_s: float = 2.0) -> None:
        if not tolerance_s > 0:
            raise ValueError(f"the tolerance must be above 0 s, not {tolerance_s}")
        self._clock = clock
        self._tolerance_s = tolerance_s
        self._offset = self._measure()

    def check(self) -> float | None:
        """By how many seconds the wall clock ran away from the monotonic one since the last check; None within the tolerance.

        Above 0: suspended for so long, or the clock was set forward. Below 0: it was set back.
        """
        before, self._offset = self._offset, self._measure()
        drift = self._offset - before
        return drift if abs(drift) > self._tolerance_s else None

    def _measure(self) -> float:
        """Wall minus monotonic time. Taken again where this thread was held up between the two readings."""
        for _ in range(_TRIES):
            before = self._clock.monotonic()
            wall = self._clock.time()
            after = self._clock.monotonic()
            if after - before < self._tolerance_s / 4:
                break
        return wall - (before + after) / 2
