"""Iterates over a stream and checks the order of its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quantai_tui.market.idranges import IdRanges
from quantai_tui.stream import ResilientStream, TradeBatch


class SymbolReading:
    """Batches of one symbol: `trades` by arrival, and skipped ids that have not arrived since."""

    def __init__(self) -> None:
        self.begin_id: int | None = None
        self.next_id: int | None = None
        self.trades: list[int] = []
        self.gaps: list[tuple[int, int]] = []
        self.late: list[int] = []
        self.passed = IdRanges()


class CheckingReader:
    """Reads until the stream ends. Every violation of `StreamConfig.order` "id" is a line in `breaches`.

    Each id of a symbol is yielded, or announced as part of a gap, exactly once and in order; a trade that arrives later is
    marked late and yielded once. `pause` is awaited after each batch, for a slow reader.
    """

    def __init__(self, pause: Callable[[], float] = lambda: 0.0) -> None:
        self.symbols: dict[str, SymbolReading] = {}
        self.breaches: list[str] = []
        self._pause = pause

    async def read(self, stream: ResilientStream) -> None:
        async for batch in stream:
            self.note(batch)
            if pause := self._pause():
                await asyncio.sleep(pause)

    def of(self, symbol: str) -> SymbolReading:
        return self.symbols.setdefault(symbol, SymbolReading())

    def note(self, batch: TradeBatch) -> None:
        known = self.of(batch.symbol)
        if bool(batch.trades) == (batch.gap is not None):
            self._breach(f"{batch.symbol}: neither trades nor a gap, or both: {batch.gap}")
        elif batch.late:
            self._note_late(known, batch)
        elif batch.gap is not None:
            known.gaps.append(batch.gap)
            known.passed.add(*batch.gap)
            self._step(known, batch.symbol, *batch.gap)
        else:
            for trade in batch.trades:
                self._step(known, batch.symbol, trade.id, trade.id)
                known.trades.append(trade.id)

    def _note_late(self, known: SymbolReading, batch: TradeBatch) -> None:
        for trade in batch.trades:
            if not known.passed.overlap(trade.id, trade.id):
                self._breach(f"{batch.symbol} {trade.id} is late, but was not skipped")
            known.passed.remove(trade.id, trade.id)
            known.late.append(trade.id)

    def _step(self, known: SymbolReading, symbol: str, first: int, last: int) -> None:
        if known.next_id is None:
            known.begin_id = known.next_id = first
        if first != known.next_id or last < first:
            self._breach(f"{symbol}: {first}-{last} came where {known.next_id} was next")
        known.next_id = last + 1

    def _breach(self, what: str) -> None:
        if len(self.breaches) < 20:
            self.breaches.append(what)
