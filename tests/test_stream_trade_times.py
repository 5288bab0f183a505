"""A wrong time affects only its own trade, and a wrong clock of this machine loses no trade."""

from __future__ import annotations

import asyncio

import pytest
from stream_support import (
    FIRST_ID,
    START_MS,
    SYMBOL,
    ManualClock,
    MemorySink,
    authority,
    clock,
    eventually,
    exchange,
    reaches,
    start,
    trade,
)

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.stream.feed import Feeds
from quantai_tui.stream.quarantine import Quarantine
from quantai_tui.stream.trade_times import TradeTimes
from quantai_tui.stream.venue_clock import VenueClock
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState
WRONG_MS = 99_999_999_999_999  # the year 5138
HOUR_MS = 3_600_000


class Times:
    """Feeds of one symbol, and a venue whose clock shows `venue_ms`; with None it does not answer."""

    def __init__(self, venue_ms: int | None = START_MS, *, replayed: bool = False) -> None:
        self.venue_ms = venue_ms
        self.asked = 0
        self.clock = ManualClock()
        self.sink = MemorySink()
        self.quarantine = Quarantine(self.clock)
        self.feeds = Feeds(self.sink, self.clock, TradeTimes(self._answer, self.quarantine, self.clock, replayed=replayed))

    async def _answer(self) -> int:
        self.asked += 1
        if self.venue_ms is None:
            raise ConnectionRefusedError("refused")
        return self.venue_ms

    async def loaded(self):
        await self.feeds.load((SYMBOL,), seed=False)
        feed = self.feeds.get(SYMBOL)
        assert feed is not None
        return feed


async def test_trade_far_ahead_of_the_venue_goes_into_quarantine(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    (right,) = exchange.make(1)
    await exchange.send([trade(right.id, time_ms=WRONG_MS)])
    await eventually(lambda: stream.snapshot().bad_frames)
    snapshot = stream.snapshot()
    symbol = snapshot.symbols[SYMBOL]
    assert (symbol.last_id, symbol.wrong_times) == (FIRST_ID + 2, 1)
    assert symbol.last_trade_time == exchange.trades[2].time / 1000
    assert f"{SYMBOL} {right.id}: its time 5138-11-16" in snapshot.quarantine[-1].reason
    assert f"T {WRONG_MS}" in snapshot.quarantine[-1].excerpt
    await exchange.trade(1)  # shows that one is missing; REST has it with the right time
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 4))
    assert sink.trades[right.id] == right
    assert stream.snapshot().symbols[SYMBOL].missing == 0


