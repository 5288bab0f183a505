"""All symbols of a stream, and the one way by which their trades and gaps get into the sink."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from ..cleaning import one_line
from ..market.conflicts import Conflict, RecentTrades
from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .gaps import GapCauses
from .ledger import Observed, Origin, Outcome, Span, SymbolLedger
from .quarantine import Quarantine, content_of
from .sink import ComparingSink, RecordedGap, TradeSink
from .symbol_feed import Numbering, SymbolFeed
from .trade_times import TradeTimes

log = logging.getLogger("quantai_tui.stream")

_BY_ID = attrgetter("id")

INITIAL_BACKFILL = "history before the first live trade"
_RETRY_SINK_S = 1.0
# So many trades in a row, on one connection, that are all known by their ids: worth a look at their times.
_SUSPICIOUS_REPEATS = 100
# Most known ids of one batch to compare with the stored trades: more would delay new trades.
_COMPARED = 1_000


class Feeds:
    """All symbols, and the one way by which trades and gaps get into the sink: gaps first, then what came after them.

    In that order a crash in between leaves a gap on record too many, never one too few. It holds for the stream and for repairs
    together: of one symbol, what was taken first is written first.
    """

    def __init__(
        self,
        sink: TradeSink,
        clock: Clock = SYSTEM_CLOCK,
        times: TradeTimes | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self.times = times or TradeTimes(clock=clock)
        self._quarantine = quarantine or Quarantine(clock)
        self._comparing: ComparingSink = sink if isinstance(sink, ComparingSink) else RecentTrades()
        self._feeds: dict[str, SymbolFeed] = {}
        self.sink_error = ""

    def __iter__(self) -> Iterator[SymbolFeed]:
        return iter(self._feeds.values())

    def get(self, symbol: str) -> SymbolFeed | None:
        return self._feeds.get(symbol)

    async def load(self, symbols: Iterable[str], *, seed: bool) -> None:
        """Read where the sink stands.

        With `seed`, a symbol waits for its beginning to be asked for if the sink has nothing of it, or if it shows that the
        program ended while live trades were stored and the question was still open (`take_live`). Without `seed` that question is
        withdrawn: nothing of the ledger is lost by it, so it is not counted as lost, and it must not stay open for ever.
        """
        for symbol in symbols:
            if symbol in self._feeds:
                continue
            position = await self._sink.position(symbol)
            history = [gap.last_id for gap in position.gaps if gap.cause == INITIAL_BACKFILL]
            begin_id = position.begin_id
            open_question = begin_id is None or any(last_id < begin_id for last_id in history)
            feed = SymbolFeed(symbol, SymbolLedger(position), self._clock, seeded=not (seed and open_question))
            # Without a trade, what comes first shows how long the history is that was asked for: it is no outage.
            feed.cause = INITIAL_BACKFILL if seed and position.last_id is None else "the program was not running"
            feed.exempt_below = max((last_id + 1 for last_id in history), default=0)
            if position.last_time_us is not None and not self.times.is_ahead(position.last_time_us):
                feed.last_time_us = position.last_time_us
            feed.gap_causes = GapCauses(position.gaps)
            self._feeds[symbol] = feed
            if not seed:
                outside = [gap for gap in position.gaps if begin_id is None or gap.last_id < begin_id]
                await self._withdraw_history(symbol, [gap for gap in outside if gap.cause == INITIAL_BACKFILL])

    def new_link(self, cause: str) -> None:
        """A connection begins; gaps that its first trades show came about by `cause`."""
        for feed in self._feeds.values():
            feed.quiet = True
            feed.silent = ""
            feed.repeats = 0
            feed.numbering = Numbering.SOUND
            if cause and feed.cause != INITIAL_BACKFILL:
                feed.cause = cause

    async def take_live(self, feed: SymbolFeed, trades: Sequence[AggTrade], origin: Origin = Origin.LIVE) -> bool:
        """Store a batch of one symbol from a link. Returns whether it left something to be fetched."""
        async with feed.writing:
            judged = await self.times.judge(feed, trades)
            return bool(judged.trades) and await self._take_live(feed, judged.trades, origin, judged.undated)

    async def _take_live(self, feed: SymbolFeed, trades: Sequence[AggTrade], origin: Origin, undated: frozenset[int]) -> bool:
        history_open = False
        if feed.ledger.begin_id is None:
            lowest = min(trades, key=_BY_ID)
            history_open = not feed.seeded
            if not feed.seeded and lowest.id > 0:
                # Where history begins is not known yet. That it is wanted is put on record before the first trade is, as a gap
                # that lies before the ledger: else a restart would take what is there for the whole.
                await self._keep(
                    self._sink.add_gap, feed.symbol, lowest.id - 1, lowest.id - 1, INITIAL_BACKFILL, self._clock.time()
                )
            await self._begin(feed, lowest.id, self.times.believable_us(lowest.time_us))
        seen = feed.ledger.observe(trades, origin)
        feed.meter.add(len(trades) if origin is Origin.LIVE else len(seen.accepted))
        repeats = origin is Origin.LIVE and not seen.accepted
        feed.repeats = feed.repeats + len(trades) if repeats else 0
        doubt = feed.numbering is Numbering.SOUND and feed.repeats >= _SUSPICIOUS_REPEATS
        doubt = doubt and feed.last_time_us is not None and trades[-1].id not in undated and feed.is_newer(trades[-1])
        if doubt:
            feed.numbering = Numbering.IN_DOUBT
        feed.note_newest(seen, undated)
        cause = feed.cause
        if feed.quiet:
            feed.quiet = False
            feed.refused = None
            feed.silent = ""
            feed.cause = "ids skipped on a live link"
        await self._store(feed, seen, cause)
        if seen.repeated:
            await self._look_for_conflicts(feed, seen.repeated)
        return history_open or bool(seen.opened) or doubt

    async def take_fetched(self, feed: SymbolFeed, trades: Sequence[AggTrade]) -> frozenset[int]:
        """Store trades from REST, dropping known ones. Returns the ids refused for their time."""
        async with feed.writing:
            judged = await self.times.judge(feed, trades, live=False)
            if judged.trades:
                seen = feed.ledger.observe(judged.trades, Origin.FETCHED)
                feed.note_newest(seen, judged.undated)
                await self._store(feed, seen, feed.cause)
                if seen.repeated:
                    await self._look_for_conflicts(feed, seen.repeated)
            return judged.refused

    async def _begin(self, feed: SymbolFeed, first_id: int, time_us: int) -> None:
        """Let the ledger begin at `first_id`, or move its beginning back to there."""
        gap = feed.ledger.begin(first_id)
        if gap is not None:
            await self._store(feed, Observed((), opened=[gap]), INITIAL_BACKFILL)
        await self._keep(self._sink.begin, feed.symbol, first_id, time_us)

    async def seed(self, feed: SymbolFeed, first_id: int, time_us: int) -> None:
        """The question where the ledger begins is answered."""
        async with feed.writing:
            live_from = feed.ledger.begin_id
            await self._begin(feed, first_id, self.times.believable_us(time_us))
            if live_from is not None and 0 < live_from <= first_id:
                # There is nothing before the live trades: the record that it was wanted ends, and no trade was lost.
                await self._keep(self._sink.close_gap, feed.symbol, 0, live_from - 1, Outcome.REPAIRED.value)
            feed.seeded = True

    async def give_up(self, feed: SymbolFeed, span: Span, outcome: Outcome, why: str) -> None:
        """Settle what is still missing in `span` as lost."""
        async with feed.writing:
            for first, last in feed.ledger.settle(span[0], span[1], outcome):
                feed.newest_gap = None  # a later "repaired" must not cover this up
                feed.gap_note = f"{_count(first, last)}: {why}"
                log.warning("%s: %s", feed.symbol, feed.gap_note)
                await self._keep(self._sink.close_gap, feed.symbol, first, last, outcome.value)

    async def _store(self, feed: SymbolFeed, seen: Observed, cause: str) -> None:
        symbol, now = feed.symbol, self._clock.time()
        for first, last in seen.opened:
            if cause == INITIAL_BACKFILL:
                feed.exempt_below = max(feed.exempt_below, last + 1)
            stamp = datetime.fromtimestamp(now, UTC).strftime("%H:%M:%S")
            feed.gap_causes.add((first, last), cause, now, feed.ledger.still_missing)
            feed.newest_gap = (_count(first, last), f"missing since {stamp} UTC: {cause}")
            feed.gap_note = " ".join(feed.newest_gap)
            log.info("%s: %s", symbol, feed.gap_note)
            await self._keep(self._sink.add_gap, symbol, first, last, cause, now)
        if seen.accepted:
            await self._keep(self._sink.append, symbol, seen.accepted)
            if isinstance(self._comparing, RecentTrades):
                self._comparing.add(symbol, seen.accepted)
        for first, last in seen.filled:
            if not feed.ledger.missing and feed.newest_gap:
                feed.gap_note = ", repaired, ".join(feed.newest_gap)
                log.info("%s: %s", symbol, feed.gap_note)
            await self._keep(self._sink.close_gap, symbol, first, last, Outcome.REPAIRED.value)
        if not feed.ledger.missing:
            feed.gap_causes.clear()

    async def compare(self, feed: SymbolFeed, trades: Sequence[AggTrade]) -> None:
        """Compare dropped trades with the stored ones of the same ids; conflicts are counted and shown."""
        async with feed.writing:
            await self._look_for_conflicts(feed, trades)

    async def _look_for_conflicts(self, feed: SymbolFeed, repeated: Sequence[AggTrade]) -> None:
        found: Sequence[Conflict] = await self._keep(self._comparing.find_conflicts, feed.symbol, repeated[:_COMPARED])
        feed.conflicts += len(found)
        for conflict in found:
            self._quarantine.add_trade(conflict.dropped, f"content differs from the stored trade, {content_of(conflict.kept)}")

    async def _withdraw_history(self, symbol: str, questions: Sequence[RecordedGap]) -> None:
        """History that was once wanted lies before the ledger, and is not asked for any more."""
        for gap in questions:
            log.info("%s: history before id %d is not asked for any more (BACKFILL_START)", symbol, gap.last_id + 1)
            await self._keep(self._sink.close_gap, symbol, gap.first_id, gap.last_id, Outcome.REPAIRED.value)

    async def _keep(self, write: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Write, and if the sink refuses, write again until it does not: meanwhile reading stops, and nothing in hand is lost."""
        while True:
            try:
                result = await write(*args)
            except Exception as error:  # whatever the sink raises: it is shown, and tried again
                if not self.sink_error:
                    log.exception("the store refused a write; trying again every %g s", _RETRY_SINK_S)
                self.sink_error = one_line(f"{type(error).__name__}: {error}")
                await self._clock.sleep(_RETRY_SINK_S)
            else:
                self.sink_error = ""
                return result


def _count(first: int, last: int) -> str:
    return f"1 trade {first}" if first == last else f"{last - first + 1} trades {first}-{last}"
