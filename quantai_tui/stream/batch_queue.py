"""Bounded queue behind `async for batch in stream`: it stands where a store would."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .batches import IdOrder, TradeBatch
from .ledger import Outcome
from .sink import Position, RecordedGap
from .tasks import until_first_ends


@dataclass(frozen=True, slots=True)
class _Nothing:
    """The position of a sink that keeps nothing."""

    begin_id: int | None = None
    last_id: int | None = None
    complete_through_id: int | None = None
    stored: int = 0
    gaps: Sequence[RecordedGap] = ()
    missing: tuple[tuple[int, int], ...] = ()
    venue_holes: int = 0
    unrecoverable: int = 0
    settled: Sequence[tuple[int, int, str]] = ()
    last_time_us: int | None = None


class BatchQueue:
    """A `TradeSink` whose trades are read by iterating over it, in the order that `order` makes; without, as they arrive.

    Writing waits while there is something to read and `limit` trades are in here, those that wait behind a hole included. While
    nothing can be read it does not wait: what would make it readable comes by the same way.
    """

    def __init__(self, limit: int, order: IdOrder | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._limit = limit
        self._order = order
        self._clock = clock
        self._batches: deque[TradeBatch] = deque()
        self._unread = 0  # trades, and one for each gap
        self._finishing = self._closed = False
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._writers = 0  # that wait for room
        self._full_since = self._was_full_s = 0.0

    @property
    def held(self) -> int:
        """Trades that wait behind a hole."""
        return self._order.held if self._order else 0

    def held_of(self, symbol: str) -> int:
        return self._order.held_of(symbol) if self._order else 0

    def finish(self) -> None:
        """The end is near: nothing waits for room any more, so that what was received is all in here by then."""
        self._finishing = True
        self._room.set()

    def close(self) -> None:
        """No more will come: the iteration ends behind what is in here, and nothing is kept any more."""
        self.finish()
        self._closed = True
        self._readable.set()

    async def __aiter__(self) -> AsyncIterator[TradeBatch]:
        while (batch := await self._next()) is not None:
            yield batch

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        if self._closed:
            return
        await self._until_room()
        if self._order is None:
            self._put([TradeBatch(symbol, trades)])
        else:
            self._put(self._order.take(symbol, trades, self._now()))
            self._readable.set()  # also when all of it waits: then there is a deadline to be seen

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Trades show their gaps themselves. Only history that lies before the first of them does not."""
        if self._order is not None:
            self._order.await_history(symbol, last_id)

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        if self._order is not None and outcome != Outcome.REPAIRED and not self._closed:
            await self._until_room()
            self._put(self._order.give_up(symbol, first_id, last_id))

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        if self._order is not None:
            self._put(self._order.begin(symbol, first_id))

    async def position(self, symbol: str) -> Position:
        return _Nothing()

    async def _next(self) -> TradeBatch | None:
        while True:
            if self._order is not None and not self._writers:
                self._put(self._order.flush() if self._closed else self._order.expire(self._now()))
            if self._batches:
                break
            if self._closed and not self._writers:
                return None
            self._readable.clear()
            await self._until_readable()
        batch = self._batches.popleft()
        self._unread -= _weight(batch)
        self._room.set()
        return batch

    async def _until_readable(self) -> None:
        deadline = self._order.deadline if self._order is not None else None
        if deadline is None:
            await self._readable.wait()
        else:
            await until_first_ends(self._readable.wait(), self._clock.sleep(max(0.0, deadline - self._now())))

    async def _until_room(self) -> None:
        if not self._is_full():
            return
        if not self._writers:
            self._full_since = self._clock.monotonic()
        self._writers += 1
        try:
            while self._is_full():
                self._room.clear()
                await self._room.wait()
        finally:
            self._writers -= 1
            if not self._writers:
                self._was_full_s += self._clock.monotonic() - self._full_since
                self._readable.set()

    def _is_full(self) -> bool:
        return bool(self._batches) and self._unread + self.held >= self._limit and not self._finishing

    def _now(self) -> float:
        """Monotonic seconds without those in which writing waited for the reader: what fills a hole may have waited too."""
        now = self._clock.monotonic()
        return now - self._was_full_s - (now - self._full_since if self._writers else 0.0)

    def _put(self, batches: Iterable[TradeBatch]) -> None:
        for batch in batches:
            self._batches.append(batch)
            self._unread += _weight(batch)
            self._readable.set()


def _weight(batch: TradeBatch) -> int:
    return len(batch.trades) or 1
