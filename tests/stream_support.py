"""A small scripted exchange on real TLS sockets, a clock that moves when it is told to, and sinks for the stream's tests."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame, encode_agg_trades, encode_rest_error
from quantai_tui.stream import ResilientStream, StreamConfig, TradeSink
from quantai_tui.telemetry import StreamState

SYMBOL = "ETHUSDT"
FIRST_ID = 1000
START_MS = 1_700_000_000_000


class ManualClock:
    """Time that stands still until `advance`. Sleeps of up to 0.2 s are the program's own rhythm and run in real time."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._serial = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return 1_700_000_000.0 + self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0.2:
            await asyncio.sleep(max(seconds, 0.0))
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._serial), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move on, waking sleepers in order and letting each do what it does before the next."""
        target = self._now + seconds
        await settle_loop()
        while self._sleepers and self._sleepers[0][0] <= target:
            at, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._now = max(self._now, at)
            future.set_result(None)
            await settle_loop()
        self._now = target
        await settle_loop()


async def settle_loop() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object], what: str = "", timeout: float = 8.0) -> None:
    """Wait until the condition holds; fail with what was waited for."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"did not come about within {timeout} s: {what or condition}")
        await asyncio.sleep(0.005)


async def reaches(stream: ResilientStream, *states: StreamState, timeout: float = 8.0) -> StreamState:
    try:
        async with asyncio.timeout(timeout):
            return await stream.machine.wait_for(*states)
    except TimeoutError:
        raise AssertionError(f"never reached {states}; is {stream.state}: {stream.machine.cause}") from None


class MemorySink:
    """Keeps trades in memory. `gate` holds every append back while it is cleared; `refuse` makes so many appends fail."""

    def __init__(self) -> None:
        self.trades: dict[int, AggTrade] = {}
        self.order: list[int] = []
        self.appended = 0
        self.gaps: list[tuple[int, int, str]] = []
        self.closed: list[tuple[int, int, str]] = []
        self.begins: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuse = 0
        self.stuck = False
        self.start = LedgerPosition()

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        self.stuck = not self.gate.is_set()
        await self.gate.wait()
        self.stuck = False
        if self.refuse:
            self.refuse -= 1
            raise OSError(28, "No space left on device")
        self.appended += len(trades)
        self.order += [trade.id for trade in trades]
        self.trades.update((trade.id, trade) for trade in trades)

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        self.gaps.append((first_id, last_id, cause))

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        self.closed.append((first_id, last_id, outcome))

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        self.begins.append(first_id)

    async def position(self, symbol: str) -> LedgerPosition:
        return self.start

    def holds(self, first: int, last: int) -> bool:
        """Whether it has exactly the ids from first to last, each handed over once."""
        return sorted(self.order) == list(range(first, last + 1))


def trade(id: int, symbol: str = SYMBOL, *, time_ms: int | None = None) -> AggTrade:
    at = START_MS + id if time_ms is None else time_ms
    return AggTrade(id, f"{2000 + id % 7}.50", "0.25000000", id * 2, id * 2 + 1, at, id % 2 == 0, symbol)


