"""The synthetic market: `SyntheticMarket` answers for any moment since its epoch, out of blocks that `tape` makes.

Random access costs the same however long the exchange has been running. Trade ids and log-prices at the edges of the blocks do
not come from adding up all blocks before: they are drawn directly (`tape.SymbolTape`), and a block is filled in between. So an
exchange that was down for a month is back in milliseconds, with the ids and the price of the month gone by.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from quantai_tui.market.trades import AggTrade, Bar

from .columns import BarColumns, Ints, fixed_point
from .markets import SyntheticSpec
from .tape import BLOCK_S, Block, SymbolTape

_KEPT_BLOCKS = 16  # full blocks, half a megabyte each; three days of one-second bars come to 17 MB a symbol
_KEPT_BAR_BLOCKS = 320

_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """The results of `make` last used, `size` of them. Threads may share one; two that miss at once make the value twice."""

    def __init__(self, make: Callable[[int], _Value], size: int) -> None:
        self._make = make
        self._size = size
        self._values: OrderedDict[int, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: int) -> _Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = self._make(key)
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value


class _Listing:
    """One symbol: the tape and what is kept of it. Block numbers count from Unix time 0, ids from the epoch's block."""

    def __init__(self, spec: SyntheticSpec, symbol: str, first_block: int) -> None:
        self.symbol = symbol
        self.first_block = first_block
        self.tape = SymbolTape(spec.seed, symbol, first_block)
        self.first_id = self.tape.first_id(first_block)
        self._blocks: _Recent[Block] = _Recent(self.tape.block, _KEPT_BLOCKS)
        self._seconds: _Recent[BarColumns] = _Recent(self._make_seconds, _KEPT_BAR_BLOCKS)

    def newest(self, now_ms: int) -> int:
        number = now_ms // 1000 // BLOCK_S
        if number < self.first_block:
            return self.first_id - 1
        block = self._blocks(number)
        return block.first_id + int(np.searchsorted(block.time_ms, now_ms, side="right")) - 1

    def id_at_or_after(self, time_ms: int) -> int:
        block = self._blocks(max(self.first_block, time_ms // 1000 // BLOCK_S))
        return block.first_id + int(np.searchsorted(block.time_ms, time_ms, side="left"))

    def time_ms(self, trade_id: int) -> int:
        block = self._blocks(self.tape.block_of(trade_id))
        return int(block.time_ms[trade_id - block.first_id])

    def trades(self, from_id: int, to_id: int) -> list[AggTrade]:
        """The trades [from_id, to_id], which must exist."""
        trades: list[AggTrade] = []
        while from_id <= to_id:
            block = self._blocks(self.tape.block_of(from_id))
            upto = min(to_id, block.first_id + len(block.time_ms) - 1)
            self._append(trades, block, from_id - block.first_id, upto + 1 - block.first_id)
            from_id = upto + 1
        return trades

    def _append(self, trades: list[AggTrade], block: Block, start: int, stop: int) -> None:
        price_decimals, quantity_decimals = self.tape.decimals
        # One more than asked for: a trade's last raw id is the one before the next trade's first.
        raw_ids = block.raw_id[start : stop + 1].tolist()
        rows = zip(
            block.price[start:stop].tolist(),
            block.quantity[start:stop].tolist(),
            block.time_ms[start:stop].tolist(),
            block.buyer_is_taker[start:stop].tolist(),
            strict=True,
        )
        for offset, (price, quantity, time_ms, buyer_is_taker) in enumerate(rows):
            trades.append(
                AggTrade(
                    id=block.first_id + start + offset,
                    price=fixed_point(price, price_decimals),
                    quantity=fixed_point(quantity, quantity_decimals),
                    first_id=raw_ids[offset],
                    last_id=raw_ids[offset + 1] - 1,
                    time=time_ms,
                    buyer_is_maker=not buyer_is_taker,
                    symbol=self.symbol,
                )
            )

    def last_price(self, number: int) -> int:
        """The last price of a block, in ticks."""
        return int(self._blocks(number).price[-1])

    def seconds(self, number: int, now_ms: int) -> BarColumns:
        """The one-second bars of a block; of one in progress, as far as `now_ms`, those to come being empty."""
        if (number + 1) * BLOCK_S * 1000 <= now_ms:
            return self._seconds(number)
        block = self._blocks(number)
        return _second_bars(number, block, int(np.searchsorted(block.time_ms, now_ms, side="right")))

    def _make_seconds(self, number: int) -> BarColumns:
        block = self._blocks(number)
        return _second_bars(number, block, len(block.time_ms))


def _second_bars(number: int, block: Block, upto: int) -> BarColumns:
    second: Ints = block.time_ms[:upto] // 1000 - number * BLOCK_S
    return BarColumns.of_trades(second, BLOCK_S, block.price[:upto], block.quantity[:upto], block.buyer_is_taker[:upto])


class SyntheticMarket:
    """A `Market` of made-up trades: a pure function of (seed, symbol, epoch, time). The model is described in `tape`."""

    mode = "demo"

    def __init__(self, spec: SyntheticSpec, epoch_s: int) -> None:
        """`epoch_s` (Unix seconds) is when the first trade happened; it is rounded down to the hour."""
        self.symbols = spec.symbols
        self.epoch_s = epoch_s - epoch_s % 3600
        self._listings = {symbol: _Listing(spec, symbol, self.epoch_s // BLOCK_S) for symbol in spec.symbols}

    def begin(self, now_s: float) -> None:
        """Nothing to start: the market has been running since its epoch."""

    def first_id(self, symbol: str) -> int:
        return self._listings[symbol].first_id

    def final_id(self, symbol: str) -> int | None:
        del symbol  # no synthetic market ends
        return None

    def last_id_at(self, symbol: str, now_s: float) -> int:
        return self._listings[symbol].newest(int(now_s * 1000))

    def next_trade_s(self, symbol: str, now_s: float) -> float | None:
        listing = self._listings[symbol]
        return listing.time_ms(listing.newest(int(now_s * 1000)) + 1) / 1000

    def trades(self, symbol: str, from_id: int, limit: int, now_s: float) -> list[AggTrade]:
        listing = self._listings[symbol]
        from_id = max(from_id, listing.first_id)
        return listing.trades(from_id, min(from_id + limit - 1, listing.newest(int(now_s * 1000))))

    def id_at_or_after(self, symbol: str, time_ms: int, now_s: float) -> int:
        listing, now_ms = self._listings[symbol], int(now_s * 1000)
        if time_ms > now_ms:
            return listing.newest(now_ms) + 1
        return listing.id_at_or_after(time_ms)

    def klines(
        self, symbol: str, interval_s: int, start_ms: int | None, end_ms: int | None, limit: int, now_s: float
    ) -> list[Bar]:
        listing, now_ms = self._listings[symbol], int(now_s * 1000)
        # Interval numbers count from Unix time 0, as the venue aligns them.
        oldest, newest = self.epoch_s // interval_s, now_ms // 1000 // interval_s
        last = newest if end_ms is None else min(newest, end_ms // 1000 // interval_s)
        first = last - limit + 1 if start_ms is None else -(-start_ms // (interval_s * 1000))
        first = max(first, oldest)
        last = min(last, first + limit - 1)
        if last < first:
            return []
        # Whole blocks, and whole bars: whichever is longer. The one before lends its last close to empty first bars.
        unit = max(interval_s, BLOCK_S)
        open_s = first * interval_s // unit * unit
        stop_s = -(-(last + 1) * interval_s // unit) * unit
        numbers = range(open_s // BLOCK_S, stop_s // BLOCK_S)
        seconds = BarColumns.join([listing.seconds(number, now_ms) for number in numbers])
        columns = seconds.rolled_up(interval_s)
        before = listing.last_price(numbers[0] - 1) if open_s > self.epoch_s else None
        bars = columns.to_bars(open_s, interval_s, listing.tape.decimals, before, skip=first - open_s // interval_s)
        return bars[: last - first + 1]

    def decimals(self, symbol: str) -> tuple[int, int]:
        return self._listings[symbol].tape.decimals
