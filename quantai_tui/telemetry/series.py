"""Fixed-size series: the recent past of one number, sampled at a steady period, holes kept as holes."""

from __future__ import annotations

from collections import deque

import msgspec


class SeriesSnapshot(msgspec.Struct, frozen=True):
    """The last values of a series, oldest first; `None` is a sample that was not known, never a zero."""

    period_s: float
    values: tuple[float | None, ...] = ()


class Series:
    """A ring of the last `capacity` samples, one every `period_s` seconds."""

    def __init__(self, capacity: int, period_s: float) -> None:
        if capacity < 1 or period_s <= 0:
            raise ValueError(f"a series needs capacity >= 1 and period_s > 0, got {capacity} and {period_s}")
        self.period_s = period_s
        self._values: deque[float | None] = deque(maxlen=capacity)

    def push(self, value: float | None) -> None:
        self._values.append(value)

    def snapshot(self) -> SeriesSnapshot:
        return SeriesSnapshot(self.period_s, tuple(self._values))
