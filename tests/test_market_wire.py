"""Binance's wire format, read from real frames and written as the venue writes it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_support import NO_NUMBERS, kline, opened, trade, walk

from quantai_tui.market import AggTrade, ControlReply, OtherEvent, RestError, ServerShutdown, WireError, decode_frame
from quantai_tui.market.wire import (
    agg_trade_frame,
    agg_trade_stream,
    decode_agg_trades,
    decode_klines,
    decode_rest_error,
    encode_agg_trades,
    encode_klines,
    encode_rest_error,
    subscribe_frame,
)

_AGG = {
    "e": "aggTrade",
    "E": 1633998534486,
    "s": "LRCBTC",
    "a": 9213679,
    "p": "0.00000638",
    "q": "177.00000000",
    "f": 12368013,
    "l": 12368013,
    "T": 1633998534486,
    "m": False,
    "M": True,
}
_TRADE = AggTrade(9213679, "0.00000638", "177.00000000", 12368013, 12368013, 1633998534486, False, "LRCBTC")


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_every_real_frame_is_understood(shared_data: Path) -> None:
    lines = gzip.decompress((shared_data / "binance-spot-frames.jsonl.gz").read_bytes()).splitlines()
    kinds: Counter[str] = Counter()
    for line in lines:
        payload = json.loads(line)["data"]
        for form in (line, _bytes(payload)):
            frame = decode_frame(form)
            if payload.get("e") == "aggTrade":
                assert frame == AggTrade(*(payload[key] for key in "apqflTm"), payload["s"])
            else:
                assert frame == OtherEvent(payload.get("e", "bookTicker"), payload["s"])
        kinds[payload.get("e", "bookTicker")] += 1
    assert len(lines) == 265
    assert set(kinds) == {"depthUpdate", "bookTicker", "aggTrade", "kline"}


@pytest.mark.parametrize("form", [_AGG, {"stream": "lrcbtc@aggTrade", "data": _AGG}, {"data": _AGG, "stream": "lrcbtc@aggTrade"}])
def test_an_agg_trade_is_the_same_in_every_form(form: object) -> None:
    assert decode_frame(_bytes(form)) == _TRADE


def test_a_futures_agg_trade_with_a_field_more_is_understood() -> None:
    assert decode_frame(_bytes({**_AGG, "nq": "1.0"})) == _TRADE


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        ({"result": None, "id": 1}, ControlReply(1)),
        ({"result": ["ethusdt@aggTrade"], "id": 7}, ControlReply(7, ["ethusdt@aggTrade"])),
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": 3}, ControlReply(3, None, 2, "Invalid request")),
        ({"code": 3, "msg": "Invalid JSON"}, ControlReply(None, None, 3, "Invalid JSON")),
        ({"id": "abc", "result": None}, ControlReply("abc")),
    ],
)
def test_control_replies_are_understood(frame: object, reply: ControlReply) -> None:
    assert decode_frame(_bytes(frame)) == reply
    assert reply.ok == (reply.error_code is None)


@pytest.mark.parametrize("stream", [None, "!serverShutdown"])
def test_a_server_shutdown_is_recognised_in_both_forms(stream: str | None) -> None:
    event = {"e": "serverShutdown", "E": 1770123456789}
    assert decode_frame(_bytes({"stream": stream, "data": event} if stream else event)) == ServerShutdown(1770123456789)


def test_a_single_trade_event_is_another_event_and_no_agg_trade() -> None:
    event = {"e": "trade", "E": 1, "s": "ETHBTC", "t": 5, "p": "1", "q": "2", "T": 3, "m": True, "M": True}
    assert decode_frame(_bytes(event)) == OtherEvent("trade", "ETHBTC")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[1,2]",
        b"{}",
        b'{"e":5}',
        b'{"stream":"x","data":[]}',
        b'{"result":5,"id":1}',
        b'{"error":{"code":"x"},"id":1}',
        b'{"stream":"\xff\xfe@aggTrade","data":{}}',
        b'{"x":' + b"[" * 100_000,
        _bytes({**_AGG, "a": "9213679"}),
        _bytes({key: value for key, value in _AGG.items() if key != "q"}),
        _bytes({key: value for key, value in _AGG.items() if key != "s"}),
        *(
            _bytes({**_AGG, key: bad})
            for key in "pq"
            for bad in ("", "abc", "nan", "inf", "-1", "1e999", "1e-1400", "1E5", "1" * 41)
        ),
        *(_bytes({**_AGG, key: bad}) for key in "aflT" for bad in (-2, 2**53, 2**63, 2**64)),
        *(_bytes({"data": {**_AGG, "p": bad}, "stream": "x"}) for bad in ("abc", "nan", "1e-1400", "0" * 41)),
        *(_bytes({"data": {**_AGG, key: 2**63}, "stream": "x"}) for key in "aT"),
    ],
)
def test_a_bad_frame_is_one_error_that_quotes_it_in_short(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_frame(data)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_price_and_quantity_must_be_plain_digits(text: str) -> None:
    for key in "pq":
        event = {**_AGG, key: text}
        for data in (event, {"stream": "x", "data": event}, {"data": event, "stream": "x"}):
            with pytest.raises(WireError):
                decode_frame(_bytes(data))
        with pytest.raises(WireError):
            decode_agg_trades(_bytes([event]), "LRCBTC")
    for column in (1, 2, 3, 4, 5, 7, 9):
        row = json.loads(encode_klines([kline(0)]))[0]
        row[column] = text
        with pytest.raises(WireError):
            decode_klines(_bytes([row]), 60)


@pytest.mark.parametrize("price", ["0", "7", "12.5", "0.00000001", "007", "0" * 40, "9" * 40])
@pytest.mark.parametrize("quantity", ["3", "0.25"])
def test_plain_numbers_are_accepted_unchanged(price: str, quantity: str) -> None:
    event = {**_AGG, "p": price, "q": quantity}
    frame = decode_frame(_bytes(event))
    assert isinstance(frame, AggTrade)
    assert (frame.price, frame.quantity) == (price, quantity)
    assert decode_agg_trades(_bytes([event]), "LRCBTC") == [frame]


def test_a_field_of_text_may_hold_what_is_no_number() -> None:
    frame = decode_frame(_bytes({**_AGG, "day": "2024-06-01 -0, :-0"}))
    assert isinstance(frame, AggTrade)


@pytest.mark.parametrize("value", ['"1"', "1.0", "1e3", "true", "null", "-2", "[1]", "9" * 1000, "01", "+1", "-0", " -0 "])
@pytest.mark.parametrize("key", ["a", "f", "l", "T"])
def test_id_and_time_must_be_whole_json_numbers(key: str, value: str) -> None:
    body = _bytes({**_AGG, key: "@"}).replace(b'"@"', value.encode())
    for data in (body, b'{"stream":"x","data":' + body + b"}", b'{"data":' + body + b',"stream":"x"}'):
        with pytest.raises(WireError):
            decode_frame(data)
    with pytest.raises(WireError):
        decode_agg_trades(b"[" + body + b"]", "LRCBTC")


@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(_bytes)))
def test_no_bytes_raise_anything_but_a_wire_error(data: bytes) -> None:
    for frame in (data, b'{"stream":' + data, b'{"stream":"x","data":' + data + b"}"):
        try:
            decode_frame(frame)
        except WireError:
            pass


@pytest.mark.parametrize("combined", [True, False])
def test_the_exchange_writes_agg_trades_with_all_of_the_venues_fields(combined: bool) -> None:
    frame = agg_trade_frame(_TRADE, 1633998534486, combined)
    assert json.loads(frame) == ({"stream": "lrcbtc@aggTrade", "data": _AGG} if combined else _AGG)
    assert decode_frame(frame) == _TRADE


def test_times_are_milliseconds_unless_microseconds_are_asked_for() -> None:
    late = AggTrade(1, "1.0", "1.0", 1, 1, 1_735_689_600_123_456, True, "ETHUSDT")
    assert json.loads(agg_trade_frame(late, 1_735_689_600_200, False))["T"] == 1_735_689_600_123
    fine = json.loads(agg_trade_frame(late, 1_735_689_600_200, False, microseconds=True))
    assert (fine["T"], fine["E"]) == (1_735_689_600_123_456, 1_735_689_600_200_000)
    assert json.loads(encode_agg_trades([late]))[0]["T"] == 1_735_689_600_123
    assert decode_agg_trades(encode_agg_trades([late], microseconds=True), "ETHUSDT") == [late]


def test_a_page_of_trades_survives_the_way_through_rest() -> None:
    trades = walk(50)
    body = encode_agg_trades(trades)
    assert set(json.loads(body)[0]) == set("apqflTmM")
    assert decode_agg_trades(body, "XRPETH") == trades


def test_klines_survive_the_way_through_rest_in_twelve_columns() -> None:
    bars = [kline(0), kline(60_000)]
    rows = json.loads(encode_klines(bars))
    assert [len(row) for row in rows] == [12, 12]
    assert rows[0][6] == rows[0][0] + 59_999
    assert decode_klines(_bytes(rows), 60) == bars
    in_microseconds = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in rows]
    assert decode_klines(_bytes(in_microseconds), 60) == bars


def test_a_refused_request_is_told_with_its_code() -> None:
    body = encode_rest_error(-1121, "Invalid symbol.")
    assert decode_rest_error(body) == RestError(-1121, "Invalid symbol.")
    for decode in (lambda: decode_agg_trades(body, "X"), lambda: decode_klines(body, 60)):
        with pytest.raises(WireError, match=r"-1121: Invalid symbol"):
            decode()
    assert decode_rest_error(b"<html>403 Forbidden</html>") is None


def test_the_venues_placeholders_and_the_largest_numbers_are_understood() -> None:
    placeholder = {**_AGG, "p": "0", "q": "0", "f": -1, "l": -1}
    largest = {**_AGG, "a": 2**53 - 1, "T": 2**53 - 1, "p": "9" * 40}
    for event in (placeholder, largest):
        frame = decode_frame(_bytes(event))
        assert frame == AggTrade(*(event[key] for key in "apqflTm"), event["s"])  # type: ignore[arg-type]
        assert decode_frame(_bytes({"stream": "x", "data": event})) == frame


async def test_whatever_numbers_are_let_through_can_be_stored_and_added_up(tmp_path: Path) -> None:
    extremes = ("9" * 40, "0." + "0" * 37 + "1", "0" * 40, "1." + "9" * 38)
    frames = [
        decode_frame(_bytes({**_AGG, "a": 2**53 - 20 + at, "f": -1, "l": 2**53 - 1, "p": price, "q": quantity}))
        for at, (price, quantity) in enumerate(product(extremes, extremes))
    ]
    async with opened(tmp_path / "store.db") as store:
        assert (await store.write("LRCBTC", frames)).stored == 16  # type: ignore[arg-type]
        assert (await store.position("LRCBTC")).last_id == 2**53 - 5


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b'[{"a":1}]',
        encode_agg_trades([trade(1, price="nan")]),
        encode_agg_trades([trade(1, quantity="1e-1400")]),
        encode_agg_trades([trade(2**53)]),
    ],
)
def test_a_bad_body_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_agg_trades(body, "XRPETH")
    with pytest.raises(WireError):
        decode_klines(body, 60)


@pytest.mark.parametrize(("column", "bad"), [(0, 2**63), (0, -60_000), (1, "1e-1400"), (5, "1" * 41), (8, 2**63)])
def test_a_kline_out_of_bounds_is_refused(column: int, bad: int | str) -> None:
    (row,) = json.loads(encode_klines([kline(0)]))
    row[column] = bad
    with pytest.raises(WireError):
        decode_klines(_bytes([row]), 60)


def test_a_kline_that_does_not_start_on_its_interval_is_refused() -> None:
    with pytest.raises(WireError, match="multiple of 60 s"):
        decode_klines(encode_klines([kline(1_000)]), 60)


def test_a_subscription_names_its_streams_in_lower_case() -> None:
    assert agg_trade_stream("ETHUSDT") == "ethusdt@aggTrade"
    frame = json.loads(subscribe_frame("SUBSCRIBE", [agg_trade_stream("ETHUSDT")], 1))
    assert frame == {"method": "SUBSCRIBE", "params": ["ethusdt@aggTrade"], "id": 1}
    assert json.loads(subscribe_frame("LIST_SUBSCRIPTIONS", [], 3)) == {"method": "LIST_SUBSCRIPTIONS", "id": 3}
