"""The age of a gap's trades, found over REST. One wrong time does not change the age of other trades."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..market.trades import AggTrade
from .ledger import Span

Ask = Callable[[int, int], Awaitable[Sequence[AggTrade]]]  # from this id on, at most this many rows

WITNESSES = 3  # trades whose times decide the time of the first one


def time_of(rows: Sequence[AggTrade]) -> int:
    """The time of the first trade in microseconds: the latest of the first three."""
    return max(row.time_us for row in rows[:WITNESSES])


async def first_since(ask: Ask, gap: Span, cutoff_us: int) -> int:
    """The lowest id in `gap` whose trade is not older than the cutoff, by bisection; the id after the gap if all are.

    Raises what `ask` raises.
    """
    old, young = gap[0], gap[1] + 1
    before = gap[0]  # the highest id found old before `old`
    while True:
        while young - old > 1:
            found = await _old_from(ask, (old + young) // 2, young, cutoff_us)
            if found is None:
                young = (old + young) // 2
            else:
                before, old = old, found
        # One wrong time must not make all earlier trades old: the previous trade must be old too.
        if old - before <= 1 or await _old_from(ask, old - 1, old, cutoff_us) is not None:
            return young
        old, young = before, old
        before = gap[0]


async def _old_from(ask: Ask, id: int, below: int, cutoff_us: int) -> int | None:
    """The lowest id from `id` on, if it is below `below` and its trade is older than the cutoff."""
    found = await ask(id, 1)
    return found[0].id if found and found[0].id < below and found[0].time_us < cutoff_us else None
