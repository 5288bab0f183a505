"""Every way in which a dial or a link ends is told by the same name, whichever library carries it."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from http import HTTPStatus

import pytest
from stream_support import authority, eventually
from transport_support import (
    PATIENCE_S,
    Collector,
    below_tls,
    dialler,
    end_of,
    frame,
    idle,
    server_tls,
    tcp_server,
    upgraded,
    websocket_server,
)
from websockets.asyncio.server import Response
from websockets.datastructures import Headers
from websockets.frames import Close, Frame, Opcode

from quantai_tui.stream import Phase, picows_link, websockets_link
from quantai_tui.stream.transport import MAX_FRAME_BYTES

__all__ = ["authority", "dialler"]  # fixtures


async def test_a_pong_that_can_no_longer_come_is_not_waited_for(dialler, authority):
    async def talk(connection):
        connection.transport.pause_reading()

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        ended = asyncio.create_task(end_of(link))
        pong = await link.ping(b"one")
        link.abort()
        with pytest.raises(Exception) as caught:
            await asyncio.wait_for(pong, PATIENCE_S)
        assert not isinstance(caught.value, TimeoutError)
        assert (await ended).kind == "reset"


@pytest.mark.parametrize(
    ("close", "kind"),
    [
        (Close(1000, "done"), "closed"),
        (Close(1001, ""), "closed"),
        (Close(1008, "too many"), "policy"),
        (Close(1011, ""), "server_error"),
        (Close(1012, ""), "closed"),
        (Close(1013, ""), "server_error"),
        (Close(4001, "theirs"), "protocol"),
        (None, "closed"),
    ],
    ids=str,
)
async def test_a_close_frame_is_known_by_its_code(dialler, authority, close, kind):
    async def talk(connection):
        connection.transport.write(frame(Opcode.CLOSE, b"" if close is None else close.serialize()))

    async with websocket_server(authority, talk) as url:
        failure = await end_of(await dialler.dial(url))
    assert failure.kind == kind
    if close is not None and close.reason:
        assert close.reason in failure.message


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([frame(Opcode.TEXT, b"x" * (MAX_FRAME_BYTES + 1))], "oversized"),
        ([frame(Opcode.TEXT, b"x" * 700_000, fin=False), frame(Opcode.CONT, b"x" * 700_000)], "oversized"),
        ([b"\xc1\x08deflated"], "protocol"),
        ([frame(Opcode.CONT, b"of nothing")], "protocol"),
        ([frame(Opcode.TEXT, b"open", fin=False), frame(Opcode.TEXT, b"another")], "protocol"),
        ([b"\x83\x00"], "protocol"),
        ([Frame(Opcode.TEXT, b"masked").serialize(mask=True)], "protocol"),
    ],
    ids=["too large", "too large in parts", "compressed", "continues nothing", "begins twice", "unknown opcode", "masked"],
)
async def test_a_frame_that_must_not_be_ends_the_link_and_nothing_of_it_is_handed_on(dialler, authority, pieces, kind):
    async def talk(connection):
        connection.transport.write(frame(Opcode.TEXT, b"before"))
        await asyncio.sleep(0.05)
        connection.transport.write(b"".join(pieces))

    collector = Collector()
    async with websocket_server(authority, talk) as url:
        failure = await end_of(await dialler.dial(url, collector))
    assert failure.kind == kind
    assert collector.messages == [b"before"]


async def test_a_reset_in_the_middle_of_a_frame_keeps_what_came_before(dialler, authority):
    async def talk(connection):
        connection.transport.write(frame(Opcode.TEXT, b"before") + frame(Opcode.TEXT, b"x" * 1000)[:500])
        await asyncio.sleep(0.1)
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()

    collector = Collector()
    async with websocket_server(authority, talk) as url:
        failure = await end_of(await dialler.dial(url, collector))
    assert failure.kind == "reset"
    assert not failure.fatal
    assert collector.messages == [b"before"]


async def test_an_end_of_tcp_without_a_goodbye_is_a_cut(dialler, authority):
    async def talk(connection):
        connection.transport.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)

    async with websocket_server(authority, talk) as url:
        failure = await end_of(await dialler.dial(url))
    assert failure.kind == "reset"


async def test_a_damaged_tls_record_is_named_as_such(dialler, authority):
    async def talk(connection):
        await connection.recv()
        below_tls(connection, b"\x17\x03\x03\x00\x20" + bytes(32))

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        await link.send("go on")
        failure = await end_of(link)
    assert (failure.kind, failure.type, failure.fatal) == ("tls_broken", "ssl_error", False)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "wait", "fatal"),
    [
        (403, {}, "forbidden", 60.0, False),
        (418, {"Retry-After": "130"}, "banned", 130.0, False),
        (429, {"Retry-After": "5"}, "rate_limited", 5.0, False),
        (429, {}, "rate_limited", 60.0, False),
        (451, {}, "location", 0.0, True),
        (404, {}, "bad_status", 0.0, False),
        (302, {"Location": "wss://elsewhere.invalid/"}, "bad_status", 0.0, False),
        (503, {"Retry-After": "7"}, "server_error", 7.0, False),
    ],
)
async def test_a_refused_upgrade_is_known_by_its_status(dialler, authority, status, headers, kind, wait, fatal):
    def refuse(connection, request):
        return Response(status, HTTPStatus(status).phrase, Headers(headers), b"no")

    async with websocket_server(authority, idle, process_request=refuse) as url:
        failure = await dialler.failure(url)
    assert (failure.kind, failure.min_wait_s, failure.fatal, failure.phase) == (kind, wait, fatal, Phase.UPGRADE)
    assert str(status) in failure.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 530 Origin DNS Error\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", "server_error"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "protocol"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "protocol"),
        (b"", "reset"),
    ],
    ids=["a status without a name", "another protocol", "no accept key", "hung up"],
)
async def test_an_answer_to_the_upgrade_that_is_none(dialler, authority, answer, kind):
    async def answer_so(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with tcp_server(answer_so, server_tls(authority)) as port:
        failure = await dialler.failure(f"wss://localhost:{port}")
    assert (failure.kind, failure.phase, failure.fatal) == (kind, Phase.UPGRADE, False)


async def test_an_upgrade_that_is_never_answered_has_a_bound_of_its_own(dialler, authority, monkeypatch):
    for module in (picows_link, websockets_link):
        monkeypatch.setattr(module, "UPGRADE_TIMEOUT_S", 0.3)

    async def stall(reader, writer):
        await asyncio.sleep(60)

    async with tcp_server(stall, server_tls(authority)) as port:
        failure = await dialler.failure(f"wss://localhost:{port}", ssl_timeout=60.0)
    assert (failure.kind, failure.type) == ("upgrade_timeout", "timeout_error")


async def test_closing_is_polite_quick_and_may_be_done_twice(dialler, authority):
    codes: list[int | None] = []

    async def talk(connection):
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        ended = asyncio.create_task(end_of(link))
        await link.close()
        await link.close()
        await ended
        await eventually(lambda: codes)
        link.resume_reading()
        with pytest.raises(Exception):  # noqa: B017 - each library has its own
            await link.send("too late")
    assert codes == [1000]


async def test_a_black_hole_is_closed_in_half_a_second_all_the_same(dialler, authority):
    async def talk(connection):
        connection.transport.pause_reading()

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        ended = asyncio.create_task(end_of(link))
        began = time.monotonic()
        await link.close()
        assert 0.3 < time.monotonic() - began < 8.0, "10 s is what a library gives it by itself"
        await ended


async def test_a_link_closed_while_its_reading_is_paused_ends_too(dialler, authority):
    async def talk(connection):
        for _ in range(50):
            await connection.send("x" * 1000)

    collector = Collector(limit=1)
    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url, collector)
        ended = asyncio.create_task(end_of(link))
        await eventually(lambda: collector.messages)
        async with asyncio.timeout(PATIENCE_S):
            await link.close()
            await ended


@pytest.mark.parametrize(
    ("last", "kind"),
    [(frame(Opcode.CLOSE, Close(1001, "bye").serialize()), "closed"), (b"\x83\x00", "protocol")],
    ids=["a close frame", "a frame that must not be"],
)
async def test_a_venue_that_ends_the_talk_and_leaves_the_line_open_is_not_waited_for(dialler, authority, last, kind):
    async def talk(reader, writer):
        await upgraded(reader, writer, frame(Opcode.TEXT, b"with the answer"))
        await reader.read(1)  # the client's message: it has the first by now
        writer.write(frame(Opcode.TEXT, b"in one piece with the end") + last + frame(Opcode.TEXT, b"too late"))
        while await reader.read(1000):
            pass

    collector = Collector()
    async with tcp_server(talk, server_tls(authority)) as port:
        link = await dialler.dial(f"wss://localhost:{port}", collector)
        await link.send("go on")
        failure = await end_of(link)
    assert failure.kind == kind
    assert collector.messages == [b"with the answer", b"in one piece with the end"]


async def test_of_two_waits_that_a_refusal_asks_for_the_longer_one_counts(dialler, authority):
    def refuse(connection, request):
        headers = Headers()
        for wait in ("5", "17", "soon"):
            headers["Retry-After"] = wait
        return Response(429, "Too Many Requests", headers, b"no")

    async with websocket_server(authority, idle, process_request=refuse) as url:
        failure = await dialler.failure(url)
    assert (failure.kind, failure.min_wait_s) == ("rate_limited", 17.0)


async def test_an_answer_to_the_upgrade_without_an_end_is_not_read_for_ever(dialler, authority):
    sent = [0]

    async def pour(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            writer.write(b"X-More: " + b"y" * 4000 + b"\r\n")
            sent[0] += 4000
            await writer.drain()

    async with tcp_server(pour, server_tls(authority)) as port:
        failure = await dialler.failure(f"wss://localhost:{port}")
    assert (failure.kind, failure.phase) == ("protocol", Phase.UPGRADE)
    assert sent[0] < 64_000_000
