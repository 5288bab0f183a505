"""The two listeners of the exchange: WebSocket streams and REST, each on its own TLS port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from aiohttp import web
from websockets.asyncio.server import Server, serve

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .budget import Limits, RequestBudget
from .markets import Market
from .rest import RestFront
from .ws import Connection, StreamFront

HOST = "127.0.0.1"

_LOG = logging.getLogger(__name__)

_LARGEST_REQUEST_BYTES = 64 * 1024
_CLOSE_S = 0.3  # for the closing handshakes of all clients together


class ExchangeServer:
    """Serves one market. `start`, then `close`; `failed` tells when it broke in between."""

    def __init__(self, market: Market, tls: ssl.SSLContext, *, limits: Limits | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._tls = tls
        limits = limits or Limits()
        self._budget = RequestBudget(limits, clock)
        self._streams = StreamFront(market, self._budget, limits, clock)
        self._rest = RestFront(market, self._budget, limits, clock)
        self._server: Server | None = None
        self._runner: web.AppRunner | None = None

    @property
    def failed(self) -> asyncio.Future[None]:
        return self._streams.failed

    async def start(self, ws_socket: socket.socket, rest_socket: socket.socket) -> None:
        """Serve on two bound sockets, which this object closes from now on."""
        self._server = await serve(
            self._streams.handle,
            sock=ws_socket,
            ssl=self._tls,
            process_request=self._streams.refuse,
            create_connection=Connection,
            compression=None,  # the venue offers none
            ping_interval=None,  # `StreamFront` pings as the venue does
            close_timeout=_CLOSE_S,
            max_size=_LARGEST_REQUEST_BYTES,
            logger=logging.getLogger("quantai_tui.exchange.websockets"),
        )
        self._runner = web.AppRunner(self._rest.app, access_log=None, shutdown_timeout=_CLOSE_S)
        await self._runner.setup()
        await web.SockSite(self._runner, rest_socket, ssl_context=self._tls).start()

    async def close(self) -> None:
        """Stop serving and close every connection; takes well under a second."""
        await self._streams.close()
        if self._server is not None:
            self._server.close()
            try:
                async with asyncio.timeout(2 * _CLOSE_S):
                    await self._server.wait_closed()
            except TimeoutError:
                # From Python 3.12 on this waits for TLS handshakes that somebody began and let lie; the process's end ends them.
                _LOG.warning("connections that never finished their handshake are left to the end of the process")
        if self._runner is not None:
            await self._runner.cleanup()


def bind(port: int) -> socket.socket:
    """A socket on that loopback port, or on any if it is 0. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Connections of the process before linger in TIME_WAIT; they must not keep the next one from its port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener
