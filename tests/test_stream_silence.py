"""A symbol becomes silent while others continue: REST tells a quiet market from a faulty stream."""

from __future__ import annotations

import asyncio

from stream_support import ManualClock, MemorySink, settle_loop, trade
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.stream.feed import Feeds
from quantai_tui.stream.silence import LOOKS_PER_MINUTE, SilenceLooks
from quantai_tui.telemetry import StreamState

RATES = {"BTCUSDT": 5.0, "ETHUSDT": 5.0}


def eth(rig: Rig):
    return rig.stream.snapshot().symbols["ETHUSDT"]


async def known(rig: Rig) -> float:
    """Wait until ETHUSDT's usual silence is known; return the limit."""
    await rig.live()
    await asyncio.sleep(90.0)
    limit = eth(rig).silence_limit_s
    assert limit is not None
    assert limit < 10.0
    return limit


def test_symbol_missing_on_all_links_is_silent_and_fetched() -> None:
    async def silenced() -> None:
        async with Rig(51, rates=RATES) as rig:
            limit = await known(rig)
            rig.venue.muted = {"ETHUSDT"}
            await rig.until(lambda: eth(rig).repaired > 0, limit + 5.0, "the missing trades are found")
            await rig.until(lambda: eth(rig).subscription == "silent", limit + 20.0, "it is called silent")
            assert "became silent" in eth(rig).subscription_note
            assert rig.stream.snapshot().symbols["BTCUSDT"].subscription == "acknowledged"
            dials, asked = len(rig.venue.dialled), len(rig.venue.requests)
            for _ in range(60):
                await asyncio.sleep(60.0)
                behind = rig.market.issued["ETHUSDT"][-1].id - (eth(rig).complete_through_id or 0)
                assert behind < 40 * RATES["ETHUSDT"], "fetched every half minute"
                assert eth(rig).silence_limit_s is not None
                assert eth(rig).silence_limit_s < 2 * limit + 5.0, "no silence is excused"
                assert eth(rig).subscription == "silent"
            assert 5 <= len(rig.venue.dialled) - dials <= 15, "other connections, at growing intervals"
            assert len(rig.venue.requests) - asked < 60 * 2 * 5
            rig.venue.muted = set()
            await rig.until(lambda: eth(rig).subscription == "acknowledged", 5.0, "it ends with a trade")
            assert rig.stream.state is StreamState.LIVE
            await asyncio.sleep(60.0)
            assert (eth(rig).silence_limit_s or 600.0) < 2 * limit, "what the venue traded all the while was no usual silence"
            assert rig.wrong() == []

    run(silenced())


def test_symbol_missing_on_one_link_recovers_and_is_never_silent() -> None:
    async def silenced() -> None:
        async with Rig(52, rates=RATES) as rig:
            limit = await known(rig)
            (link,) = rig.venue.subscribed()
            link.muted = {"ETHUSDT"}
            told = set()
            for _ in range(int(limit + 15) * 2):
                await asyncio.sleep(0.5)
                told.add(eth(rig).subscription)
            assert "silent" not in told
            assert link not in rig.venue.links
            assert any("the link had stalled" in cause for cause in rig.sink.records["ETHUSDT"].causes)
            assert rig.stream.state is StreamState.LIVE
            assert rig.wrong() == []

    run(silenced())


def test_quiet_market_is_checked_less_often_and_never_silent() -> None:
    async def quiet() -> None:
        async with Rig(53, rates=RATES, message_timeout=7200.0, message_warning_timeout=3600.0) as rig:
            await known(rig)
            asked = len(rig.venue.requests)
            rig.market.halt(1800.0)
            await asyncio.sleep(1700.0)
            # At 5, 10, 20, 40 ... 640 s for each of two symbols.
            assert 10 <= len(rig.venue.requests) - asked <= 24
            assert eth(rig).subscription == "acknowledged"
            assert rig.stream.state is StreamState.LIVE
            await asyncio.sleep(200.0)
            assert rig.wrong() == []

    run(quiet())


