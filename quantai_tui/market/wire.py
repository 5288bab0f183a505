"""Binance's spot wire format, both directions: stream frames, control frames and REST bodies.

The stream decodes with it and the embedded exchange encodes with it, so a format exists once. Prices and quantities stay text,
but text that is no plain number of zero or more, and ids and times out of bounds, are refused here: past this point nobody has
to ask again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from .trades import FIRST_UNSAFE_INTEGER, AggTrade, Bar, NumberText, WholeNumber, is_number, to_us

_EXCERPT_BYTES = 120

# Beside MsgspecError, decoding raises UnicodeDecodeError for bytes that are no UTF-8 and RecursionError for deep nesting.
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_FRAME_ERRORS = (*_DECODE_ERRORS, IndexError)  # a frame of less than three bytes
# Price and quantity as Binance writes them, with decimals: one match for both. `float` is 0.1 us faster, but accepts
# text that is not a plain number.
_TWO_DECIMALS = re.compile(r"[0-9]++\.[0-9]++ [0-9]++\.[0-9]++").fullmatch
# JSON allows it, and decoding makes it 0; no id and no time is written so.
_MINUS_ZERO = re.compile(rb'"[aflT]"\s*:\s*-0\s*[,}]').search
_S = ord("s")


class WireError(ValueError):
    """A frame or body that is not what Binance's documentation promises; the text quotes its beginning."""


class ControlReply(msgspec.Struct, frozen=True):
    """The answer to a control frame. `result` is None for SUBSCRIBE and UNSUBSCRIBE, the stream names for LIST_SUBSCRIPTIONS.

    `error_code` and `error_msg` are set when the request was refused. `id` is the request's own, None where the venue names none.
    """

    id: int | str | None = None
    result: list[str] | None = None
    error_code: int | None = None
    error_msg: str | None = None

    @property
    def ok(self) -> bool:
        return self.error_code is None


class ServerShutdown(msgspec.Struct, frozen=True):
    """The venue is about to close this connection; it promises no lead time. `event_ms` is its own time in ms."""

    event_ms: int


class OtherEvent(msgspec.Struct, frozen=True):
    """A market event that carries no aggregate trade: kline, bookTicker, depthUpdate, trade, or one that is new at the venue."""

    kind: str
    symbol: str


class RestError(msgspec.Struct, frozen=True):
    """The body of a refused REST request."""

    code: int
    msg: str


Frame = AggTrade | ControlReply | ServerShutdown | OtherEvent


class _Combined(msgspec.Struct, frozen=True, gc=False):
    data: AggTrade


class _AggEvent(msgspec.Struct, frozen=True, gc=False):
    e: str
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - Binance's field
    T: int
    m: bool
    M: bool


class _CombinedAggEvent(msgspec.Struct, frozen=True, gc=False):
    stream: str
    data: _AggEvent


class _AggRow(msgspec.Struct, frozen=True, gc=False):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - Binance's field
    T: int
    m: bool
    M: bool


class _KlineRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    open_time: WholeNumber
    open: NumberText
    high: NumberText
    low: NumberText
    close: NumberText
    volume: NumberText
    close_time: WholeNumber
    quote_volume: NumberText
    trades: WholeNumber
    buy_volume: NumberText
    buy_quote_volume: str
    ignore: str = "0"


