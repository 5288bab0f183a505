"""What REST answers is evidence, not truth: pages that are short, late, shuffled or wrong never make a hole or a false trade."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from stream_support import START_MS, SYMBOL, ManualClock, MemorySink, eventually, trade

from quantai_tui.market.schema import Gap, LedgerPosition
from quantai_tui.market.store import TradeStore
from quantai_tui.market.trades import AggTrade, Bar
from quantai_tui.stream import Origin, Outcome, StreamConfig
from quantai_tui.stream.feed import INITIAL_BACKFILL, Feeds
from quantai_tui.stream.repair import Repairer
from quantai_tui.stream.sink import TradeSink
from quantai_tui.stream.symbol_feed import SymbolFeed

Page = list[AggTrade]


class Venue:
    """REST in memory. Each of `spoilt` changes one answer on its way; `asked` are the requests, as first id and limit."""

    def __init__(self) -> None:
        self.used_weight: int | None = None
        self.weight_wait_s = 0.0
        self.trades: Page = []
        self.spoilt: list[Callable[[Page], Page]] = []
        self.lacks: set[int] = set()
        self.asked: list[tuple[int | None, int]] = []

    def make(self, count: int, *, first: int | None = None, time_ms: int | None = None) -> Page:
        next_id = first if first is not None else self.trades[-1].id + 1 if self.trades else 100
        made = [trade(next_id + i, time_ms=None if time_ms is None else time_ms + i) for i in range(count)]
        self.trades += made
        return made

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = 1000) -> Page:
        self.asked.append((from_id, limit))
        rows = [row for row in self.trades if row.id not in self.lacks]
        rows = rows[-limit:] if from_id is None else [row for row in rows if row.id >= from_id][:limit]
        return self.spoilt.pop(0)(rows) if self.spoilt else rows

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        return []

    def renew(self) -> None:
        """No connections."""

    async def close(self) -> None:
        """Nothing is open."""


class Desk:
    """Feeds and a repairer at work, without a link: trades are handed in."""

    def __init__(self, sink: TradeSink, venue: Venue, clock: ManualClock, start_at: str = "now") -> None:
        self.venue = venue
        self.clock = clock
        self.feeds = Feeds(sink, clock)
        self.start_at = start_at
        config = StreamConfig(
            symbols=(SYMBOL,), ws_url="wss://localhost", rest_url="https://localhost", jitter=0.0, backfill_start=start_at
        )
        self.repairer = Repairer(self.feeds, venue, config, rng=random.Random(1), clock=clock)

    @property
    def feed(self) -> SymbolFeed:
        feed = self.feeds.get(SYMBOL)
        assert feed is not None
        return feed

    async def live(self, trades: Page, origin: Origin = Origin.LIVE) -> None:
        if await self.feeds.take_live(self.feed, trades, origin):
            self.repairer.wake()

    async def whole(self) -> None:
        await eventually(lambda: not self.feed.ledger.missing, "nothing is missing")


@pytest.fixture
def venue() -> Venue:
    return Venue()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


Open = Callable[..., "asyncio.Future[Desk]"]


@pytest.fixture
async def open_desk(venue: Venue, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens desks whose repairers run until the test is over."""
    async with AsyncExitStack() as stack:

        async def stop(task: asyncio.Task[None]) -> None:
            task.cancel()
            await asyncio.wait([task])

        async def open_one(sink: TradeSink, start_at: str = "now") -> Desk:
            desk = Desk(sink, venue, clock, start_at)
            await desk.feeds.load([SYMBOL], seed=start_at != "now")
            stack.push_async_callback(stop, asyncio.create_task(desk.repairer.run()))
            return desk

        yield open_one


async def with_a_gap(desk: Desk, missing: int = 10) -> Page:
    """Three trades, so many that did not come, and one."""
    made = desk.venue.make(4 + missing)
    await desk.live(made[:3])
    await desk.live(made[-1:])
    assert desk.feed.ledger.missing == missing
    return made


