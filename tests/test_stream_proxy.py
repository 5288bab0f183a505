"""Through a proxy to the venue: which one, how, and what is said when it does not work. Never its password."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from stream_support import ScriptedExchange, authority, eventually, exchange
from transport_support import Collector, dialler, end_of, refusing_port, server_tls, tcp_server, trusting, websocket_server

from quantai_tui.settings import Settings
from quantai_tui.stream import Phase, RestClient, classify
from quantai_tui.stream.addresses import open_tcp, proxy_for
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.proxies import parse_proxy
from quantai_tui.stream.tls import tls_context

__all__ = ["authority", "dialler", "exchange"]  # fixtures

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "WSS_PROXY")
SECRET = "pa55word"
FILES = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class ConnectProxy:
    """An HTTP proxy. `answer` is sent in place of what it would do; `trickle` sends its answer byte by byte."""

    def __init__(self, *, user: str = "", answer: bytes | None = None, trickle: bool = False) -> None:
        self.user, self.answer, self.trickle = user, answer, trickle
        self.targets: list[str] = []

    async def __call__(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.targets.append(head.split(" ")[1])
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.user.encode()).decode()}"
        if self.user and wanted not in head:
            writer.write(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
        elif self.answer is not None:
            writer.write(self.answer)
        else:
            answer = b"HTTP/1.1 200 Connection established\r\nVia: here\r\n\r\n"
            for piece in [bytes([byte]) for byte in answer] if self.trickle else [answer]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001 if self.trickle else 0)
            await splice(reader, writer, self.targets[-1])
        await writer.drain()
        writer.close()


class SocksProxy:
    """A SOCKS5 proxy, RFC 1928 and 1929. `reply` is its verdict on CONNECT; 0 lets through."""

    def __init__(self, *, user: str = "", reply: int = 0) -> None:
        self.user, self.reply = user, reply
        self.targets: list[str] = []

    async def __call__(self, reader, writer):
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 2 if self.user else 0
        if method not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, method]))
        if method == 2:
            await reader.readexactly(1)
            name = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            word = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            writer.write(b"\x01\x00" if f"{name}:{word}" == self.user else b"\x01\x01")
            if f"{name}:{word}" != self.user:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = socket.inet_ntop(
                *((socket.AF_INET, await reader.readexactly(4)) if kind == 1 else (socket.AF_INET6, await reader.readexactly(16)))
            )
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append(f"{host}:{port}")
        writer.write(bytes([5, self.reply, 0, 1]) + bytes(6))
        if self.reply == 0:
            await splice(reader, writer, f"{host}:{port}")


async def splice(reader, writer, target):
    host, _, port = target.rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))

    async def copy(source, sink):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    try:
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)
    finally:
        far_writer.transport.abort()
        writer.transport.abort()


async def black_hole(reader, writer):
    await asyncio.sleep(60)


async def hangs_up(reader, writer):
    writer.close()


async def greets(connection):
    await connection.send("hello")


@asynccontextmanager
async def proxied(authority, kind: str, user: str = "", **options):
    """A proxy of one kind with its address, and a websocket server behind it."""
    proxy = (SocksProxy if kind.startswith("socks") else ConnectProxy)(user=user, **options)
    async with (
        websocket_server(authority, greets) as url,
        tcp_server(proxy, server_tls(authority) if kind == "https" else None) as port,
    ):
        yield proxy, url, f"{kind}://{user + '@' if user else ''}localhost:{port}"


@pytest.mark.parametrize("user", ["", f"me:{SECRET}"], ids=["open", "with password"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
async def test_a_link_goes_through_a_proxy(dialler, authority, kind, user):
    async with proxied(authority, kind, user) as (proxy, url, address):
        collector = Collector()
        link = await dialler.dial(url, collector, proxy=address)
        ended = asyncio.create_task(end_of(link))
        await eventually(lambda: collector.messages == [b"hello"])
        assert dialler.phases == [Phase.CONNECT, Phase.TLS, Phase.UPGRADE]
        port = url.rpartition(":")[2]
        assert proxy.targets == [f"127.0.0.1:{port}" if kind == "socks5" else f"localhost:{port}"], "who looks the name up"
        await link.close()
        await ended
        await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "proxy relay"])


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
async def test_rest_goes_through_the_same_proxies(exchange: ScriptedExchange, authority, tmp_path, kind):
    context = tls_context(trusting(authority, tmp_path))
    proxy = (SocksProxy if kind.startswith("socks") else ConnectProxy)(user=f"me:{SECRET}")
    async with tcp_server(proxy, server_tls(authority) if kind == "https" else None) as port:
        address = f"{kind}://me:{SECRET}@localhost:{port}"
        rest = RestClient(f"https://localhost:{exchange.rest_port}", lambda: context, Gate(), proxy=address)
        assert await rest.server_time() == exchange.now_ms
        await rest.server_time()
        await rest.close()
    assert len(proxy.targets) == 1, "one connection serves many requests"


async def test_an_answer_in_many_pieces_is_one_answer(dialler, authority):
    async with proxied(authority, "http", trickle=True) as (_, url, address):
        assert (await dialler.dial(url, proxy=address)).tls is not None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_venue_cut_behind_an_https_proxy_is_a_link_cut(dialler, authority, host):
    async def cut(connection):
        connection.transport.abort()

    async with websocket_server(authority, cut) as url, tcp_server(ConnectProxy(), server_tls(authority)) as port:
        link = await dialler.dial(url, proxy=f"https://localhost:{port}")
        assert (await end_of(link)).kind == "reset"
        await link.close()
        failure = await dialler.failure(url, proxy=f"https://127.0.0.1:{port}")
    assert (failure.kind, failure.phase) == ("proxy", Phase.CONNECT), "a proxy's own certificate is verified"


GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"
INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + GRANTED,
    "102 and 103": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + GRANTED,
}


@pytest.mark.parametrize("kind", ["http", "https"])
@pytest.mark.parametrize("answer", INTERIM.values(), ids=INTERIM)
async def test_interim_answer_of_a_proxy_is_not_a_refusal(dialler, authority, kind, answer):
    async def proxy(reader, writer):
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        for piece in answer.split(b"\r\n\r\n")[:-1]:
            writer.write(piece + b"\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
        await splice(reader, writer, target)

    async with (
        websocket_server(authority, greets) as url,
        tcp_server(proxy, server_tls(authority) if kind == "https" else None) as port,
    ):
        assert (await dialler.dial(url, proxy=f"{kind}://localhost:{port}")).tls is not None


@pytest.mark.parametrize("scheme", ["socks", "SOCKS5", "Socks5h", "HTTP"])
async def test_proxy_scheme_ignores_case_and_socks_means_socks5(dialler, authority, monkeypatch, scheme):
    monkeypatch.setattr("quantai_tui.stream.proxies.is_loopback", lambda host: False)
    async with proxied(authority, "http" if scheme == "HTTP" else "socks5h") as (proxy, url, address):
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{address.rpartition('/')[2]}/")
        assert (await dialler.dial(url)).tls is not None
        assert len(proxy.targets) == 1
        await (await dialler.dial(url, proxy=f"{scheme}://{address.rpartition('/')[2]}")).close()
        assert Settings(PROXY_URL=f"{scheme}://{address.rpartition('/')[2]}").PROXY_URL


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("socks", 1080), ("socks5", 1080), ("socks5h", 1080)])
def test_proxy_without_a_port_uses_its_schemes_default(scheme, port):
    assert parse_proxy(f"{scheme}://proxy.example", "PROXY_URL").port == port
    assert str(parse_proxy(f"{scheme}://me:{SECRET}@proxy.example/", "PROXY_URL")) in (
        f"{scheme}://proxy.example:{port}",
        f"socks5://proxy.example:{port}",
    )


REFUSALS = {
    "switching": ("http", "", {"answer": b"HTTP/1.1 101 Switching Protocols\r\n\r\n"}, "101"),
    "interim alone": ("http", "", {"answer": b"HTTP/1.1 100 Continue\r\n\r\n"}, "hung up in its answer"),
    "endless interim": ("http", "", {"answer": b"HTTP/1.1 100 Continue\r\n\r\n" * 2000}, "more than"),
    "interim, then 403": ("http", "", {"answer": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n"}, "403"),
    "wrong password": ("http", "other:pass", {}, "407"),
    "403": ("http", "", {"answer": b"HTTP/1.1 403 Forbidden\r\n\r\n"}, "403"),
    "502": ("http", "", {"answer": b"HTTP/1.0 502 Bad Gateway\r\nX: y\r\n\r\n"}, "502"),
    "no HTTP": ("http", "", {"answer": b"SSH-2.0-x\r\n\r\n"}, "does not speak HTTP"),
    "no answer": ("http", "", {"answer": b""}, "hung up"),
    "half an answer": ("http", "", {"answer": b"HTTP/1.1 200"}, "hung up"),
    "endless": ("http", "", {"answer": b"x" * 40_000}, "more than"),
    "talks first": ("http", "", {"answer": b"HTTP/1.1 200 OK\r\n\r\nhello"}, "of its own"),
    "SOCKS wrong password": ("socks5h", "other:pass", {}, "refused"),
    "SOCKS not allowed": ("socks5h", "", {"reply": 2}, "not allowed"),
    "SOCKS refused": ("socks5h", "", {"reply": 5}, "connection refused"),
    "SOCKS unknown": ("socks5h", "", {"reply": 77}, "refused"),
}


@pytest.mark.parametrize(("kind", "user", "options", "said"), REFUSALS.values(), ids=REFUSALS)
async def test_a_proxy_that_refuses_is_named_without_its_password(dialler, authority, kind, user, options, said, caplog):
    async with proxied(authority, kind, user, **options) as (_, url, address):
        given = f"{kind}://me:{SECRET}@{address.rpartition('@')[2].removeprefix(f'{kind}://')}"
        failure = await dialler.failure(url, proxy=given)
    assert (failure.kind, failure.type, failure.fatal, failure.phase) == ("proxy", "network_error", False, Phase.CONNECT)
    assert said in failure.message
    assert given.replace(f"me:{SECRET}@", "") in failure.message
    assert given.replace(f"me:{SECRET}@", "") in failure.advice
    assert "PROXY_URL" in failure.advice
    assert SECRET not in failure.message + failure.advice + caplog.text


async def test_an_answer_that_is_not_socks_is_not_blamed_on_the_password(dialler):
    async def babble(reader, writer):
        await reader.read(3)
        writer.write(b"\x05\x00" + b"\x05\x00\x00\x03\xff" + b"\xff" * 257)  # an address that is no text
        await reader.read(1000)

    async with tcp_server(babble) as port:
        failure = await dialler.failure("wss://venue.example", proxy=f"socks5h://127.0.0.1:{port}")
    assert failure.kind == "proxy"
    assert "password" not in failure.message


async def test_a_password_that_socks_cannot_carry_is_not_quoted(dialler, authority):
    async with proxied(authority, "socks5h", "me:geheimnüß") as (_, url, address):
        failure = await dialler.failure(url, proxy=address)
    assert (failure.kind, "ASCII" in failure.message, "geheim" in failure.message) == ("proxy", True, False)


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
async def test_a_proxy_that_does_not_answer_is_given_up_in_time(dialler, kind):
    async with tcp_server(black_hole) as port:
        began = time.monotonic()
        failure = await dialler.failure("wss://localhost:1", proxy=f"{kind}://localhost:{port}", connect_timeout=0.4)
    assert time.monotonic() - began < 5
    assert (failure.kind, failure.phase) == ("proxy", Phase.CONNECT)
    assert "0.4 s" in failure.message


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
async def test_a_proxy_that_hangs_up_is_the_proxys_failure(dialler, kind):
    async with tcp_server(hangs_up) as port:
        failure = await dialler.failure("wss://localhost:1", proxy=f"{kind}://localhost:{port}")
    assert failure.kind == "proxy"


async def test_a_proxy_that_is_not_there_is_the_proxys_failure(dialler):
    with refusing_port() as port:
        refused = await dialler.failure("wss://localhost:1", proxy=f"socks5://localhost:{port}")
        unknown = await dialler.failure("wss://localhost:1", proxy="http://nowhere.invalid:3128")
        venue = await dialler.failure("wss://nowhere.invalid", proxy=f"socks5://localhost:{port}")
    assert [refused.kind, unknown.kind] == ["proxy", "proxy"]
    assert "http://nowhere.invalid:3128" in unknown.message
    assert venue.kind == "dns", "socks5:// looks the venue up itself"


@pytest.mark.parametrize("url", [f"ftp://me:{SECRET}@proxy:1", f"http://me:{SECRET}@", f"socks5://me:{SECRET}@proxy:99999"])
async def test_an_address_that_is_no_proxys_is_a_fault_of_the_settings(dialler, url):
    failure = await dialler.failure("wss://localhost:1", proxy=url)
    assert (failure.kind, failure.fatal) == ("config", True)
    assert "PROXY_URL" in failure.message
    assert SECRET not in failure.message + failure.advice


@pytest.mark.parametrize(
    ("environment", "host", "setting", "proxy"),
    [
        ({}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "api.binance.com", None, "http://a:1"),
        ({"https_proxy": "http://b:1", "HTTPS_PROXY": "http://a:1"}, "api.binance.com", None, "http://b:1"),
        ({"ALL_PROXY": "socks5h://a:1"}, "api.binance.com", "", "socks5h://a:1"),
        ({"all_proxy": "socks5://a:1", "HTTPS_PROXY": "http://b:1"}, "api.binance.com", None, "http://b:1"),
        ({"HTTP_PROXY": "http://a:1"}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "api.binance.com", None, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "binance.com"}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "other.com, .binance.com"}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.binance.com:443"}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.binance.com:9443"}, "api.binance.com", None, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "api.binance.com", None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x.com,10.0.0.0/8"}, "10.1.2.3", None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "11.1.2.3", None, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "[2001:db8::1], fd00::/8"}, "2001:db8::1", None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "fd00::/8"}, "fd12::3", None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "localhost", None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "venue.localhost", None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "127.0.0.1", None, None),
        ({"ALL_PROXY": "http://a:1"}, "::1", "", None),
        ({"HTTPS_PROXY": "http://a:1"}, "api.binance.com", "none", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "api.binance.com", "socks5://b:2", "socks5://b:2"),
        ({}, "localhost", "http://c:3", "http://c:3"),
    ],
)
def test_which_proxy_is_taken(monkeypatch, environment, host, setting, proxy):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(host, setting) == proxy


async def test_a_proxy_of_the_environment_is_said_to_come_from_there(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://me:{SECRET}@proxy:1")
    with pytest.raises(Exception) as caught:  # its kind is what is asserted
        await open_tcp("api.binance.com", 443, timeout=5.0)
    failure = classify(caught.value, Phase.CONNECT)
    assert failure.kind == "config"
    assert "HTTPS_PROXY" in failure.message
    assert SECRET not in failure.message + failure.advice


async def test_a_link_to_this_machine_takes_no_proxy_of_the_environment(dialler, authority, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    async with websocket_server(authority, greets) as url:
        assert (await dialler.dial(url)).tls is not None


@pytest.mark.skipif(not FILES.exists(), reason="counts open files where Linux shows them")
@pytest.mark.parametrize("kind", ["", "http", "https", "socks5h"])
async def test_dials_dropped_at_any_moment_leave_nothing_open(dialler, authority, kind):
    """Straight and through each proxy; the moments are spread over the time that a dial takes."""
    async with proxied(authority, kind or "http") as (_, url, address):
        began = time.monotonic()
        await (await dialler.dial(url, proxy=address if kind else None)).close()
        whole = time.monotonic() - began
        tasks, files = len(asyncio.all_tasks()), len(list(FILES.iterdir()))
        for number in range(40):
            dial = asyncio.create_task(dialler.dial(url, proxy=address if kind else None))
            await asyncio.wait([dial], timeout=whole * number / 30)
            dial.cancel()
            await asyncio.wait([dial])
            if not dial.cancelled():
                await dial.result().close()
        await eventually(lambda: len(list(FILES.iterdir())) <= files, "the same number of open files as before")
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "the same number of tasks as before")
