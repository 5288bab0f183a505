"""Bounded queue behind `async for batch in stream`; it takes the place of a store."""

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
    """A `TradeSink` read by iterating over it, in the order of `order`, or without one as trades arrive.

    Writing waits while there is something to read and the queue has `limit` trades, including those that wait behind a gap. While
    nothing is readable, it does not wait, because the next write may make trades readable.
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
        self._writers = 0  # waiting for room
        self._full_since = self._was_full_s = 0.0

    @property
    def held(self) -> int:
        """Trades that wait behind a gap."""
        return self._order.held if self._order else 0

    def held_of(self, symbol: str) -> int:
        return self._order.held_of(symbol) if self._order else 0

    def finish(self) -> None:
        """Stop waiting for room, so that everything received is in the queue before it ends."""
        self._finishing = True
        self._room.set()

    def close(self) -> None:
        """End the iteration after the queued trades, and drop later writes."""
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
            self._readable.set()  # even if all of it waits: there is now a deadline

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Only history before the first trade matters here: the ids of trades show all other gaps."""
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
        """Monotonic seconds, minus the time that writing waited for the reader: trades that fill a gap may have waited too."""
        now = self._clock.monotonic()
        return now - self._was_full_s - (now - self._full_since if self._writers else 0.0)

    def _put(self, batches: Iterable[TradeBatch]) -> None:
        for batch in batches:
            self._batches.append(batch)
            self._unread += _weight(batch)
            self._readable.set()


def _weight(batch: TradeBatch) -> int:
    return len(batch.trades) or 1
