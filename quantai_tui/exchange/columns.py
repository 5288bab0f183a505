"""Trades and bars as arrays of integers: exact like decimal text, and fast enough to answer for days of trading at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantai_tui.market.trades import Bar

Ints = NDArray[np.int64]

_VENUE_DECIMALS = 8  # every price and quantity of Binance's spot market is printed with eight decimals


def fixed_point(value: int, decimals: int) -> str:
    """`value` units of 10^-decimals as Binance prints it: `245612` with 2 is `2456.12000000`. More than 8 are rounded half up."""
    if decimals > _VENUE_DECIMALS:
        unit = 10 ** (decimals - _VENUE_DECIMALS)
        value = (value + unit // 2) // unit
    else:
        value *= 10 ** (_VENUE_DECIMALS - decimals)
    return f"{value // 100_000_000}.{value % 100_000_000:08d}"


@dataclass(frozen=True, slots=True)
class BarColumns:
    """Consecutive bars of one length; arrays of shape (bars,).

    Prices are in ticks, volumes in quantity steps, `quote` in ticks times steps. The prices of a bar without trades mean nothing
    until `to_bars` carries the last close into them.
    """

    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote: Ints
    buy_volume: Ints
    trades: Ints

    @staticmethod
    def of_trades(slot: Ints, slots: int, price: Ints, quantity: Ints, buyer_is_taker: NDArray[np.bool_]) -> BarColumns:
        """Bars 0 to `slots - 1` of trades whose bar numbers `slot` do not fall. All arrays have the shape (trades,)."""
        edges = np.searchsorted(slot, np.arange(slots + 1))
        counts = np.diff(edges)
        filled = np.flatnonzero(counts)
        starts = edges[filled]
        if len(filled) == 0:
            return BarColumns(*(np.zeros(slots, dtype=np.int64) for _ in range(8)))
        last = int(edges[-1])
        price, quantity, buyer_is_taker = price[:last], quantity[:last], buyer_is_taker[:last]

        def spread(values: Ints) -> Ints:
            column = np.zeros(slots, dtype=values.dtype)
            column[filled] = values
            return column

        return BarColumns(
            open=spread(price[starts]),
            high=spread(np.maximum.reduceat(price, starts)),
            low=spread(np.minimum.reduceat(price, starts)),
            close=spread(price[edges[filled + 1] - 1]),
            volume=spread(np.add.reduceat(quantity, starts)),
            quote=spread(np.add.reduceat(price * quantity, starts)),
            buy_volume=spread(np.add.reduceat(quantity * buyer_is_taker, starts)),
            trades=counts.astype(np.int64),
        )

    @staticmethod
    def join(parts: list[BarColumns]) -> BarColumns:
        """Bars of one length, one after the other."""
        return BarColumns(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))

    def rolled_up(self, factor: int) -> BarColumns:
        """Bars `factor` times as long; the number of bars must be a multiple of it. Bars without trades do not count."""
        if factor == 1:
            return self
        shape = (-1, factor)
        counts = self.trades.reshape(shape)
        traded = counts > 0
        rows = np.arange(len(counts))
        first, last = np.argmax(traded, axis=1), factor - 1 - np.argmax(traded[:, ::-1], axis=1)
        lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        return BarColumns(
            open=self.open.reshape(shape)[rows, first],
            high=np.where(traded, self.high.reshape(shape), lowest).max(axis=1),
            low=np.where(traded, self.low.reshape(shape), highest).min(axis=1),
            close=self.close.reshape(shape)[rows, last],
            volume=self.volume.reshape(shape).sum(axis=1),
            quote=self.quote.reshape(shape).sum(axis=1),
            buy_volume=self.buy_volume.reshape(shape).sum(axis=1),
            trades=counts.sum(axis=1),
        )

    def to_bars(
        self, open_s: int, interval_s: int, decimals: tuple[int, int], last_close: int | None, skip: int = 0
    ) -> list[Bar]:
        """The bars as text, the first opening at Unix second `open_s`; the first `skip` are left out.

        `last_close` (ticks) is what came before the first bar; bars before the first trade of all are left out.
        """
        price_decimals, quantity_decimals = decimals
        columns = [getattr(self, name).tolist() for name in _COLUMNS]
        bars = []
        for number, (opened, high, low, close, volume, quote, bought, trades) in enumerate(zip(*columns, strict=True)):
            if trades:
                last_close = close
            elif last_close is None:
                continue
            else:
                opened = high = low = close = last_close  # noqa: PLW2901 - the carried close stands in for all four
            if number < skip:
                continue
            bars.append(
                Bar(
                    open_time_us=(open_s + number * interval_s) * 1_000_000,
                    interval_s=interval_s,
                    open=fixed_point(opened, price_decimals),
                    high=fixed_point(high, price_decimals),
                    low=fixed_point(low, price_decimals),
                    close=fixed_point(close, price_decimals),
                    volume=fixed_point(volume, quantity_decimals),
                    quote_volume=fixed_point(quote, price_decimals + quantity_decimals),
                    buy_volume=fixed_point(bought, quantity_decimals),
                    trades=trades,
                )
            )
        return bars


_COLUMNS = ("open", "high", "low", "close", "volume", "quote", "buy_volume", "trades")
