"""Trades into bars, seconds into longer bars; exact, in plain Python.

A `Candle` is a sum over a set of trades: two candles of the same interval over different trades merge into the candle of both,
in whatever order they come, because each remembers the lowest id (whose price is the open) and the highest (the close), and
because volumes are added in decimal without rounding. So bars that grow batch by batch, with repairs landing in the past, are
the same to the last digit as bars computed straight from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from decimal import Context, Decimal, FloatOperation, Inexact, InvalidOperation, localcontext

from .trades import FIRST_MICROSECOND_STAMP, INTERVALS, AggTrade, Bar

US_PER_S = 1_000_000
LADDER = tuple(INTERVALS.values())

# Sums never round: with Inexact trapped, running out of digits is an error instead of a wrong last place. A thousand digits hold
# the sum of the largest and the smallest number that is let through (`LONGEST_NUMBER`); only the digits in use cost time.
_EXACT = Context(prec=1000, traps=[Inexact, InvalidOperation, FloatOperation])
_ZERO = Decimal(0)


class Candle:
    """The exact aggregate of some trades of one interval; `first_id` and `last_id` are the lowest and highest aggregate ids."""

    __slots__ = (
        "buy_volume",
        "close",
        "first_id",
        "high",
        "last_id",
        "low",
        "open",
        "open_time_us",
        "quote_volume",
        "trades",
        "volume",
    )

    def __init__(
        self,
        open_time_us: int,
        first_id: int,
        last_id: int,
        open: str,
        high: str,
        low: str,
        close: str,
        volume: Decimal,
        quote_volume: Decimal,
        buy_volume: Decimal,
        trades: int,
    ) -> None:
        self.open_time_us = open_time_us
        self.first_id = first_id
        self.last_id = last_id
        self.open = open
        self.high = high
        self.low = low
        self.close = close
        self.volume = volume
        self.quote_volume = quote_volume
        self.buy_volume = buy_volume
        self.trades = trades

    def moved_to(self, open_time_us: int) -> Candle:
        """A copy that opens at another time: the seed of a longer candle."""
        return Candle(
            open_time_us,
            self.first_id,
            self.last_id,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.buy_volume,
            self.trades,
        )

    def absorb(self, other: Candle) -> None:
        """Merge in a candle over other trades of the same interval. Call it inside `exact()`."""
        if other.first_id < self.first_id:
            self.first_id = other.first_id
            self.open = other.open
        if other.last_id > self.last_id:
            self.last_id = other.last_id
            self.close = other.close
        if Decimal(other.high) > Decimal(self.high):
            self.high = other.high
        if Decimal(other.low) < Decimal(self.low):
            self.low = other.low
        self.volume += other.volume
        self.quote_volume += other.quote_volume
        self.buy_volume += other.buy_volume
        self.trades += other.trades

    def bar(self, interval_s: int) -> Bar:
        return Bar(
            self.open_time_us,
            interval_s,
            self.open,
            self.high,
            self.low,
            self.close,
            decimal_text(self.volume),
            decimal_text(self.quote_volume),
            decimal_text(self.buy_volume),
            self.trades,
        )


def exact() -> AbstractContextManager[Context]:
    """The decimal context in which candles are folded and merged: nothing is rounded, ever."""
    return localcontext(_EXACT)


def decimal_text(number: Decimal) -> str:
    """Plain digits, never an exponent."""
    return format(number, "f")


def fold(trades: Sequence[AggTrade]) -> list[Candle]:
    """The one-second candles of a batch, in order of time. `trades` must be in order of id and free of repetitions.

    Trades with zero quantity are passed over: the venue fills some ids of its past with placeholders (price and quantity 0,
    first and last id -1), which keep the numbering whole and are no trades.
    """
    candles: dict[int, Candle] = {}
    candle: Candle | None = None
    second_starts = second_ends = 0  # in us, the present second
    price_text, price = "", _ZERO
    with exact():
        for trade in trades:
            quantity = Decimal(trade.quantity)
            if not quantity:
                continue
            if trade.price != price_text:
                price_text = trade.price
                price = Decimal(price_text)
            time_us = trade.time
            if time_us < FIRST_MICROSECOND_STAMP:
                time_us *= 1000
            if candle is None or not second_starts <= time_us < second_ends:
                second_starts = time_us - time_us % US_PER_S
                second_ends = second_starts + US_PER_S
                candle = candles.get(second_starts)
                if candle is None:
                    candle = candles[second_starts] = Candle(
                        second_starts, trade.id, trade.id, price_text, price_text, price_text, price_text, _ZERO, _ZERO, _ZERO, 0
                    )
                high, low = Decimal(candle.high), Decimal(candle.low)
            if price > high:
                high = price
                candle.high = price_text
            elif price < low:
                low = price
                candle.low = price_text
            candle.last_id = trade.id
            candle.close = price_text
            candle.volume += quantity
            candle.quote_volume += price * quantity
            if not trade.buyer_is_maker:
                candle.buy_volume += quantity
            candle.trades += 1
    return [candles[time_us] for time_us in sorted(candles)]


def roll_up(candles: Iterable[Candle], interval_s: int) -> list[Candle]:
    """Longer candles from shorter ones; both lists in order of time."""
    width_us = interval_s * US_PER_S
    longer: list[Candle] = []
    with exact():
        for candle in candles:
            open_time_us = candle.open_time_us - candle.open_time_us % width_us
            if longer and longer[-1].open_time_us == open_time_us:
                longer[-1].absorb(candle)
            else:
                longer.append(candle.moved_to(open_time_us))
    return longer


def ladder(trades: Sequence[AggTrade]) -> dict[int, list[Candle]]:
    """The candles of every interval (seconds as key), each rolled up from the one before."""
    candles = fold(trades)
    rungs = {LADDER[0]: candles}
    for interval_s in LADDER[1:]:
        candles = roll_up(candles, interval_s)
        rungs[interval_s] = candles
    return rungs


def bars_of(trades: Iterable[AggTrade], interval_s: int) -> list[Bar]:
    """The bars of some trades of one symbol, in order of time, only those that have a trade. Trades may come in any order."""
    if interval_s not in LADDER:
        raise ValueError(f"no bars of {interval_s} s: choose one of {', '.join(map(str, LADDER))}")
    unique = {trade.id: trade for trade in trades}
    return [candle.bar(interval_s) for candle in ladder([unique[id] for id in sorted(unique)])[interval_s]]


def quiet_bar(open_time_us: int, interval_s: int, close: str) -> Bar:
    """The bar of an interval without trades: it carries the last close."""
    return Bar(open_time_us, interval_s, close, close, close, close, "0", "0", "0", 0)
