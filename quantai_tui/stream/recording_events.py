"""The events of a recording, as `recording_file` packs them in blocks.

A foreign file cannot fill the memory: data that would expand many times is bounded, or stays packed. There is
no secret in an event: addresses have no user, password or query, and the proxy is left out.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from ..market.trades import AggTrade, Bar, is_number
from .transport import TlsInfo

MOST_EVENTS = 20_000  # in a block

Text = Annotated[str, msgspec.Meta(max_length=2_000)]


class Header(msgspec.Struct, frozen=True):
    """What is known when a recording begins."""

    started: float  # Unix seconds
    program: str = "quantai-tui"


class Failed(msgspec.Struct, frozen=True):
    """A classified failure; `errors`, packed, has the type, errno, TLS reason, codes and status of each exception."""

    kind: Text
    phase: Text
    message: Text
    min_wait_s: float = 0.0
    errors: msgspec.Raw = msgspec.Raw(b"\x90")


class _Event(msgspec.Struct, frozen=True, array_like=True):
    at: float


class Dialled(_Event, frozen=True, array_like=True, tag="dial"):
    """A dial begins. `config` is a packed dict. `joined`: the connection was open already when the recording began."""

    link: int
    config: msgspec.Raw
    joined: bool = False


class PhaseBegan(_Event, frozen=True, array_like=True, tag="phase"):
    link: int
    phase: Text


class Opened(_Event, frozen=True, array_like=True, tag="open"):
    link: int
    transport: Text
    tls: TlsInfo | None


class Received(_Event, frozen=True, array_like=True, tag="msg"):
    """A whole message, byte for byte, whether it can be understood or not."""

    link: int
    data: bytes


class Sent(_Event, frozen=True, array_like=True, tag="sent"):
    link: int
    data: bytes


class Pinged(_Event, frozen=True, array_like=True, tag="ping"):
    link: int
    number: int  # 1 for the connection's first


class Ponged(_Event, frozen=True, array_like=True, tag="pong"):
    link: int
    number: int
    rtt_s: float


class Ended(_Event, frozen=True, array_like=True, tag="end"):
    """A connection, or a dial, is over. Without a failure it was this program that ended it."""

    link: int
    failure: Failed | None


class Asked(_Event, frozen=True, array_like=True, tag="ask"):
    """A REST request for `what`: aggTrades (`start`: fromId) or klines of an interval."""

    request: int
    what: Text
    symbol: Text
    start: int | None
    limit: int


class Fetched(_Event, frozen=True, array_like=True, tag="trades"):
    request: int
    symbol: Text
    trades: list[AggTrade]


class FetchedBars(_Event, frozen=True, array_like=True, tag="bars"):
    request: int
    symbol: Text
    interval: Text
    bars: list[Bar]


class Refused(_Event, frozen=True, array_like=True, tag="refused"):
    request: int
    failure: Failed


class Closing(_Event, frozen=True, array_like=True, tag="closing"):
    reason: Text


Event = (
    Dialled | PhaseBegan | Opened | Received | Sent | Pinged | Ponged | Ended | Asked | Fetched | FetchedBars | Refused | Closing
)


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Some events in their order, and the two clocks when they were written."""

    at: float
    wall: float
    events: Annotated[list[Event], msgspec.Meta(max_length=MOST_EVENTS)]


_BAR_NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume")

pack = msgspec.msgpack.Encoder().encode


def has_numbers(event: Event) -> bool:
    """Whether times, prices and quantities are finite numbers: a file may be foreign, and live answers are checked elsewhere."""
    if not math.isfinite(event.at):
        return False
    if isinstance(event, Ponged):
        return math.isfinite(event.rtt_s)
    if isinstance(event, Fetched):
        return all(is_number(trade.price) and is_number(trade.quantity) for trade in event.trades)
    if isinstance(event, FetchedBars):
        return all(is_number(getattr(bar, name)) for bar in event.bars for name in _BAR_NUMBERS)
    return True
