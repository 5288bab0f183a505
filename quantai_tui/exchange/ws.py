"""The stream side of the exchange: connections, their subscriptions, and the pump that writes trades to them.

The market never waits for a client. Frames of a turn are built once per form (raw, combined), joined, and written to every
subscriber as one piece; who lets more than `Limits.buffer_bytes` pile up is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import Event, State

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame, agg_trade_stream
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .budget import Limits, RequestBudget
from .control import ControlError, Request, acknowledgement, parse
from .markets import Market

_LOG = logging.getLogger(__name__)

# Fewer, larger writes: one TLS record carries many frames, and 200 turns a second cost little. The delay is below the venue's
# own.
_TURN_S = 0.005
_NAP_S = 0.25  # without a next trade in sight (a replay not begun, or over)
_TURN_TRADES = 1000  # bounds the time that one turn holds the event loop

_COUNTED = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})


class Connection(ServerConnection):
    """One client: its form, its subscriptions, and the watch over what it sends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.combined = False
        self.microseconds = False
        self.streams: dict[str, None] = {}  # an ordered set
        self.pings: deque[tuple[bytes, float]] = deque()
        self.received: deque[float] = deque()
        self.too_many = asyncio.Event()
        self.messages_per_s = Limits().messages_per_s

    def process_event(self, event: Event) -> None:
        # Below `recv`, because pings and pongs count towards the limit and never get there.
        if isinstance(event, Frame) and event.opcode in _COUNTED:
            self._count()
            if event.opcode is Opcode.PONG:
                self._match_pong(bytes(event.data))
        super().process_event(event)

    def _count(self) -> None:
        if self.too_many.is_set():
            return
        now = self.loop.time()
        self.received.append(now)
        while now - self.received[0] >= 1.0:
            self.received.popleft()
        if len(self.received) > self.messages_per_s:
            self.too_many.set()

    def _match_pong(self, payload: bytes) -> None:
        # A pong answers its ping and all before it (RFC 6455, 5.5.3); one without a ping answers nothing.
        if any(payload == sent for sent, _ in self.pings):
            while self.pings.popleft()[0] != payload:
                pass

    def write_ping(self, payload: bytes) -> None:
        """Send a ping without waiting for a slow reader: the pong's deadline has to go on."""
        if self.state is State.OPEN:
            self.pings.append((payload, self.loop.time()))
            self.transport.write(bytes((0x80 | Opcode.PING, len(payload))) + payload)


class _Feed:
    """One symbol's trades on their way to its subscribers, all at the same point of the market."""

    def __init__(self, symbol: str, next_id: int) -> None:
        self.symbol = symbol
        self.next_id = next_id
        self.subscribers: set[Connection] = set()
        self.task: asyncio.Task[None] | None = None


