"""Which trades have a plausible time. One wrong time would distort gaps, bars and the age of other trades.

A trade dated more than a minute ahead of the venue's own clock goes into quarantine: it is not stored, its id is
missing, and it is fetched over REST. If the venue's time is unknown, such a trade is stored but its
time is ignored: this machine's clock may be wrong. A time an hour or more before that of the previous trade is also
wrong.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import NamedTuple, Protocol

from ..market.times import AHEAD_US
from ..market.trades import FIRST_MICROSECOND_STAMP, AggTrade, to_us
from ..telemetry import SYSTEM_CLOCK, Clock
from .quarantine import Quarantine
from .tasks import until_first_ends
from .venue_clock import VenueClock

log = logging.getLogger("quantai_tui.stream")

_BACK_US = 3_600_000_000
# This many consecutive trades of one symbol with odd times are right, and the reference time is wrong.
_OUTVOTED_BY = 20
_ANSWER_WITHIN_S = 3.0
_ASKS_A_MINUTE = 5  # of a weight of 1 each
_MINUTE_S = 60.0
_REMEMBERED = 1024

_TIME = attrgetter("time")

AskTime = Callable[[], Awaitable[int | None]]
"""The venue's time in milliseconds since 1970, None if unknown; may raise what a REST request raises."""


class Dated(Protocol):
    """Times of a symbol (`symbol_feed.SymbolFeed`)."""

    symbol: str
    last_time_us: int | None
    odd_times: int  # consecutive trades with odd times
    wrong_times: int  # trades quarantined for their time

    @property
    def last_id(self) -> int | None: ...


class Judged(NamedTuple):
    """Store `trades`, but ignore the times of `undated` ids; `refused` ids went into quarantine."""

    trades: Sequence[AggTrade]
    undated: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()


