"""Which proxy a connection takes, and the way through it: HTTP CONNECT, plain or itself over TLS, and SOCKS5.

A proxy's password is never part of a message, a name or a `repr`.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # not in the stub

from ..cleaning import one_line
from ..masking import is_cut_short
from .advice import FailureKind
from .failures import LinkFault
from .names import resolve
from .tunnel import relay

NONE = "none"
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_ALIASES = {"socks": "socks5"}  # some desktops write this into ALL_PROXY
_MAX_ANSWER_BYTES = 16 * 1024
_SHUTDOWN_TIMEOUT_S = 0.5
_CREDENTIALS_WANTED = 407
# RFC 9110 section 15.2: any number of interim answers may precede the answer. 101 would answer an upgrade, not a CONNECT.
_INTERIM = frozenset(range(100, 200)) - {101}
# RFC 1928 section 6.
_SOCKS_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused by the destination",
    6: "the time to live ran out",
    7: "command not supported",
    8: "address type not supported",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's address, and where it was named. As text it is without user and password."""

    scheme: str
    host: str
    port: int
    source: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{_authority(self.host, self.port)}"

    def fault(self, reason: str) -> LinkFault:
        """That this proxy did not do its part."""
        return LinkFault(
            FailureKind.PROXY, f"proxy {self}: {reason}", advice=f"Check the proxy {self} (from {self.source}); retrying."
        )


def proxy_for(host: str, setting: str | None, port: int = 443) -> str | None:
    """The URL of the proxy to take to `host`; None for none.

    `setting` is PROXY_URL: a URL counts for every host, "none" for none. Empty leaves it to the environment by urllib's rules:
    HTTPS_PROXY, else ALL_PROXY, except for the hosts, addresses and networks in NO_PROXY; lower case wins. This machine itself is
    never reached through a proxy of the environment, because the embedded exchange runs here.
    """
    if setting:
        return None if setting == NONE else setting
    if is_loopback(host):
        return None
    proxies = getproxies_environment()
    url = proxies.get("https") or proxies.get("all")
    if not url or proxy_bypass_environment(_authority(host, port), proxies) or _in_networks(host, proxies.get("no", "")):
        return None
    return url if "://" in url else f"http://{url}"


def _in_networks(host: str, excepted: str) -> bool:
    """Whether NO_PROXY has a network that contains the address, such as 10.0.0.0/8: urllib compares text only."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for name in excepted.split(","):
        try:
            if address in ipaddress.ip_network(name.strip().strip("[]"), strict=False):
                return True
        except ValueError:
            continue  # a name, which urllib compares
    return False


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def parse_proxy(url: str, source: str) -> Proxy:
    """The parts of a proxy's URL; `source` is the setting or variable that named it.

    Raises:
        LinkFault: with kind CONFIG. The URL is not repeated in the message: it may hold a password.
    """
    advice = f"Correct {source}, or set PROXY_URL=none to connect without a proxy."
    if is_cut_short(url):
        # Otherwise the part before the # would count as host and port, and be shown.
        message = f"{source}: #, / and ? in the user or password of a proxy must be written as %23, %2F and %3F"
        raise LinkFault(FailureKind.CONFIG, message, advice=advice)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        username, password = unquote(parts.username or "", errors="strict"), unquote(parts.password or "", errors="strict")
    except ValueError:
        host = None
    scheme = "" if host is None else _ALIASES.get(parts.scheme, parts.scheme)
    if not host or scheme not in _DEFAULT_PORTS or parts.query or parts.fragment:
        known = ", ".join(f"{scheme}://" for scheme in _DEFAULT_PORTS)
        message = f"{source} is no address of a proxy: it must be one of {known} with a host, and a port if any"
        raise LinkFault(FailureKind.CONFIG, message, advice=advice)
    return Proxy(scheme, host, port or _DEFAULT_PORTS[scheme], source, username, password)


def source_of(setting: str | None) -> str:
    """What to name to the operator as the place where the proxy came from."""
    if setting:
        return "PROXY_URL"
    return "HTTPS_PROXY" if getproxies_environment().get("https") else "ALL_PROXY"


async def destination(proxy: Proxy, host: str) -> str:
    """What to ask the proxy for: the host's name, or with socks5:// its address, looked up here; socks5h:// leaves that to it.

    Raises:
        OSError: socket.gaierror, when the name is not found.
    """
    if proxy.scheme != "socks5":
        return host
    found = await resolve(host, 0)
    # IPv4 first: a proxy is likelier to reach it.
    return str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0])


async def pass_through(proxy: Proxy, sock: socket.socket, host: str, port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Ask the proxy at the other end of `sock` for a connection to host and port, and return a socket that is it.

    The socket is taken over, and closed on failure. `context` verifies the proxy of an https:// address. Unbounded in time.

    Raises:
        LinkFault: with kind PROXY, when the proxy refuses.
        OSError: the connection to it broke.
    """
    if proxy.scheme == "https":
        return await _through_tls(proxy, sock, host, port, context or ssl.create_default_context())
    try:
        if proxy.scheme == "http":
            await _ask_http(proxy, _PlainWire(sock), host, port)
        else:
            await _ask_socks5(proxy, sock, host, port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _through_tls(proxy: Proxy, sock: socket.socket, host: str, port: int, context: ssl.SSLContext) -> socket.socket:
    # The socket is asyncio's from here on: closed beneath a transport that lives, its number would go to another.
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=context, server_hostname=proxy.host, ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S
    )
    try:
        await _ask_http(proxy, _TlsWire(reader, writer), host, port)
        return await relay(reader, writer)
    except BaseException:
        writer.transport.abort()
        raise


