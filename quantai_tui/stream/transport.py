"""One websocket connection over verified TLS: how it is opened, what may be sent on it, and that it always gets closed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .config import StreamConfig
from .failures import LinkFault, Phase
from .names import resolve
from .tasks import settle

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

# A combined aggTrade frame is about 250 bytes, the largest documented one (depth) some 100 KiB: above this it is not theirs.
MAX_FRAME_BYTES = 1 << 20
# Frames that the library may queue before it stops reading. Only fragments and binary frames, which no venue sends, are queued.
_MAX_QUEUE = 64
_UPGRADE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 0.5
_STAGGER_S = 0.25  # between addresses of one host, as RFC 8305 recommends
# Binance allows 5 messages a second on spot, pongs included; one is left for the library's pongs.
_SENDS_PER_S = 4

_wire_log = logging.getLogger("quantai_tui.stream.websocket")
_wire_log.setLevel(logging.WARNING)


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A verifying client context, TLS 1.2 or newer, that trusts the system's authorities and those in `ca_file`.

    Raises:
        LinkFault: with kind CONFIG, when the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or getattr(error, "reason", None) or "it holds no certificate"
            raise LinkFault(FailureKind.CONFIG, f"EXCHANGE_CA_FILE {ca_file} cannot be used: {reason}") from error
    return context


class Receiver(Protocol):
    """Who takes the text frames of a connection."""

    def take(self, data: bytes) -> None:
        """One whole text frame, undecoded; any buffer, not to be kept. Must be quick, and must not raise."""
        ...

    def is_full(self) -> bool:
        """Asked after every read of the socket: whether to stop reading until `Link.resume_reading`."""
        ...


class Link:
    """An open connection. Its text frames go to the `Receiver` it was dialled with."""

    def __init__(self, connection: ClientConnection, clock: Clock = SYSTEM_CLOCK) -> None:
        self._connection = connection
        self._clock = clock
        self._sent: deque[float] = deque(maxlen=_SENDS_PER_S)
        self._turn = asyncio.Lock()
        tls = connection.transport.get_extra_info("ssl_object")
        self.tls_version: str | None = tls.version() if tls is not None else None

    async def recv(self) -> bytes:
        """The next message that came in pieces or as binary. Raises ConnectionClosed once the connection has ended."""
        return await self._connection.recv(decode=False)

    def resume_reading(self) -> None:
        """Read the socket again after the receiver was full."""
        self._connection.transport.resume_reading()

    async def send(self, frame: str | bytes) -> None:
        """Send a text frame, no faster than the venue allows."""
        await self._wait_turn()
        await self._connection.send(frame.decode() if isinstance(frame, bytes) else frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        """Send a ping; the result waits for its pong and gives the round-trip time in seconds."""
        await self._wait_turn()
        return await self._connection.ping(payload)

    async def close(self) -> None:
        """Close in good order if the other side answers at once; otherwise cut. Takes half a second at most."""
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=_CLOSE_TIMEOUT_S)
        finally:
            self._connection.transport.abort()
            await settle(closing)

    def abort(self) -> None:
        """Cut the connection now."""
        self._connection.transport.abort()

    async def _wait_turn(self) -> None:
        async with self._turn:
            while len(self._sent) == _SENDS_PER_S and (wait := self._sent[0] + 1.0 - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            self._sent.append(self._clock.monotonic())


async def dial(
    url: str,
    config: StreamConfig,
    context: ssl.SSLContext,
    receiver: Receiver,
    on_phase: Callable[[Phase], None],
    clock: Clock = SYSTEM_CLOCK,
) -> Link:
    """Open a connection: name and TCP, then TLS, then the upgrade, each with a bound of its own.

    The TCP connection is made here and handed over, so that a stall can be named by the phase it happened in.

    Raises:
        LinkFault: with kind CONFIG, when `url` is not a wss:// address with a host: nothing is ever sent in the clear.
        Exception: whatever the failing layer raises; `classify` knows them.
    """
    # Imported at the first dial: the dashboard side of the program never needs it.
    from websockets.asyncio.client import connect

    on_phase(Phase.CONNECT)
    parts = urlsplit(url)
    if parts.scheme != "wss":
        raise LinkFault(FailureKind.CONFIG, f"EXCHANGE_WS_URL must begin with wss://, since TLS is never done without: {url}")
    if parts.hostname is None:
        raise LinkFault(FailureKind.CONFIG, f"EXCHANGE_WS_URL has no host name: {url}")
    sock = None
    if config.proxy is None:
        async with asyncio.timeout(config.connect_timeout):
            sock = await _tcp(parts.hostname, parts.port or 443)
    on_phase(Phase.TLS)
    made: list[asyncio.Transport] = []
    try:
        connection = await connect(
            url,
            sock=sock,
            proxy=config.proxy,
            compression=None,  # Binance offers none, and inflating would cost more than it saves
            ping_interval=None,  # our own heartbeat takes its place
            # The library's bound covers all phases; it must not end a TLS handshake that still has time.
            open_timeout=config.ssl_timeout + _UPGRADE_TIMEOUT_S + (config.connect_timeout if config.proxy else 0.0),
            close_timeout=_CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            max_queue=_MAX_QUEUE,
            logger=_wire_log,
            create_connection=_pushing(on_phase, receiver, made.append),
            ssl=context,
            ssl_handshake_timeout=config.ssl_timeout,
        )
    except BaseException:
        # Cancelled just as TLS was done, asyncio leaves the transport open, to wait for the peer's goodbye. The next socket would
        # get the number of the one closed beneath it, and be refused, or lose its reader, for the sake of the old.
        for transport in made:
            transport.abort()
        if sock is not None:
            sock.close()
        raise
    return Link(connection, clock)


def _pushing(
    on_phase: Callable[[Phase], None], receiver: Receiver, on_made: Callable[[asyncio.Transport], None]
) -> type[ClientConnection]:
    """A connection class that hands whole text frames to `receiver` as they are parsed, and its transport to `on_made`.

    The library's own way, a queue that a task drains with `recv`, costs about a third of all processor time per message. What is
    rare (fragments, binary, control frames) still takes it.
    """
    from websockets.asyncio.client import ClientConnection
    from websockets.frames import Frame, Opcode
    from websockets.protocol import Event

    take, is_full, text = receiver.take, receiver.is_full, Opcode.TEXT

    class PushingConnection(ClientConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            on_made(self.transport)
            on_phase(Phase.UPGRADE)  # asyncio calls this when TLS is done

        def process_event(self, event: Event) -> None:
            if type(event) is Frame and event.opcode is text and event.fin:
                take(event.data)  # type: ignore[arg-type]
            else:
                super().process_event(event)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if is_full():
                self.transport.pause_reading()

    return PushingConnection


async def _tcp(host: str, port: int) -> socket.socket:
    """A connected socket to the first of the host's addresses that answers, tried one after the other a quarter second apart."""
    found = await resolve(host, port)
    # IPv6 and IPv4 in turn: one family that is black-holed does not hold up the other.
    families = [[info for info in found if (info[0] == socket.AF_INET6) is six] for six in (True, False)]
    order = [info for pair in itertools.zip_longest(*families) for info in pair if info is not None]
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: socket.socket | None = None
    try:
        pending: set[asyncio.Task[socket.socket]] = set()
        for info in [*order, None]:
            if info is not None:
                attempts.append(asyncio.create_task(_tcp_to(info[0], info[4])))
                pending.add(attempts[-1])
            while pending and winner is None:
                stagger = None if info is None else _STAGGER_S
                done, pending = await asyncio.wait(pending, timeout=stagger, return_when=asyncio.FIRST_COMPLETED)
                winner = next((task.result() for task in done if task.exception() is None), None)
                if info is not None:
                    break
            if winner is not None:
                return winner
        raise next(error for task in attempts if (error := task.exception()) is not None)
    finally:
        for task in attempts:
            await settle(task)
            if not task.cancelled() and task.exception() is None and task.result() is not winner:
                task.result().close()


async def _tcp_to(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
