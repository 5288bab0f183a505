"""The transport that needs no extra: a link by the `websockets` library over verified TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from ..telemetry import SYSTEM_CLOCK, Clock
from .addresses import open_tcp
from .config import StreamConfig
from .failures import HttpStatusError, Phase
from .tasks import settle
from .tls import tls_info
from .transport import CLOSE_TIMEOUT_S, MAX_FRAME_BYTES, UPGRADE_TIMEOUT_S, Receiver, SendPace, endpoint

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

# Frames that the library may queue before it stops reading. Only fragments and binary frames, which no venue sends, are queued.
_MAX_QUEUE = 64
_ANSWER_BYTES = 16 * 1024
_REFUSAL_BODY_S = 1.0

_wire_log = logging.getLogger("quantai_tui.stream.websocket")
_wire_log.setLevel(logging.WARNING)


class WebsocketsLink:
    """An open connection; see `Link`."""

    def __init__(self, connection: ClientConnection, receiver: Receiver, clock: Clock) -> None:
        self._connection = connection
        self._receiver = receiver
        self._pace = SendPace(clock)
        self.tls = tls_info(connection.transport.get_extra_info("ssl_object"))

    async def until_closed(self) -> NoReturn:
        while True:
            self._receiver.take(await self._connection.recv(decode=False))

    def resume_reading(self) -> None:
        transport = self._connection.transport
        if not transport.is_closing():
            transport.resume_reading()

    async def send(self, frame: str | bytes) -> None:
        await self._pace.turn()
        await self._connection.send(frame.decode() if isinstance(frame, bytes) else frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        await self._pace.turn()
        return await self._connection.ping(payload)

    async def close(self) -> None:
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
        finally:
            self._connection.transport.abort()
            await settle(closing)

    def abort(self) -> None:
        self._connection.transport.abort()


class WebsocketsTransport:
    """Opens links by `websockets`. `tls` makes the context, once it is needed."""

    name = "websockets"

    def __init__(self, tls: Callable[[], ssl.SSLContext], clock: Clock = SYSTEM_CLOCK) -> None:
        self._tls = tls
        self._clock = clock

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> WebsocketsLink:
        """See `Transport.dial`. The TCP connection is made here and handed over, so that a stall can be named by its phase."""
        # Imported at the first dial: the dashboard side of the program never needs it.
        from websockets.asyncio.client import connect

        on_phase(Phase.CONNECT)
        target = endpoint(config)
        context = self._tls()
        sock = await open_tcp(target.host, target.port, proxy=config.proxy, timeout=config.connect_timeout, context=context)
        made: list[asyncio.Transport] = []
        answer = bytearray()
        lost_by: list[Exception] = []
        bound = asyncio.timeout(None)

        def tls_is_done(transport: asyncio.Transport) -> None:
            made.append(transport)
            bound.reschedule(asyncio.get_running_loop().time() + UPGRADE_TIMEOUT_S)
            on_phase(Phase.UPGRADE)

        def answered() -> None:
            if _refusal_in(answer, self._clock.time()) is not None:
                # The library waits for the whole body, which may never arrive.
                bound.reschedule(asyncio.get_running_loop().time() + _REFUSAL_BODY_S)

        try:
            on_phase(Phase.TLS)
            async with bound:
                connection = await connect(
                    target.url,
                    sock=sock,
                    proxy=None,
                    compression=None,  # Binance offers none, and inflating would cost more than it saves
                    ping_interval=None,  # our own heartbeat takes its place
                    open_timeout=None,  # it would cover all phases; each has a bound of its own
                    close_timeout=CLOSE_TIMEOUT_S,
                    max_size=MAX_FRAME_BYTES,
                    max_queue=_MAX_QUEUE,
                    logger=_wire_log,
                    create_connection=_pushing(receiver, tls_is_done, lost_by.append, answer, answered),
                    ssl=context,
                    server_hostname=target.host,
                    ssl_handshake_timeout=config.ssl_timeout,
                )
        except BaseException as error:
            # Cancelled just as TLS was done, asyncio leaves the transport open, to wait for the peer's goodbye. The next socket
            # would get the number of the one closed beneath it, and be refused, or lose its reader, for the sake of the old.
            for transport in made:
                transport.abort()
            sock.close()
            cause = _cause_of(error, answer, lost_by, self._clock.time())
            if cause is not None:
                raise cause from error
            raise
        return WebsocketsLink(connection, receiver, self._clock)


def _cause_of(error: BaseException, answer: bytearray, lost_by: list[Exception], now_s: float) -> Exception | None:
    """What lies behind a failed dial, where the library's own error says less."""
    from websockets.exceptions import InvalidStatus

    if isinstance(error, InvalidStatus):
        headers, body = error.response.headers, bytes(error.response.body or b"")
        waits, date = headers.get_all("Retry-After"), headers.get("Date")
        return HttpStatusError.of(error.response.status_code, waits, date, body, now_s)
    if isinstance(error, Exception) and (refused := _refusal_in(answer, now_s)) is not None:
        return refused  # its body is missing or incomplete
    if lost_by and isinstance(error.__cause__, EOFError):
        # To the library, a line that breaks before the answer is an invalid answer. After an answer that was read and refused,
        # the line breaks because we hang up: that explains nothing.
        return lost_by[0]
    return None


def _refusal_in(answer: bytearray, now_s: float) -> HttpStatusError | None:
    """The refusal in a partial answer, once its headers are complete."""
    head, whole, body = bytes(answer).partition(b"\r\n\r\n")
    return HttpStatusError.in_answer(head, body, now_s) if whole else None


def _pushing(
    receiver: Receiver,
    on_made: Callable[[asyncio.Transport], None],
    on_broken: Callable[[Exception], None],
    answer: bytearray,
    on_answer: Callable[[], None],
) -> type[ClientConnection]:
    """A connection class that hands whole text frames to `receiver` as they are parsed, and its transport to `on_made`.

    `on_broken` gets the error that broke the line, unless it ended in order. The answer to the upgrade is also copied
    into `answer`, at least its beginning, and `on_answer` is called.

    The library's own way, a queue that a task drains with `recv`, costs about a third of all processor time per message. What is
    rare (fragments, binary, control frames) still takes it.
    """
    from websockets.asyncio.client import ClientConnection
    from websockets.frames import Frame, Opcode
    from websockets.protocol import Event

    is_full, text = receiver.is_full, Opcode.TEXT

    class PushingConnection(ClientConnection):
        ending: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            on_made(self.transport)  # asyncio calls this when TLS is done

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if exc is not None:
                on_broken(exc)

        def process_event(self, event: Event) -> None:
            if type(event) is Frame and event.opcode is text and event.fin:
                receiver.take(event.data)  # type: ignore[arg-type]
            else:
                super().process_event(event)

        def data_received(self, data: bytes) -> None:
            unanswered = self.response is None
            super().data_received(data)
            if unanswered and len(answer) < _ANSWER_BYTES:
                answer.extend(data)
                on_answer()
            if is_full():
                self.transport.pause_reading()
            if self.close_deadline is not None and self.ending is None:
                # Close frames are exchanged, and the other side hangs up first; one that does not is not waited for.
                self.ending = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    return PushingConnection