def without(*numbers: int) -> Callable[[Page], Page]:
    return lambda rows: [row for row in rows if row.id not in numbers]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:3],
        lambda rows: rows[4:],
        without(105, 106, 108),
        lambda rows: rows[::-1],
        lambda rows: [*rows[:4], *rows[2:5], *rows[4:]],
        lambda rows: [trade(7), *rows, trade(90)],
        lambda rows: [*rows[:2], trade(2**52)],
    ],
    ids=["cut-short", "starts-later", "lacks-some", "backwards", "repeats", "foreign-below", "foreign-above"],
)
async def test_one_wrong_answer_makes_no_hole_and_stores_nothing_wrong(open_desk, venue, spoil):
    sink = MemorySink()
    desk = await open_desk(sink)
    venue.spoilt = [spoil]
    made = await with_a_gap(desk)
    await desk.whole()
    assert sink.holds(100, 113)
    assert sink.trades == {one.id: one for one in made}
    assert (desk.feed.ledger.venue_holes, desk.feed.ledger.unrecoverable) == (0, 0)


async def test_rows_that_cannot_have_been_asked_for_are_counted(open_desk, venue):
    desk = await open_desk(MemorySink())
    venue.spoilt = [lambda rows: [trade(7), *rows, rows[0]]]
    await with_a_gap(desk)
    await desk.whole()
    assert desk.repairer.odd_rows == 2


async def test_an_empty_answer_where_trades_must_be_is_asked_again_after_a_wait(open_desk, venue, clock):
    sink = MemorySink()
    desk = await open_desk(sink)
    venue.spoilt = [lambda rows: []]
    await with_a_gap(desk)
    await eventually(lambda: desk.repairer.last_failure is not None)
    assert desk.feed.ledger.missing == 10
    await clock.advance(2.0)
    await desk.whole()
    assert sink.holds(100, 113)


async def test_ids_that_two_answers_lack_are_a_hole_at_the_venue(open_desk, venue):
    desk = await open_desk(MemorySink())
    venue.lacks = {105, 106, 110}
    await with_a_gap(desk)
    await desk.whole()
    assert (desk.feed.ledger.venue_holes, desk.feed.ledger.repaired) == (3, 7)


async def test_gap_of_any_length_costs_a_few_requests(open_desk, venue, tmp_path):
    store = await TradeStore.open(tmp_path / "store.sqlite")
    desk = await open_desk(store)
    await desk.live(venue.make(3))
    await desk.live(venue.make(1, first=10**15, time_ms=START_MS))
    await desk.whole()
    assert len(venue.asked) == 3
    position = await store.position(SYMBOL)
    await store.close()
    assert (position.venue_holes, position.complete_through_id, position.missing) == (10**15 - 103, 10**15, ())


async def test_the_lowest_gap_is_filled_first_and_each_in_order(open_desk, venue, clock):
    sink = MemorySink()
    desk = await open_desk(sink)
    venue.spoilt = [lambda rows: []]
    made = venue.make(30)
    await desk.live(made[:3])
    await desk.live(made[20:21])
    await eventually(lambda: desk.repairer.last_failure is not None)
    await desk.live(made[29:])
    sink.order.clear()
    venue.asked.clear()
    await clock.advance(2.0)
    await desk.whole()
    assert venue.asked == [(103, 17), (121, 8)]
    assert sink.order == [*range(103, 120), *range(121, 129)]


async def test_a_newest_trade_that_the_venue_does_not_have_when_asked_for_it_is_not_believed(open_desk, venue, clock):
    sink = MemorySink()
    desk = await open_desk(sink)
    await desk.live(venue.make(3))
    desk.feeds.new_link("the link was cut")
    venue.make(2)
    venue.spoilt = [lambda rows: [trade(2**52)]]
    desk.repairer.on_live()
    await clock.advance(1.0)
    await eventually(lambda: desk.repairer.last_failure is not None)
    assert desk.feed.ledger.last_id == 102
    await clock.advance(2.0)
    await eventually(lambda: sink.holds(100, 104))


