"""The venue's REST side: history for repair and warm start. Slows down before the venue's limit and respects its bans."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..arguments import check_type
from ..cleaning import one_line
from ..market.trades import INTERVALS, AggTrade, Bar
from ..market.wire import WireError, decode_agg_trades, decode_klines, decode_rest_error
from ..telemetry import SYSTEM_CLOCK, Clock
from .addresses import checked_address, open_tcp
from .advice import FailureKind
from .failures import HttpStatusError, LinkFault, Phase, classify, longest_retry_after
from .gate import Gate

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, TCPConnector
    from aiohttp.client_proto import ResponseHandler

log = logging.getLogger("quantai_tui.stream")

PAGE = 1000  # the most rows that aggTrades and klines give at a time

# Binance spot: 6,000 weight a minute and address. From four fifths on we leave the rest to others.
WEIGHT_LIMIT = 6000
_SLOW_DOWN_AT = 0.8
_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"
_LONGEST_WEIGHT = 9  # digits
_MINUTE_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
_TOTAL_TIMEOUT_S = 30.0
_SHUTDOWN_TIMEOUT_S = 0.5
# A page of 1,000 rows is about 150 KB.
_MAX_BODY_BYTES = 8 * 1024 * 1024


class _ServerTime(msgspec.Struct):
    serverTime: int


class History(Protocol):
    """What the venue can still be asked about. Every method may raise what `classify(error, Phase.REST)` knows."""

    used_weight: int | None

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        """Up to `limit` (at most 1,000) aggregate trades from `from_id` on, which is included; without it the newest.

        The venue may silently start later: at the first that it still keeps.
        """
        ...

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        """The last `count` bars that are over, oldest first, fetched in as many pages as it takes."""
        ...

    async def server_time(self) -> int | None:
        """The venue's clock, in milliseconds since 1970; None where nobody can say."""
        ...

    async def close(self) -> None:
        """Close the connections; idempotent."""
        ...


