"""A venue in memory: its market, its limits, its connections, its REST history, and whatever is wrong with it at the moment."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame, agg_trade_stream
from quantai_tui.stream import Phase, StreamConfig
from quantai_tui.stream.transport import UPGRADE_TIMEOUT_S, Receiver

from .limits import Limits, Refusal
from .link import MemoryLink, tls_error
from .loop import VirtualClock
from .market import Market

DAY_S = 24 * 3600.0
# Troubles while which no connection can come to be, with those that live on the way to the venue and not in it.
ON_THE_WAY = frozenset(
    {"dns", "refused", "unreachable", "connect_stall", "tls_stall", "tls_bad_mac", "tls_cut", "expired_certificate"}
)
AT_THE_DOOR = ON_THE_WAY | {"upgrade_stall", "http_403", "http_451", "http_503", "no_ack", "flapping"}


def reset() -> ConnectionResetError:
    """The peer, or somebody in between, has cut the connection."""
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class Venue:
    """Binance's public side for one address.

    `force` puts a trouble in force for some seconds, `has` asks for it. `handed` are the ids that have reached the client, by
    whatever way; `keeps_from` the lowest id that REST still has; `lost` the ids that it had dropped before anybody got them.
    """

    def __init__(
        self, market: Market, clock: VirtualClock, seed: int = 0, *, limits: Limits | None = None, lifetime_s: float = DAY_S
    ) -> None:
        self.market = market
        self.clock = clock
        self.rng = random.Random(f"venue {seed}")
        self.limits = limits or Limits(clock)
        self.links: set[MemoryLink] = set()
        self.handed: dict[str, set[int]] = {symbol: set() for symbol in market.symbols}
        self.lost: dict[str, set[int]] = {symbol: set() for symbol in market.symbols}
        self.keeps_from: dict[str, int] = dict.fromkeys(market.symbols, 0)
        self.requests: list[tuple[float, str]] = []
        self.dialled: list[float] = []  # every dial, those that never got to the venue too
        self.useful: set[MemoryLink] = set()  # connections that have brought a trade
        self.tls_errors = 0  # that the client has met
        self.muted: set[str] = set()  # symbols that no connection receives
        self.unseen_s = self.avoidable_s = 0.0  # see `_account`
        self.flaps_after_s = (0.05, 2.0)  # how long a flapping connection lives, at least and at most
        self._lifetime_s = lifetime_s
        self._troubles: dict[str, float] = {}
        self._last_seen_at = clock.monotonic()
        market.on_trade = self._publish

    def force(self, trouble: str, seconds: float) -> None:
        self._troubles[trouble] = max(self._troubles.get(trouble, 0.0), self.clock.monotonic() + seconds)

    def has(self, trouble: str) -> bool:
        return self._troubles.get(trouble, 0.0) > self.clock.monotonic()

    @property
    def reachable(self) -> bool:
        """Whether somebody who has broken no rule could connect now."""
        now = self.clock.monotonic()
        shut = any(until > now for name, until in self._troubles.items() if name in AT_THE_DOOR)
        return now >= self.limits.imposed_until and not shut

    def subscribed(self) -> list[MemoryLink]:
        """The connections that have asked for something, oldest first."""
        return sorted((link for link in self.links if link.streams), key=lambda link: link.opened_at)

    def cut_all(self, cause: Callable[[], BaseException] = reset) -> None:
        for link in list(self.links):
            link.cut(cause())

    def forget(self, keep_s: float) -> None:
        """REST drops all that is older than `keep_s`. What nobody has got by then is lost."""
        since_ms = self.market.now_ms() - keep_s * 1000
        for symbol, trades in self.market.issued.items():
            kept = next((trade.id for trade in reversed(trades) if trade.time < since_ms), -1) + 1
            begun = min(self.handed[symbol], default=kept)
            self.keeps_from[symbol] = max(self.keeps_from[symbol], kept)
            gone = {trade.id for trade in trades if begun <= trade.id < kept}
            self.lost[symbol] |= gone - self.handed[symbol]

    def hand_over(self, link: MemoryLink, trade: AggTrade) -> None:
        """A trade has reached the client."""
        self.useful.add(link)
        self.handed[trade.symbol].add(trade.id)

    def _publish(self, trade: AggTrade) -> None:
        stream = agg_trade_stream(trade.symbol)
        frame = agg_trade_frame(trade, trade.time, True)
        self._account(stream, trade.symbol)
        for link in list(self.links):
            link.publish(stream, frame, trade)

    def _account(self, stream: str, symbol: str) -> None:
        """Time for which trades went by unseen, and how much of it was the client's own doing."""
        now = self.clock.monotonic()
        seen = any(link.carries(stream, symbol) for link in self.links)
        # A trade that follows a halt says nothing about the halt.
        passed, self._last_seen_at = now - max(self._last_seen_at, self.market.halted_until), now
        if not seen and self.market.trading:
            self.unseen_s += passed
            self.avoidable_s += passed if self.reachable else 0.0

    # The door.

    async def admit(self, receiver: Receiver, config: StreamConfig, on_phase: Callable[[Phase], None]) -> MemoryLink:
        """A dial, from the name to the upgrade. Raises what the real transport raises."""
        left_at = self.clock.monotonic()
        self.dialled.append(left_at)
        on_phase(Phase.CONNECT)
        await self._reach(config)
        await asyncio.sleep(0.02)
        refusal = self.limits.take_dial(left_at)
        on_phase(Phase.TLS)
        try:
            await self._greet(config)
        except ssl.SSLError:
            self.tls_errors += 1
            raise
        await asyncio.sleep(0.03)
        on_phase(Phase.UPGRADE)
        if self.has("upgrade_stall"):
            await asyncio.sleep(UPGRADE_TIMEOUT_S)
            raise TimeoutError("timed out during opening handshake")
        await asyncio.sleep(0.02)
        self._let_in(refusal)
        link = MemoryLink(self, receiver, self.rng)
        self.links.add(link)
        loop = asyncio.get_running_loop()
        loop.call_later(self._lifetime_s, link.close_from_venue, 1001, "24 h are over")
        if self.has("flapping"):
            loop.call_later(self.rng.uniform(*self.flaps_after_s), link.cut, reset())
        return link

    async def _reach(self, config: StreamConfig) -> None:
        if self.has("dns"):
            await asyncio.sleep(0.05)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if self.has("refused"):
            await asyncio.sleep(0.02)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
        if self.has("unreachable"):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        if self.has("connect_stall"):
            await asyncio.sleep(config.connect_timeout)
            raise TimeoutError

    async def _greet(self, config: StreamConfig) -> None:
        """The TLS handshake."""
        if self.has("tls_stall"):
            await asyncio.sleep(config.ssl_timeout)
            raise ConnectionAbortedError("SSL handshake is taking too long: aborting the connection")  # asyncio's, without errno
        if self.has("tls_bad_mac"):
            await asyncio.sleep(0.05)
            raise tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
        if self.has("tls_cut"):
            raise tls_error("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError)
        if self.has("expired_certificate"):
            error = ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired")
            error.verify_code, error.verify_message = 10, "certificate has expired"
            raise error

    def _let_in(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self.limits.told()
            raise refused(refusal)
        for status in (403, 451, 503):
            if self.has(f"http_{status}"):
                raise refused(Refusal(status, None))


def refused(refusal: Refusal) -> InvalidStatus:
    """The upgrade was answered with another status than 101."""
    headers = Headers()
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return InvalidStatus(Response(refusal.status, HTTPStatus(refusal.status).phrase, headers, b""))


class MemoryTransport:
    """Opens links to a `Venue`."""

    name = "memory"

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> MemoryLink:
        return await self._venue.admit(receiver, config, on_phase)
