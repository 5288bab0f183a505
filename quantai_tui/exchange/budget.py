"""What one address may ask for: request weight per minute, and what happens to those who go on beyond it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

_LONGEST_BAN_S = 3 * 24 * 3600.0
_KEPT_VISITS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Binance's published limits for spot market data; tests shorten the times.

    `buffer_bytes` is ours: what one connection may leave unread before it is dropped. The venue does the same at a size it keeps
    to itself; 4 MiB are about two seconds at 10,000 trades/s.
    """

    weight_per_minute: int = 6000
    refusals_before_ban: int = 10  # not published: how many 429 in one minute are followed by 418
    first_ban_s: float = 120.0
    ping_interval_s: float = 20.0
    pong_deadline_s: float = 60.0
    connection_lifetime_s: float = 24 * 3600.0
    messages_per_s: int = 5
    streams_per_connection: int = 1024
    buffer_bytes: int = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not served: HTTP status 429 or 418, and the seconds for `Retry-After`."""

    status: int
    retry_after_s: int
    banned_until_ms: int | None = None


class RequestBudget:
    """Weight used in this minute of the clock, by everybody: whoever reaches loopback has one address.

    Over the limit is 429 until the minute is over. Going on regardless is 418, a ban that REST and WebSocket share; asking inside
    it doubles it, up to three days. The venue publishes 2 minutes and 3 days as the ends of the scale, not the steps between.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock = SYSTEM_CLOCK,
        *,
        banned_until_s: float = 0.0,
        on_ban: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`banned_until_s` (Unix seconds) is a ban from before; `on_ban` is told the end of each new or longer one."""
        self._limits = limits
        self._clock = clock
        self._on_ban = on_ban
        self._minute = -1
        self._refusals = 0
        self._refused_until_s = 0.0
        self._refusals_before_ban = limits.refusals_before_ban
        self._first_ban_s = self._ban_s = limits.first_ban_s
        self._banned_until_s = banned_until_s
        self._used = 0
        self.visits: deque[tuple[float, str]] = deque(maxlen=_KEPT_VISITS)
        """Who came when (monotonic seconds): every dial and every REST request, refused ones too; the last 10,000."""

    @property
    def used(self) -> int:
        """Weight used in this minute, as the header of every answer says."""
        if self._clock.time() < self._refused_until_s:
            return max(self._used, self._limits.weight_per_minute + 1)
        return self._used

    def visited(self, what: str) -> None:
        self.visits.append((self._clock.monotonic(), what))

    def exhaust(self, seconds: float, refusals_before_ban: int, first_ban_s: float) -> None:
        """From now on there is no weight left for so long, and patience for so many refusals."""
        self._refused_until_s = self._clock.time() + seconds
        self._refusals_before_ban, self._first_ban_s = refusals_before_ban, first_ban_s
        self._refusals = 0

    def banish(self, seconds: float) -> None:
        """A ban from now on, for REST and WebSocket alike."""
        self._ban_s = seconds
        self._banned_until_s = self._clock.time() + seconds
        self._on_ban(self._banned_until_s)

    def pardon(self) -> None:
        """End a ban, and what `exhaust` said."""
        self._refused_until_s = 0.0
        self._refusals_before_ban, self._first_ban_s = self._limits.refusals_before_ban, self._limits.first_ban_s
        self._refusals = 0
        if self._banned_until_s:
            self._banned_until_s = 0.0
            self._on_ban(0.0)

    def charge(self, weight: int) -> Refusal | None:
        """Account for a request; None when it may be served."""
        now = self._clock.time()
        if ban := self.ban():
            return ban
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._used = 0
            self._refusals = 0 if now >= self._refused_until_s else self._refusals
        self._used += weight
        exhausted_s = self._refused_until_s - now
        if exhausted_s <= 0 and self._used <= self._limits.weight_per_minute:
            return None
        self._refusals += 1
        if self._refusals > self._refusals_before_ban:
            self.banish(self._first_ban_s)
            return self._banned(now)
        return Refusal(429, max(1, math.ceil(exhausted_s if exhausted_s > 0 else 60 - now % 60)))

    def ban(self) -> Refusal | None:
        """The ban in force, if any; asking makes it longer."""
        now = self._clock.time()
        if now >= self._banned_until_s:
            return None
        longer = self._ban_s < _LONGEST_BAN_S
        self._ban_s = min(self._ban_s * 2, _LONGEST_BAN_S)
        self._banned_until_s = max(self._banned_until_s, now + self._ban_s)
        if longer:  # not every time: who asks a hundred times a second must not make it write as often
            self._on_ban(self._banned_until_s)
        return self._banned(now)

    def _banned(self, now: float) -> Refusal:
        return Refusal(418, max(1, round(self._banned_until_s - now)), round(self._banned_until_s * 1000))