_decode_combined = msgspec.json.Decoder(_Combined).decode
_decode_raw = msgspec.json.Decoder(AggTrade).decode
_decode_rows = msgspec.json.Decoder(list[AggTrade]).decode
_decode_klines = msgspec.json.Decoder(list[_KlineRow]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode_frame(data: bytes) -> Frame:
    """One WebSocket text frame, raw or in the combined form `{"stream": .., "data": {..}}`.

    Raises WireError for everything that is not understood.
    """
    # The frame's beginning chooses the decoder, so that the common case is one decode into one typed value. What distinguishes an
    # aggTrade are its required fields: no other event has them all with these types, and asking for `e` too would cost a compare.
    # The third byte tells `{"stream"` from `{"e"`: if it misleads, decoding fails and the long way is taken.
    try:
        trade = _decode_combined(data).data if data[2] == _S else _decode_raw(data)
    except _FRAME_ERRORS:
        return _decode_other(data)
    price, quantity = trade.price, trade.quantity
    # Decoding checks their length.
    if trade.symbol and (_TWO_DECIMALS(f"{price} {quantity}") or (is_number(price) and is_number(quantity))):
        if not (trade.id and trade.first_id and trade.last_id and trade.time):
            _refuse_minus_zero(data)
        return trade
    raise WireError(f"an aggTrade without symbol, or with a price or quantity that is no plain number: {_excerpt(data)}")


def _decode_other(data: bytes) -> Frame:
    try:
        frame = _decode_any(data)
    except _DECODE_ERRORS as error:
        raise WireError(f"not JSON ({error}): {_excerpt(data)}") from error
    payload = frame.get("data", frame) if isinstance(frame, dict) and "stream" in frame else frame
    if not isinstance(payload, dict):
        raise WireError(f"neither an event nor a reply: {_excerpt(data)}")
    kind = payload.get("e")
    if kind is None:
        if payload.keys() >= _BOOK_TICKER_FIELDS:
            return OtherEvent("bookTicker", str(payload["s"]))
        return _control_reply(payload, data)
    if kind == "serverShutdown":
        stamp = payload.get("E")
        return ServerShutdown(stamp if type(stamp) is int and 0 <= stamp < FIRST_UNSAFE_INTEGER else 0)
    if kind == "aggTrade":
        return _agg_trade_in_odd_order(payload, data)
    if not isinstance(kind, str):
        raise WireError(f"an event whose kind is no text: {_excerpt(data)}")
    symbol = payload.get("s")
    return OtherEvent(kind, symbol if isinstance(symbol, str) else "")


_BOOK_TICKER_FIELDS = frozenset({"u", "s", "b", "B", "a", "A"})


def _agg_trade_in_odd_order(payload: dict[str, Any], data: bytes) -> AggTrade:
    """An aggTrade that the fast path did not take: its fields are wrong, or its envelope spells `data` before `stream`."""
    try:
        trade = msgspec.convert(payload, AggTrade)
    except msgspec.MsgspecError as error:
        raise WireError(f"a bad aggTrade ({error}): {_excerpt(data)}") from error
    if not trade.symbol:
        raise WireError(f"an aggTrade without symbol: {_excerpt(data)}")
    _require_numbers(data, trade.price, trade.quantity)
    _refuse_minus_zero(data)
    return trade


def _control_reply(payload: dict[str, Any], data: bytes) -> ControlReply:
    error = payload.get("error")
    try:
        if isinstance(error, dict):
            return msgspec.convert(
                {"id": payload.get("id"), "error_code": error.get("code"), "error_msg": error.get("msg")}, ControlReply
            )
        if "code" in payload:
            return msgspec.convert(
                {"id": payload.get("id"), "error_code": payload["code"], "error_msg": payload.get("msg")}, ControlReply
            )
        if "result" in payload and "id" in payload:
            return msgspec.convert({"id": payload["id"], "result": payload["result"]}, ControlReply)
    except msgspec.MsgspecError as bad:
        raise WireError(f"a bad control reply ({bad}): {_excerpt(data)}") from bad
    raise WireError(f"neither an event nor a reply: {_excerpt(data)}")


@lru_cache(maxsize=4096)
def agg_trade_stream(symbol: str) -> str:
    """The stream's name: `ETHUSDT` -> `ethusdt@aggTrade`. Stream names are lower case, symbols in payloads upper case."""
    return f"{symbol.lower()}@aggTrade"


def subscribe_frame(method: str, params: Sequence[str], id: int) -> str:
    """A control frame: SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS (which takes no params)."""
    frame: dict[str, Any] = {"method": method, "id": id}
    if params:
        frame = {"method": method, "params": list(params), "id": id}
    return _encode(frame).decode()


def agg_trade_frame(trade: AggTrade, event_ms: int, combined: bool, *, microseconds: bool = False) -> bytes:
    """An aggTrade event as Binance spot sends it. E and T are in ms; in us with `microseconds` (`timeUnit=MICROSECOND`)."""
    time_us = to_us(trade.time)
    event = _AggEvent(
        "aggTrade",
        event_ms * 1000 if microseconds else event_ms,
        trade.symbol,
        trade.id,
        trade.price,
        trade.quantity,
        trade.first_id,
        trade.last_id,
        time_us if microseconds else time_us // 1000,
        trade.buyer_is_maker,
        True,
    )
    return _encode(_CombinedAggEvent(agg_trade_stream(trade.symbol), event) if combined else event)


def decode_agg_trades(body: bytes, symbol: str) -> list[AggTrade]:
    """The body of REST `aggTrades`, in the venue's order; the rows carry no symbol, so the caller names it.

    Raises WireError, also for an error body, whose code and text it then quotes.
    """
    try:
        rows = _decode_rows(body)
    except _DECODE_ERRORS as error:
        _refuse_body("aggTrades", body, error)
    trades = [AggTrade(t.id, t.price, t.quantity, t.first_id, t.last_id, t.time, t.buyer_is_maker, symbol) for t in rows]
    for trade in trades:
        _require_numbers(body, trade.price, trade.quantity)
    if b"-0" in body:
        _refuse_minus_zero(body)
    return trades


def encode_agg_trades(trades: Iterable[AggTrade], *, microseconds: bool = False) -> bytes:
    """The body of REST `aggTrades`: rows a, p, q, f, l, T, m, M. T is in ms unless `microseconds`."""
    divisor = 1 if microseconds else 1000
    return _encode(
        [
            _AggRow(t.id, t.price, t.quantity, t.first_id, t.last_id, to_us(t.time) // divisor, t.buyer_is_maker, True)
            for t in trades
        ]
    )


def decode_klines(body: bytes, interval_s: int) -> list[Bar]:
    """The body of REST `klines` as bars with `from_trades=False`. The last row may be a candle that is not over yet.

    Raises WireError, also for an error body and for candles that do not start on a multiple of `interval_s`.
    """
    try:
        rows = _decode_klines(body)
    except _DECODE_ERRORS as error:
        _refuse_body("klines", body, error)
    bars = []
    for k in rows:
        open_time_us = to_us(k.open_time)
        if open_time_us % (interval_s * 1_000_000):
            raise WireError(f"a kline opens at {k.open_time}, which is no multiple of {interval_s} s")
        _require_numbers(body, k.open, k.high, k.low, k.close, k.volume, k.quote_volume, k.buy_volume)
        bars.append(
            Bar(
                open_time_us,
                interval_s,
                k.open,
                k.high,
                k.low,
                k.close,
                k.volume,
                k.quote_volume,
                k.buy_volume,
                k.trades,
                from_trades=False,
            )
        )
    return bars


def encode_klines(bars: Iterable[Bar]) -> bytes:
    """The body of REST `klines`: Binance's arrays of 12 columns, times in ms.

    A Bar does not know what takers bought in quote units: that column says "0".
    """
    return _encode(
        [
            _KlineRow(
                b.open_time_us // 1000,
                b.open,
                b.high,
                b.low,
                b.close,
                b.volume,
                b.open_time_us // 1000 + b.interval_s * 1000 - 1,
                b.quote_volume,
                b.trades,
                b.buy_volume,
                "0",
            )
            for b in bars
        ]
    )


def decode_rest_error(body: bytes) -> RestError | None:
    """The code and text of a refused REST request; None when the body is something else (a firewall's HTML page, say)."""
    try:
        return msgspec.json.decode(body, type=RestError)
    except _DECODE_ERRORS:
        return None


def encode_rest_error(code: int, msg: str) -> bytes:
    return _encode(RestError(code, msg))


def _refuse_body(what: str, body: bytes, error: Exception) -> NoReturn:
    refused = decode_rest_error(body)
    if refused is not None:
        raise WireError(f"{what} refused with code {refused.code}: {refused.msg}") from error
    raise WireError(f"not a body of {what} ({error}): {_excerpt(body)}") from error


def _require_numbers(data: bytes, *texts: str) -> None:
    for text in texts:
        if not is_number(text):
            raise WireError(f"{text[:40]!r} is no plain number of zero or more: {_excerpt(data)}")


def _refuse_minus_zero(data: bytes) -> None:
    if _MINUS_ZERO(data):
        raise WireError(f"-0 is no plain number: {_excerpt(data)}")


def _excerpt(data: bytes) -> str:
    text = repr(bytes(data[:_EXCERPT_BYTES]))[2:-1]
    return text if len(data) <= _EXCERPT_BYTES else f"{text}... ({len(data)} bytes)"
