"""Fetches what is missing, over REST, beside the live stream and never in its way.

Ids are fetched in order from the lowest gap on. Each answer is evidence: an id that is absent although a later one was returned
does not exist at the venue, or is not kept there any more, if a second answer says so too; an id above the last one returned has
not reached REST yet. However often that is so, it proves nothing: REST may lag by hours, and what the stream has sent exists.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from ..market.idranges import IdRanges
from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .backoff import ExponentialBackoffReconnector
from .config import StreamConfig
from .failures import Failure, LinkFault, Phase, classify
from .feed import Feeds
from .gap_age import WITNESSES, first_since, time_of
from .id_runs import LEAST_REACH, NEWEST_ROWS, newest_of
from .ledger import Outcome, Span
from .pages import PagesAhead, Room
from .rest import PAGE, History
from .silence import FIRST_LOOK_REPLAYED_S, FIRST_LOOK_S, SilenceLooks
from .symbol_feed import Numbering, SymbolFeed
from .tasks import until_first_ends

log = logging.getLogger("quantai_tui.stream")

# Failed requests are retried after the stream's delays, but at most after this time: a REST outage may be short.
_LONGEST_RETRY_S = 5.0
_PAGES_AHEAD = 16  # for all symbols together: 16,000 trades in memory


class _Care:
    """Repair state of one symbol, beside looks at its silence."""

    def __init__(self, backoff: ExponentialBackoffReconnector, pages: PagesAhead) -> None:
        self.backoff = backoff
        self.pages = pages
        self.work = asyncio.Event()
        self.new_link = asyncio.Event()
        self.first_time = True  # since a connection went live
        self.busy = False
        self.failure: Failure | None = None


class Repairer:
    """Closes the gaps of all feeds concurrently. Call `wake` when there may be one, `on_live` when a new connection delivers."""

    def __init__(
        self,
        feeds: Feeds,
        rest: History,
        config: StreamConfig,
        *,
        rng: random.Random,
        clock: Clock = SYSTEM_CLOCK,
        replayed: bool = False,
    ) -> None:
        self._feeds = feeds
        self._rest = rest
        self._config = config
        self._rng = rng
        self._clock = clock
        self._room = Room(_PAGES_AHEAD)
        self._cares: dict[str, _Care] = {}
        self.silence = SilenceLooks(feeds, clock, first_look_s=FIRST_LOOK_REPLAYED_S if replayed else FIRST_LOOK_S)
        self.silence.on_taken = self.wake
        self._look_failure: Failure | None = None
        self.odd_rows = 0
        """Rows that answers brought and that cannot have been asked for; they are dropped."""

    @property
    def busy(self) -> bool:
        return any(care.busy for care in self._cares.values())

    @property
    def last_failure(self) -> Failure | None:
        """Why a symbol's repair or a look at a silent symbol waits; None if none does."""
        failed = (care.failure for care in self._cares.values() if care.failure is not None)
        return next(failed, self._look_failure)

    def reconfigure(self, config: StreamConfig) -> None:
        """Take the delays and the age limit of `config` from now on."""
        self._config = config
        for care in self._cares.values():
            care.backoff = self._new_backoff()

    def wake(self) -> None:
        for feed in self._feeds:
            if feed.ledger.missing or not feed.seeded or feed.numbering is Numbering.IN_DOUBT:
                self._care(feed).work.set()

    def on_live(self) -> None:
        """A connection went live: see to open gaps, and soon to symbols that stay quiet, whose loss no live trade shows."""
        self.silence.on_live()
        for care in self._all_cares():
            care.first_time = True
            care.backoff.reset()
            care.new_link.set()
            care.work.set()

    def on_link_down(self) -> None:
        """There is no link: that nothing comes of a symbol says nothing of its subscription."""
        self.silence.on_link_down()

    async def run(self) -> None:
        """Run without end: the gaps of each symbol, and looks at silent symbols, which do not wait for pages of history."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_silent(), name="looks at silent symbols")
            for feed in self._feeds:
                group.create_task(self._care_for(feed, self._care(feed)), name=f"repair {feed.symbol}")

    def _all_cares(self) -> list[_Care]:
        return [self._care(feed) for feed in self._feeds]

    def _care(self, feed: SymbolFeed) -> _Care:
        care = self._cares.get(feed.symbol)
        if care is None:
            pages = PagesAhead(functools.partial(self._ask, feed.symbol), self._room)
            care = self._cares[feed.symbol] = _Care(self._new_backoff(), pages)
        return care

    def _new_backoff(self) -> ExponentialBackoffReconnector:
        """The stream's delays, within the limit for requests."""
        config = self._config
        first, longest = min(config.initial_delay, _LONGEST_RETRY_S), min(config.max_delay, _LONGEST_RETRY_S)
        return ExponentialBackoffReconnector(
            first, longest, config.backoff_factor, max_retries=0, jitter=config.jitter, rng=self._rng, clock=self._clock
        )

    async def _care_for(self, feed: SymbolFeed, care: _Care) -> NoReturn:
        while True:
            await care.work.wait()
            care.work.clear()
            care.busy = True
            try:
                await self._see_to(feed, care)
                if care.failure is not None:
                    log.info("%s: repair: REST answers again", feed.symbol)
                    care.failure = None
                care.backoff.reset()
            except Exception as error:  # noqa: BLE001 - whatever the network or the venue did: named, logged, and tried again
                await self._rest_after(feed, care, error)
            finally:
                care.busy = False

    async def _look_at_silent(self) -> NoReturn:
        while True:
            feed = await self.silence.due()
            try:
                await self.silence.take(feed, await self._newest(feed))
                feed.refused = self._look_failure = None
            except Exception as error:
                failure = classify(error, Phase.REST)
                if failure.kind is FailureKind.BAD_SYMBOL:
                    self._name_refused(feed, failure)
                    continue
                self.silence.failed(feed)
                if self._look_failure is None:
                    log.warning("look at a silent symbol: %s", failure.message, exc_info=error)
                self._look_failure = failure

    async def _rest_after(self, feed: SymbolFeed, care: _Care, error: Exception) -> None:
        failure = classify(error, Phase.REST)
        told = care.failure is not None and care.failure.kind is failure.kind
        care.failure = failure
        delay = max(care.backoff.calculate_next_delay(), failure.min_wait_s)
        care.backoff.on_reconnect_failure(failure)
        # Each symbol retries every few seconds, so the traceback is logged once.
        level, trace = (logging.DEBUG, None) if told else (logging.WARNING, error)
        log.log(level, "%s: repair: %s; again in %.1f s", feed.symbol, failure.message, delay, exc_info=trace)
        care.work.set()
        care.busy = False
        care.new_link.clear()
        await until_first_ends(self._clock.sleep(delay), care.new_link.wait())

    async def _see_to(self, feed: SymbolFeed, care: _Care) -> None:
        """Do all pending work of one symbol.

        A symbol that the venue refuses is skipped until the next connection.
        """
        first_time, care.first_time = care.first_time, False
        if feed.refused is not None and not first_time:
            return
        asked = not feed.seeded or feed.numbering is Numbering.IN_DOUBT or bool(feed.ledger.missing)
        try:
            if not feed.seeded:
                await self._seed(feed)
            elif feed.numbering is Numbering.IN_DOUBT:
                await self._examine_numbering(feed)
            while feed.ledger.missing:
                await self._page(feed)
        except Exception as error:
            failure = classify(error, Phase.REST)
            if failure.kind is not FailureKind.BAD_SYMBOL:
                raise
            self._name_refused(feed, failure)
        else:
            feed.refused = None if asked else feed.refused
        finally:
            await care.pages.drop()

    def _name_refused(self, feed: SymbolFeed, failure: Failure) -> None:
        message = f"{feed.symbol} is unknown to the venue: {failure.message}"
        advice = f"The venue knows no symbol {feed.symbol}: correct SYMBOLS, then start again."
        feed.refused = (replace(failure, message=message, advice=advice), self._clock.time())
        log.warning("%s; %s", message, advice)

    async def _seed(self, feed: SymbolFeed) -> None:
        """Ask where the ledger is to begin: at the id that was chosen, or at the first that the venue keeps."""
        start = self._config.backfill_start if isinstance(self._config.backfill_start, int) else 0
        page = await self._ask(feed.symbol, start, 1)
        if not page:
            if feed.ledger.last_id is not None and start <= feed.ledger.last_id:
                raise _behind(feed, start)
            return
        if isinstance(self._config.backfill_start, int) and page[0].id > start:
            log.warning(
                "%s: the venue keeps nothing from %d on before %d; the ledger begins there", feed.symbol, start, page[0].id
            )
        await self._feeds.seed(feed, page[0].id, page[0].time_us)
        self.silence.look_now(feed)

    async def _newest(self, feed: SymbolFeed) -> AggTrade | None:
        """The venue's newest trade. One that opens a gap is asked for by its id first: a wrong id would be a gap for ever."""
        newest = newest_of(await self._ask(feed.symbol, None, NEWEST_ROWS))
        last_id = feed.ledger.last_id
        if newest is None or last_id is None or newest.id <= last_id + 1:
            return newest
        again = await self._ask(feed.symbol, newest.id, 1)
        if not again or again[0].id != newest.id:
            raise _contradicts(feed, newest.id)
        return newest

    async def _examine_numbering(self, feed: SymbolFeed) -> None:
        """The stream brings known ids with later times: ask whether the venue counts from a lower number by now."""
        newest = await self._newest(feed)
        last_id = feed.ledger.last_id
        if newest is None or last_id is None:
            return
        feed.numbering = Numbering.EXAMINED
        if newest.id < last_id and feed.ledger.lacks(min(newest.id + LEAST_REACH, last_id - 1)):
            feed.gap_note = (
                f"the highest id that is stored, {last_id}, is not the venue's (newest id {newest.id}): what comes is stored, "
                "but how much is missing cannot be told; stop, and start again with another DATA_DIR"
            )
        elif newest.id < last_id:
            feed.gap_note = (
                f"the venue numbers its trades anew (newest id {newest.id}, ours {last_id}): what comes is not stored, since "
                "its ids are taken; stop, and start again with another DATA_DIR"
            )
        else:
            feed.gap_note = (
                f"the stream repeats ids that are known, with later times, and REST does not (newest id {newest.id}): what is "
                "repeated is not stored; check EXCHANGE_WS_URL and EXCHANGE_REST_URL"
            )
        feed.newest_gap = None
        log.error("%s: %s", feed.symbol, feed.gap_note)

    async def _page(self, feed: SymbolFeed) -> None:
        """Settle the beginning of the lowest gap: up to a page of it."""
        gap = feed.ledger.first_gap
        if gap is None:
            return
        span, page = await self._care(feed).pages.first_of(gap)
        if page and page[0].id <= gap[1] and await self._too_old(feed, gap, page):
            return
        if page and page[0].id > span[1]:
            # No trades up to that id: one request for the whole range, not one per page.
            span = (span[0], min(gap[1], page[0].id - 1))
        for absent in (await self._take(feed, span, page))[0]:
            await self._absent(feed, absent)

    async def _take(self, feed: SymbolFeed, span: Span, page: Sequence[AggTrade]) -> tuple[list[Span], frozenset[int]]:
        """Store the page's trades of `span`. Returns the ids missing before its last id, and the ids refused for their time.

        The second result is a part of the first.
        """
        inside = [trade for trade in page if span[0] <= trade.id <= span[1]]
        refused = await self._feeds.take_fetched(feed, inside) if inside else frozenset[int]()
        if not page:
            raise _behind(feed, span[0])
        return feed.ledger.still_missing(span[0], min(page[-1].id, span[1])), refused

    async def _absent(self, feed: SymbolFeed, span: Span) -> None:
        """Ids that REST skips, if a second answer skips them too: one may be cut short or wrong.

        They are a hole at the venue if it keeps older ones, else history that it has dropped. Asked from id 0, that is, for the
        oldest that it keeps: any nearer id may itself lie in a hole. The second answer is asked for from the trade before, if it
        is known: one that does not begin with that, although the venue keeps it, is shifted or foreign, and proves nothing.
        """
        before = span[0] - 1 if feed.ledger.has(span[0] - 1) else None
        again = await self._ask(feed.symbol, span[0] if before is None else before, min(span[1] - span[0] + 3, PAGE))
        absent, refused = await self._take(feed, span, again)
        if refused:
            await self._give_up_wrong_times(feed, span, refused)
            absent = [part for first, last in absent for part in feed.ledger.still_missing(first, last)]
            if not absent:
                return
        if not absent:
            if feed.ledger.still_missing(*span) == [span]:
                raise _behind(feed, span[0])  # it ends before them and says nothing: not to be asked again at once
            return
        oldest = await self._ask(feed.symbol, 0, 1)
        if not oldest:
            raise _behind(feed, 0)
        if before is not None and oldest[0].id <= before != again[0].id:
            raise _contradicts(feed, before)
        for first, last in absent:
            if first == 0 or oldest[0].id < first:
                await self._feeds.give_up(feed, (first, last), Outcome.VENUE_HOLE, "the venue has no such trades")
            else:
                await self._feeds.give_up(feed, (first, last), Outcome.UNRECOVERABLE, "the venue does not keep them any more")

    async def _give_up_wrong_times(self, feed: SymbolFeed, span: Span, refused: frozenset[int]) -> None:
        """Give up trades whose impossible time the venue has confirmed in a second answer."""
        for first, last in IdRanges((id, id) for id in sorted(refused) if span[0] <= id <= span[1]):
            why = "the venue twice gave an impossible time; the content is in quarantine"
            await self._feeds.give_up(feed, (first, last), Outcome.UNRECOVERABLE, why)

    async def _ask(self, symbol: str, from_id: int | None, limit: int) -> Sequence[AggTrade]:
        """An answer of the venue, put in order: without repetitions, and without rows below what was asked for."""
        rows = await self._rest.agg_trades(symbol, from_id, limit)
        by_id = {row.id: row for row in reversed(rows) if row.id >= (from_id or 0)}
        page = [by_id[id] for id in sorted(by_id)]
        if len(page) < len(rows):
            self.odd_rows += len(rows) - len(page)
            log.warning(
                "%s: dropped %d rows of an answer over REST that repeat others or lie before id %s, as asked for (%d so far)",
                symbol,
                len(rows) - len(page),
                from_id,
                self.odd_rows,
            )
        return page

    async def _too_old(self, feed: SymbolFeed, gap: Span, page: Sequence[AggTrade]) -> bool:
        """Give up the part of a gap that is older than BACKFILL_MAX_AGE_H, if there is one.

        Age is counted back from the newest trade known, not from this machine's clock: so it is right in a replay as well.
        """
        if gap[0] < feed.exempt_below or feed.last_time_us is None:
            return False
        cutoff = feed.last_time_us - int(self._config.backfill_max_age_h * 3600e6)
        if time_of(page) < cutoff and len(page) < WITNESSES:
            # The page ends with the gap: the trades behind that say too when it was.
            page = await self._ask(feed.symbol, gap[0], WITNESSES) or page
        if time_of(page) >= cutoff:
            return False
        first_young = await first_since(functools.partial(self._ask, feed.symbol), gap, cutoff)
        why = f"older than BACKFILL_MAX_AGE_H ({self._config.backfill_max_age_h:g} h), given up by choice"
        await self._feeds.give_up(feed, (gap[0], first_young - 1), Outcome.UNRECOVERABLE, why)
        return True


def _behind(feed: SymbolFeed, id: int) -> LinkFault:
    return LinkFault(FailureKind.REST_BEHIND, f"{feed.symbol}: REST lags behind the stream at id {id}; asking again")


def _contradicts(feed: SymbolFeed, id: int) -> LinkFault:
    return LinkFault(FailureKind.REST_BEHIND, f"{feed.symbol}: REST answers without id {id}, which exists; asking again")
