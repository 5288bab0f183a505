"""Silent symbols: REST tells a quiet market from a silent subscription.

A symbol is checked over REST soon after a connection goes live, if no trade has arrived, and as soon as its silence is
suspected. If REST is quiet too, it is asked at growing intervals. If REST has newer trades, the symbol is unserved: they are
fetched as a gap, and the symbol is shown as silent until its next trade on the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum

from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .feed import Feeds
from .rest_pace import WEIGHT_LIMIT
from .symbol_feed import SymbolFeed
from .tasks import until_first_ends

log = logging.getLogger("quantai_tui.stream")

# After going live, wait this long for a trade, which shows what is missing; then look at a quiet symbol, and again
# after the second, third ... delay, repeating the last: a subscription may be acknowledged and dead.
FIRST_LOOK_S = 0.8
# Time in a replay runs faster than the program: a look as early as on a live line would overtake trades that are being delivered.
FIRST_LOOK_REPLAYED_S = 5.0
_QUIET_LOOKS_S = (FIRST_LOOK_S, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0)
# Look at a suspected symbol at once, and again after the first delay, doubling up to the second.
_FIRST_AGAIN_S, _LONGEST_AGAIN_S = 5.0, 600.0
# A symbol that trades while the stream brings none of it is given so long, for a trade that is on its way.
_ON_ITS_WAY_S = 2.0
_POLL_SILENT_S = 30.0  # how late the trades of a silent subscription may be
# How long a second connection may take to bring an unserved symbol before it is called silent.
_NAME_AFTER_S = 15.0
_FIRST_PROBE_S, _LONGEST_PROBE_S = 10.0, 600.0  # between second connections that did not bring an unserved symbol
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 5.0  # between looks while REST fails
_LOOK_WEIGHT = 8  # two requests for aggregate trades (Binance spot): if the first finds a newer trade, the second asks for its id
_LOOKS_SHARE = 0.1  # of the venue's weight, for all looks except the first after going live
_MINUTE_S = 60.0
LOOKS_PER_MINUTE = int(WEIGHT_LIMIT * _LOOKS_SHARE / _LOOK_WEIGHT)


class Finding(Enum):
    """What REST says of a symbol without trades on the stream."""

    UNKNOWN = "no answer yet"
    QUIET = "the venue has no newer trade either"
    AHEAD = "the venue has a newer trade, which may be on its way"
    UNSERVED = "the venue trades it, and the stream does not bring it"


class _Look:
    """The look at one symbol."""

    __slots__ = (
        "again_s",
        "ahead_at",
        "asked",
        "baseline",
        "due",
        "fell",
        "finding",
        "looks",
        "probe_at",
        "probe_s",
        "probed",
    )

    def __init__(self, due: float, *, fell: bool, baseline: int | None) -> None:
        self.due = due
        self.fell = fell  # it had traded on this connection
        self.baseline = baseline  # the newest id that the stream need not have brought
        self.finding = Finding.UNKNOWN
        self.asked = False
        self.looks = 0  # number of answered looks
        self.again_s = 0.0  # delay of the next look; 0 while its silence is not suspected
        self.ahead_at: float | None = None
        self.probed = False  # a second connection did not bring it either
        self.probe_at = 0.0
        self.probe_s = 0.0


class SilenceLooks:
    """Decides which symbol to look at, and interprets the answers.

    The task that asks REST waits for `due`, then calls `take` with the symbol's newest trade, or `failed`. `suspect` and
    `probed` are for the watcher of the links. `on_taken` is called when a gap may have been opened.
    """

    def __init__(self, feeds: Feeds, clock: Clock = SYSTEM_CLOCK, *, first_look_s: float = FIRST_LOOK_S) -> None:
        self._first_look_s = first_look_s
        self._feeds = feeds
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._spent: deque[float] = deque(maxlen=LOOKS_PER_MINUTE)  # times of the last looks
        self._retry_s = 0.0
        self._resume_at = clock.monotonic()  # after a failure
        self._changed = asyncio.Event()
        self.on_taken: Callable[[], None] = lambda: None

    # Links

    def on_live(self) -> None:
        """A connection went live: look soon at symbols without trades, even if REST failed before."""
        self._retry_s, self._resume_at = 0.0, self._clock.monotonic()
        due = self._clock.monotonic() + self._first_look_s
        self._looks = {feed.symbol: _Look(due, fell=False, baseline=None) for feed in self._feeds}
        self._changed.set()

    def on_link_down(self) -> None:
        """There is no link: that nothing comes of a symbol says nothing of its subscription."""
        self._looks.clear()

    def suspect(self, symbols: Iterable[str], why: str) -> None:
        """Symbols silent for longer than usual. `why` is recorded as the cause of their gaps."""
        now = self._clock.monotonic()
        for symbol in symbols:
            feed, look = self._feeds.get(symbol), self._look_at(symbol)
            if feed is None:
                continue
            if look is None:
                look = self._looks[symbol] = _Look(now, fell=True, baseline=feed.ledger.last_id)
                feed.fall_silent(why)
            if not look.again_s:
                look.again_s = _FIRST_AGAIN_S
                look.due = min(look.due, now)
                look.finding = Finding.UNKNOWN if look.finding is Finding.QUIET else look.finding
                self._changed.set()

    def probed(self, symbols: Iterable[str]) -> None:
        """A second connection did not bring these symbols either."""
        now = self._clock.monotonic()
        for symbol in symbols:
            look = self._look_at(symbol)
            if look is not None:
                look.probed = True
                look.probe_s = min(look.probe_s * 2 or _FIRST_PROBE_S, _LONGEST_PROBE_S)
                look.probe_at = now + look.probe_s
                if look.finding is Finding.UNSERVED:
                    look.due = min(look.due, now)  # it can be named now
                    self._changed.set()

    def may_probe(self, symbol: str) -> bool:
        """Whether to try a second connection for it: not soon after a failed one."""
        look = self._look_at(symbol)
        return look is None or self._clock.monotonic() >= look.probe_at

    def excused(self) -> list[str]:
        """Symbols with nothing new over REST or on a second connection: the market is quiet. Each is returned once."""
        found = [symbol for symbol in list(self._looks) if self._is_excused(symbol)]
        for symbol in found:
            look = self._looks[symbol]
            look.probed, look.probe_s, look.probe_at = False, 0.0, 0.0
        return found

    def unserved(self) -> list[str]:
        """Symbols that the venue trades and the stream does not bring."""
        return [symbol for symbol in list(self._looks) if self.is_unserved(symbol)]

    def is_unserved(self, symbol: str) -> bool:
        look = self._look_at(symbol)
        return look is not None and look.finding is Finding.UNSERVED

    # Looks

    async def due(self) -> SymbolFeed:
        """Wait for the next symbol to look at."""
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            at, feed = min(
                ((self._when(feed.symbol), feed) for feed in self._waiting()), key=lambda one: one[0], default=(0.0, None)
            )
            if feed is None:
                await self._changed.wait()
            elif at <= now:
                look = self._looks[feed.symbol]
                if look.asked or look.again_s:
                    self._spent.append(now)
                look.asked = True
                return feed
            else:
                await until_first_ends(self._clock.sleep(at - now), self._changed.wait())

    async def take(self, feed: SymbolFeed, newest: AggTrade | None) -> None:
        """The venue's newest trade of a symbol over REST; None when it has none.

        Without a ledger nothing is stored: the ledger begins with a live trade, not with an old one.
        """
        self._retry_s = 0.0
        look = self._look_at(feed.symbol)
        if look is None:
            return
        now = self._clock.monotonic()
        look.looks += 1
        if newest is None:
            self._plan(look, Finding.QUIET, now)
            return
        if look.baseline is None:
            look.baseline = newest.id
        finding = Finding.QUIET
        if newest.id > look.baseline:
            look.ahead_at = now if look.ahead_at is None else look.ahead_at
            finding = Finding.UNSERVED if now - look.ahead_at >= _ON_ITS_WAY_S else Finding.AHEAD
        self._plan(look, finding, now)
        if feed.ledger.last_id is not None and (finding is Finding.UNSERVED or not look.fell):
            await self._feeds.take_fetched(feed, [newest])
            self.on_taken()
        if finding is Finding.UNSERVED and feed.quiet and not feed.silent and self._is_sure(look, now):
            feed.name_silent(newest.id, fell=look.fell)

    def failed(self, feed: SymbolFeed) -> None:
        """REST did not answer a look: pause all looks, then serve the other symbols first."""
        self._retry_s = min(self._retry_s * 2 or _FIRST_RETRY_S, _LONGEST_RETRY_S)
        self._resume_at = self._clock.monotonic() + self._retry_s
        look = self._look_at(feed.symbol)
        if look is not None:
            look.due = self._resume_at

    def look_now(self, feed: SymbolFeed) -> None:
        """Look at a symbol at once if the stream brings none of its trades."""
        look = self._look_at(feed.symbol)
        if look is not None:
            look.due = self._clock.monotonic()
            self._changed.set()

    def _waiting(self) -> list[SymbolFeed]:
        """The symbols to look at; a refused one only once per connection."""
        found = []
        for feed in self._feeds:
            look = self._look_at(feed.symbol)
            if look is not None and feed.seeded and (feed.refused is None or not look.asked):
                found.append(feed)
        return found

    def _look_at(self, symbol: str) -> _Look | None:
        """A symbol's look; it ends when the stream brings a trade."""
        look, feed = self._looks.get(symbol), self._feeds.get(symbol)
        if look is not None and feed is not None and not feed.quiet:
            del self._looks[symbol]
            return None
        return look

    def _plan(self, look: _Look, finding: Finding, now: float) -> None:
        look.finding = finding
        if finding is Finding.AHEAD:
            delay = _ON_ITS_WAY_S
        elif finding is Finding.UNSERVED:
            delay = _POLL_SILENT_S
        elif look.again_s:
            delay = look.again_s
            look.again_s = min(look.again_s * 2, _LONGEST_AGAIN_S)
        else:
            delay = _QUIET_LOOKS_S[min(look.looks, len(_QUIET_LOOKS_S) - 1)]
        look.due = now + delay

    def _is_sure(self, look: _Look, now: float) -> bool:
        assert look.ahead_at is not None
        return not look.fell or look.probed or now - look.ahead_at >= _NAME_AFTER_S

    def _is_excused(self, symbol: str) -> bool:
        look = self._look_at(symbol)
        return look is not None and look.probed and look.finding is Finding.QUIET

    def _when(self, symbol: str) -> float:
        """When to look at a symbol, within the share of the weight."""
        look = self._looks[symbol]
        at = max(look.due, self._resume_at)
        if (look.asked or look.again_s) and len(self._spent) == LOOKS_PER_MINUTE:
            at = max(at, self._spent[0] + _MINUTE_S)
        return at
