"""Trades and bars: the two kinds of fact that the whole program is about."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

# Ids and times are whole numbers that JSON can carry exactly (RFC 8259, section 6) and that SQLite can store.
FIRST_UNSAFE_INTEGER = 2**53
# Binance's numbers have at most 8 decimals and fewer than 20 digits before them. A bound keeps every sum of prices and quantities
# within the digits that bars are added up in, and a number with an exponent has as many digits as it likes.
LONGEST_NUMBER = 40

WholeNumber = Annotated[int, msgspec.Meta(ge=0, lt=FIRST_UNSAFE_INTEGER)]
# Binance fills some ids of its past with placeholders whose first and last id are -1.
TradeId = Annotated[int, msgspec.Meta(ge=-1, lt=FIRST_UNSAFE_INTEGER)]
NumberText = Annotated[str, msgspec.Meta(max_length=LONGEST_NUMBER)]

# Syntax of prices and quantities: ASCII digits, optionally a point between digits. `float`, `int` and `Decimal` accept more as
# a number: signs, exponents, spaces, underscores, digits of other scripts, "inf".
_NUMBER = re.compile(r"[0-9]++(?:\.[0-9]++)?")
_LONGEST_WHOLE = len(str(FIRST_UNSAFE_INTEGER))

# Timestamps from this value on are microseconds: as milliseconds it would be the year 5138, as microseconds it is 1973.
# Binance's spot archives changed from ms to us on 2025-01-01, and `timeUnit=MICROSECOND` does so on a stream.
FIRST_MICROSECOND_STAMP = 100_000_000_000_000


def to_us(stamp: int) -> int:
    """A Binance timestamp in microseconds, whether it came in milliseconds or microseconds."""
    return stamp if stamp >= FIRST_MICROSECOND_STAMP else stamp * 1000


def is_number(text: str) -> bool:
    """Whether `text` is a number of zero or more in plain ASCII digits, of at most `LONGEST_NUMBER` characters."""
    return len(text) <= LONGEST_NUMBER and _NUMBER.fullmatch(text) is not None


def whole_number(text: str) -> int:
    """Parse an id or a time. Raises ValueError unless it is plain ASCII digits within `WholeNumber`."""
    if text.isascii() and text.isdigit() and len(text) <= _LONGEST_WHOLE and (number := int(text)) < FIRST_UNSAFE_INTEGER:
        return number
    raise ValueError(f"{text[:_LONGEST_WHOLE]!r} is not a whole number in plain digits below 2^53")


def trade_id(text: str) -> int:
    """Parse the id of a single trade: a whole number, or -1 for a placeholder. Raises ValueError."""
    return -1 if text == "-1" else whole_number(text)


class AggTrade(msgspec.Struct, frozen=True, gc=False):
    """One aggregate trade, field by field as Binance's `aggTrade` event and REST `aggTrades` row spell it.

    Price and quantity stay the text that was received, so that nothing is lost to binary floating point. `time` is in the unit
    of its source (ms, or us); use `time_us`. REST rows carry no symbol: it is filled in by the caller.
    Decoding checks the bounds that the types name; making one does not.
    """

    id: WholeNumber = msgspec.field(name="a")
    price: NumberText = msgspec.field(name="p")
    quantity: NumberText = msgspec.field(name="q")
    first_id: TradeId = msgspec.field(name="f")
    last_id: TradeId = msgspec.field(name="l")
    time: WholeNumber = msgspec.field(name="T")
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
