"""The venue's REST side in memory: the real `RestClient` and the real HTTP parser, over a wire that is a function call."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import BaseConnector, ClientConnectionResetError, ClientSession

from quantai_tui.market.wire import encode_agg_trades, encode_rest_error
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.rest import PAGE, RestClient
from quantai_tui.stream.rest_connections import limits
from quantai_tui.telemetry import Clock

from .limits import Refusal
from .venue import Venue

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

_LATENCY_S = 0.04  # each way
_BEHIND_S = 90.0
_SHORT_PAGE = 7
_AGG_TRADES = ("/api/v3/aggTrades", 4)  # path and weight
_REASONS = {200: "OK", 404: "Not Found", 418: "I'm a teapot", 429: "Too Many Requests", 503: "Service Unavailable"}


class MemoryHistory(RestClient):
    """`RestClient` as it is, but for where its requests go."""

    def __init__(self, venue: Venue, gate: Gate, clock: Clock) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__("https://rest.invalid", lambda: context, gate, clock=clock)
        self._venue = venue

    def _open(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(connector=_MemoryConnector(self._venue), timeout=limits())
        return self._session


class _MemoryConnector(BaseConnector):
    """Opens one connection per request, in memory; TLS is for the real wire."""

    def __init__(self, venue: Venue) -> None:
        super().__init__(force_close=True)
        self._venue = venue

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        await asyncio.sleep(2 * _LATENCY_S)
        if self._venue.has("rest_refused"):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
        protocol = self._factory()
        protocol.connection_made(_Wire(self._venue, protocol))
        return protocol


class _Wire(asyncio.Transport):
    """The client's end of a connection that serves one request."""

    def __init__(self, venue: Venue, protocol: ResponseHandler) -> None:
        super().__init__()
        self._venue = venue
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._asked = bytearray()
        self._timers: list[asyncio.TimerHandle] = []
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise ClientConnectionResetError("closed")
        self._asked += data
        if self._asked.endswith(b"\r\n\r\n"):
            target = self._asked.split(b" ", 2)[1].decode()
            self._asked.clear()
            self._timers.append(self._loop.call_later(_LATENCY_S, self._serve, target, self._loop.time()))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def pause_reading(self) -> None:
        """An answer comes in one piece."""

    def resume_reading(self) -> None:
        """See above."""

    def _serve(self, target: str, left_at: float) -> None:
        venue = self._venue
        parts = urlsplit(target)
        venue.requests.append((left_at, parts.path))
        if venue.has("rest_hang"):
            return
        status, headers, body, ids = answer(venue, parts.path, dict(parse_qsl(parts.query)), left_at)
        head = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {len(body)}", *headers]
        self._timers.append(self._loop.call_later(_LATENCY_S, self._deliver, "\r\n".join(head).encode(), body, ids, status))

    def _deliver(self, head: bytes, body: bytes, ids: tuple[str, set[int]], status: int) -> None:
        if status in (418, 429):
            self._venue.limits.told()
        if self._venue.has("rest_cut"):
            self._protocol.data_received(head + b"\r\n\r\n" + body[: len(body) // 2])
            self._end(ConnectionResetError(errno.ECONNRESET, "reset"))
            return
        symbol, handed = ids
        if handed:
            self._venue.handed[symbol] |= handed
        self._protocol.data_received(head + b"\r\n\r\n" + body)

    def _end(self, error: BaseException | None) -> None:
        if self._closed:
            return
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        self._loop.call_soon(self._protocol.connection_lost, error)


def answer(venue: Venue, path: str, query: dict[str, str], left_at: float) -> tuple[int, list[str], bytes, tuple[str, set[int]]]:
    """Status, headers and body of a request, and which trades it tells of."""
    nothing: tuple[str, set[int]] = ("", set())
    if path != _AGG_TRADES[0]:
        return 404, [], b"{}", nothing
    refusal, used = venue.limits.take_request(left_at, _AGG_TRADES[1])
    headers = [f"X-MBX-USED-WEIGHT-1M: {used}", "Content-Type: application/json"]
    if refusal is None and venue.has("rest_503"):
        refusal = Refusal(503, None)
    if refusal is not None:
        if refusal.retry_after_s is not None:
            headers.append(f"Retry-After: {refusal.retry_after_s}")
        return refusal.status, headers, encode_rest_error(-1003, "virtual"), nothing
    symbol = query["symbol"]
    rows = venue.market.issued[symbol]
    end = len(rows)
    if venue.has("rest_behind"):
        since_ms = venue.market.now_ms() - _BEHIND_S * 1000
        while end and rows[end - 1].time > since_ms:
            end -= 1
    limit = min(int(query.get("limit", "500")), PAGE)
    if venue.has("rest_short"):
        limit = min(limit, _SHORT_PAGE)
    first = max(venue.market.from_id(symbol, venue.keeps_from[symbol]), 0)
    first = max(venue.market.from_id(symbol, int(query["fromId"])), first) if "fromId" in query else max(end - limit, first)
    page = rows[first : min(first + limit, end)]
    return 200, headers, encode_agg_trades(page), (symbol, {trade.id for trade in page})