class RestClient:
    """Typed requests to the venue. aiohttp is imported, and its session opened, at the first one.

    A ban or a limit that an answer pronounces closes the gate, whoever asked, before anybody else may ask or dial.

    Every method may raise HttpStatusError (the venue said no), WireError (it said something else than documented), LinkFault, or
    what the network raises; `classify(error, Phase.REST)` knows them all.
    """

    def __init__(
        self,
        base_url: str,
        context: Callable[[], ssl.SSLContext],
        gate: Gate,
        *,
        proxy: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_type("base_url", base_url, str, "an address such as https://api.binance.com")
        self._base_url = base_url.rstrip("/")
        self._context = context
        self._gate = gate
        self._proxy = proxy
        self._clock = clock
        self._session: ClientSession | None = None
        self._one_at_a_time = asyncio.Lock()
        self._resume_at = clock.monotonic()
        self.used_weight: int | None = None

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        """See `History.agg_trades`."""
        query = {"symbol": symbol, "limit": str(limit)}
        if from_id is not None:
            query["fromId"] = str(from_id)
        return decode_agg_trades(await self._get("/api/v3/aggTrades", query), symbol)

    async def klines(self, symbol: str, interval: str, limit: int = PAGE, end_ms: int | None = None) -> list[Bar]:
        """The last `limit` (at most 1,000) bars that open at or before `end_ms`; the newest may not be over yet."""
        query = {"symbol": symbol, "interval": interval, "limit": str(limit)}
        if end_ms is not None:
            query["endTime"] = str(end_ms)
        return decode_klines(await self._get("/api/v3/klines", query), INTERVALS[interval])

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        """The last `count` bars that are over, oldest first, fetched in as many pages as it takes.

        The newest that the venue gives is still open. It is left out whatever a clock says: a replayed market has its own time.
        """
        if interval not in INTERVALS:
            raise ValueError(f"no such interval: {interval}; there are {', '.join(INTERVALS)}")
        if count < 1:
            return []
        bars: list[Bar] = []
        end_ms: int | None = None
        while len(bars) <= count:
            wanted = min(PAGE, count + 1 - len(bars))
            page = await self.klines(symbol, interval, wanted, end_ms)
            if bars:
                page = [bar for bar in page if bar.open_time_us < bars[0].open_time_us]
            if not page:
                break
            bars[:0] = page
            end_ms = page[0].open_time_us // 1000 - 1
        return bars[:-1]

    async def server_time(self) -> int:
        """The venue's clock, in milliseconds since 1970."""
        body = await self._get("/api/v3/time", {})
        try:
            return msgspec.json.decode(body, type=_ServerTime).serverTime
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a body of time: {error}") from error

    async def close(self) -> None:
        """Close the connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        checked_address(self._base_url, "https", "EXCHANGE_REST_URL")
        # One request at a time: history is never urgent, and so a ban or the weight limit is noticed before the next one leaves.
        async with self._one_at_a_time:
            await self._gate.wait_open()
            while (wait := self._resume_at - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
                await self._gate.wait_open()  # a ban may have come meanwhile
            # No redirect is followed: the venue's history comes from the venue, over TLS, and within its bans.
            request = self._open().get(self._base_url + path, params=query, ssl=self._context(), allow_redirects=False)
            async with request as response:
                return await self._read(response)

    def _open(self) -> ClientSession:
        if self._session is None:
            # Importing aiohttp takes about 0.2 s: not before history is needed.
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=_TOTAL_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=True, connector=_connector(self._proxy))
        return self._session

    async def _read(self, response: ClientResponse) -> bytes:
        self._note_weight(response.headers.get(_WEIGHT_HEADER))
        retry_after_s = longest_retry_after(response.headers.getall("Retry-After", []))
        if response.status != 200:
            # Before the body, which may never come: from now on nothing leaves.
            refusal = classify(HttpStatusError(response.status, retry_after_s=retry_after_s), Phase.REST)
            if refusal.min_wait_s:
                self._gate.close_for(refusal.min_wait_s, refusal.message)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise LinkFault(FailureKind.OVERSIZED, f"an answer of more than {_MAX_BODY_BYTES} bytes to {response.url.path}")
        if response.status == 200:
            return bytes(body)
        told = decode_rest_error(bytes(body))
        raise HttpStatusError(
            response.status,
            retry_after_s=retry_after_s,
            code=told.code if told else None,
            reason=one_line(told.msg) if told else "",
        )

    def _note_weight(self, header: str | None) -> None:
        if header is None or not (header.isascii() and header.isdecimal()) or len(header) > _LONGEST_WEIGHT:
            return
        self.used_weight = int(header)
        if self.used_weight >= WEIGHT_LIMIT * _SLOW_DOWN_AT:
            # The venue counts by whole minutes of its clock; ours is near enough.
            wait = _MINUTE_S - self._clock.time() % _MINUTE_S
            self._resume_at = self._clock.monotonic() + wait
            log.info("REST weight %d of %d used: next request in %.0f s", self.used_weight, WEIGHT_LIMIT, wait)


def _connector(proxy: str | None) -> TCPConnector:
    """aiohttp's connections over our sockets: our lookups, and the proxies that the stream takes."""
    from aiohttp import TCPConnector
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Unresolved(AbstractResolver):
        """Leaves the name for `open_tcp`. The address that stands for it leads nowhere, so that nothing gets past the proxy."""

        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
            return [ResolveResult(hostname=host, host="0.0.0.0", port=0, family=socket.AF_INET, proto=0, flags=0)]

        async def close(self) -> None:
            """Nothing is kept open between lookups."""

    class Connector(TCPConnector):
        # The one place where aiohttp lets a connected socket in; its SOCKS extension uses the same.
        async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.Transport, ResponseHandler]:
            url, context = kwargs["req"].url, kwargs["ssl"]
            sock = await open_tcp(url.raw_host, url.port, proxy=proxy, timeout=_CONNECT_TIMEOUT_S, context=context)
            # The socket is asyncio's from here on, which closes it when the handshake fails.
            return await asyncio.get_running_loop().create_connection(
                *args,
                sock=sock,
                ssl=context,
                server_hostname=kwargs["server_hostname"],
                ssl_handshake_timeout=_CONNECT_TIMEOUT_S,
                ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
            )

    return Connector(resolver=Unresolved())