async def test_wrong_time_over_rest_too_ends_as_lost_without_a_loop(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    (right,) = exchange.make(1)
    exchange.trades[-1] = trade(right.id, time_ms=WRONG_MS)
    await exchange.send([exchange.trades[-1]])
    await exchange.trade(1)
    await eventually(lambda: sink.closed)
    symbol = stream.snapshot().symbols[SYMBOL]
    assert (symbol.missing, symbol.unrecoverable, symbol.venue_holes, symbol.wrong_times) == (0, 1, 0, 1)
    assert sink.closed == [(right.id, right.id, "unrecoverable")]
    assert "an impossible time" in symbol.gap_note
    assert len([r for r in exchange.rest_requests if r["path"] == "/api/v3/aggTrades"]) == 2
    assert right.id not in sink.trades


@pytest.mark.parametrize("wrong_ms", [WRONG_MS, 1000])
async def test_wrong_time_over_rest_too_is_not_told_as_an_old_gap(exchange, start, wrong_ms):
    sink = MemorySink()
    stream = await start(sink, backfill_max_age_h=24.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    (right,) = exchange.make(1)
    exchange.trades[-1] = trade(right.id, time_ms=wrong_ms)
    await exchange.send([exchange.trades[-1]])
    await exchange.trade(3)
    await eventually(lambda: sink.closed)
    assert sink.closed == [(right.id, right.id, "unrecoverable")]
    assert "impossible time" in stream.snapshot().symbols[SYMBOL].gap_note
    assert right.id not in sink.trades


async def test_missed_trade_with_a_time_far_back_is_fetched(exchange, start):
    sink = MemorySink()
    stream = await start(sink, backfill_max_age_h=24.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    (missed,) = exchange.make(1)
    exchange.trades[-1] = trade(missed.id, time_ms=1000)
    await exchange.trade(3)
    await eventually(lambda: missed.id in sink.trades)
    assert stream.snapshot().symbols[SYMBOL].unrecoverable == 0


async def test_trades_refused_by_a_wrong_reference_are_taken_over_rest():
    times = Times()
    times.sink.start = LedgerPosition(begin_id=1, last_id=5, stored=5, last_time_us=START_MS * 1000)
    feed = await times.loaded()
    earlier = [trade(id, time_ms=START_MS - 3 * HOUR_MS) for id in range(6, 36)]
    for one in earlier:
        await times.feeds.take_live(feed, [one])
    assert times.sink.order == list(range(26, 36))
    await times.feeds.take_fetched(feed, earlier[:20])
    assert sorted(times.sink.order) == list(range(6, 36))


@pytest.mark.parametrize("wrong_ms", [WRONG_MS, START_MS + 20 * 86_400_000])
async def test_an_outage_after_a_wrong_time_is_repaired_and_not_given_up(exchange, start, wrong_ms):
    sink = MemorySink()
    stream = await start(sink, backfill_max_age_h=24.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    (right,) = exchange.make(1)
    await exchange.send([trade(right.id, time_ms=wrong_ms)])
    exchange.make(50)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 54))
    assert stream.snapshot().symbols[SYMBOL].unrecoverable == 0


async def test_without_venue_time_a_trade_is_stored_undated():
    times = Times(venue_ms=None)
    feed = await times.loaded()
    await times.feeds.take_live(feed, [trade(1), trade(2, time_ms=WRONG_MS)])
    assert times.sink.order == [1, 2]
    assert (feed.last_time_us, feed.wrong_times, times.quarantine.count) == (trade(1).time_us, 0, 0)
    await times.feeds.take_live(feed, [trade(3)])
    assert feed.last_time_us == trade(3).time_us


@pytest.mark.parametrize("wrong_by_s", [-7200, 7200])
async def test_a_machine_with_a_wrong_clock_loses_nothing(wrong_by_s):
    times = Times()
    feed = await times.loaded()
    machine_ms = int(times.clock.time() * 1000)
    venue_ms = times.venue_ms = machine_ms - wrong_by_s * 1000
    for id in range(1, 60):
        await times.feeds.take_live(feed, [trade(id, time_ms=venue_ms + id)])
    assert times.sink.order == list(range(1, 60))
    assert (feed.last_time_us, times.quarantine.count) == ((venue_ms + 59) * 1000, 0)
    await times.feeds.take_live(feed, [trade(60, time_ms=venue_ms + 61_000), trade(61, time_ms=venue_ms + 60)])
    assert times.sink.order[-1] == 61  # a minute and a second ahead of the venue's clock, regardless of ours
    assert (feed.wrong_times, 60 in times.sink.trades) == (1, False)


async def test_a_wrong_clock_and_a_venue_that_does_not_answer_lose_nothing():
    times = Times(venue_ms=None)
    feed = await times.loaded()
    ahead_ms = int(times.clock.time() * 1000) + HOUR_MS
    for id in range(1, 60):
        await times.feeds.take_live(feed, [trade(id, time_ms=ahead_ms + id)])
    assert times.sink.order == list(range(1, 60))
    assert feed.last_time_us == (ahead_ms + 59) * 1000  # many trades agree, so the clock counts as wrong
    assert times.asked == 1


async def test_symbol_with_only_wrong_times_is_stored_undated():
    times = Times()
    feed = await times.loaded()
    await times.feeds.take_live(feed, [trade(1)])
    for id in range(2, 102):
        await times.feeds.take_live(feed, [trade(id, time_ms=WRONG_MS)])
    assert feed.last_time_us == trade(1).time_us
    assert times.sink.order == [1, *range(22, 102)]  # earlier ones are missing, and fetched
    await times.feeds.take_fetched(feed, [trade(id, time_ms=WRONG_MS) for id in range(2, 22)])
    assert sorted(times.sink.order) == list(range(1, 102))
    assert times.asked == 5  # per minute


@pytest.mark.parametrize("wrong_ms", [0, 1, START_MS // 1000, START_MS - 100 * 86_400_000])
async def test_time_far_before_the_previous_trade_is_refused(wrong_ms):
    times = Times()
    feed = await times.loaded()
    await times.feeds.take_live(feed, [trade(1)])
    await times.feeds.take_live(feed, [trade(2, time_ms=wrong_ms), trade(3)])
    assert (times.sink.order, feed.wrong_times, times.asked) == ([1, 3], 1, 0)
    assert "before the previous trade" in times.quarantine.frames[0].reason


async def test_microseconds_of_one_symbol_hide_no_wrong_time_in_milliseconds():
    times = Times()
    feed = await times.loaded()
    await times.feeds.take_live(feed, [trade(1, time_ms=START_MS * 1000), trade(2, time_ms=WRONG_MS)])
    assert (times.sink.order, feed.wrong_times) == ([1], 1)


async def test_stored_wrong_time_is_ignored_after_a_restart():
    times = Times()
    times.sink.start = LedgerPosition(begin_id=1, last_id=5, stored=5, last_time_us=WRONG_MS * 1000)
    feed = await times.loaded()
    assert feed.last_time_us is None
    await times.feeds.take_live(feed, [trade(6)])
    assert (feed.last_time_us, times.sink.order) == (trade(6).time_us, [6])


async def test_changed_clock_makes_the_stream_ask_the_venue_again():
    clock = ManualClock()
    venue = VenueClock(clock)
    venue.answered(START_MS)
    await clock.advance(100.0)
    assert venue.now_us() == (START_MS + 100_000) * 1000
    wall = clock.time
    clock.time = lambda: wall() + 30.0  # type: ignore[method-assign]
    assert venue.now_us() is None


async def test_wrong_time_within_an_old_outage_loses_no_young_trade(exchange, start):
    sink = MemorySink()
    exchange.step_ms = HOUR_MS // 10
    stream = await start(sink, backfill_max_age_h=24.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    exchange.make(300)
    for at, wrong in enumerate(exchange.trades):
        if at % 2 and at > 100:
            exchange.trades[at] = trade(wrong.id, time_ms=START_MS)  # young by their ids
    await exchange.trade(1)
    await eventually(lambda: stream.snapshot().symbols[SYMBOL].missing == 0 and sink.gaps)
    # 24 h are 240 trades: of 304, those from the 64th on are young. Half of them have a wrong time.
    young = set(range(FIRST_ID + 100, FIRST_ID + 304))
    assert young <= sink.trades.keys()


async def test_replay_keeps_all_trades_and_never_asks_for_the_time():
    times = Times(replayed=True)
    feed = await times.loaded()
    trades = [trade(1), trade(2, time_ms=WRONG_MS), trade(3, time_ms=0), trade(4, time_ms=START_MS + HOUR_MS // 10)]
    for one in trades:
        await times.feeds.take_live(feed, [one])
    assert (times.sink.order, times.quarantine.count, times.asked) == ([1, 2, 3, 4], 0, 0)
    assert feed.last_time_us == trades[-1].time_us


async def test_hanging_venue_delays_live_trades_by_at_most_3_s():
    clock, sink = ManualClock(), MemorySink()
    never = asyncio.Event()

    async def hang() -> None:
        await never.wait()

    feeds = Feeds(sink, clock, TradeTimes(hang, Quarantine(clock), clock))
    await feeds.load((SYMBOL,), seed=False)
    feed = feeds.get(SYMBOL)
    assert feed is not None
    taking = asyncio.create_task(feeds.take_live(feed, [trade(1, time_ms=WRONG_MS)]))
    await clock.advance(2.9)
    assert not taking.done()
    await clock.advance(0.2)
    await taking
    assert (sink.order, feed.last_time_us) == ([1], None)
    await feeds.take_live(feed, [trade(2, time_ms=WRONG_MS)])  # not asked again within the minute
    assert sink.order == [1, 2]


async def test_without_any_venue_time_no_trade_is_refused():
    clock, sink = ManualClock(), MemorySink()

    async def unknown() -> None:
        return None

    feeds = Feeds(sink, clock, TradeTimes(unknown, Quarantine(clock), clock))
    await feeds.load((SYMBOL,), seed=False)
    feed = feeds.get(SYMBOL)
    assert feed is not None
    for one in [trade(1), trade(2, time_ms=WRONG_MS), trade(3, time_ms=0), trade(4)]:
        await feeds.take_live(feed, [one])
    assert (sink.order, feed.last_time_us) == ([1, 2, 3, 4], trade(4).time_us)
