"""From a host's name to a connected socket: lookups, several addresses, and proxies."""

from __future__ import annotations

import asyncio
import functools
import itertools
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from ..cleaning import one_line
from .advice import FailureKind
from .config import public_address
from .failures import LinkFault, Phase, classify
from .names import resolve
from .proxies import Proxy, destination, parse_proxy, pass_through, proxy_for, source_of

__all__ = ["checked_address", "open_tcp", "proxy_for"]

_STAGGER_S = 0.25  # between addresses of one host, as RFC 8305 recommends


def checked_address(url: str, scheme: str, setting: str) -> SplitResult:
    """The parts of an address of the venue, which is never spoken to without TLS.

    Raises:
        LinkFault: with kind CONFIG, when it has another scheme, no host, no usable port, or what an address of the venue has no
            use for: user, password, query. None of these is repeated in the message.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise LinkFault(FailureKind.CONFIG, f"{setting} is no address, or its port no number from 1 to 65535") from None
    shown = public_address(url)
    if parts.scheme != scheme:
        raise LinkFault(FailureKind.CONFIG, f"{setting} must begin with {scheme}://, since TLS is never done without: {shown}")
    if not host or port == 0:
        raise LinkFault(FailureKind.CONFIG, f"{setting} must name a host, and a port from 1 to 65535 if any: {shown}")
    if "@" in url or parts.query:
        raise LinkFault(FailureKind.CONFIG, f"{setting} must be an address without user, password and query: {shown}")
    return parts


async def open_tcp(
    host: str, port: int, *, proxy: str | None = None, timeout: float, context: ssl.SSLContext | None = None
) -> socket.socket:
    """A connected socket to a host, straight or through the proxy that `proxy` (PROXY_URL) or the environment names.

    All of it, lookups and the proxy's answer included, takes `timeout` seconds at most. `context` verifies an https:// proxy.

    Raises:
        LinkFault: with kind PROXY, when the proxy cannot be reached, refuses or does not answer; CONFIG, when it is no address.
        OSError: what the network says where no proxy is in between; TimeoutError, socket.gaierror.
    """
    via = proxy_for(host, proxy, port)
    if via is None:
        async with asyncio.timeout(timeout):
            return await _connected(host, port)
    return await _through(parse_proxy(via, source_of(proxy)), host, port, timeout, context)


async def _through(proxy: Proxy, host: str, port: int, timeout: float, context: ssl.SSLContext | None) -> socket.socket:
    try:
        async with asyncio.timeout(timeout):
            target = await _looked_up(proxy, host)
            sock = await _connected(proxy.host, proxy.port)
            return await pass_through(proxy, sock, target, port, context)
    except TimeoutError as error:
        raise proxy.fault(f"no connection to {host} within {timeout:g} s") from error
    except ssl.SSLError as error:
        raise proxy.fault(f"TLS: {one_line(getattr(error, 'verify_message', '') or error.reason or str(error))}") from error
    except socket.gaierror as error:
        raise proxy.fault(f"its name was not found: {error.strerror}") from error
    except OSError as error:
        raise proxy.fault(f"{error.strerror or 'hung up'}") from error


async def _looked_up(proxy: Proxy, host: str) -> str:
    try:
        return await destination(proxy, host)
    except socket.gaierror as error:
        # The venue's name, not the proxy's.
        raise LinkFault(
            FailureKind.DNS, f"{host} was not found: {error.strerror}; socks5h:// lets the proxy look it up"
        ) from error


async def _connected(host: str, port: int) -> socket.socket:
    """To the first of the host's addresses that answers, tried one after the other a quarter second apart."""
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
        errors = [error for task in attempts if (error := task.exception()) is not None]
        # That there is no way to one address, IPv6 as a rule, says little where another was reached and refused.
        raise min(errors, key=lambda error: classify(error, Phase.CONNECT).kind is FailureKind.UNREACHABLE)
    finally:
        # Nothing is waited for here: a cancellation while waiting would lose the winner's socket.
        for task in attempts:
            task.cancel()
            task.add_done_callback(functools.partial(_drop, winner))


def _drop(winner: socket.socket | None, attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None and attempt.result() is not winner:
        attempt.result().close()


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
