"""What the tests of the transports share: a receiver, and a websocket server on real TLS whose every byte a test can choose."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from quantai_tui.stream import Failure, Phase, StreamConfig, classify
from quantai_tui.stream.tls import tls_context
from quantai_tui.stream.transport import Link
from quantai_tui.stream.transports import ConfiguredTransport

LIBRARIES = ("websockets", "picows")
PATIENCE_S = 10.0


class Collector:
    """Takes messages and keeps them. `limit` is how many it has room for."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.messages: list[bytes] = []
        self.limit = limit
        self.asked = 0

    def take(self, data: bytes) -> None:
        self.messages.append(bytes(data))

    def is_full(self) -> bool:
        self.asked += 1
        return len(self.messages) >= self.limit


class Dialler:
    """Opens links by one library, and tells how far it came."""

    def __init__(self, library: str, context: ssl.SSLContext) -> None:
        self.library = library
        self.phases: list[Phase] = []
        self._transport = ConfiguredTransport(lambda: context)
        self._links: list[Link] = []

    async def dial(self, url: str, receiver: Collector | None = None, **changes: object) -> Link:
        config = StreamConfig(symbols=("ETHUSDT",), ws_url=url, transport=self.library, **changes)  # type: ignore[arg-type]
        link = await self._transport.dial(config, receiver or Collector(), self.phases.append)
        self._links.append(link)
        return link

    async def failure(self, url: str, **changes: object) -> Failure:
        """What a dial that must fail comes to."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.dial(url, **changes)
        except Exception as error:
            return classify(error, self.phases[-1])
        raise AssertionError("the dial did not fail")

    async def close(self) -> None:
        for link in self._links:
            await link.close()


@pytest.fixture(params=LIBRARIES)
async def dialler(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Dialler]:
    """A dialler for each library, which trusts the tests' authority."""
    dialler = Dialler(request.param, tls_context(trusting(authority, tmp_path)))
    yield dialler
    await dialler.close()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    return Frame(opcode, data, fin).serialize(mask=False)


async def idle(connection: ServerConnection) -> None:
    """A server's handler that leaves the rest to the test."""


async def end_of(link: Link) -> Failure:
    """What ends a link that is live."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await link.until_closed()
    except Exception as error:
        return classify(error, Phase.LIVE)


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost",))).configure_cert(context)
    return context


Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def websocket_server(authority: trustme.CA, handler: Handler, **options: object) -> AsyncIterator[str]:
    """A server on loopback; gives its address. `options` are those of `websockets.serve`."""

    async def handle(connection: ServerConnection) -> None:
        try:
            await handler(connection)
            await connection.wait_closed()
        except ConnectionClosed:
            return

    settings: dict[str, object] = {
        "ssl": server_tls(authority),
        "compression": None,
        "ping_interval": None,
        "close_timeout": 0.2,
        **options,
    }
    async with serve(handle, "127.0.0.1", 0, **settings) as server:  # type: ignore[arg-type]
        yield f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}"
        for connection in server.connections:
            connection.transport.abort()


@asynccontextmanager
async def tcp_server(
    serve_one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server of plain bytes on loopback; gives its port. What it has accepted is cut at the end."""
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve_one(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        for writer in writers:
            writer.transport.abort()


async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: bytes = b"") -> None:
    """Accept a websocket upgrade, and send `more` in the same piece."""
    request = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b":") for line in request.split(b"\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    writer.write(answer + accept + b"\r\n\r\n" + more)
    await writer.drain()


def below_tls(connection: ServerConnection, data: bytes) -> None:
    """Put bytes on the wire that TLS knows nothing of."""
    os.write(connection.transport.get_extra_info("socket").fileno(), data)


def trusting(authority: trustme.CA, folder: Path) -> str:
    """The path of a file with the authority's certificate."""
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of loopback where nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]


@contextmanager
def alerting_server(tls: ssl.SSLContext) -> Iterator[int]:
    """A TLS server in a thread, which says why it refuses a handshake: asyncio's hangs up without that. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_all() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                raw.settimeout(PATIENCE_S)
                try:
                    with tls.wrap_socket(raw, server_side=True) as connection:
                        connection.recv(1)
                except OSError:
                    raw.close()

        thread = threading.Thread(target=serve_all, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
