"""The stream side of the exchange: dials, connections and their subscriptions. `pump` writes the trades."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from quantai_tui.market.wire import agg_trade_stream
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .alterations import AlterableMarket
from .budget import Limits, RequestBudget
from .connection import Connection
from .control import ControlError, Request, acknowledgement, parse
from .faults import Faults
from .pump import Pump
from .stream_faults import StreamFaults


class StreamFront:
    """Serves `/ws` and `/stream`. `refuse` and `handle` go to the `websockets` server of whoever owns the socket."""

    def __init__(
        self, market: AlterableMarket, budget: RequestBudget, limits: Limits, faults: Faults, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._budget = budget
        self._limits = limits
        self._clock = clock
        self._faults = faults
        self._stream_faults = StreamFaults(faults, market, clock, self._take_away)
        self._pump = Pump(market, limits, clock, faults, self._stream_faults)
        self._stream_symbols = {agg_trade_stream(symbol): symbol for symbol in market.symbols}

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done, with the exception, when a pump broke: the exchange is of no use any more."""
        return self._pump.failed

    async def close(self) -> None:
        """Stop all pumps. Connections are closed by the server that accepted them."""
        await self._stream_faults.close()
        await self._pump.close()

    async def refuse(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """The answer to a dial that gets no WebSocket: during a ban, or at a path that is not served."""
        assert isinstance(connection, Connection)
        path = urlsplit(request.path).path
        self._budget.visited(f"ws {path}")
        if ban := self._budget.ban():
            response = connection.respond(HTTPStatus.IM_A_TEAPOT, "IP banned\n")
            response.headers["Retry-After"] = str(ban.retry_after_s)
            return response
        if (wrong := await self._stream_faults.answer(connection)) is not None:
            return wrong
        if path in ("/ws", "/stream") or path.startswith("/ws/"):
            return None
        return connection.respond(HTTPStatus.NOT_FOUND, "Not found: use /ws, /ws/<stream> or /stream?streams=<a>/<b>\n")

    async def handle(self, connection: ServerConnection) -> None:
        """One connection from handshake to close."""
        assert isinstance(connection, Connection)
        assert connection.request is not None
        connection.bind(self._limits)
        url = urlsplit(connection.request.path)
        query = parse_qs(url.query)
        connection.combined = url.path == "/stream"
        connection.microseconds = query.get("timeUnit", [""])[0].upper() == "MICROSECOND"
        names = query.get("streams", [""])[0] if connection.combined else unquote(url.path[len("/ws/") :])
        self._stream_faults.greet(connection)
        keeper = asyncio.create_task(connection.keep(lambda: int(self._clock.time() * 1000)))
        try:
            self._subscribe(connection, [name for name in names.split("/") if name][: self._limits.streams_per_connection])
            async for message in connection:
                if connection.too_many:
                    break  # the keeper says good-bye
                await self._obey(connection, message)
            await connection.wait_closed()
        except ConnectionClosed:
            pass  # without a good-bye, or in the middle of a reply
        finally:
            self._stream_faults.forget(connection)
            self._unsubscribe(connection, list(connection.streams))
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    async def _obey(self, connection: Connection, message: str | bytes) -> None:
        names: list[str] = []
        try:
            request = parse(message)
            names = self._names(connection, request)
            reply = self._reply(connection, request)
        except ControlError as error:
            reply = error.reply
        else:
            if request.method == "UNSUBSCRIBE":
                self._unsubscribe(connection, names)
        # The reply goes first, so that no event of a stream comes before its subscription is acknowledged.
        await connection.send(reply, text=True)
        if names and request.method == "SUBSCRIBE":
            self._subscribe(connection, names)

    def _names(self, connection: Connection, request: Request) -> list[str]:
        if request.method == "SUBSCRIBE":
            return request.stream_names(self._limits.streams_per_connection - len(connection.streams))
        if request.method == "UNSUBSCRIBE":
            return request.stream_names(self._limits.streams_per_connection)
        return []

    @staticmethod
    def _reply(connection: Connection, request: Request) -> bytes:
        if request.method == "LIST_SUBSCRIPTIONS":
            return acknowledgement(request, list(connection.streams))
        if request.method == "SET_PROPERTY":
            connection.combined = request.combined_value()
        if request.method == "GET_PROPERTY":
            request.require_combined()
            return acknowledgement(request, connection.combined)
        return acknowledgement(request)

    def _subscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            symbol = self._stream_symbols.get(name)
            if symbol is not None:
                self._faults.subscribed()
                if (lost := self._stream_faults.forgets(symbol)) is not None:
                    if lost.listed:
                        connection.streams[name] = None
                    continue
                self._pump.subscribe(connection, symbol)
            connection.streams[name] = None  # one that does not exist too: acknowledged, and silent for ever, as at the venue

    def _take_away(self, connection: Connection, symbol: str) -> None:
        self._pump.unsubscribe(connection, symbol)

    def _unsubscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            connection.streams.pop(name, None)
            symbol = self._stream_symbols.get(name)
            if symbol is not None:
                self._pump.unsubscribe(connection, symbol)
