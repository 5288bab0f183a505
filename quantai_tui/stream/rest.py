"""The venue's REST side: history for repair and warm start. Slows down before the venue's limit and respects its bans."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..arguments import check_type
from ..cleaning import one_line
from ..market.trades import INTERVALS, AggTrade, Bar
from ..market.wire import WireError, decode_agg_trades, decode_klines
from ..telemetry import SYSTEM_CLOCK, Clock
from .addresses import checked_address
from .advice import FailureKind
from .failures import HttpStatusError, LinkFault, Phase, classify
from .gate import Gate
from .rest_connections import answer_to, open_session
from .rest_pace import Pace
from .tasks import all_ended, unless

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

log = logging.getLogger("quantai_tui.stream")

PAGE = 1000  # the most rows that aggTrades and klines give at a time

_BAD_REQUEST = 400
_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"
# The weight of a request on Binance.
_AGG_TRADES_WEIGHT, _KLINES_WEIGHT, _TIME_WEIGHT = 4, 2, 1
# A page of 1,000 rows is about 150 KB.
_MAX_BODY_BYTES = 8 * 1024 * 1024
_REFUSAL_BODY_S = 4.0
_BODY_TIMEOUT_S = 30.0  # for a whole answer from its first byte; `rest_connections` bounds the wait for it, and each pause


class _ServerTime(msgspec.Struct):
    serverTime: int


class History(Protocol):
    """What the venue can still be asked about. Every method may raise what `classify(error, Phase.REST)` knows."""

    @property
    def used_weight(self) -> int | None:
        """The weight used in this minute, by the venue's last answer."""
        ...

    @property
    def weight_wait_s(self) -> float:
        """Seconds until requests continue if the venue's weight is used up; otherwise 0."""
        ...

    def renew(self) -> None:
        """The line is dead: leave its connections, and send what waits for an answer once more, on new ones."""
        ...

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        """Up to `limit` (at most 1,000) aggregate trades from `from_id` on, which is included; without it the newest.

        The venue may silently start later: at the first that it still keeps.
        """
        ...

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        """The last `count` bars that are over, oldest first, fetched in as many pages as it takes."""
        ...

    async def server_time(self) -> int | None:
        """The venue's clock, in milliseconds since 1970; None if unknown."""
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
        self._pace = Pace(gate, clock)
        self._session: ClientSession | None = None
        self._renewed = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def used_weight(self) -> int | None:
        return self._pace.used_weight

    @property
    def weight_wait_s(self) -> float:
        return self._pace.weight_wait_s

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = PAGE) -> list[AggTrade]:
        """See `History.agg_trades`."""
        query = {"symbol": symbol, "limit": str(limit)}
        if from_id is not None:
            query["fromId"] = str(from_id)
        return decode_agg_trades(await self._get("/api/v3/aggTrades", query, _AGG_TRADES_WEIGHT), symbol)

    async def klines(self, symbol: str, interval: str, limit: int = PAGE, end_ms: int | None = None) -> list[Bar]:
        """The last `limit` (at most 1,000) bars that open at or before `end_ms`; the newest may not be over yet."""
        query = {"symbol": symbol, "interval": interval, "limit": str(limit)}
        if end_ms is not None:
            query["endTime"] = str(end_ms)
        return decode_klines(await self._get("/api/v3/klines", query, _KLINES_WEIGHT), INTERVALS[interval])

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
        body = await self._get("/api/v3/time", {}, _TIME_WEIGHT)
        try:
            return msgspec.json.decode(body, type=_ServerTime).serverTime
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a body of time: {error}") from error

    def renew(self) -> None:
        """The line is dead: leave its connections, and send what waits for an answer once more, on new ones.

        Pooled connections use the same line as the stream, and would otherwise fail only after their timeouts.
        """
        session, self._session = self._session, None
        renewed, self._renewed = self._renewed, asyncio.Event()
        self._pace.start_over()
        renewed.set()
        if session is not None:
            task = asyncio.create_task(_abandon(session), name="REST connections end")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Close the connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await all_ended(tuple(self._leaving))

    async def _get(self, path: str, query: dict[str, str], weight: int) -> bytes:
        checked_address(self._base_url, "https", "EXCHANGE_REST_URL")
        while True:
            async with self._pace.turn(weight) as turn:
                try:
                    body = await unless(self._renewed, self._request(path, query))
                except HttpStatusError as error:
                    # The refusal of one request does not affect the next one.
                    if error.status == _BAD_REQUEST:
                        turn.answered()
                    else:
                        turn.failed()
                    raise
                except Exception:
                    turn.failed()
                    raise
                if body is not None:
                    turn.answered()
                    return body

    async def _request(self, path: str, query: dict[str, str]) -> bytes:
        context = self._context()  # before aiohttp is imported, whose failure would not name the cause
        # No redirect is followed: the venue's history comes from the venue, over TLS, and within its bans.
        request = self._open().get(self._base_url + path, params=query, ssl=context, allow_redirects=False)
        async with answer_to(path, request) as response:
            try:
                async with asyncio.timeout(_BODY_TIMEOUT_S):
                    return await self._read(response)
            except TimeoutError as error:
                why = f"the answer to {path} stopped before its end, or took more than {_BODY_TIMEOUT_S:g} s"
                raise LinkFault(FailureKind.REST_TIMEOUT, f"REST: {why}") from error

    def _open(self) -> ClientSession:
        if self._session is None:
            self._session = open_session(self._proxy)
        return self._session

    async def _read(self, response: ClientResponse) -> bytes:
        self._pace.note_weight(response.headers.get(_WEIGHT_HEADER))
        if response.status != 200:
            raise await self._refusal(response)
        return await _body(response)

    async def _refusal(self, response: ClientResponse) -> HttpStatusError:
        """Make the error for a refusal. From its first byte on, no request is sent for as long as it asks.

        If the headers name no time, the body may name the end of a ban, so requests pause until the body has arrived.
        """
        refused = self._refused(response, b"")
        self._rest(refused, at_most_s=math.inf if refused.retry_after_s is not None else _REFUSAL_BODY_S)
        try:
            async with asyncio.timeout(_REFUSAL_BODY_S):
                refused = self._refused(response, await _body(response))
        except Exception as error:  # noqa: BLE001 - the status says enough
            log.info("REST: the body of HTTP %d did not come: %s", response.status, one_line(str(error) or type(error).__name__))
        finally:
            self._rest(refused)
        return refused

    def _refused(self, response: ClientResponse, body: bytes) -> HttpStatusError:
        headers = response.headers
        return HttpStatusError.of(
            response.status, headers.getall("Retry-After", []), headers.get("Date"), body, self._clock.time()
        )

    def _rest(self, refused: HttpStatusError, at_most_s: float = math.inf) -> None:
        """Close the gate for the time that a refusal asks for, if any."""
        failure = classify(refused, Phase.REST)
        self._gate.close_for(min(failure.min_wait_s, at_most_s), failure.message)


async def _body(response: ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise LinkFault(FailureKind.OVERSIZED, f"an answer of more than {_MAX_BODY_BYTES} bytes to {response.url.path}")
    return bytes(body)


async def _abandon(session: ClientSession) -> None:
    """Close a session without TLS shutdown: the line is dead."""
    if session.connector is not None:
        await session.connector.close(abort_ssl=True)
    await session.close()
