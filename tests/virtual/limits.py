"""What a strict venue counts of one address, and how it punishes: dials, REST weight, and whoever asks inside a ban."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from .loop import VirtualClock

# Binance: 300 new connections per 5 minutes, 6,000 weight a minute, 5 messages a second; bans from 2 minutes to 3 days.
DIALS_PER_WINDOW = 300
DIAL_WINDOW_S = 300.0
WEIGHT_PER_MINUTE = 6000
MESSAGES_PER_S = 5
SHORTEST_BAN_S = 120.0
LONGEST_BAN_S = 3 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status with the seconds of its `Retry-After`; None: without the header."""

    status: int
    retry_after_s: int | None


@dataclass(slots=True)
class Limits:
    """The venue's book on the one address that everything here comes from.

    A ban is imposed by plan (another program at the address has earned it), or earned. The first to ask inside an imposed one is
    told; who asks again, having been told, has it lengthened: every time by a doubled term, or with `patient` only once a ban, by
    one that follows it and is at most `longest_ban_s`.
    """

    clock: VirtualClock
    patient: bool = False
    longest_ban_s: float = LONGEST_BAN_S
    others_weight: int = 0  # what other programs at the address use up every minute
    banned_until: float = 0.0
    imposed_until: float = 0.0
    status: int = 418
    told_at: float | None = None
    refuse_next: tuple[int, float] | None = None  # begin a ban of this status and length with the next that comes
    violations: list[str] = field(default_factory=list)
    bans_earned: int = 0
    dials: list[float] = field(default_factory=list)
    weights: dict[int, int] = field(default_factory=dict)
    _term_s: float = SHORTEST_BAN_S
    _follows_s: float = 0.0
    _window: deque[float] = field(default_factory=deque)

    def impose(self, status: int, seconds: float) -> None:
        """Refuse everything for so long, whatever the client does."""
        now = self.clock.monotonic()
        self._settle(now)
        self.imposed_until = max(self.imposed_until, now + seconds)
        if now + seconds > self.banned_until:
            self.banned_until, self.status = now + seconds, status
            self.told_at = None

    def refuses(self, left_at: float) -> Refusal | None:
        """What a dial or request gets that left the client at `left_at`; None: it may pass."""
        now = self.clock.monotonic()
        self._settle(now)
        if self.refuse_next is not None:
            status, seconds = self.refuse_next
            self.refuse_next = None
            self.impose(status, seconds)
        if now >= self.banned_until:
            return None
        if self.told_at is not None and left_at > self.told_at:
            self._violate(f"at {now:.1f} s asked again inside a ban")
        return Refusal(self.status, math.ceil(self.banned_until - now))

    def told(self) -> None:
        """A refusal has reached the client: from now on it knows."""
        if self.told_at is None:
            self.told_at = self.clock.monotonic()

    def take_dial(self, left_at: float) -> Refusal | None:
        """Count a dial; what it gets."""
        now = self.clock.monotonic()
        self.dials.append(now)
        self._window.append(now)
        while self._window[0] <= now - DIAL_WINDOW_S:
            self._window.popleft()
        if len(self._window) > DIALS_PER_WINDOW:
            self._violate(f"at {now:.1f} s dialled {len(self._window)} times in 5 min")
        return self.refuses(left_at)

    def take_request(self, left_at: float, weight: int) -> tuple[Refusal | None, int]:
        """Count a REST request; what it gets, and the weight used in this minute."""
        minute = int(self.clock.time() // 60)
        used = self.weights.get(minute, self.others_weight) + weight
        self.weights[minute] = used
        refusal = self.refuses(left_at)
        if refusal is None and used > WEIGHT_PER_MINUTE:
            self.violations.append(f"weight {used} in one minute")
            refusal = Refusal(429, math.ceil(60 - self.clock.time() % 60))
        return refusal, used

    def most_dials(self, window_s: float = DIAL_WINDOW_S) -> int:
        """The most dials in any `window_s` seconds."""
        most, first = 0, 0
        for last, at in enumerate(self.dials):
            while self.dials[first] <= at - window_s:
                first += 1
            most = max(most, last - first + 1)
        return most

    def _violate(self, why: str) -> None:
        now = self.clock.monotonic()
        self.violations.append(why)
        self.status = 418
        if self.patient and now < self.banned_until:
            if not self._follows_s and self._term_s <= self.longest_ban_s:
                self._follows_s = self._term_s
            return
        self._ban(now)

    def _ban(self, since: float) -> None:
        self.bans_earned += 1
        self.banned_until = max(self.banned_until, since + self._term_s)
        self._term_s = min(2 * self._term_s, 2 * self.longest_ban_s)
        self.told_at = None if self.patient else self.told_at

    def _settle(self, now: float) -> None:
        """Let the ban that was earned inside one begin at that one's end; forget the terms once all are over."""
        while self._follows_s and now >= self.banned_until:
            self._follows_s = 0.0
            self._ban(self.banned_until)
        if now >= self.banned_until and self.banned_until:
            self.banned_until, self.told_at, self._term_s = 0.0, None, SHORTEST_BAN_S
