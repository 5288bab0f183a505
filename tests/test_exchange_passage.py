"""The bytes that a door lets through, seen one by one: hand-made records, or no TLS at all, between sockets of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from door_support import nothing_left
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.exchange.conditions import Latency, Throttle
from quantai_tui.exchange.door import Door, Scope
from quantai_tui.exchange.passage import Wound
from quantai_tui.exchange.server import HOST, bind
from quantai_tui.exchange.tls_records import APPLICATION_DATA, HEADER_BYTES, Records

LONG_S = 8.0  # for what must come; a loaded machine takes its time

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def before(talk: Talk) -> AsyncIterator[Door]:
    """A door before a plain TCP server that says what `talk` does."""
    async with nothing_left():
        server = await asyncio.start_server(talk, HOST, 0)
        door = Door(bind(0), server.sockets[0].getsockname()[1], rng=random.Random(3))
        door.start()
        try:
            yield door
        finally:
            await door.close()
            server.close()
            await server.wait_closed()


def record(content_type: int, size: int, filler: int) -> bytes:
    return bytes((content_type, 3, 3)) + size.to_bytes(2) + bytes([filler]) * size


async def _two_records(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A TLS 1.2 conversation without its handshake: the client's request, two records in answer, the client's end."""
    await reader.readexactly(HEADER_BYTES + 10)
    writer.write(record(APPLICATION_DATA, 300, 1) + record(APPLICATION_DATA, 300, 2))
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


REQUEST = record(APPLICATION_DATA, 10, 0)
ANSWER = record(APPLICATION_DATA, 300, 1) + record(APPLICATION_DATA, 300, 2)


async def _seen(door: Door) -> tuple[bytes, bool]:
    """What a client of `_two_records` gets, and whether the end is a reset."""
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(REQUEST)
    seen = b""
    try:
        async with asyncio.timeout(LONG_S):
            while len(seen) < len(ANSWER) and (data := await reader.read(4096)):
                seen += data
    except ConnectionResetError:
        return seen, True
    finally:
        writer.close()
    return seen, False


@pytest.mark.parametrize(
    ("wound", "length", "reset"),
    [
        (Wound.RESET, (HEADER_BYTES + 305) // 2, True),
        (Wound.TRUNCATE, (HEADER_BYTES + 305) // 2, False),
        (Wound.HALF_CLOSE, 305, False),
    ],
)
async def test_a_wound_cuts_at_the_record_that_it_says(wound: Wound, length: int, reset: bool) -> None:
    async with before(_two_records) as door:
        lift = door.impose(wound, Scope.NEW)
        assert await _seen(door) == (ANSWER[:length], reset)
        lift()
        assert await _seen(door) == (ANSWER, False)


async def test_a_flipped_byte_is_one_bit_of_the_ciphertext_and_all_the_rest_arrives() -> None:
    async with before(_two_records) as door:
        door.impose(Wound.FLIP, Scope.NEW)
        seen, reset = await _seen(door)
        assert not reset
        assert len(seen) == len(ANSWER)
        changed = [index for index, (here, there) in enumerate(zip(seen, ANSWER, strict=True)) if here != there]
        assert len(changed) == 1
        assert HEADER_BYTES <= changed[0] < 305
        assert (seen[changed[0]] ^ ANSWER[changed[0]]).bit_count() == 1


async def test_a_half_close_of_the_client_is_passed_on_and_the_answer_still_comes() -> None:
    async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        writer.close()

    async with before(reverse) as door, asyncio.timeout(LONG_S):
        reader, writer = await asyncio.open_connection(HOST, door.port)
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"cba"
        writer.close()


async def test_a_client_that_does_not_read_stops_the_server_and_then_gets_every_byte() -> None:
    total = 48 << 20  # more than the kernel's buffers and the door's together
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        block = bytes(range(256)) * 256
        while sent < total:
            writer.write(block)
            await writer.drain()
            sent += len(block)
        writer.close()

    async with before(pour) as door, asyncio.timeout(4 * LONG_S):
        reader, writer = await asyncio.open_connection(HOST, door.port, limit=1 << 16)
        before_that = -1
        while not sent or sent != before_that:
            before_that = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < total
        got = 0
        while data := await reader.read(1 << 16):
            assert data[:3] == bytes((got + index) % 256 for index in range(len(data[:3])))
            got += len(data)
        assert got == total
        writer.close()


async def test_a_narrow_line_is_shared_by_the_connections_and_widens_when_it_is_lifted() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(20_000))
        writer.close()

    async def fetch(door: Door) -> int:
        reader, writer = await asyncio.open_connection(HOST, door.port)
        size = len(await reader.read())
        writer.close()
        return size

    async with before(pour) as door, asyncio.timeout(2 * LONG_S):
        lift = door.impose(Throttle(40_000))
        began = time.monotonic()
        assert set(await asyncio.gather(fetch(door), fetch(door))) == {20_000}
        assert time.monotonic() - began >= 0.8
        lift()
        narrow = door.impose(Throttle(10))
        slow = asyncio.create_task(fetch(door))
        await asyncio.sleep(0.1)
        narrow()
        assert await slow == 20_000


async def test_a_server_that_is_not_there_is_a_reset() -> None:
    async with nothing_left():
        with bind(0) as nobody:
            door = Door(bind(0), nobody.getsockname()[1], rng=random.Random(1))
            door.start()
            reader, writer = await asyncio.open_connection(HOST, door.port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), LONG_S)
            writer.close()
            await door.close()


def test_latency_is_drawn_from_its_seed_within_its_bounds() -> None:
    drawn = [[latency.delay_s() for _ in range(200)] for latency in (Latency(0.3, 0.1, random.Random(5)) for _ in range(2))]
    assert drawn[0] == drawn[1]
    assert all(0.2 <= delay <= 0.4 for delay in drawn[0])
    assert max(drawn[0]) - min(drawn[0]) > 0.1


@given(
    st.lists(st.tuples(st.integers(20, 24), st.integers(0, 400)), max_size=12),
    st.lists(st.integers(1, 500), min_size=1, max_size=40),
)
def test_records_are_found_however_the_stream_is_cut_into_chunks(written: list[tuple[int, int]], cuts: list[int]) -> None:
    stream = b"".join(record(content_type, size, 0xAA) for content_type, size in written)
    records, found, at = Records(), [], 0
    for index in range(len(stream) + 1):
        chunk = stream[at : at + cuts[index % len(cuts)]]
        found += records.feed(chunk)
        at += len(chunk)
    assert [(one.content_type, one.end - one.start - HEADER_BYTES) for one in found] == written
    assert [one.start for one in found[1:]] == [one.end for one in found[:-1]]
    assert not records.broken
    assert records.position == records.boundary == len(stream)


@given(st.binary(min_size=HEADER_BYTES, max_size=200).filter(lambda data: data[0] not in range(20, 25)))
def test_a_stream_that_is_no_tls_has_no_records(data: bytes) -> None:
    records = Records()
    assert records.feed(data) == []
    assert records.broken
    assert records.position == len(data)
