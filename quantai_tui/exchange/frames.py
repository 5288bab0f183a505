"""The exchange's frames as bytes: unmasked, as servers send them (RFC 6455, 5.2)."""

from __future__ import annotations

from typing import NamedTuple

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame

TEXT = 0x81
BINARY = 0x82
PONG = 0x8A


class Form(NamedTuple):
    """How a connection wants its events: in the combined form or bare, with times in microseconds or milliseconds."""

    combined: bool
    microseconds: bool


def frame(payload: bytes, first: int = TEXT) -> bytes:
    """One frame; `first` is its first byte: FIN, RSV and opcode."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload


def trade_frames(trades: list[AggTrade], event_ms: int, form: Form) -> bytes:
    """The trades as text frames, one after the other.

    By hand, since `websockets` would build an object and call the transport for each of them: a third of the cost of sending.
    """
    pieces: list[bytes] = []
    combined, microseconds = form
    for trade in trades:
        payload = agg_trade_frame(trade, event_ms, combined, microseconds=microseconds)
        size = len(payload)
        pieces.append(bytes((TEXT, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2))
        pieces.append(payload)
    return b"".join(pieces)