class _PlainWire:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self._sock, _MAX_ANSWER_BYTES)


class _TlsWire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.read(_MAX_ANSWER_BYTES)


async def _ask_http(proxy: Proxy, wire: _PlainWire | _TlsWire, host: str, port: int) -> None:
    """CONNECT, RFC 9110 section 9.3.6."""
    target = _authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username or proxy.password:
        credentials = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    await wire.send("\r\n".join([*lines, "", ""]).encode())
    answer = bytearray()
    heads = 0  # bytes of interim answers
    while True:
        while (end := answer.find(b"\r\n\r\n")) < 0:
            if heads + len(answer) > _MAX_ANSWER_BYTES:
                raise proxy.fault(f"answered CONNECT with more than {_MAX_ANSWER_BYTES} bytes")
            more = await wire.receive()
            if not more:
                raise proxy.fault(
                    "hung up in its answer to CONNECT" if heads or answer else "hung up without an answer to CONNECT"
                )
            answer += more
        version, _, rest = bytes(answer[:end]).split(b"\r\n", 1)[0].partition(b" ")
        status = int(rest[:3]) if version.startswith(b"HTTP/") and rest[:3].isdigit() else None
        if status not in _INTERIM:
            break
        heads += end + 4
        del answer[: end + 4]
    if status is None:
        raise proxy.fault("does not speak HTTP: wrong scheme or port?")
    if status == _CREDENTIALS_WANTED:
        raise proxy.fault("asks for user and password, or refuses those given (407)")
    if not 200 <= status < 300:
        raise proxy.fault(f"refused CONNECT to {target}: {one_line(rest.decode('latin-1'), 60)}")
    if len(answer) > end + 4:
        raise proxy.fault("sent data of its own after its answer to CONNECT")


class _Connected:
    """Lends an open socket to python-socks, which would look the proxy's name up in the event loop's own threads.

    It takes the place of a proxy before the proxy, which is asked for a connection in just this way.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        return self._sock


async def _ask_socks5(proxy: Proxy, sock: socket.socket, host: str, port: int) -> None:
    # Imported here: most never use a proxy.
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy as SocksProxy

    client = SocksProxy(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        proxy.username or None,
        proxy.password or None,
        rdns=True,
        forward=_Connected(sock),  # type: ignore[arg-type]
    )
    try:
        await client.connect(dest_host=host, dest_port=port)
    except ProxyError as error:
        code = error.error_code
        reason = one_line(str(error)) if code is None else f"{_SOCKS_REPLIES.get(code, 'refused')} (SOCKS5 reply {code})"
        raise proxy.fault(f"refused a connection to {_authority(host, port)}: {reason}") from error
    except UnicodeDecodeError:
        raise proxy.fault("its answer is not SOCKS5's") from None
    except ValueError:
        # Without its cause: that one quotes a part of the password.
        raise proxy.fault("SOCKS5 takes a user and password of plain ASCII, 255 characters each at most") from None


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
