"""The seam between a session and whatever carries its frames: what a link can do, and who makes one.

Transports over the network must behave alike, and the tests of the faults run on each. A recording that is
played again, or a venue in memory, is a transport as well: everything above this line cannot tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from ..telemetry import SYSTEM_CLOCK, Clock
from .addresses import checked_address
from .config import StreamConfig
from .failures import Phase

# A combined aggTrade frame is about 250 bytes, the largest documented one (depth) some 100 KiB: above this it is not theirs.
MAX_FRAME_BYTES = 1 << 20
STREAM_PATH = "/stream"
UPGRADE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
# Binance allows 5 messages a second on spot, pongs included; one is left for the library's pongs.
_SENDS_PER_S = 4


class Receiver(Protocol):
    """Who takes the messages of a link."""

    def take(self, data: bytes, /) -> None:
        """One whole message, undecoded: any buffer, not to be kept. Quick, and never raises.

        To be looked up for every message, not once: a recorder may come in between while the link is up.
        """
        ...

    def is_full(self) -> bool:
        """Asked after every read of the socket: whether to stop reading until `Link.resume_reading`."""
        ...


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a link's TLS came to. `not_after` is the end of the server's certificate in Unix seconds, None where it is unknown."""

    version: str
    cipher: str = ""
    issuer: str = ""
    not_after: float | None = None


class Link(Protocol):
    """An open connection. Its messages go to the `Receiver` it was dialled with, from the moment it is open."""

    @property
    def tls(self) -> TlsInfo | None: ...

    async def until_closed(self) -> NoReturn:
        """Wait for the end, and raise what ended it. Called once, and all the while: rare messages are delivered from here."""
        ...

    def resume_reading(self) -> None:
        """Read again after the receiver was full. On a link that is being closed it does nothing."""
        ...

    async def send(self, frame: str | bytes) -> None:
        """Send a text frame, no faster than the venue allows."""
        ...

    async def ping(self, payload: bytes) -> Awaitable[float]:
        """Send a ping; the result waits for its pong and gives the round-trip time in seconds."""
        ...

    async def close(self) -> None:
        """Close in good order if the other side answers at once; otherwise cut. Takes half a second at most; idempotent."""
        ...

    def abort(self) -> None:
        """Cut the connection now."""
        ...


class Transport(Protocol):
    """Opens links."""

    @property
    def name(self) -> str: ...

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> Link:
        """Open a link to `config.ws_url` + STREAM_PATH: name and TCP, then TLS, then the upgrade, each with a bound of its own.

        Raises:
            LinkFault: with kind CONFIG, when the address is not wss:// with a host: nothing is ever sent in the clear.
            Exception: whatever the failing layer raises; `classify(error, phase)` knows them, by the phase last announced.
        """
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a dial goes to."""

    url: str
    host: str
    port: int
    path: str


def endpoint(config: StreamConfig) -> Endpoint:
    """The address to dial.

    Raises:
        LinkFault: with kind CONFIG, as `checked_address`.
    """
    url = config.ws_url.rstrip("/") + STREAM_PATH
    parts = checked_address(url, "wss", "EXCHANGE_WS_URL")
    host = parts.hostname or ""
    return Endpoint(url, host if host.isascii() else host.encode("idna").decode(), parts.port or 443, parts.path)


class SendPace:
    """Keeps what one connection sends within the venue's limit. `turn` waits for it."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._sent: deque[float] = deque(maxlen=_SENDS_PER_S)
        self._one = asyncio.Lock()

    async def turn(self) -> None:
        async with self._one:
            while len(self._sent) == _SENDS_PER_S and (wait := self._sent[0] + 1.0 - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            self._sent.append(self._clock.monotonic())