async def test_a_symbol_that_trades_while_its_subscription_stays_silent_is_named_until_a_trade_comes(open_desk, venue, clock):
    sink = MemorySink()
    desk = await open_desk(sink)
    await desk.live(venue.make(3))
    desk.feeds.new_link("the link was cut")
    venue.make(5)
    desk.repairer.on_live()
    await clock.advance(2.0)
    await eventually(lambda: sink.holds(100, 107))
    assert desk.feed.snapshot().subscription == "", "what was traded while there was no link proves nothing"
    venue.make(5)
    await clock.advance(30.0)
    await eventually(lambda: sink.holds(100, 112))
    assert desk.feed.snapshot().subscription == "", "it may be on its way"
    await clock.advance(2.0)
    await eventually(lambda: desk.feed.snapshot().subscription == "silent")
    note = desk.feed.snapshot().subscription_note
    assert "check SYMBOLS and EXCHANGE_WS_URL" in note
    assert "id 112" in note
    venue.make(1)
    await clock.advance(30.0)
    await eventually(lambda: sink.holds(100, 113))
    await desk.live(venue.make(1))
    assert (desk.feed.snapshot().subscription, desk.feed.snapshot().subscription_note) == ("", "")


async def test_a_symbol_that_does_not_trade_is_not_called_silent_and_is_asked_about_ever_less_often(open_desk, venue, clock):
    desk = await open_desk(MemorySink())
    await desk.live(venue.make(3))
    desk.feeds.new_link("the link was cut")
    desk.repairer.on_live()
    for _ in range(60):
        await clock.advance(60.0)
    assert desk.feed.snapshot().subscription == ""
    assert 5 <= len(venue.asked) <= 13


async def test_a_venue_that_counts_from_a_lower_id_is_named_and_nothing_is_stored_wrongly(open_desk, venue):
    sink = MemorySink()
    desk = await open_desk(sink)
    await desk.live(venue.make(5, first=5_000_000, time_ms=START_MS))
    venue.trades.clear()
    anew = venue.make(120, first=1, time_ms=START_MS + 60_000)
    for one in anew:
        await desk.live([one])
    await eventually(lambda: "numbers its trades anew" in desk.feed.gap_note)
    assert "another DATA_DIR" in desk.feed.snapshot().gap_note
    assert sink.holds(5_000_000, 5_000_004)
    assert desk.feed.ledger.missing == 0
    asked = len(venue.asked)
    await desk.live(venue.make(300))
    await desk.live(venue.make(300))
    assert len(venue.asked) == asked, "once per connection is enough"


async def test_old_trades_that_come_again_are_duplicates_and_no_new_numbering(open_desk, venue):
    desk = await open_desk(MemorySink())
    made = venue.make(300)
    await desk.live(made)
    await desk.live(made[:150])
    await desk.live(made[:150])
    await asyncio.sleep(0)
    assert (desk.feed.ledger.duplicates, desk.feed.gap_note, venue.asked) == (300, "", [])


async def test_open_gaps_carry_their_cause_and_time_and_a_restart_takes_them_from_the_store(open_desk, venue, clock):
    sink = MemorySink()
    desk = await open_desk(sink)
    venue.spoilt = [lambda rows: []] * 9
    made = venue.make(60)
    await desk.live(made[:1])
    opened = clock.time()
    for number in range(10, 60, 10):
        await desk.live(made[number : number + 1])
    await clock.advance(0.5)
    desk.feeds.new_link("the link was cut")
    await desk.live(venue.make(3)[-1:])
    shown = desk.feed.snapshot().open_gaps
    assert [(gap.first_id, gap.last_id) for gap in shown] == [(101, 109), (111, 119), (121, 129), (131, 139), (141, 149)]
    assert {(gap.cause, gap.since) for gap in shown} == {("ids skipped on a live link", opened)}
    assert desk.feed.snapshot().gaps == 6
    position = LedgerPosition(
        begin_id=100, last_id=120, stored=3, missing=((105, 110), (115, 119)), gaps=(Gap(101, 119, "power cut", 77.0),)
    )
    again = MemorySink()
    again.start = position
    feeds = Feeds(again, clock)
    await feeds.load([SYMBOL], seed=False)
    shown = feeds.get(SYMBOL).snapshot().open_gaps
    assert [(gap.first_id, gap.last_id, gap.cause, gap.since) for gap in shown] == [
        (105, 110, "power cut", 77.0),
        (115, 119, "power cut", 77.0),
    ]


