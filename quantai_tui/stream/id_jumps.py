"""Trades with implausible ids: held until REST, more frames or another connection confirm them, or quarantined.

Otherwise one wrong id would move the end of a ledger permanently: all ids between would count as missing, and every real
trade would be below it. Trades with plausible ids never wait. Without a ledger, a symbol's first trade waits for a second
one with a near id, or for REST.

A quarantined trade that the venue has is not lost: its id counts as missing once a later one is accepted, and is fetched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .failures import Phase, classify
from .id_runs import NEWEST_ROWS, IdPace, IdRun, newest_of
from .ledger import SymbolLedger
from .quarantine import Quarantine
from .rest import History
from .symbol_feed import SymbolFeed
from .tasks import until_first_ends

log = logging.getLogger("quantai_tui.stream")

_BY_ID = attrgetter("id")

# How long to wait for REST before other evidence counts.
ANSWER_WITHIN_S = 5.0
# The longest wait of a trade; unconfirmed trades then go into quarantine.
LONGEST_HOLD_S = 10.0
# The second trade of an empty ledger is given so long to agree with the first before REST is asked: that costs nothing.
_SECOND_WITHIN_S = 0.2
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_FORGET_AFTER_S = 600.0  # without another frame near it
# Most contradicting runs to examine at a time; above that, a run of a single id goes into quarantine, or else the run idle for
# longest.
_MOST_RUNS = 4
_LOG_EVERY_S = 10.0


class _Held(IdRun):
    """A run under examination, with its waiting trades."""

    __slots__ = ("confirmed", "heard_at", "held_since", "oldest_us", "refused", "since", "trades", "witnessed")

    def __init__(self, trade: AggTrade, now: float) -> None:
        super().__init__(trade.id)
        self.since = self.held_since = self.heard_at = now
        self.trades = [trade]
        self.oldest_us = trade.time_us
        self.witnessed = self.confirmed = self.refused = False

    @property
    def is_open(self) -> bool:
        """Whether it is still undecided."""
        return not self.confirmed and not self.refused

    def hold(self, trade: AggTrade, now: float) -> None:
        self.add(trade.id)
        self.oldest_us = min(self.oldest_us, trade.time_us)
        self.heard_at = now
        if not self.trades:
            self.held_since = now
        self.trades.append(trade)


class _Symbol:
    """State of one symbol's ids beside its ledger."""

    __slots__ = ("ask_at", "asked_at", "at", "below", "feed", "implausible", "pace", "retry_s", "runs", "wall")

    def __init__(self, feed: SymbolFeed) -> None:
        self.feed = feed
        self.pace = IdPace()
        self.at: float | None = None  # monotonic time of the last accepted trade
        self.wall = None if feed.last_time_us is None else feed.last_time_us / 1e6  # Unix time of the same
        self.runs: list[_Held] = []
        self.below: IdRun | None = None  # a confirmed numbering far below the ledger's end
        self.implausible = 0
        self.ask_at = 0.0
        self.asked_at = 0.0
        self.retry_s = 0.0

    @property
    def ledger(self) -> SymbolLedger:
        return self.feed.ledger


