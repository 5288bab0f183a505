"""From a host's name to a connected socket: lookups, several addresses, and proxies."""

from __future__ import annotations

import asyncio
import itertools
import socket

from .names import resolve
from .tasks import settle

_STAGGER_S = 0.25  # between addresses of one host, as RFC 8305 recommends


async def open_tcp(host: str, port: int) -> socket.socket:
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
