"""How old the trades of a gap are, found out over REST. One trade with a wrong time makes no others old or young."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..market.trades import AggTrade
from .ledger import Span

Ask = Callable[[int, int], Awaitable[Sequence[AggTrade]]]  # from an id on, at most so many rows

_WITNESSES = 3  # trades that are looked at to learn when the first of them was


def time_of(rows: Sequence[AggTrade]) -> int:
    """When the first of some trades was, in microseconds, by the latest of the first three."""
    return max(row.time_us for row in rows[:_WITNESSES])


async def first_since(ask: Ask, gap: Span, cutoff_us: int) -> int:
    """The lowest id in `gap` whose trade is not older than the cutoff, by bisection; the id after the gap if all are.

    Raises what `ask` raises.
    """
    old, young = gap[0], gap[1] + 1
    before = gap[0]  # the highest id that was found old before `old` was
    while True:
        while young - old > 1:
            found = await _old_from(ask, (old + young) // 2, young, cutoff_us)
            if found is None:
                young = (old + young) // 2
            else:
                before, old = old, found
        # One trade with a wrong time must not make all before it old: the one before it says so too, or it is not believed.
        if old - before <= 1 or await _old_from(ask, old - 1, old, cutoff_us) is not None:
            return young
        old, young = before, old
        before = gap[0]


async def _old_from(ask: Ask, id: int, below: int, cutoff_us: int) -> int | None:
    """The lowest id from `id` on, if it lies below the other one and its trade is older than the cutoff."""
    found = await ask(id, 1)
    return found[0].id if found and found[0].id < below and found[0].time_us < cutoff_us else None
