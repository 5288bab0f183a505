"""How many trades or messages come in a second."""

from __future__ import annotations

from collections import deque

from ..telemetry import Clock

_WINDOW_S = 5.0


class RateMeter:
    """Events per second over the last five seconds, fed in batches."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._batches: deque[tuple[float, int]] = deque(maxlen=512)

    def add(self, count: int) -> None:
        self._batches.append((self._clock.monotonic(), count))

    def per_second(self) -> float | None:
        """None until a whole second has been seen."""
        now = self._clock.monotonic()
        span = min(_WINDOW_S, now - self._since)
        if span < 1.0:
            return None
        return sum(count for at, count in self._batches if at > now - span) / span
