"""Which trade ids are plausible: how far a symbol's ids may jump, and what speaks for a jump that is farther.

The venue numbers a symbol's trades one by one, so ids rise about as fast as trades come. No I/O and no clock: times are given, in
seconds. Used live (`id_jumps.py`) and for the trades of a recording (`recorded_trades.py`).
"""

from __future__ import annotations

# A jump is implausible beyond so many times the peak rate times the time since the last trade, and so many ids more.
PEAK_FACTOR = 100.0
LEAST_REACH = 100_000
# So many frames with consecutive ids, after the first, speak for a jump that REST does not answer for.
FURTHER_FRAMES = 20

_PEAK_OVER_S = 1.0
_LONGEST_REACH = 1 << 53  # beyond every id there can be


class IdPace:
    """How fast one symbol's ids rise at most, from the trades that were believed."""

    __slots__ = ("_count", "_since", "peak")

    def __init__(self) -> None:
        self.peak = 0  # trades in a second; 0 while nothing is known
        self._since = float("-inf")
        self._count = 0

    def note(self, count: int, at: float) -> None:
        """So many trades came at `at`."""
        if at - self._since >= _PEAK_OVER_S:
            self._since, self._count = at, 0
        self._count += count
        self.peak = max(self.peak, self._count)

    def reach(self, idle_s: float) -> int:
        """How far ids may plausibly have gone in `idle_s` seconds without a trade."""
        return LEAST_REACH + int(min(PEAK_FACTOR * self.peak * max(idle_s, 0.0), _LONGEST_REACH))


class IdRun:
    """Ids near each other and far from all that is known: a jump of the venue's numbering, or a lie."""

    __slots__ = ("consecutive", "first", "last")

    def __init__(self, id: int) -> None:
        self.first = self.last = id
        self.consecutive = 1

    def is_near(self, id: int, reach: int = LEAST_REACH) -> bool:
        """Whether an id may belong to the same numbering."""
        return self.first - reach <= id <= self.last + reach

    def add(self, id: int) -> None:
        """Another frame. Only ids that follow each other without a hole count as evidence."""
        if id == self.last + 1:
            self.consecutive += 1
        elif id > self.last:
            self.consecutive = 1
        self.first, self.last = min(self.first, id), max(self.last, id)

    @property
    def is_sequence(self) -> bool:
        """Whether as many frames followed each other as no lie is likely to bring."""
        return self.consecutive > FURTHER_FRAMES
