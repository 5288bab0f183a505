"""aiohttp's REST connections over our own sockets, with our lookups and proxies and a time limit for each step."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from .addresses import open_tcp
from .advice import FailureKind
from .failures import LinkFault

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector
    from aiohttp.client_proto import ResponseHandler

_CONNECT_TIMEOUT_S = 10.0  # lookup, TCP and proxy; the TLS handshake has the same again
_SILENCE_TIMEOUT_S = 5.0  # until the first byte of an answer, and between its parts
_HEAD_TIMEOUT_S = 30.0  # from the request to the end of the answer's headers, a new connection included
_SHUTDOWN_TIMEOUT_S = 0.5


def open_session(proxy: str | None) -> ClientSession:
    """Open a session, which connects on demand. `proxy` is PROXY_URL, see `open_tcp`."""
    # Importing aiohttp takes about 0.2 s: not before history is needed.
    import aiohttp

    return aiohttp.ClientSession(timeout=limits(), auto_decompress=True, connector=_connector(proxy))


def limits() -> ClientTimeout:
    """No total limit: each step has its own, which distinguishes a slow page from a dead line."""
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_read=_SILENCE_TIMEOUT_S)


@asynccontextmanager
async def answer_to(path: str, request: AbstractAsyncContextManager[ClientResponse]) -> AsyncIterator[ClientResponse]:
    """Send the request and yield its answer once its headers are there.

    Raises:
        LinkFault: with kind REST_TIMEOUT, when there is no connection or no answer in time.
    """
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S) as limit:
            response = await request.__aenter__()
    except TimeoutError as error:
        why = f"no answer to {path} within {_HEAD_TIMEOUT_S if limit.expired() else _SILENCE_TIMEOUT_S:g} s"
        raise LinkFault(FailureKind.REST_TIMEOUT, f"REST: {why}") from error
    async with response:
        yield response


def _connector(proxy: str | None) -> TCPConnector:
    from aiohttp import TCPConnector
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Unresolved(AbstractResolver):
        """Leaves the name for `open_tcp`. The address that stands for it leads nowhere, so that nothing gets past the proxy."""

        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
            return [ResolveResult(hostname=host, host="0.0.0.0", port=0, family=socket.AF_INET, proto=0, flags=0)]

        async def close(self) -> None:
            """Nothing is kept open between lookups."""

    class Connector(TCPConnector):
        # The one place where aiohttp lets a connected socket in; its SOCKS extension uses the same.
        async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.Transport, ResponseHandler]:
            url, context = kwargs["req"].url, kwargs["ssl"]
            step = "no connection to"
            try:
                sock = await open_tcp(url.raw_host, url.port, proxy=proxy, timeout=_CONNECT_TIMEOUT_S, context=context)
                step = "no end of the TLS handshake with"
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    # The socket is asyncio's from here on, which closes it when the handshake fails.
                    return await asyncio.get_running_loop().create_connection(
                        *args,
                        sock=sock,
                        ssl=context,
                        server_hostname=kwargs["server_hostname"],
                        ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
                    )
            except TimeoutError as error:
                why = f"{step} {url.raw_host} within {_CONNECT_TIMEOUT_S:g} s"
                raise LinkFault(FailureKind.REST_TIMEOUT, f"REST: {why}") from error

    return Connector(resolver=Unresolved())
