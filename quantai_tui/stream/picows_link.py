"""The fast transport: a link by the `picows` library over verified TLS. Importing this module imports the library.

picows parses frames in C and hands each over in a callback, at a fraction of the cost of `websockets`. What it lacks is done
here: it tells neither when TLS is done nor what ended a connection, does not put fragments together, and overlooks reserved
bits. So its protocol class is used directly, where `ws_connect` would hide these moments; hence the narrow range of releases.
And TLS stays asyncio's: the one that `ws_connect` would take saves a tenth more, and can leave data lying when reading pauses.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import NoReturn

from picows import WSAutoPingStrategy, WSCloseCode, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSProtocolError, WSTransport
from picows.picows import WSCloseInfo, WSProtocol  # type: ignore[attr-defined]  # no stub has the protocol
from picows.version import __version__ as picows_version

from ..cleaning import one_line
from ..telemetry import SYSTEM_CLOCK, Clock
from .addresses import open_tcp
from .advice import FailureKind
from .config import StreamConfig
from .failures import HttpStatusError, LinkFault, Phase, close_kind
from .tls import tls_info
from .transport import (
    CLOSE_TIMEOUT_S,
    MAX_FRAME_BYTES,
    UPGRADE_TIMEOUT_S,
    Endpoint,
    Receiver,
    SendPace,
    endpoint,
)

if picows_version.split(".")[:2] != ["2", "3"]:
    raise ImportError(f"picows {picows_version} is installed; this program is built upon picows 2.3")

# What is decrypted at a time: four full TLS records, or some two hundred trades.
_READ_BUFFER_BYTES = 64 * 1024
_NO_CODE = 1005  # RFC 6455: what a close frame without a code counts as; picows gives 0
_TEXT, _CONTINUATION = WSMsgType.TEXT, WSMsgType.CONTINUATION

_wire_log = logging.getLogger("quantai_tui.stream.picows")
_wire_log.setLevel(logging.CRITICAL)  # whatever ends a link is raised here, and logged above


class _Inbound(WSListener):
    """Frames in, whole messages out. Calls the receiver, answers close frames, and matches pongs to pings."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._parts: bytearray | None = None
        self._deaf = False  # nothing that still comes counts: a frame was refused, or the venue has closed
        self.pings: dict[bytes, tuple[float, asyncio.Future[float]]] = {}

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._deaf or frame.payload_size > MAX_FRAME_BYTES:
            self._deaf = True  # after a frame that it refused the library goes on for a moment, with that frame too
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise self._refusal(WSCloseCode.PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        if frame.msg_type == _TEXT and frame.fin and self._parts is None:
            self._receiver.take(frame.get_payload_as_bytes())
        else:
            self._rare(transport, frame)
        if frame.last_in_buffer and self._receiver.is_full():
            transport.underlying_transport.pause_reading()

    def pause_writing(self) -> None:
        """Nothing to do: so little is sent that a line which takes none of it is found dead first."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def lost(self) -> None:
        for _, pong in self.pings.values():
            if not pong.done():
                pong.set_exception(ConnectionResetError("the connection ended before the pong came"))
                pong.exception()  # whoever waited for it may be gone
        self.pings.clear()

    def _rare(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.PONG:
            self._pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._deaf = True
            transport.send_close(WSCloseCode.OK if not frame.get_close_code() else frame.get_close_code())
            # The other side hangs up first; one that does not is not waited for.
            self._loop.call_later(CLOSE_TIMEOUT_S, transport.underlying_transport.abort)
        elif kind != WSMsgType.PING:
            self._data(kind, frame)

    def _data(self, kind: WSMsgType, frame: WSFrame) -> None:
        if (kind == _CONTINUATION) is (self._parts is None):
            raise self._refusal(WSCloseCode.PROTOCOL_ERROR, "fragments out of order")
        if frame.fin and self._parts is None:
            self._receiver.take(frame.get_payload_as_bytes())
            return
        if self._parts is None:
            self._parts = bytearray()
        self._parts += frame.get_payload_as_bytes()
        if len(self._parts) > MAX_FRAME_BYTES:
            raise self._refusal(WSCloseCode.MESSAGE_TOO_BIG, f"a message of more than {MAX_FRAME_BYTES} bytes")
        if frame.fin:
            message, self._parts = bytes(self._parts), None
            self._receiver.take(message)

    def _refusal(self, code: WSCloseCode, reason: str) -> WSProtocolError:
        self._deaf = True
        return WSProtocolError(code, reason)

    def _pong(self, payload: bytes) -> None:
        """A pong also answers the pings before its own (RFC 6455 section 5.5.3); one that nobody asked for answers none."""
        now = self._loop.time()
        while payload in self.pings:
            asked = next(iter(self.pings))
            sent_at, pong = self.pings.pop(asked)
            if not pong.done():
                pong.set_result(now - sent_at)


class _Connection(WSProtocol):  # type: ignore[misc]
    """The library's protocol, which also tells when TLS is done, and what ended the connection."""

    def __init__(self, target: Endpoint, inbound: _Inbound, on_phase: Callable[[Phase], None]) -> None:
        default_port = target.port == 443
        host = f"[{target.host}]" if ":" in target.host else target.host
        super().__init__(
            host if default_port else f"{host}:{target.port}",
            target.path,
            True,  # the client's side
            lambda: inbound,
            _wire_log,
            True,  # an exception in a callback ends the connection
            None,  # the upgrade has a bound of ours
            False,  # no pings of the library's own
            10.0,
            10.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,  # the venue's pings are answered in band
            MAX_FRAME_BYTES,
            None,  # no headers of our own
            _READ_BUFFER_BYTES,
        )
        self.inbound = inbound
        self._on_phase = on_phase
        self.carrier: asyncio.Transport | None = None
        self.lost_by: Exception | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.carrier = transport
        super().connection_made(transport)
        self._on_phase(Phase.UPGRADE)  # called when TLS is done

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_by = exc
        self.inbound.lost()
        if self.transport is not None:
            super().connection_lost(exc)


class PicowsLink:
    """An open connection; see `Link`."""

    def __init__(self, connection: _Connection, clock: Clock) -> None:
        self._connection = connection
        self._carrier = connection.carrier
        self._wire: WSTransport = connection.transport
        self._inbound = connection.inbound
        self._pace = SendPace(clock)
        self._loop = asyncio.get_running_loop()
        # Its exception is always taken, also where nobody waits for the end.
        self._over = asyncio.create_task(self._wire.wait_disconnected())
        self._over.add_done_callback(lambda over: over.cancelled() or over.exception())
        self.tls = tls_info(self._wire.underlying_transport.get_extra_info("ssl_object"))

    async def until_closed(self) -> NoReturn:
        try:
            await asyncio.shield(self._over)
        except WSProtocolError as error:
            if self._told() is None:
                raise LinkFault(close_kind(int(error.code)), one_line(str(error))) from error
        raise self._end()

    def resume_reading(self) -> None:
        carrier = self._wire.underlying_transport
        if not carrier.is_closing():
            carrier.resume_reading()

    async def send(self, frame: str | bytes) -> None:
        await self._pace.turn()
        self._must_be_open()
        self._wire.send(_TEXT, frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        await self._pace.turn()
        self._must_be_open()
        pings = self._inbound.pings
        for given_up in [known for known, (_, pong) in pings.items() if pong.done()]:
            del pings[given_up]
        pong: asyncio.Future[float] = self._loop.create_future()
        pings[payload] = (self._loop.time(), pong)
        self._wire.send_ping(payload)
        return pong

    async def close(self) -> None:
        try:
            if not self._wire.is_disconnected:
                self._wire.send_close(WSCloseCode.OK)
                await asyncio.wait([self._over], timeout=CLOSE_TIMEOUT_S)
        finally:
            self.abort()
            await asyncio.wait([self._over])

    def abort(self) -> None:
        self._wire.underlying_transport.abort()

    def _must_be_open(self) -> None:
        if self._wire.is_disconnected or self._wire.is_close_frame_sent:
            raise self._end()

    def _told(self) -> WSCloseInfo | None:
        """The close frame with which the venue began to close; None where it did not begin."""
        shaken = self._wire.close_handshake
        return shaken.recv if shaken is not None and (shaken.recv_then_sent or shaken.sent is None) else None

    def _end(self) -> Exception:
        """What ended the connection, as far as the library saw it."""
        if (told := self._told()) is not None:
            code = int(told.code) or _NO_CODE  # type: ignore[call-overload]  # an IntEnum, which the stub does not know
            return LinkFault(close_kind(code), one_line(f"the venue closed with code {code}: {told.reason or 'no reason given'}"))
        if self._wire.is_close_frame_sent:
            return LinkFault(FailureKind.CLOSED, "closed from here")
        return self._connection.lost_by or ConnectionResetError("the connection was cut without a close frame")


class PicowsTransport:
    """Opens links by `picows`. `tls` makes the context, once it is needed."""

    name = "picows"

    def __init__(self, tls: Callable[[], ssl.SSLContext], clock: Clock = SYSTEM_CLOCK) -> None:
        self._tls = tls
        self._clock = clock

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> PicowsLink:
        """See `Transport.dial`."""
        on_phase(Phase.CONNECT)
        target = endpoint(config)
        context = self._tls()
        sock = await open_tcp(target.host, target.port, proxy=config.proxy, timeout=config.connect_timeout, context=context)
        connection = _Connection(target, _Inbound(receiver), on_phase)
        try:
            on_phase(Phase.TLS)
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                sock=sock,
                ssl=context,
                server_hostname=target.host,
                ssl_handshake_timeout=config.ssl_timeout,
                ssl_shutdown_timeout=CLOSE_TIMEOUT_S,
            )
            async with asyncio.timeout(UPGRADE_TIMEOUT_S):
                await connection.wait_until_handshake_complete()
            if connection.listener is None:  # the library takes a connection lost for an upgrade done
                raise connection.lost_by or ConnectionResetError("cut before the upgrade was answered")
        except BaseException as error:
            if connection.carrier is not None:
                connection.carrier.abort()
            sock.close()
            if isinstance(error, WSHandshakeError):
                raise self._refusal(error) from error
            raise
        return PicowsLink(connection, self._clock)

    def _refusal(self, error: WSHandshakeError) -> Exception:
        """The error for a refused upgrade, read from the raw answer because the library drops unknown statuses.

        The library has only the part of the body that came with the headers.
        """
        refused = HttpStatusError.in_answer(error.raw_header or b"", error.raw_body or b"", self._clock.time())
        return refused or LinkFault(FailureKind.PROTOCOL, one_line(f"{Phase.UPGRADE.value}: {error}"))
