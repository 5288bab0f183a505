"""What an alert rule is, its thresholds, and the ways in which one neither flickers nor stays for ever."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable

from msgspec import Struct

from .snapshots import EngineSnapshot, Severity

_NEWS_S = 600.0  # what has happened once, and is over, stays on the screen for so long


class Thresholds(Struct, frozen=True):
    """The numbers of the rules; the first is to raise, the second to clear."""

    failed_reconnects: tuple[int, int] = (3, 1)  # within 5 minutes
    ssl_share: tuple[float, float] = (0.10, 0.05)  # of all attempts
    overflow_rate: tuple[float, float] = (0.20, 0.15)
    consecutive_overflow: tuple[int, int] = (5, 1)
    cap_share: tuple[float, float] = (1.0, 0.4)  # scale over cap; one overflow at the cap halves it and is no news
    certificate_days: tuple[float, float] = (14.0, 15.0)  # left until it expires
    straggler_s: tuple[float, float] = (10.0, 30.0)  # slow for so long; then as fast as the others for so long
    too_hot_s: tuple[float, float] = (0.0, 60.0)  # likewise


class Rule(Struct, frozen=True):
    """`check(snapshot, stands)` says in words what is wrong, or None; `stands` is what it said last while raised, else empty."""

    key: str
    severity: Severity
    remedy: str
    check: Callable[[EngineSnapshot, str], str | None]


class News:
    """Something that happened at a moment, told for ten minutes by the engine's uptime, which no suspend sets forward."""

    def __init__(self, before: Hashable) -> None:
        self._mark = before
        self._until = 0.0

    def is_fresh(self, mark: Hashable, uptime_s: float) -> bool:
        """`mark` changes whenever it happens again."""
        if mark != self._mark:
            self._mark = mark
            self._until = uptime_s + _NEWS_S
        return uptime_s < self._until


class Lasting:
    """Things that come and go from one snapshot to the next, told once they have lasted and until they have been over for long.

    Both lengths are seconds of the engine's uptime. What is absent is forgotten after `clear_s`.
    """

    def __init__(self, raise_s: float, clear_s: float) -> None:
        self._raise_s, self._clear_s = raise_s, clear_s
        self._since: dict[Hashable, float] = {}
        self._seen: dict[Hashable, float] = {}
        self._raised: set[Hashable] = set()

    def of(self, present: Collection[Hashable], snapshot: EngineSnapshot) -> Collection[Hashable]:
        """Those that are to be told, of what is `present` now and what was."""
        now = snapshot.uptime_s
        for thing in present:
            self._seen[thing] = now
            if now - self._since.setdefault(thing, now) >= self._raise_s:
                self._raised.add(thing)
        for thing in [thing for thing in self._since if thing not in present]:
            if thing not in self._raised or now - self._seen[thing] >= self._clear_s:
                self._raised.discard(thing)
                del self._since[thing], self._seen[thing]
        return self._raised
