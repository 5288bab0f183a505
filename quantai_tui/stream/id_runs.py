"""Which trade ids are plausible: how far a symbol's ids may jump, and the evidence for a farther jump.

The venue numbers a symbol's trades one by one, so ids rise about as fast as trades come. No I/O and no clock: times are given, in
seconds. Used live (`id_jumps.py`) and for the trades of a recording (`recorded_trades.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter

from ..market.trades import AggTrade

# A jump is implausible beyond this factor times the peak rate times the time since the last trade, plus this many ids.
PEAK_FACTOR = 100.0
LEAST_REACH = 100_000
# This many frames with consecutive ids, after the first, confirm a jump if REST does not answer.
FURTHER_FRAMES = 20

# Rows of a request for the venue's newest trade; a request for one row has the same weight.
NEWEST_ROWS = 20

_BY_ID = attrgetter("id")
_PEAK_OVER_S = 1.0
_LONGEST_REACH = 1 << 53  # larger than any id


def newest_of(rows: Sequence[AggTrade]) -> AggTrade | None:
    """The newest of some trades over REST; None without one.

    An id far above all others is not used: it is wrong, or a jump that no second trade shows yet. If no two ids are near each
    other, the highest counts.
    """
    ordered = sorted(rows, key=_BY_ID, reverse=True)
    for trade, before in itertools.pairwise(ordered):
        if trade.id - before.id <= LEAST_REACH:
            return trade
    return ordered[0] if ordered else None


class IdPace:
    """The peak rate of one symbol's ids, from accepted trades."""

    __slots__ = ("_count", "_since", "peak")

    def __init__(self) -> None:
        self.peak = 0  # trades per second; 0 while unknown
        self._since = float("-inf")
        self._count = 0

    def note(self, count: int, at: float) -> None:
        """Record `count` trades at `at`."""
        if at - self._since >= _PEAK_OVER_S:
            self._since, self._count = at, 0
        self._count += count
        self.peak = max(self.peak, self._count)

    def reach(self, idle_s: float) -> int:
        """How far ids may plausibly have gone in `idle_s` seconds without a trade."""
        return LEAST_REACH + int(min(PEAK_FACTOR * self.peak * max(idle_s, 0.0), _LONGEST_REACH))


class IdRun:
    """Ids near each other and far from known ones: a jump of the venue's numbering, or wrong ids."""

    __slots__ = ("consecutive", "first", "last")

    def __init__(self, id: int) -> None:
        self.first = self.last = id
        self.consecutive = 1

    def is_near(self, id: int, reach: int = LEAST_REACH) -> bool:
        """Whether an id may belong to the same numbering."""
        return self.first - reach <= id <= self.last + reach

    def add(self, id: int) -> None:
        """Add a frame. Only consecutive ids count as evidence."""
        if id == self.last + 1:
            self.consecutive += 1
        elif id > self.last:
            self.consecutive = 1
        self.first, self.last = min(self.first, id), max(self.last, id)

    @property
    def is_sequence(self) -> bool:
        """Whether enough consecutive frames arrived to rule out wrong ids."""
        return self.consecutive > FURTHER_FRAMES