async def test_a_trade_of_a_hole_that_was_settled_before_a_restart_is_stored_after_all(open_desk, venue, tmp_path):
    path = tmp_path / "store.sqlite"
    store = await TradeStore.open(path)
    desk = await open_desk(store)
    made = venue.make(20)
    await desk.live(made[:5])
    venue.lacks = set(range(105, 119))
    await desk.live(made[19:])
    await desk.whole()
    assert desk.feed.ledger.venue_holes == 14
    await store.close()
    store = await TradeStore.open(path)
    assert (await store.position(SYMBOL)).settled == ((105, 118, "venue_hole"),)
    desk = await open_desk(store)
    await desk.live(made[10:12])
    ledger = desk.feed.ledger
    assert (ledger.stored, ledger.duplicates, ledger.venue_holes) == (8, 0, 12)
    position = await store.position(SYMBOL)
    assert (position.stored, position.venue_holes, position.complete_through_id) == (8, 12, 119)
    assert position.settled == ((105, 109, "venue_hole"), (112, 118, "venue_hole"))
    await store.close()


async def test_history_that_is_not_asked_for_any_more_leaves_no_gap_behind(open_desk, venue, tmp_path):
    """The record that history was wanted lies before the ledger: no trade of it was lost, so it ends, and counts as nothing."""
    store = await TradeStore.open(tmp_path / "store.sqlite")
    made = venue.make(20)
    wanted = Feeds(store)
    await wanted.load([SYMBOL], seed=True)
    await wanted.take_live(wanted.get(SYMBOL), made[10:12])
    assert [(gap.last_id, gap.cause) for gap in (await store.position(SYMBOL)).gaps] == [(109, INITIAL_BACKFILL)]
    desk = await open_desk(store, "now")
    assert (await store.position(SYMBOL)).gaps == ()
    await desk.live(made[12:])
    snapshot = desk.feed.snapshot()
    assert (snapshot.missing, snapshot.venue_holes, snapshot.unrecoverable, snapshot.open_gaps) == (0, 0, 0, ())
    assert venue.asked == []
    await store.close()


async def test_the_age_of_an_outage_counts_from_the_newest_trade_in_the_store_until_a_newer_one_comes(clock):
    sink = MemorySink()
    sink.start = LedgerPosition(begin_id=100, last_id=110, stored=11, last_time_us=START_MS * 1000)
    feeds = Feeds(sink, clock)
    await feeds.load([SYMBOL], seed=False)
    feed = feeds.get(SYMBOL)
    assert feed.snapshot().last_trade_time == START_MS / 1000
    await feeds.take_live(feed, [trade(111, time_ms=START_MS + 5000)])
    assert feed.snapshot().last_trade_time == START_MS / 1000 + 5
    await feeds.give_up(feed, (1, 2), Outcome.UNRECOVERABLE, "nothing is missing there")
    assert feed.ledger.unrecoverable == 0


async def test_while_there_is_no_link_no_symbol_is_called_silent(open_desk, venue, clock):
    desk = await open_desk(MemorySink())
    await desk.live(venue.make(3))
    desk.feeds.new_link("the link was cut")
    desk.repairer.on_live()
    await clock.advance(2.0)
    await eventually(lambda: venue.asked)
    desk.repairer.on_link_down()
    asked = len(venue.asked)
    for _ in range(5):
        venue.make(5)
        await clock.advance(60.0)
    assert (desk.feed.snapshot().subscription, len(venue.asked)) == ("", asked)


async def test_an_answer_that_ends_before_what_was_asked_about_is_not_asked_for_again_at_once(open_desk, venue):
    desk = await open_desk(MemorySink())
    venue.spoilt = [lambda rows: [trade(150)], lambda rows: rows[:1]] * 20
    await with_a_gap(desk)
    await eventually(lambda: desk.repairer.last_failure is not None or len(venue.asked) >= 20)
    assert len(venue.asked) == 2
    venue.spoilt.clear()
    await desk.clock.advance(30.0)
    await desk.whole()
