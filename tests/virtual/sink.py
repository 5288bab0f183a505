"""A store in memory that believes nothing: it checks order, duplicates and gaps as the trades come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quantai_tui.market.idranges import IdRanges
from quantai_tui.market.schema import Gap, LedgerPosition
from quantai_tui.market.trades import AggTrade


class SymbolRecord:
    """One symbol: its trades by id, its open gaps, and the ids that were settled as lost, by outcome."""

    def __init__(self) -> None:
        self.trades: dict[int, AggTrade] = {}
        self.begin_id: int | None = None
        self.last_id: int | None = None
        self.open = IdRanges()
        self.filled_to = 0
        self.causes: list[str] = []
        self.lost: dict[str, set[int]] = {"venue_hole": set(), "unrecoverable": set()}


class CheckingSink:
    """Every breach of what a stream promises its store is a line in `breaches`; the stream sees nothing of it.

    A trade comes once. It is the next one, or fills a gap that is on record: what is left out is put on record before anything
    behind it comes.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.records = {symbol: SymbolRecord() for symbol in symbols}
        self.breaches: list[str] = []
        self.backwards = 0  # trades that filled a gap, and came after a higher one of the same gap
        self._free = asyncio.Event()
        self._free.set()

    def hold(self) -> None:
        """Take nothing more until `release`."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        await self._free.wait()
        record = self.records[symbol]
        for trade in trades:
            if trade.symbol != symbol:
                self._breach(f"a trade of {trade.symbol} among those of {symbol}")
            if trade.id in record.trades:
                self._breach(f"{symbol} {trade.id} came twice")
            if record.last_id is None or trade.id > record.last_id:
                self._extend(symbol, record, trade.id)
            elif not any(trade.id in lost for lost in record.lost.values()) and not record.open.overlap(trade.id, trade.id):
                self._breach(f"{symbol} {trade.id} came after {record.last_id}, and no gap is on record")
            else:
                self.backwards += trade.id + 1 in record.trades and trade.id < record.filled_to
                record.filled_to = trade.id
            record.trades[trade.id] = trade

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        self.records[symbol].open.add(first_id, last_id)
        self.records[symbol].causes.append(cause)

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        record = self.records[symbol]
        record.open.remove(first_id, last_id)
        ids = set(range(first_id, last_id + 1))
        for lost in record.lost.values():
            lost.difference_update(ids)
        if outcome in record.lost:
            record.lost[outcome] |= ids
        elif missing := ids - record.trades.keys():
            self._breach(f"{symbol}: {sorted(missing)[:3]} were told to be repaired, and are not here")

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        record = self.records[symbol]
        record.begin_id = first_id if record.begin_id is None else min(first_id, record.begin_id)

    async def position(self, symbol: str) -> LedgerPosition:
        record = self.records[symbol]
        if record.begin_id is None:
            return LedgerPosition()
        gaps = tuple(Gap(first, last, "an earlier run", 0.0) for first, last in record.open)
        through = record.last_id if record.open.first is None else record.open.first - 1
        return LedgerPosition(record.begin_id, record.last_id, through, len(record.trades), gaps, tuple(record.open))

    def _extend(self, symbol: str, record: SymbolRecord, id: int) -> None:
        expected = record.begin_id if record.last_id is None else record.last_id + 1
        if expected is not None and id > expected and record.open.overlap(expected, id - 1) != [(expected, id - 1)]:
            self._breach(f"{symbol}: {expected}-{id - 1} were left out without a word")
        record.last_id = id

    def _breach(self, what: str) -> None:
        if len(self.breaches) < 20:
            self.breaches.append(what)
