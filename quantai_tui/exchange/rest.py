"""Binance's spot REST market data (`/api/v3`): what a stream needs for history and repair, with its weights and its errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from quantai_tui.market.trades import INTERVALS
from quantai_tui.market.wire import encode_agg_trades, encode_klines, encode_rest_error
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .alterations import AlterableMarket
from .budget import Limits, Refusal, RequestBudget
from .faults import Faults
from .rest_faults import RestFaults
from .tape import base_and_quote

_DEFAULT_ROWS = 500
_MOST_ROWS = 1000
_LONG = re.compile(r"[0-9]{1,18}")

# Weight and permitted parameters per path, as Binance documents them for spot.
_WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/aggTrades": 4,
    "/api/v3/klines": 2,
    "/api/v3/exchangeInfo": 20,
}


class _BadRequest(Exception):
    """A request that Binance would refuse with this code and text."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code


class _Query:
    """The query string: every value checked, and what nobody asked for refused, as the venue does."""

    def __init__(self, request: web.Request, *names: str) -> None:
        self._values = dict(request.query)
        known = sum(name in names for name in self._values)
        if known != len(self._values):
            raise _BadRequest(
                -1104, f"Not all sent parameters were read; read '{known}' parameter(s) but was sent '{len(self._values)}'."
            )

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def required(self, name: str) -> str:
        value = self._values.get(name)
        if not value:
            raise _BadRequest(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def number(self, name: str) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not _LONG.fullmatch(value):
            raise _BadRequest(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        return int(value)

    def limit(self) -> int:
        """Rows asked for; more than 1000 are cut to 1000."""
        rows = self.number("limit")
        if rows == 0:
            raise _BadRequest(-1130, "Data sent for parameter 'limit' is not valid.")
        return _DEFAULT_ROWS if rows is None else min(rows, _MOST_ROWS)


class RestFront:
    """The HTTP side of the exchange. `app` is an aiohttp application that whoever owns the socket serves."""

    def __init__(
        self, market: AlterableMarket, budget: RequestBudget, limits: Limits, faults: Faults, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._market = market
        self._budget = budget
        self._limits = limits
        self._clock = clock
        self._wrong = RestFaults(faults, budget)
        self.app = web.Application(middlewares=[self._account])
        self.app.router.add_get("/api/v3/ping", self._ping)
        self.app.router.add_get("/api/v3/time", self._time)
        self.app.router.add_get("/api/v3/aggTrades", self._agg_trades)
        self.app.router.add_get("/api/v3/klines", self._klines)
        self.app.router.add_get("/api/v3/exchangeInfo", self._exchange_info)

    @web.middleware
    async def _account(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._budget.visited(f"rest {request.path}")
        refusal = self._budget.charge(_WEIGHTS.get(request.path, 1))
        response: web.StreamResponse
        if refusal is not None:
            response = _refused(refusal, self._limits.weight_per_minute)
        elif (wrong := await self._wrong.answer()) is not None:
            response = wrong
        else:
            try:
                response = await handler(request)
            except _BadRequest as error:
                response = _json(encode_rest_error(error.code, str(error)), status=400)
        response.headers["X-MBX-USED-WEIGHT"] = response.headers["X-MBX-USED-WEIGHT-1M"] = str(self._budget.used)
        return response

    async def _ping(self, request: web.Request) -> web.Response:
        _Query(request)
        return _json(b"{}")

    async def _time(self, request: web.Request) -> web.Response:
        _Query(request)
        return _json(msgspec.json.encode({"serverTime": int(self._clock.time() * 1000)}))

    async def _agg_trades(self, request: web.Request) -> web.Response:
        query = _Query(request, "symbol", "fromId", "startTime", "endTime", "limit")
        symbol, limit = self._symbol(query.required("symbol")), query.limit()
        from_id, start, end = query.number("fromId"), query.number("startTime"), query.number("endTime")
        if from_id is not None and (start is not None or end is not None):
            raise _BadRequest(-1128, "Combination of optional parameters invalid.")
        now = self._clock.time() - self._wrong.behind_s()
        stop_id = self._market.last_id_at(symbol, now) + 1
        if end is not None:
            stop_id = min(stop_id, self._market.id_at_or_after(symbol, end + 1, now))
        if start is not None:
            from_id = self._market.id_at_or_after(symbol, start, now)
        if from_id is None:
            from_id = stop_id - limit
        from_id = max(from_id, self._market.first_id(symbol))
        rows = max(0, min(limit, stop_id - from_id))
        newest = from_id == stop_id - limit
        trades = self._market.trades(symbol, from_id, rows, now)
        while newest and not trades and from_id > self._market.first_id(symbol):
            # The venue has lost its very last trades: its newest one is an older one.
            from_id = max(from_id - limit, self._market.first_id(symbol))
            trades = self._market.trades(symbol, from_id, stop_id - from_id, now)[-limit:]
        trades = self._wrong.page(trades, self._market)
        return _json(self._wrong.body(encode_agg_trades(trades, microseconds=_wants_microseconds(request))))

    async def _klines(self, request: web.Request) -> web.Response:
        query = _Query(request, "symbol", "interval", "startTime", "endTime", "limit")
        symbol, interval, limit = self._symbol(query.required("symbol")), query.required("interval"), query.limit()
        if interval not in INTERVALS:
            raise _BadRequest(-1120, "Invalid interval.")
        start, end = query.number("startTime"), query.number("endTime")
        now = self._clock.time() - self._wrong.behind_s()
        # A thousand bars the first time are a second of arithmetic, which must not hold up the trades of everybody else.
        bars = await asyncio.to_thread(self._market.klines, symbol, INTERVALS[interval], start, end, limit, now)
        return _json(self._wrong.body(encode_klines(bars)))

    async def _exchange_info(self, request: web.Request) -> web.Response:
        query = _Query(request, "symbol", "symbols")
        asked = query.text("symbol")
        symbols: tuple[str, ...] = self._market.symbols
        if asked is not None:
            symbols = (self._symbol(asked),)
        elif (several := query.text("symbols")) is not None:
            try:
                names = msgspec.json.decode(several, type=list[str])
            except msgspec.MsgspecError:
                raise _BadRequest(-1100, "Illegal characters found in parameter 'symbols'.") from None
            symbols = tuple(self._symbol(name) for name in names)
        body = {
            "timezone": "UTC",
            "serverTime": int(self._clock.time() * 1000),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self._limits.weight_per_minute,
                }
            ],
            "exchangeFilters": [],
            "symbols": [self._describe(symbol) for symbol in symbols],
        }
        return _json(msgspec.json.encode(body))

    def _describe(self, symbol: str) -> dict[str, Any]:
        base, quote = base_and_quote(symbol)
        price_decimals, quantity_decimals = self._market.decimals(symbol)
        tick, step = f"{10.0**-price_decimals:.8f}", f"{10.0**-quantity_decimals:.8f}"
        return {
            "symbol": symbol,
            "status": "TRADING",
            "baseAsset": base,
            "baseAssetPrecision": 8,
            "quoteAsset": quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "isSpotTradingAllowed": True,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
                {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
            ],
        }

    def _symbol(self, name: str) -> str:
        if name not in self._market.symbols:
            raise _BadRequest(-1121, "Invalid symbol.")
        return name


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def _wants_microseconds(request: web.Request) -> bool:
    return request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"


def _refused(refusal: Refusal, limit: int) -> web.Response:
    if refusal.banned_until_ms is None:
        text = f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
    else:
        text = f"Way too much request weight used; IP banned until {refusal.banned_until_ms}."
    response = _json(
        encode_rest_error(-1003, f"{text} Please use WebSocket Streams for live updates to avoid polling the API."),
        status=refusal.status,
    )
    response.headers["Retry-After"] = str(refusal.retry_after_s)
    return response