class StreamFront:
    """Serves `/ws` and `/stream`. `refuse` and `handle` go to the `websockets` server of whoever owns the socket."""

    def __init__(self, market: Market, budget: RequestBudget, limits: Limits, clock: Clock = SYSTEM_CLOCK) -> None:
        self._market = market
        self._budget = budget
        self._limits = limits
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}
        self._stream_symbols = {agg_trade_stream(symbol): symbol for symbol in market.symbols}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with the exception, when a pump broke: the exchange is of no use any more."""

    async def close(self) -> None:
        """Stop all pumps. Connections are closed by the server that accepted them."""
        tasks = [feed.task for feed in self._feeds.values() if feed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.failed.cancel()

    def refuse(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """The answer to a dial that gets no WebSocket: during a ban, or at a path that is not served."""
        if ban := self._budget.ban():
            response = connection.respond(HTTPStatus.IM_A_TEAPOT, "IP banned\n")
            response.headers["Retry-After"] = str(ban.retry_after_s)
            return response
        path = urlsplit(request.path).path
        if path in ("/ws", "/stream") or path.startswith("/ws/"):
            return None
        return connection.respond(HTTPStatus.NOT_FOUND, "Not found: use /ws, /ws/<stream> or /stream?streams=<a>/<b>\n")

    async def handle(self, connection: ServerConnection) -> None:
        """One connection from handshake to close."""
        assert isinstance(connection, Connection)
        assert connection.request is not None
        connection.messages_per_s = self._limits.messages_per_s
        url = urlsplit(connection.request.path)
        query = parse_qs(url.query)
        connection.combined = url.path == "/stream"
        connection.microseconds = query.get("timeUnit", [""])[0].upper() == "MICROSECOND"
        names = query.get("streams", [""])[0] if connection.combined else unquote(url.path[len("/ws/") :])
        keeper = asyncio.create_task(self._keep(connection))
        try:
            self._subscribe(connection, [name for name in names.split("/") if name][: self._limits.streams_per_connection])
            async for message in connection:
                if connection.too_many.is_set():
                    break  # the keeper says good-bye
                await self._obey(connection, message)
            await connection.wait_closed()
        except ConnectionClosed:
            pass  # without a good-bye, or in the middle of a reply
        finally:
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
            connection.streams[name] = None
            symbol = self._stream_symbols.get(name)
            if symbol is None:
                continue  # acknowledged, and silent for ever: as at the venue
            feed = self._feeds.get(symbol)
            if feed is None:
                now = self._clock.time()
                # Where the market is, before a replay begins with this very subscription: its first trade belongs to it.
                feed = self._feeds[symbol] = _Feed(symbol, self._market.last_id_at(symbol, now) + 1)
                self._market.begin(now)
                feed.task = asyncio.create_task(self._pump(feed), name=f"pump {symbol}")
                feed.task.add_done_callback(self._pump_ended)
            feed.subscribers.add(connection)

    def _unsubscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            connection.streams.pop(name, None)
            symbol = self._stream_symbols.get(name)
            feed = self._feeds.get(symbol) if symbol is not None else None
            if feed is None:
                continue
            feed.subscribers.discard(connection)
            if not feed.subscribers:
                del self._feeds[feed.symbol]
                if feed.task is not None:
                    feed.task.cancel()

    async def _pump(self, feed: _Feed) -> None:
        while True:
            now = self._clock.time()
            trades = self._market.trades(feed.symbol, feed.next_id, _TURN_TRADES, now)
            if trades:
                feed.next_id = trades[-1].id + 1
                self._write(feed, trades, int(now * 1000))
            if len(trades) == _TURN_TRADES:
                await asyncio.sleep(0)
                continue
            due = self._market.next_trade_s(feed.symbol, now)
            await self._clock.sleep(_NAP_S if due is None else min(_NAP_S, max(_TURN_S, due - now)))

    def _write(self, feed: _Feed, trades: list[AggTrade], event_ms: int) -> None:
        pieces: dict[tuple[bool, bool], bytes] = {}
        for connection in tuple(feed.subscribers):
            if connection.state is not State.OPEN:
                continue
            if connection.transport.get_write_buffer_size() > self._limits.buffer_bytes:
                _LOG.warning(
                    "dropping %s: it leaves more than %d bytes unread", connection.remote_address, self._limits.buffer_bytes
                )
                connection.transport.abort()
                self._unsubscribe(connection, list(connection.streams))
                continue
            form = (connection.combined, connection.microseconds)
            if form not in pieces:
                pieces[form] = _frames(trades, event_ms, *form)
            connection.transport.write(pieces[form])

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _keep(self, connection: Connection) -> None:
        """Ping, and end the connection when its time is up, its pongs stay away or it sends too much."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.connection_lifetime_s
        while True:
            try:
                async with asyncio.timeout(self._limits.ping_interval_s):
                    await connection.too_many.wait()
            except TimeoutError:
                pass  # the usual case: nobody sent too much, and the next ping is due
            else:
                await connection.close(CloseCode.POLICY_VIOLATION, "Too many requests")
                return
            now = loop.time()
            if connection.pings and now - connection.pings[0][1] >= self._limits.pong_deadline_s:
                await connection.close(CloseCode.POLICY_VIOLATION, "Pong timeout")
                return
            if now >= end:
                await connection.close(CloseCode.GOING_AWAY, "The connection has reached its 24 hours")
                return
            connection.write_ping(str(int(self._clock.time() * 1000)).encode())


def _frames(trades: list[AggTrade], event_ms: int, combined: bool, microseconds: bool) -> bytes:
    """The trades as unmasked text frames (RFC 6455, 5.2), one after the other.

    By hand, since `websockets` would build an object and call the transport for each of them: a third of the cost of sending.
    """
    pieces: list[bytes] = []
    for trade in trades:
        payload = agg_trade_frame(trade, event_ms, combined, microseconds=microseconds)
        size = len(payload)
        pieces.append(bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2))
        pieces.append(payload)
    return b"".join(pieces)
