"""Trades and bars: the two kinds of fact that the whole program is about."""

from __future__ import annotations

import msgspec

# Timestamps from this value on are microseconds: as milliseconds it would be the year 5138, as microseconds it is 1973.
# Binance's spot archives changed from ms to us on 2025-01-01, and `timeUnit=MICROSECOND` does so on a stream.
FIRST_MICROSECOND_STAMP = 100_000_000_000_000


def to_us(stamp: int) -> int:
    """A Binance timestamp in microseconds, whether it came in milliseconds or microseconds."""
    return stamp if stamp >= FIRST_MICROSECOND_STAMP else stamp * 1000


class AggTrade(msgspec.Struct, frozen=True, gc=False):
    """One aggregate trade, field by field as Binance's `aggTrade` event and REST `aggTrades` row spell it.

    Price and quantity stay the text that was received, so that nothing is lost to binary floating point. `time` is in the unit
    of its source (ms, or us); use `time_us`. REST rows carry no symbol: it is filled in by the caller.
    """

    id: int = msgspec.field(name="a")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    first_id: int = msgspec.field(name="f")
    last_id: int = msgspec.field(name="l")
    time: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")
    symbol: str = msgspec.field(name="s", default="")

    @property
    def time_us(self) -> int:
        return to_us(self.time)


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One candle of `interval_s` seconds from `open_time_us` on (UTC, aligned to the interval).

    Prices and volumes are decimal text. `buy_volume` is the part whose taker bought. `from_trades` is False for a kline fetched
    from the venue. An interval without trades carries the last close, with zero volume and zero trades.
    """

    open_time_us: int
    interval_s: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    buy_volume: str
    trades: int
    from_trades: bool = True


# Names as Binance spells them; each divides the next, so that longer bars are rolled up from shorter ones.
INTERVALS: dict[str, int] = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600}
