"""Links behave alike whichever library carries them: messages, pings, pauses, and every way to end, on real TLS sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from http import HTTPStatus

import pytest
from stream_support import authority, eventually
from transport_support import (
    LIBRARIES,
    PATIENCE_S,
    Collector,
    Dialler,
    below_tls,
    end_of,
    server_tls,
    tcp_server,
    websocket_server,
)
from websockets.asyncio.server import Response
from websockets.datastructures import Headers
from websockets.frames import Close, Frame, Opcode

from quantai_tui.stream import Phase, picows_link, websockets_link
from quantai_tui.stream.tls import tls_context
from quantai_tui.stream.transport import MAX_FRAME_BYTES
from quantai_tui.stream.transports import ConfiguredTransport

__all__ = ["authority"]  # a fixture


@pytest.fixture(params=LIBRARIES)
async def dialler(request, authority):
    context = tls_context(None)
    authority.configure_trust(context)
    dialler = Dialler(request.param, context)
    yield dialler
    await dialler.close()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


async def idle(connection):
    """A handler that leaves the rest to the test."""


async def test_the_phases_are_told_and_the_link_says_what_its_tls_is(dialler, authority):
    async with websocket_server(authority, idle) as url:
        link = await dialler.dial(url)
        assert dialler.phases == [Phase.CONNECT, Phase.TLS, Phase.UPGRADE]
        assert link.tls.version == "TLSv1.3"
        assert link.tls.issuer.startswith("trustme")
        assert link.tls.cipher.startswith("TLS_")
        assert link.tls.not_after > time.time()


async def test_the_base_address_may_have_a_path_and_the_request_names_host_and_port(dialler, authority):
    asked: list[tuple[str, str]] = []

    async def talk(connection):
        asked.append((connection.request.path, connection.request.headers["Host"]))

    async with websocket_server(authority, talk) as url:
        await dialler.dial(f"{url}/through/here/")
        await eventually(lambda: asked)
    assert asked == [("/through/here/stream", url.removeprefix("wss://"))]


async def test_whole_messages_come_whatever_form_they_have(dialler, authority):
    async def talk(connection):
        pieces = [
            frame(Opcode.TEXT, b"plain"),
            frame(Opcode.BINARY, b"\x00\xff"),
            frame(Opcode.TEXT, b"in ", fin=False),
            frame(Opcode.PING, b"in between"),
            frame(Opcode.CONT, b"three ", fin=False),
            frame(Opcode.CONT, b"parts"),
            frame(Opcode.TEXT, b"no \xff\xfe text"),
            frame(Opcode.TEXT, b""),
            frame(Opcode.TEXT, b"x" * 100_000),
            frame(Opcode.TEXT, b"last"),
        ]
        connection.transport.write(b"".join(pieces))

    collector = Collector()
    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url, collector)
        ended = asyncio.create_task(end_of(link))
        await eventually(lambda: len(collector.messages) == 7)
        assert not ended.done()
        await link.close()
        await ended
    whole = [b"plain", b"\x00\xff", b"in three parts", b"no \xff\xfe text", b"", b"x" * 100_000, b"last"]
    assert sorted(collector.messages) == sorted(whole)


async def test_what_is_sent_arrives_as_text_and_the_venues_pings_are_answered_with_their_payload(dialler, authority):
    heard: list[object] = []

    async def talk(connection):
        await (await connection.ping(b"are you there"))
        heard.append("pong")
        heard.append(await connection.recv())
        heard.append(await connection.recv())

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        await link.send(b'{"id":1}')
        await link.send('{"id":2}')
        await eventually(lambda: len(heard) == 3)
    assert heard == ["pong", '{"id":1}', '{"id":2}']


async def test_a_ping_is_answered_by_its_own_pong_only(dialler, authority):
    async def talk(connection):
        connection.transport.write(frame(Opcode.PONG, b"nobody asked"))

    async with websocket_server(authority, talk) as url:
        link = await dialler.dial(url)
        ended = asyncio.create_task(end_of(link))
        async with asyncio.timeout(PATIENCE_S):
            assert 0 < await (await link.ping(b"one")) < PATIENCE_S
            first, second = await link.ping(b"two"), await link.ping(b"three")
            await second
            assert first.done(), "the answer to a later ping answers the earlier ones"
        await link.close()
        await ended


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


async def test_a_full_receiver_stops_the_reading_and_nothing_is_lost_when_it_goes_on(dialler, authority):
    count = 60_000
    sent = [0]

    async def flood(connection):
        for number in range(0, count, 100):
            while connection.transport.get_write_buffer_size() > 1 << 18:
                await asyncio.sleep(0.001)
            pieces = (frame(Opcode.TEXT, b"%08d" % one + b"." * 200) for one in range(number, number + 100))
            connection.transport.write(b"".join(pieces))
            sent[0] = number + 100
            await asyncio.sleep(0)

    collector = Collector(limit=1000)
    async with websocket_server(authority, flood) as url:
        link = await dialler.dial(url, collector)
        ended = asyncio.create_task(end_of(link))
        await eventually(lambda: len(collector.messages) >= 1000)
        await _still(lambda: (len(collector.messages), sent[0]))
        assert len(collector.messages) < 5000, "one read more than there is room for"
        assert sent[0] < count, "the venue is slowed down"
        while len(collector.messages) < count and not ended.done():
            collector.limit = len(collector.messages) + 1000
            link.resume_reading()
            await eventually(lambda: len(collector.messages) >= min(collector.limit, count) or ended.done())
        assert [int(message[:8]) for message in collector.messages] == list(range(count))
        await link.close()
        await ended


async def _still(state, seconds: float = 0.3) -> None:
    """Wait until nothing has changed for so long."""
    before, since = state(), time.monotonic()
    deadline = since + PATIENCE_S
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "never came to rest"
        await asyncio.sleep(0.02)
        if state() != before:
            before, since = state(), time.monotonic()


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
        assert 0.3 < time.monotonic() - began < 3.0
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


async def test_a_dial_dropped_at_any_phase_leaves_no_socket_behind(dialler, authority):
    def at(wanted):
        def on_phase(phase):
            if phase is wanted:
                task.cancel()

        return on_phase

    async with websocket_server(authority, idle) as url:
        for wanted in (Phase.CONNECT, Phase.TLS, Phase.UPGRADE):
            before = len(asyncio.all_tasks())
            dialler.phases = type("Phases", (), {"append": staticmethod(at(wanted))})()  # type: ignore[assignment]
            task = asyncio.create_task(dialler.dial(url))
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda before=before: len(asyncio.all_tasks()) <= before)
        dialler.phases = []
        assert (await dialler.dial(url)).tls is not None


@pytest.mark.parametrize("url", ["ws://localhost:1", "https://localhost:1", "wss://:9443"])
async def test_an_address_that_is_no_wss_is_never_dialled(dialler, url):
    failure = await dialler.failure(url)
    assert (failure.kind, failure.fatal) == ("config", True)
    assert "EXCHANGE_WS_URL" in failure.message


async def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens(dialler):
    assert (await dialler.failure("wss://nowhere.invalid")).kind == "dns"
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    assert (await dialler.failure(f"wss://127.0.0.1:{port}")).kind == "refused"
    assert dialler.phases == [Phase.CONNECT, Phase.CONNECT]


async def _used(transport: str, authority) -> str:
    context = tls_context(None)
    authority.configure_trust(context)
    dialler = Dialler(transport, context)
    async with websocket_server(authority, idle) as url:
        await dialler.dial(url)
        await dialler.close()
    return dialler._transport.name


async def test_auto_is_the_fast_library_where_it_is_installed_and_else_the_other(authority, monkeypatch):
    assert await _used("auto", authority) == "picows"
    assert await _used("websockets", authority) == "websockets"
    monkeypatch.setitem(sys.modules, "picows", None)
    monkeypatch.delitem(sys.modules, "quantai_tui.stream.picows_link")
    assert await _used("auto", authority) == "websockets"


async def test_asking_for_the_fast_library_without_having_it_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "picows", None)
    monkeypatch.delitem(sys.modules, "quantai_tui.stream.picows_link")
    transport = ConfiguredTransport(lambda: tls_context(None))
    dialler = Dialler("picows", tls_context(None))
    assert transport.name == ""
    dialler.phases.append(Phase.CONNECT)
    failure = await dialler.failure("wss://localhost:1")
    assert (failure.kind, failure.fatal) == ("config", True)
    assert "pip install 'quantai-tui[fast]'" in failure.message
    assert "pip install 'quantai-tui[fast]'" in failure.advice


def test_no_library_is_loaded_before_it_is_used():
    code = "import sys, quantai_tui.stream.transports; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"picows", "aiofastnet", "websockets", "python_socks"} & {name.partition(".")[0] for name in loaded}
