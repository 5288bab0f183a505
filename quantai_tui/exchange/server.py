"""The two listeners of the exchange: WebSocket streams and REST, each on its own TLS port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web
from websockets.asyncio.server import Server, serve
from websockets.frames import CloseCode

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .alterations import AlterableMarket
from .budget import Limits, RequestBudget
from .connection import Connection
from .faults import Faults
from .folder import ExchangeFolder
from .markets import Market
from .rest import RestFront
from .ws import StreamFront

HOST = "127.0.0.1"

Front = Literal["ws", "rest"]
Retire = Callable[[], Awaitable[None]]

_LOG = logging.getLogger(__name__)

_LARGEST_REQUEST_BYTES = 64 * 1024
_HANDSHAKE_S = 10.0
_OPEN_S = 600.0  # an upgrade that is stalled on purpose waits; a client gives up long before
_CLOSE_S = 0.3  # for the closing handshakes of all clients together


class ExchangeServer:
    """Serves one market. `start`, then `close`; `failed` tells when it broke in between.

    `faults` is what is done to it, and closed with it. `home` keeps over a restart what must not be forgotten: bans, and what was
    done to the market.
    """

    def __init__(
        self,
        market: Market,
        tls: ssl.SSLContext,
        *,
        limits: Limits | None = None,
        clock: Clock = SYSTEM_CLOCK,
        faults: Faults | None = None,
        home: ExchangeFolder | None = None,
    ) -> None:
        self._tls = tls
        self.faults = faults or Faults(clock)
        limits = limits or Limits()
        altered, self._budget = _remembered(market, limits, clock, home)
        self._streams = StreamFront(altered, self._budget, limits, self.faults, clock)
        self._rest = RestFront(altered, self._budget, limits, self.faults, clock)
        self._servers: list[Server] = []
        self._runner = web.AppRunner(self._rest.app, access_log=None, shutdown_timeout=_CLOSE_S)

    @property
    def visits(self) -> list[tuple[float, str]]:
        """Every dial (`ws /path`) and REST request (`rest /path`) with its monotonic time, refused ones too; the last 10,000."""
        return list(self._budget.visits)

    @property
    def failed(self) -> asyncio.Future[None]:
        return self._streams.failed

    async def start(self, ws_socket: socket.socket, rest_socket: socket.socket) -> None:
        """Serve on two bound sockets, which this object closes from now on."""
        await self._runner.setup()
        await self.serve("ws", ws_socket, self._tls)
        await self.serve("rest", rest_socket, self._tls)

    async def serve(self, front: Front, listener: socket.socket, tls: ssl.SSLContext) -> Retire:
        """Serve one front on one more bound socket, under a context of its own; this object closes the socket from now on.

        What is returned stops listening there. Connections that came that way go on.
        """
        if front == "rest":
            site = web.SockSite(self._runner, listener, ssl_context=tls)
            await site.start()
            return site.stop
        server = await serve(
            self._streams.handle,
            sock=listener,
            ssl=tls,
            process_request=self._streams.refuse,
            create_connection=Connection,
            compression=None,  # the venue offers none
            open_timeout=_OPEN_S,
            ssl_handshake_timeout=_HANDSHAKE_S,
            ping_interval=None,  # `StreamFront` pings as the venue does
            close_timeout=_CLOSE_S,
            max_size=_LARGEST_REQUEST_BYTES,
            logger=logging.getLogger("quantai_tui.exchange.websockets"),
        )
        self._servers.append(server)

        async def retire() -> None:
            server.close(close_connections=False)
            assert server.close_task is not None
            # It goes on until the last connection has ended, and is to be closed with the others until then.
            server.close_task.add_done_callback(lambda _: self._servers.remove(server))

        return retire

    async def close(self) -> None:
        """Stop serving and close every connection; takes well under a second."""
        await self.faults.close()
        await self._streams.close()
        await asyncio.gather(*(_close(server) for server in self._servers))
        await self._runner.cleanup()


def _remembered(
    market: Market, limits: Limits, clock: Clock, home: ExchangeFolder | None
) -> tuple[AlterableMarket, RequestBudget]:
    """The market and the budget, as the exchange left them when it was last on this folder."""
    if home is None:
        return AlterableMarket(market), RequestBudget(limits, clock)
    state = home.load()
    assert state is not None  # written before any market is opened
    return (
        AlterableMarket(market, state.alterations, lambda alterations: home.change(alterations=alterations)),
        RequestBudget(limits, clock, banned_until_s=state.banned_until_s, on_ban=lambda until: home.change(banned_until_s=until)),
    )


async def _close(server: Server) -> None:
    retired = server.close_task is not None
    server.close()
    try:
        async with asyncio.timeout(2 * _CLOSE_S):
            if retired:  # its closing spares the connections
                await asyncio.gather(*(connection.close(CloseCode.GOING_AWAY) for connection in server.connections))
            await server.wait_closed()
    except TimeoutError:
        # From Python 3.12 on this waits for TLS handshakes that somebody began and let lie; the process's end ends them.
        _LOG.warning("connections that never finished their handshake are left to the end of the process")


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
