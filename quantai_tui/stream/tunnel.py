"""A plain socket for what is really a stream over TLS: the libraries take a socket, and make their own TLS inside it."""

from __future__ import annotations

import asyncio
import socket

from .tasks import until_first_ends

_CHUNK_BYTES = 64 * 1024
# Tasks that nobody else holds; each ends when either side of its relay is closed.
_relays: set[asyncio.Task[None]] = set()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> socket.socket:
    """A connected socket whose data goes to `writer` and comes from `reader`. Closing it ends both; so does their own end."""
    near, far = await _pair()
    try:
        far_reader, far_writer = await asyncio.open_connection(sock=far)
    except BaseException:
        near.close()
        far.close()
        raise
    task = asyncio.create_task(_carry(reader, writer, far_reader, far_writer), name="proxy relay")
    _relays.add(task)
    task.add_done_callback(_relays.discard)
    return near


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter
) -> None:
    try:
        await until_first_ends(_pump(reader, far_writer), _pump(far_reader, writer))
    finally:
        far_writer.close()  # what has come is still handed over
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # a broken side ends the relay like one that was closed; the user of the socket sees it cut


async def _pair() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets connected to each other over loopback; not a Unix pair, since TCP's options are set on them."""
    loop = asyncio.get_running_loop()
    near = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        near.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            await loop.sock_connect(near, listener.getsockname())
            while True:
                far, peer = await loop.sock_accept(listener)
                if peer == near.getsockname():
                    return near, far
                far.close()  # somebody else on this machine
    except BaseException:
        near.close()
        raise