def _bound_to(port: int) -> socket.socket:
    """A socket at `port` of loopback, beside others that are made so; at a free one for 0."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    return one


class ScriptedExchange:
    """Binance's protocol over TLS, as far as the stream needs it, and told step by step what to do."""

    def __init__(self, authority: trustme.CA, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._tls)
        self._server = None
        self._runner: web.AppRunner | None = None
        # Bound and never listening: between `close_ws` and `open_ws` the port is refused, and no other process can be given it.
        self._ws_place = _bound_to(0)
        self.ws_port, self.rest_port = self._ws_place.getsockname()[1], 0
        self.trades: list[AggTrade] = []
        self.next_id = FIRST_ID
        self.connections: list[ServerConnection] = []
        self.subscribed: set[ServerConnection] = set()
        self.dials = 0
        self.acks = True
        self.refusal: bytes | None = None
        self.upgrade_status: tuple[int, dict[str, str]] | None = None
        self.upgrades = asyncio.Event()  # cleared, every new connection is left waiting for the answer to its upgrade
        self.upgrades.set()
        self.received: list[str] = []
        self.rest_requests: list[dict[str, str]] = []
        self.rest_answers: list[tuple[int, dict[str, str]]] = []  # statuses to answer with before serving again
        self.rest_headers: dict[str, str] = {}
        self.rest_keeps_from = 0
        self.rest_reaches = 1 << 62  # the last id that REST knows of
        self.venue_lacks: set[int] = set()
        self.unknown_symbols: set[str] = set()
        self.step_ms = 1
        self.now_ms = START_MS

    async def __aenter__(self) -> ScriptedExchange:
        await self.open_ws()
        app = web.Application()
        app.router.add_get("/api/v3/aggTrades", self._agg_trades)
        app.router.add_get("/api/v3/klines", self._klines)
        app.router.add_get("/api/v3/time", self._time)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.rest_port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_ws()
        self._ws_place.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def open_ws(self) -> None:
        """Listen; again on the same port after `close_ws`."""
        self._server = await serve(
            self._serve,
            sock=_bound_to(self.ws_port),
            ssl=self._tls,
            compression=None,
            ping_interval=None,
            process_request=self._upgrade,
            close_timeout=0.2,
        )

    async def close_ws(self) -> None:
        """Stop listening and cut every connection, without a close frame."""
        server, self._server = self._server, None
        if server is not None:
            self.cut()
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        for connection in self.connections:
            connection.transport.abort()

    def stop_answering(self) -> None:
        """Become a black hole: the connections stay open, and nothing is read from them any more."""
        for connection in self.connections:
            connection.transport.pause_reading()

    def config(self, **changes: object) -> StreamConfig:
        values: dict[str, object] = {
            "symbols": (SYMBOL,),
            "ws_url": f"wss://localhost:{self.ws_port}",
            "rest_url": f"https://localhost:{self.rest_port}",
            "ca_file": str(self.ca_file),
            "jitter": 0.0,
        }
        return StreamConfig(**{**values, **changes})  # type: ignore[arg-type]

    def make(self, count: int, symbol: str = SYMBOL) -> list[AggTrade]:
        """Trades happen at the venue, without being sent."""
        made = []
        for _ in range(count):
            self.now_ms += self.step_ms
            made.append(trade(self.next_id, symbol, time_ms=self.now_ms))
            self.next_id += 1
        self.trades += made
        return made

    async def send(self, trades: Sequence[AggTrade]) -> None:
        for one in trades:
            await self.send_raw(agg_trade_frame(one, one.time, True))

    async def send_raw(self, frame: bytes, *, text: bool = True) -> None:
        for connection in list(self.subscribed):
            try:
                await connection.send(frame, text=text)
            except ConnectionClosed:
                self.subscribed.discard(connection)

    async def trade(self, count: int) -> None:
        """Trades happen and are sent to whoever is subscribed."""
        await self.send(self.make(count))

    async def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        self.dials += 1
        await self.upgrades.wait()
        if self.upgrade_status is None:
            return None
        status, headers = self.upgrade_status
        return Response(status, HTTPStatus(status).phrase, Headers(headers), b"")

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        streams: list[str] = []
        try:
            async for message in connection:
                self.received.append(str(message))
                request = json.loads(message)
                if self.refusal is not None:
                    await connection.send(self.refusal, text=True)
                elif self.acks:
                    if request["method"] == "SUBSCRIBE":
                        streams += request["params"]
                        self.subscribed.add(connection)
                    listed = streams if request["method"] == "LIST_SUBSCRIPTIONS" else None
                    await connection.send(json.dumps({"result": listed, "id": request["id"]}))
        except ConnectionClosed:
            return
        finally:
            self.connections.remove(connection)
            self.subscribed.discard(connection)

    def _scripted_answer(self, request: web.Request) -> web.Response | None:
        self.rest_requests.append({"path": request.path, **request.query})
        if not self.rest_answers:
            return None
        status, headers = self.rest_answers.pop(0)
        return web.Response(status=status, headers=headers, body=encode_rest_error(-1003, "scripted"))

    async def _agg_trades(self, request: web.Request) -> web.Response:
        if (answer := self._scripted_answer(request)) is not None:
            return answer
        limit = int(request.query["limit"])
        symbol = request.query["symbol"]
        if symbol in self.unknown_symbols:
            return web.Response(status=400, body=encode_rest_error(-1121, "Invalid symbol."))
        rows = [t for t in self.trades if t.symbol == symbol and t.id <= self.rest_reaches and t.id not in self.venue_lacks]
        if "fromId" in request.query:
            start = max(int(request.query["fromId"]), self.rest_keeps_from)
            rows = [t for t in rows if t.id >= start][:limit]
        else:
            rows = rows[-limit:]
        return web.Response(body=encode_agg_trades(rows), headers=self.rest_headers, content_type="application/json")

    async def _time(self, request: web.Request) -> web.Response:
        return self._scripted_answer(request) or web.json_response({"serverTime": self.now_ms})

    async def _klines(self, request: web.Request) -> web.Response:
        if (answer := self._scripted_answer(request)) is not None:
            return answer
        newest = min(int(request.query.get("endTime", self.now_ms)), self.now_ms) // 60_000 * 60_000
        opens = range(newest - (int(request.query["limit"]) - 1) * 60_000, newest + 1, 60_000)
        rows = [[t, "1", "2", "0.5", "1.5", "10", t + 59_999, "15", 3, "4", "6", "0"] for t in opens]
        return web.json_response(rows)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
async def exchange(authority: trustme.CA, tmp_path: Path) -> AsyncIterator[ScriptedExchange]:
    async with ScriptedExchange(authority, tmp_path) as exchange:
        yield exchange


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


Start = Callable[..., Awaitable[ResilientStream]]


@pytest.fixture
async def start(exchange: ScriptedExchange, clock: ManualClock) -> AsyncIterator[Start]:
    """Starts streams, and stops them after the test.

    A pong comes in real time, and the clock may leap while it is on its way: only a test that says so gives one up.
    """
    async with AsyncExitStack() as stack:

        async def start_stream(sink: TradeSink, **changes: object) -> ResilientStream:
            config = exchange.config(**{"pong_timeout": 3600.0, **changes})
            stream = ResilientStream(config, sink, clock=clock, rng=random.Random(1))
            await stream.start()
            stack.push_async_callback(stream.stop)
            return stream

        yield start_stream
