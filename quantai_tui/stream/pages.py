"""Prefetches the pages of a long gap while one page is being stored, and returns them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ..market.trades import AggTrade
from .ledger import Span
from .rest import PAGE
from .tasks import settle

Rows = Sequence[AggTrade]


@dataclass(slots=True)
class Room:
    """How many more pages may be prefetched, for all symbols together."""

    free: int


class PagesAhead:
    """Requests the pages of one symbol's gaps.

    Prefetching starts after the first complete page: the venue may no longer have the beginning of a gap.
    """

    def __init__(self, ask: Callable[[int, int], Coroutine[Any, Any, Rows]], room: Room) -> None:
        self._ask = ask  # from this id on, at most this many rows
        self._room = room
        self._ahead: dict[Span, asyncio.Task[Rows]] = {}
        self._whole_to: int | None = None  # the last id of the previous page, if that was complete

    async def first_of(self, gap: Span) -> tuple[Span, Rows]:
        """The ids of the first page of `gap` and the venue's answer. Raises what the request raises."""
        if self._whole_to == gap[0] - 1 and self._ahead.keys() <= set(_pages(gap, len(self._ahead))):
            self._ask_ahead(gap)
        else:
            await self.drop()
        (span,) = _pages(gap, 1)
        task = self._ahead.pop(span, None)
        if task is None:
            rows = await self._ask(span[0], _length(span))
        else:
            self._room.free += 1
            rows = await task
        whole = len(rows) == _length(span) and rows[-1].id == span[1]
        self._whole_to = span[1] if whole else None
        return span, rows

    async def drop(self) -> None:
        """Cancel prefetched pages."""
        self._whole_to = None
        while self._ahead:
            _, task = self._ahead.popitem()
            self._room.free += 1
            await settle(task)

    def _ask_ahead(self, gap: Span) -> None:
        for span in _pages(gap, len(self._ahead) + self._room.free):
            if span not in self._ahead:
                self._room.free -= 1
                self._ahead[span] = asyncio.create_task(self._ask(span[0], _length(span)), name="page of a gap")


def _pages(gap: Span, most: int) -> list[Span]:
    """The first pages of a gap, at most `most`."""
    return [(first, min(gap[1], first + PAGE - 1)) for first in range(gap[0], gap[1] + 1, PAGE)[:most]]


def _length(span: Span) -> int:
    return span[1] - span[0] + 1