def test_without_rest_no_silence_is_excused_and_the_stall_shows() -> None:
    async def unanswered() -> None:
        async with Rig(54, rates=RATES) as rig:
            limit = await known(rig)
            rig.venue.force("rest_refused", 120.0)
            rig.venue.muted = {"ETHUSDT"}
            dials = len(rig.venue.dialled)
            await asyncio.sleep(60.0)
            assert eth(rig).silence_limit_s is not None
            assert eth(rig).silence_limit_s < 2 * limit
            assert "ETHUSDT" in rig.stream.snapshot().cause
            assert rig.stream.state is StreamState.STALLED
            assert 2 <= len(rig.venue.dialled) - dials <= 5
            await rig.until(lambda: eth(rig).subscription == "silent", 120.0, "REST is back")
            rig.venue.muted = set()
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(unanswered())


def test_a_long_repair_of_one_symbol_does_not_delay_the_look_at_another() -> None:
    async def repairing() -> None:
        async with Rig(55, rates=RATES) as rig:
            limit = await known(rig)
            (link,) = rig.venue.subscribed()
            link.drops = 2
            rig.venue.force("rest_behind", 600.0)  # a gap that stays open for long
            await asyncio.sleep(5.0)
            rig.venue.muted = {"ETHUSDT"}
            before = len(rig.venue.requests)
            await rig.until(lambda: len(rig.venue.requests) > before, limit + 5.0, "a look")
            rig.venue.muted = set()
            await asyncio.sleep(800.0)
            assert rig.wrong() == []

    run(repairing())


def test_looks_are_few_while_rest_does_not_answer() -> None:
    async def unanswered() -> None:
        async with Rig(56, rates={f"S{number}USDT": 1.0 for number in range(20)}) as rig:
            await rig.live()
            await asyncio.sleep(120.0)
            rig.venue.force("rest_503", 300.0)
            rig.venue.muted = set(rig.market.symbols[1:])
            asked = len(rig.venue.requests)
            await asyncio.sleep(290.0)
            assert len(rig.venue.requests) - asked < 80
            rig.venue.muted = set()
            await asyncio.sleep(200.0)
            assert rig.wrong() == []

    run(unanswered())


async def test_a_new_connection_does_not_wait_for_what_failed_before_it() -> None:
    clock = ManualClock()
    feeds = Feeds(MemorySink(), clock)
    await feeds.load(["AAA"], seed=False)
    (feed,) = feeds
    looks = SilenceLooks(feeds, clock)
    looks.on_live()
    for _ in range(5):
        looks.failed(feed)
    looks.on_live()
    due = asyncio.create_task(looks.due())
    await settle_loop()
    await clock.advance(1.0)
    async with asyncio.timeout(8):
        assert await due is feed


async def test_looks_of_many_symbols_keep_to_a_tenth_of_the_weight() -> None:
    clock = ManualClock()
    sink = MemorySink()
    sink.start = LedgerPosition(begin_id=1, last_id=100, stored=100)
    symbols = [f"S{number}USDT" for number in range(400)]
    feeds = Feeds(sink, clock)
    await feeds.load(symbols, seed=False)
    looks = SilenceLooks(feeds, clock)
    looks.suspect(symbols, "nothing came")
    at: list[float] = []

    async def look() -> None:
        while True:
            feed = await looks.due()
            at.append(clock.monotonic())
            await looks.take(feed, trade(100, feed.symbol))

    task = asyncio.create_task(look())
    for _ in range(600):
        await clock.advance(1.0)
    task.cancel()
    await asyncio.wait([task])
    for began in at:
        assert sum(began <= one < began + 60.0 for one in at) <= LOOKS_PER_MINUTE
    assert len(at) >= 700, "the looks use their share"
    assert LOOKS_PER_MINUTE * 2 * 4 <= 600, "a look sends two requests of weight 4 if it finds a newer trade"
