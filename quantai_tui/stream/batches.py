"""Trades for who iterates over the stream: a bounded queue in the place of a store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ..market.trades import AggTrade
from .sink import Position, RecordedGap


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """Trades of one symbol, ids ascending: as they came on the stream, or fetched to fill a gap."""

    symbol: str
    trades: Sequence[AggTrade]


@dataclass(frozen=True, slots=True)
class _Nothing:
    """The position of one who keeps nothing."""

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
    """A `TradeSink` whose trades are read by iterating over it. Appending waits while `limit` trades lie unread.

    Once it is closed nothing is kept any more: nobody would ever take it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches: deque[TradeBatch] = deque()
        self._unread = 0
        self._closed = False
        self._readable = asyncio.Event()
        self._room = asyncio.Event()

    def close(self) -> None:
        """No more will come: the iteration ends behind what lies unread, and nothing waits for room any more."""
        self._closed = True
        self._readable.set()
        self._room.set()

    async def __aiter__(self) -> AsyncIterator[TradeBatch]:
        while True:
            while not self._batches and not self._closed:
                self._readable.clear()
                await self._readable.wait()
            if not self._batches:
                return
            batch = self._batches.popleft()
            self._unread -= len(batch.trades)
            self._room.set()
            yield batch

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        if self._closed:
            return
        while self._unread >= self._limit and not self._closed:
            self._room.clear()
            await self._room.wait()
        self._batches.append(TradeBatch(symbol, trades))
        self._unread += len(trades)
        self._readable.set()

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Gaps are in the statistics; there is nothing to put on record."""

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        """See `add_gap`."""

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        """See `add_gap`."""

    async def position(self, symbol: str) -> Position:
        return _Nothing()
