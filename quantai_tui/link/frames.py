"""Framing: a 4-byte big-endian length and a msgpack body, on any asyncio stream."""

from __future__ import annotations

import asyncio
import struct

import msgspec

from .messages import MAX_FRAME_BYTES, ClientMessage, EngineMessage

_LENGTH = struct.Struct(">I")
_ENCODER = msgspec.msgpack.Encoder()
_FROM_CLIENT: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_FROM_ENGINE: msgspec.msgpack.Decoder[EngineMessage] = msgspec.msgpack.Decoder(EngineMessage)


# Bad text and deep nesting come out of msgspec as what they are, not as its own errors.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class FrameError(Exception):
    """What came is not a frame of this protocol."""


def encode(message: ClientMessage | EngineMessage) -> bytes:
    body = _ENCODER.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


async def _read_body(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return await reader.readexactly(length)


async def read_from_client(reader: asyncio.StreamReader) -> ClientMessage:
    """The next message of a dashboard. Raises FrameError, asyncio.IncompleteReadError at the end, OSError."""
    try:
        return _FROM_CLIENT.decode(await _read_body(reader))
    except _UNDECODABLE as error:
        raise FrameError(f"not a message of a dashboard: {error}") from error


async def read_from_engine(reader: asyncio.StreamReader) -> EngineMessage:
    """The next message of an engine. Raises FrameError, asyncio.IncompleteReadError at the end, OSError."""
    try:
        return _FROM_ENGINE.decode(await _read_body(reader))
    except _UNDECODABLE as error:
        raise FrameError(f"not a message of an engine: {error}") from error
