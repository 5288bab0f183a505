"""Three days of a few numbers: rings of buckets at three resolutions, of a size that is fixed when they are made."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

_LEVELS = ((1.0, 1_800), (10.0, 2_160), (60.0, 4_320))  # seconds a bucket, buckets: half an hour, six hours, three days
REACH_S = _LEVELS[-1][0] * _LEVELS[-1][1]
MOST_POINTS = 2_000


class Fold(Enum):
    """What a bucket keeps of the samples that fall into it."""

    SUM = "sum"  # of counts: none is lost, however far one looks from
    PEAK = "peak"  # of what hurts when it is high, if only once
    MEAN = "mean"  # of means: every bucket counts the same


@dataclass(frozen=True, slots=True)
class Window:
    """`period_s` seconds a value, the newest bucket ends at `until` (Unix time) and may not be full yet; None: not known."""

    until: float
    period_s: float
    values: dict[str, tuple[float | None, ...]]


class History:
    """The numbers of `folds`, filed under the time they were told.

    Where the clock is set back, what lies after the new time is forgotten: those seconds are lived once more, and the later
    telling counts.
    """

    def __init__(self, folds: Mapping[str, Fold]) -> None:
        self._folds = dict(folds)
        self._rings = {name: [_Ring(period, count, fold) for period, count in _LEVELS] for name, fold in folds.items()}
        self._newest = -math.inf

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._folds)

    def push(self, now: float, values: Mapping[str, float | None]) -> None:
        """One sample of all numbers at `now` (Unix seconds); what is missing or None was not known."""
        if now < self._newest:
            for rings in self._rings.values():
                for ring in rings:
                    ring.forget_after(now)
        self._newest = now
        for name, rings in self._rings.items():
            value = values.get(name)
            for ring in rings:
                ring.push(now, value)

    def window(self, names: Iterable[str], span_s: float, points: int, until: float) -> Window:
        """The last `span_s` seconds up to `until`, in at most `points` values each, none of these seconds left out.

        Buckets begin at whole multiples of their length: a window that moves on does not redraw its past. Raises KeyError for
        a name that is not kept and ValueError for a span or a number of points that cannot be.
        """
        if not 0 < span_s <= REACH_S:
            raise ValueError(f"a span must be above 0 and at most {REACH_S:.0f} s, got {span_s:g}")
        if not 2 <= points <= MOST_POINTS:
            raise ValueError(f"a window has 2 to {MOST_POINTS} points, not {points}")
        level = self._level(span_s, until)
        base = _LEVELS[level][0]
        width = max(1, math.ceil(span_s / points / base - 1e-9))
        first, end = _groups(until, span_s, base * width)
        if end - first > points:  # its ends fall into buckets of their own
            width = math.ceil(span_s / (points - 1) / base - 1e-9)
            first, end = _groups(until, span_s, base * width)
        values = {name: self._rings[name][level].folded(first, end - first, width) for name in names}
        return Window(end * base * width, base * width, values)

    def _level(self, span_s: float, until: float) -> int:
        """The finest that still reaches back so far."""
        back = max(self._newest, until) - until + span_s
        return next((i for i, (period, count) in enumerate(_LEVELS) if back <= period * (count - 1)), len(_LEVELS) - 1)


def _groups(until: float, span_s: float, period_s: float) -> tuple[int, int]:
    """The first bucket of the stretch, and the one behind its last."""
    return math.floor((until - span_s) / period_s + 1e-9), math.floor(until / period_s) + 1


class _Ring:
    """Buckets by their absolute number, in a ring."""

    def __init__(self, period_s: float, count: int, fold: Fold) -> None:
        self._period_s = period_s
        self._count = count
        self._fold = fold
        self._values = array("d", [math.nan]) * count
        self._known = array("L", [0]) * count
        self._last: int | None = None

    def push(self, now: float, value: float | None) -> None:
        bucket = math.floor(now / self._period_s)
        if self._last is None or bucket > self._last:
            first = bucket if self._last is None else max(self._last + 1, bucket - self._count + 1)
            for empty in range(first, bucket + 1):
                self._clear(empty)
            self._last = bucket
        if value is None or math.isnan(value):
            return
        index = bucket % self._count
        known = self._known[index]
        if not known:
            self._values[index] = value
        elif self._fold is Fold.SUM:
            self._values[index] += value
        elif self._fold is Fold.PEAK:
            self._values[index] = max(self._values[index], value)
        else:
            self._values[index] += (value - self._values[index]) / (known + 1)
        self._known[index] = known + 1

    def forget_after(self, now: float) -> None:
        bucket = math.floor(now / self._period_s)
        if self._last is None or bucket > self._last:
            return
        for later in range(max(bucket, self._last - self._count + 1), self._last + 1):
            self._clear(later)
        self._last = bucket

    def folded(self, first: int, count: int, width: int) -> tuple[float | None, ...]:
        """`count` values of `width` buckets each, from group number `first` on."""
        return tuple(self._group(number * width, width) for number in range(first, first + count))

    def _group(self, first: int, width: int) -> float | None:
        if self._last is None:
            return None
        begin, end = max(first, self._last - self._count + 1), min(first + width, self._last + 1)
        known = [self._values[i % self._count] for i in range(begin, end) if self._known[i % self._count]]
        if not known:
            return None
        if self._fold is Fold.SUM:
            return math.fsum(known)
        return max(known) if self._fold is Fold.PEAK else math.fsum(known) / len(known)

    def _clear(self, bucket: int) -> None:
        self._values[bucket % self._count] = math.nan
        self._known[bucket % self._count] = 0
