"""Trades with the same id but different content: the program cannot tell which is right, so it shows both."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from .trades import AggTrade


class Conflict(msgspec.Struct, frozen=True):
    """Two trades with one id: the first is kept, the other was not stored."""

    kept: AggTrade
    dropped: AggTrade

    @property
    def text(self) -> str:
        """The id and the differing fields: kept, then dropped."""
        ours, theirs = _content(self.kept), _content(self.dropped)
        parts = [
            f"{words} {getattr(self.kept, field)} / {getattr(self.dropped, field)}"
            for at, (field, words) in enumerate(_FIELDS.items())
            if ours[at] != theirs[at]
        ]
        return f"{self.kept.symbol or self.dropped.symbol} {self.kept.id}: kept / dropped: {', '.join(parts)}"


_FIELDS = {
    "price": "price",
    "quantity": "quantity",
    "first_id": "first trade",
    "last_id": "last trade",
    "time_us": "time in us",
    "buyer_is_maker": "buyer is maker",
}


def conflicts_between(stored: Mapping[int, AggTrade], again: Iterable[AggTrade]) -> list[Conflict]:
    """The trades of `again` that differ from the stored trade with the same id.

    Numbers are compared by value and times in milliseconds: archives write fewer zeros, and some use microseconds.
    """
    return [
        Conflict(kept, trade)
        for trade in again
        if (kept := stored.get(trade.id)) is not None and _content(kept) != _content(trade)
    ]


def _content(trade: AggTrade) -> tuple[Decimal, Decimal, int, int, int, bool]:
    return (
        Decimal(trade.price),
        Decimal(trade.quantity),
        trade.first_id,
        trade.last_id,
        trade.time_us // 1000,
        trade.buyer_is_maker,
    )


class RecentTrades:
    """The last trades of all symbols together, for a stream whose sink cannot be read back."""

    def __init__(self, most: int = 20_000) -> None:
        self._most = most
        self._batches: deque[tuple[str, Sequence[AggTrade]]] = deque()
        self._count = 0

    def add(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        """Remember a batch, which must not change afterwards, and drop the oldest batches."""
        self._batches.append((symbol, trades))
        self._count += len(trades)
        while self._count > self._most and len(self._batches) > 1:
            self._count -= len(self._batches.popleft()[1])

    async def find_conflicts(self, symbol: str, trades: Sequence[AggTrade]) -> Sequence[Conflict]:
        """Like `TradeStore.find_conflicts`, for the remembered trades."""
        wanted = {trade.id for trade in trades}
        stored: dict[int, AggTrade] = {}
        for of, batch in self._batches:
            if of == symbol:
                stored |= {trade.id: trade for trade in batch if trade.id in wanted}
        return conflicts_between(stored, trades)