class IdJumps:
    """Judges the ids of all symbols. `admit` returns what may be stored now, `release` what was confirmed since.

    `limit` bounds the waiting trades of one run, beyond a batch. `question` and `answer` are for the task that asks REST.
    """

    def __init__(self, quarantine: Quarantine, *, limit: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._quarantine = quarantine
        self._limit = limit
        self._clock = clock
        self._symbols: dict[str, _Symbol] = {}
        self._doubted: dict[str, _Symbol] = {}  # symbols with runs
        self._logged_at: float | None = None
        self.asked = asyncio.Event()
        """Set when there is a new question for REST."""

    def doubtful(self, symbol: str) -> int:
        """Trades of the symbol that wait for confirmation."""
        known = self._doubted.get(symbol)
        return 0 if known is None else sum(len(run.trades) for run in known.runs)

    def implausible(self, symbol: str) -> int:
        """Number of the symbol's trades quarantined for their ids."""
        known = self._symbols.get(symbol)
        return 0 if known is None else known.implausible

    @property
    def doubted(self) -> Iterator[SymbolFeed]:
        """The symbols for which `release` may have something."""
        return iter([known.feed for known in self._doubted.values()])

    def is_plausible(self, feed: SymbolFeed, id: int) -> bool:
        """Whether an id by itself is plausible."""
        known, last = self._symbols.get(feed.symbol), feed.ledger.last_id
        return known is None or last is None or abs(id - last) <= self._reach(known)

    def admit(self, feed: SymbolFeed, trades: Sequence[AggTrade]) -> Sequence[AggTrade]:
        """The trades of a batch that may be stored now; the others are held back."""
        known = self._symbols.get(feed.symbol)
        if known is None:
            known = self._symbols[feed.symbol] = _Symbol(feed)
        last = feed.ledger.last_id
        if last is not None:
            reach = self._reach(known)
            # The common case, in two passes without a Python loop.
            if min(map(_BY_ID, trades)) >= last - reach and max(map(_BY_ID, trades)) <= last + reach:
                self._believe(known, len(trades))
                return trades
            plausible = self._sifted(known, trades, last, reach)
        else:
            for trade in trades:
                self._hold(known, trade)
            plausible = []
        if plausible:
            self._believe(known, len(plausible))
        return plausible

    def release(self, feed: SymbolFeed) -> list[AggTrade]:
        """Return confirmed trades by rising id; quarantine those that waited too long."""
        known = self._doubted.get(feed.symbol)
        if known is None:
            return []
        now = self._clock.monotonic()
        released: list[AggTrade] = []
        for run in list(known.runs):
            run.confirmed = run.confirmed or self._is_confirmed(known, run, now)
            if run.confirmed and run.trades:
                known.runs.remove(run)
                self._accept(known, run)
                released += run.trades
                run.trades = []
            elif not run.trades and (self._is_joined(known, run) or now - run.heard_at >= _FORGET_AFTER_S):
                known.runs.remove(run)
            elif run.trades and now - run.held_since >= LONGEST_HOLD_S:
                self._put_away(known, run, "nothing has confirmed it")
            elif len(run.trades) > self._limit:
                self._put_away(known, run, f"more than {self._limit} trades wait to be confirmed")
        if not known.runs:
            del self._doubted[feed.symbol]
        if released:
            self._believe(known, 0)  # their rate is unknown
        return sorted(released, key=_BY_ID)

    def witness(self, trades: Iterable[AggTrade]) -> None:
        """Take trades of another connection as evidence."""
        if not self._doubted:
            return
        for trade in trades:
            known = self._doubted.get(trade.symbol)
            for run in known.runs if known is not None else ():
                run.witnessed = run.witnessed or run.is_near(trade.id)

    def question(self) -> tuple[str | None, float | None]:
        """A symbol whose newest trade to request over REST now; else None and the seconds until the next one."""
        now = self._clock.monotonic()
        open_ones = [known for known in self._doubted.values() if any(run.is_open for run in known.runs)]
        if not open_ones:
            return None, None
        first = min(open_ones, key=lambda known: known.ask_at)
        if first.ask_at > now:
            return None, first.ask_at - now
        first.asked_at = now
        first.retry_s = min(first.retry_s * 2 or _FIRST_RETRY_S, _LONGEST_RETRY_S)
        first.ask_at = now + first.retry_s
        return first.feed.symbol, 0.0

    def answer(self, symbol: str, newest: AggTrade) -> None:
        """Take the venue's newest trade over REST: it confirms the jump, or refutes it if it is as new and elsewhere."""
        known = self._doubted.get(symbol)
        if known is None:
            return
        reach = self._reach(known)
        for run in known.runs:
            if run.confirmed:
                continue
            if run.is_near(newest.id, reach):
                run.confirmed = True
            elif newest.time_us >= run.oldest_us:
                run.refused = True
                self._put_away(known, run, f"the venue's newest over REST is id {newest.id}")

    def _sifted(self, known: _Symbol, trades: Sequence[AggTrade], last: int, reach: int) -> list[AggTrade]:
        plausible: list[AggTrade] = []
        for trade in trades:
            id = trade.id
            if last - reach <= id <= last + reach:
                last = max(last, id)
                plausible.append(trade)
            elif id < last and self._is_known_below(known, id):
                plausible.append(trade)
            else:
                self._hold(known, trade)
        return plausible

    def _is_known_below(self, known: _Symbol, id: int) -> bool:
        """Whether an id far below has arrived before, or belongs to a confirmed numbering."""
        if known.below is not None and known.below.is_near(id):
            known.below.add(id)
            return True
        return known.ledger.has(id)

    def _hold(self, known: _Symbol, trade: AggTrade) -> None:
        now = self._clock.monotonic()
        run = next((run for run in known.runs if run.is_near(trade.id)), None)
        if run is None:
            self._doubt(known, trade, now)
            return
        if run.refused and now < known.ask_at:
            run.hold(trade, now)
            self._put_away(known, run, "REST has refuted its neighbours")
            return
        if run.refused:
            # The venue may have reached it since: ask again, at growing intervals.
            run.refused = False
            run.since = now
            self.asked.set()
        run.hold(trade, now)

    def _doubt(self, known: _Symbol, trade: AggTrade, now: float) -> None:
        """The first trade of a run."""
        if len(known.runs) >= _MOST_RUNS:
            weakest = min(known.runs, key=lambda run: (run.first < run.last, run.heard_at))
            self._put_away(known, weakest, "other implausible ids came")
            known.runs.remove(weakest)
        if now - known.asked_at >= _FORGET_AFTER_S:
            known.retry_s = 0.0
            known.ask_at = now
        known.runs.append(_Held(trade, now))
        self._doubted[known.feed.symbol] = known
        self.asked.set()
        last = known.ledger.last_id
        if last is not None and (self._logged_at is None or now - self._logged_at >= _LOG_EVERY_S):
            self._logged_at = now
            log.warning("%s: id %d is implausible after %d; held back, asking REST", trade.symbol, trade.id, last)

    def _is_confirmed(self, known: _Symbol, run: _Held, now: float) -> bool:
        if run.refused:
            return False
        last = known.ledger.last_id
        if last is None:
            if run.first < run.last:
                return True  # two trades agree
            alone = not any(other is not run and not other.refused for other in known.runs)
            return alone and now - run.since >= LONGEST_HOLD_S  # nothing contradicts it
        if self._is_joined(known, run):
            return True
        return now - run.since >= ANSWER_WITHIN_S and (run.is_sequence or run.witnessed)

    def _is_joined(self, known: _Symbol, run: _Held) -> bool:
        """Whether fetched trades have moved the ledger to the run."""
        last, reach = known.ledger.last_id, self._reach(known)
        return last is not None and run.first >= last - reach and run.last <= last + reach

    def _accept(self, known: _Symbol, run: _Held) -> None:
        """Confirm a run with trades; a run without any accepts its next trade at once."""
        last = known.ledger.last_id
        if last is None or abs(run.first - last) <= self._reach(known):
            return
        log.warning("%s: ids continue at %d after %d: confirmed", known.feed.symbol, run.first, last)
        if run.last < last:
            known.below = run
            known.feed.doubt_numbering(run.trades)

    def _put_away(self, known: _Symbol, run: _Held, why: str) -> None:
        last, trades = known.ledger.last_id, run.trades
        run.trades = []
        if not trades:
            return
        known.implausible += len(trades)
        after = "" if last is None else f" after {last}"
        self._quarantine.add_trades(trades, f"an implausible id{after}: {why}")

    def _believe(self, known: _Symbol, count: int) -> None:
        known.at = self._clock.monotonic()
        known.wall = self._clock.time()
        known.pace.note(count, known.at)

    def _reach(self, known: _Symbol) -> int:
        """Includes the wall clock, which advances while the program is not running and while the machine sleeps."""
        idle = 0.0 if known.at is None else self._clock.monotonic() - known.at
        if known.wall is not None:
            idle = max(idle, self._clock.time() - known.wall)
        return known.pace.reach(idle)


class JumpCheck:
    """Asks REST about implausible ids, one symbol at a time, each at growing intervals."""

    def __init__(self, jumps: IdJumps, rest: History, clock: Clock = SYSTEM_CLOCK) -> None:
        self._jumps = jumps
        self._rest = rest
        self._clock = clock
        self._retry_s = 0.0

    async def run(self) -> None:
        """Work for ever."""
        while True:
            if self._retry_s:
                await self._clock.sleep(self._retry_s)
            self._jumps.asked.clear()
            symbol, wait_s = self._jumps.question()
            if symbol is not None:
                await self._ask(symbol)
            elif wait_s is None:
                await self._jumps.asked.wait()
                await self._clock.sleep(_SECOND_WITHIN_S)
            else:
                await until_first_ends(self._clock.sleep(wait_s), self._jumps.asked.wait())

    async def _ask(self, symbol: str) -> None:
        try:
            newest = newest_of(await self._rest.agg_trades(symbol, None, NEWEST_ROWS))
        except Exception as error:  # noqa: BLE001 - any failure of network or venue is logged and retried
            if not self._retry_s:
                log.warning("%s: implausible ids could not be checked: %s", symbol, classify(error, Phase.REST).message)
            self._retry_s = min(self._retry_s * 2 or _FIRST_RETRY_S, ANSWER_WITHIN_S)
            return
        self._retry_s = 0.0
        if newest is not None:
            self._jumps.answer(symbol, newest)
