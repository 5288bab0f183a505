"""One command to an engine that runs somewhere else on this machine, and its answer."""

from __future__ import annotations

import asyncio
from typing import Any

from ..link.frames import FrameError, encode, read_from_engine
from ..link.messages import PROTOCOL_VERSION, Ack, Command, CommandName, Hello, Refused, Welcome
from .registry import Entry


async def ask(entry: Entry, name: CommandName, *, client: str, **args: Any) -> Ack:
    """What the engine answers. Unbounded in time.

    Raises:
        OSError, asyncio.IncompleteReadError: it does not listen, or has left.
        FrameError: it does not greet; the text says why.
    """
    reader, writer = await asyncio.open_unix_connection(entry.socket)
    try:
        writer.write(encode(Hello(PROTOCOL_VERSION, client)))
        greeting = await read_from_engine(reader)
        if not isinstance(greeting, Welcome):
            raise FrameError(greeting.reason if isinstance(greeting, Refused) else "the engine did not greet")
        writer.write(encode(Command(1, name, args)))
        while not isinstance(answer := await read_from_engine(reader), Ack):
            continue
        return answer
    finally:
        writer.transport.abort()
