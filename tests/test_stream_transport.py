"""Links behave alike whichever library carries them: phases, messages, pings, pauses; and which library that is."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest
from stream_support import authority, eventually
from transport_support import (
    PATIENCE_S,
    Collector,
    Dialler,
    dialler,
    end_of,
    frame,
    idle,
    refusing_port,
    websocket_server,
)
from websockets.frames import Opcode

from quantai_tui.stream import Phase, addresses
from quantai_tui.stream.tls import tls_context
from quantai_tui.stream.transports import ConfiguredTransport

__all__ = ["authority", "dialler"]  # fixtures


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


@pytest.mark.parametrize(
    "url",
    [
        *("ws://localhost:1", "https://localhost:1", "wss://:9443", "wss://localhost:99999", "wss://localhost:0", "wss://[::1"),
        *("https://user:sesame@localhost:1", "wss://user:sesame@localhost:1", "wss://user:sesa/me@localhost:1"),
        "wss://localhost:1/?key=sesame",
    ],
)
async def test_an_address_that_is_no_plain_wss_is_never_dialled_nor_its_secrets_told(dialler, url):
    failure = await dialler.failure(url)
    assert (failure.kind, failure.fatal) == ("config", True)
    assert "EXCHANGE_WS_URL" in failure.message
    assert "sesa" not in failure.message


async def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens(dialler):
    assert (await dialler.failure("wss://nowhere.invalid")).kind == "dns"
    with refusing_port() as port:
        assert (await dialler.failure(f"wss://127.0.0.1:{port}")).kind == "refused"
    assert dialler.phases == [Phase.CONNECT, Phase.CONNECT]


async def test_an_address_without_a_way_to_it_does_not_hide_what_the_other_said(dialler, monkeypatch):
    told: list[tuple[str, int]] = []

    async def two_addresses(host, port, family=socket.AF_UNSPEC):
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in told]

    monkeypatch.setattr(addresses, "resolve", two_addresses)
    with refusing_port() as port:
        told += [("255.255.255.255", port), ("127.0.0.1", port)]  # no TCP goes to a broadcast address
        assert (await dialler.failure("wss://two.example")).kind == "refused"
    told.pop()
    assert (await dialler.failure("wss://two.example")).kind in ("unreachable", "refused")


async def test_a_lookup_for_which_there_was_no_thread_is_done_once_there_is_one(dialler, authority, monkeypatch):
    def none_left(thread):
        raise RuntimeError("can't start new thread")

    async with websocket_server(authority, idle) as url:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            assert (await dialler.failure(url)).kind == "resources"
        async with asyncio.timeout(PATIENCE_S):
            await dialler.dial(url)


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


async def test_a_release_of_the_fast_library_that_nobody_has_tried_is_not_used(authority, monkeypatch):
    monkeypatch.setattr("picows.version.__version__", "2.4.0rc1")
    monkeypatch.delitem(sys.modules, "quantai_tui.stream.picows_link", raising=False)
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