class TradeTimes:
    """Judges the times of all symbols' trades.

    The venue is asked for its time whenever a trade seems to be ahead of it, at most five times a minute; after a minute only if
    it did not answer. In a replay (`replayed`, or no known venue time) no trade is refused: an archive keeps
    all of its trades, and odd times are ignored.
    """

    def __init__(
        self,
        ask: AskTime | None = None,
        quarantine: Quarantine | None = None,
        clock: Clock = SYSTEM_CLOCK,
        *,
        replayed: bool = False,
    ) -> None:
        self._ask = ask
        self._quarantine = quarantine or Quarantine(clock)
        self._clock = clock
        self._venue = VenueClock(clock)
        self._asked: deque[float] = deque(maxlen=_ASKS_A_MINUTE)
        self._answered = True
        self._refuses = True
        if replayed:
            self._keep_all()
        self._refused: OrderedDict[tuple[str, int, int], None] = OrderedDict()  # symbol, id and time, each logged once

    def is_ahead(self, time_us: int) -> bool:
        """Whether a time is ahead of the known present; does not ask the venue."""
        now_us = self._venue.now_us()
        return time_us > (self._venue.bound_us() if now_us is None else now_us) + AHEAD_US

    def believable_us(self, time_us: int) -> int:
        """`time_us`, or the present if `time_us` is ahead: for callers that need a time at once."""
        return min(time_us, int(self._clock.time() * 1e6)) if self.is_ahead(time_us) else time_us

    async def judge(self, feed: Dated, trades: Sequence[AggTrade], *, live: bool = True) -> Judged:
        """Sort the trades of one symbol by plausibility; `live` trades are from the stream, and so are new.

        Waits at most three seconds for the venue's answer if it must be asked.
        """
        times = list(map(_TIME, trades))
        lowest, highest = min(times), max(times)
        oldest_us, newest_us = to_us(lowest), to_us(highest)
        if lowest < FIRST_MICROSECOND_STAMP <= highest:  # milliseconds among microseconds
            oldest_us, newest_us = min(map(to_us, times)), max(map(to_us, times))
        last_us = feed.last_time_us
        if self.is_ahead(newest_us):
            await self._ask_if_due()
        elif last_us is None or oldest_us >= last_us - _BACK_US:
            if live:
                feed.odd_times = 0
                self._venue.heard(newest_us)
            return Judged(trades)
        return self._part(feed, trades, list(map(to_us, times)), live)

    def _part(self, feed: Dated, trades: Sequence[AggTrade], times: Sequence[int], live: bool) -> Judged:
        now_us = self._venue.now_us()
        latest_us = (self._venue.bound_us() if now_us is None else now_us) + AHEAD_US
        kept: list[AggTrade] = []
        undated: set[int] = set()
        refused: set[int] = set()
        last_id, last_us = feed.last_id, feed.last_time_us
        for trade, time_us in zip(trades, times, strict=True):
            ahead = time_us > latest_us
            back = last_us is not None and time_us < last_us - _BACK_US
            if back and not live and self._is_refused(feed, trade):
                refused.add(trade.id)  # REST gives it the same wrong time as the stream did
                continue
            behind = back and last_id is not None and trade.id > last_id
            if not ahead and not behind:
                if live:
                    feed.odd_times = 0
                    self._venue.heard(time_us)
                kept.append(trade)
                continue
            feed.odd_times += 1
            if feed.odd_times > _OUTVOTED_BY:
                # The reference time is wrong. An answer of the venue is not outvoted: if its times and its clock contradict
                # each other, no time of this symbol is used.
                if behind or now_us is None:
                    log.warning("%s: %d consecutive trades agree on %s: accepted", feed.symbol, _OUTVOTED_BY, _stamp(time_us))
                    feed.odd_times = 0
                    feed.last_time_us = last_us = None
                    self._forget_refused(feed)
                    if ahead:
                        self._venue.outvoted(time_us)
                        latest_us = time_us + AHEAD_US
                else:
                    undated.add(trade.id)
                kept.append(trade)
            elif not self._refuses or (ahead and now_us is None):
                undated.add(trade.id)
                kept.append(trade)
            else:
                refused.add(trade.id)
                reference, name = (now_us, "the venue's clock") if ahead else (last_us, "the previous trade")
                assert reference is not None
                self._refuse(feed, trade, f"its time {_stamp(time_us)} is {_apart(time_us - reference)} {name}")
        return Judged(kept, frozenset(undated), frozenset(refused))

    def _is_refused(self, feed: Dated, trade: AggTrade) -> bool:
        return (feed.symbol, trade.id, trade.time) in self._refused

    def _forget_refused(self, feed: Dated) -> None:
        for key in [key for key in self._refused if key[0] == feed.symbol]:
            del self._refused[key]

    def _refuse(self, feed: Dated, trade: AggTrade, why: str) -> None:
        if self._is_refused(feed, trade):
            return
        self._refused[(feed.symbol, trade.id, trade.time)] = None
        if len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)
        feed.wrong_times += 1
        self._quarantine.add_trade(trade, why)

    async def _ask_if_due(self) -> None:
        if self._ask is None or not self._refuses:
            return
        now = self._clock.monotonic()
        before = self._asked[0] if len(self._asked) == _ASKS_A_MINUTE else None
        if not self._answered:
            before = self._asked[-1]
        if before is not None and now - before < _MINUTE_S:
            return
        self._asked.append(now)
        self._answered = False
        await until_first_ends(self._answer(self._ask), self._clock.sleep(_ANSWER_WITHIN_S))

    def _keep_all(self) -> None:
        self._refuses = self._venue.follows_trades = False

    async def _answer(self, ask: AskTime) -> None:
        try:
            venue_ms = await ask()
        except Exception as error:  # noqa: BLE001 - without an answer the time is unknown, and nothing is refused
            log.info("the venue's time is unknown (%s): no trade is refused for its time", error)
            return
        self._answered = True
        if venue_ms is None:
            self._keep_all()
        else:
            self._venue.answered(venue_ms)


def _stamp(time_us: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except OverflowError:
        return f"{time_us} us"


def _apart(difference_us: int) -> str:
    seconds = abs(difference_us) / 1e6
    size = (
        f"{seconds:.0f} s"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
        if seconds < 172_800
        else f"{seconds / 86400:,.0f} days"
    )
    return f"{size} ahead of" if difference_us > 0 else f"{size} before"
