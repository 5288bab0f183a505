"""A trade with an implausible id never moves a ledger, but a real jump of the venue's ids is followed."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_support import CONFIG, MB, Basket, a_link, frame
from stream_support import (
    FIRST_ID,
    START_MS,
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
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.market.trades import AggTrade
from quantai_tui.stream.feed import Feeds
from quantai_tui.stream.id_jumps import ANSWER_WITHIN_S, LONGEST_HOLD_S, IdJumps, JumpCheck
from quantai_tui.stream.id_runs import FURTHER_FRAMES, LEAST_REACH, IdPace
from quantai_tui.stream.quarantine import Quarantine
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder
from quantai_tui.stream.replaying import stream_from_recording
from quantai_tui.stream.symbol_feed import SymbolFeed
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

HIGHEST = (1 << 53) - 1
SKIPPED = 300_000  # ids, more than is plausible
ETH = {"ETHUSDT": 5.0}


def wrongly(id: int, time_ms: int) -> AggTrade:
    """An ordinary trade with a wrong id."""
    return AggTrade(id, "1.50", "0.25000000", 8, 9, time_ms, True, "ETHUSDT")


def lie(rig: Rig, id: int) -> None:
    """The venue sends one trade with this id on every connection."""
    wrong = wrongly(id, rig.market.now_ms())
    for link in rig.venue.subscribed():
        link.push(frame(wrong))


def eth(rig: Rig):
    return rig.stream.snapshot().symbols["ETHUSDT"]


@pytest.mark.parametrize("id", [HIGHEST, 3], ids=["far-above", "far-below"])
@pytest.mark.parametrize("rest", ["there", "refused"])
def test_trade_with_a_wrong_id_goes_into_quarantine_alone(id: int, rest: str) -> None:
    async def lied_to() -> None:
        async with Rig(31, rates=ETH) as rig:
            rig.market._next["ETHUSDT"] += 5_000_000  # so that 3 is far below
            await rig.live()
            await asyncio.sleep(30.0)
            if rest == "refused":
                rig.venue.force("rest_refused", 60.0)
            asked, had = len(rig.venue.requests), eth(rig)
            lie(rig, id)
            await asyncio.sleep(1.0)
            assert eth(rig).last_id > had.last_id, "real trades do not wait for the check"
            await asyncio.sleep(60.0)
            now = eth(rig)
            assert (now.missing, now.gaps, now.duplicates, now.doubtful, now.implausible) == (0, 0, 0, 0, 1)
            assert now.price == rig.sink.records["ETHUSDT"].trades[now.last_id].price
            (kept,) = rig.stream.snapshot().quarantine
            assert str(id) in kept.reason
            assert "implausible" in kept.reason
            assert len(rig.venue.requests) - asked <= 4
            assert rig.wrong() == []

    run(lied_to())


def test_venue_that_skips_many_ids_is_followed_with_one_gap() -> None:
    async def jumped() -> None:
        async with Rig(32, rates=ETH) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            before, asked = eth(rig).last_id, len(rig.venue.requests)
            rig.market.skip("ETHUSDT", SKIPPED)
            await rig.until(lambda: eth(rig).last_id > before + SKIPPED, 3.0, "the new ids are accepted")
            await rig.until(lambda: eth(rig).venue_holes == SKIPPED, 30.0, "the gap is settled")
            assert (eth(rig).missing, eth(rig).implausible, eth(rig).doubtful) == (0, 0, 0)
            assert len(rig.venue.requests) - asked < 10
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(jumped())


def test_without_rest_twenty_consecutive_frames_confirm_a_jump() -> None:
    async def jumped() -> None:
        async with Rig(33, rates=ETH) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            rig.venue.force("rest_refused", 120.0)
            before = eth(rig).last_id
            rig.market.skip("ETHUSDT", SKIPPED)
            began = rig.now
            await rig.until(lambda: eth(rig).doubtful > 0, 3.0, "they are held back")
            await rig.until(lambda: eth(rig).last_id > before + SKIPPED, LONGEST_HOLD_S, "they are accepted")
            assert rig.now - began >= ANSWER_WITHIN_S
            assert eth(rig).implausible == 0
            await rig.until(lambda: eth(rig).missing == 0, 300.0, "the gap is settled once REST is back")
            assert rig.wrong() == []

    run(jumped())


def test_unconfirmed_jump_of_a_thin_symbol_loses_no_trade() -> None:
    async def jumped() -> None:
        async with Rig(34, rates={"ETHUSDT": 5.0, "XRPETH": 0.2}) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            rig.venue.force("rest_refused", 60.0)
            rig.market.skip("XRPETH", SKIPPED)
            longest = 0.0
            held_since = None
            while rig.venue.has("rest_refused"):
                await asyncio.sleep(0.5)
                held = rig.stream.snapshot().symbols["XRPETH"].doubtful
                held_since = (held_since or rig.now) if held else None
                longest = max(longest, rig.now - held_since if held_since else 0.0)
            assert 1.0 < longest <= LONGEST_HOLD_S + 1.0
            await rig.until(lambda: rig.stream.snapshot().symbols["XRPETH"].venue_holes == SKIPPED, 200.0, "REST confirms it")
            await asyncio.sleep(60.0)
            assert rig.stream.snapshot().symbols["XRPETH"].implausible > 0
            assert rig.wrong() == []

    run(jumped())


def test_a_wrong_first_trade_does_not_begin_the_ledger() -> None:
    async def begun() -> None:
        async with Rig(35, rates={"ETHUSDT": 0.5}, backfill_start="now") as rig:
            rig.market.halt(3.0)
            await rig.live()
            lie(rig, HIGHEST)
            await asyncio.sleep(60.0)
            assert rig.sink.records["ETHUSDT"].begin_id == rig.market.issued["ETHUSDT"][0].id
            assert (eth(rig).missing, eth(rig).implausible, eth(rig).duplicates) == (0, 1, 0)
            assert rig.wrong() == []

    run(begun())


def test_lone_unconfirmed_first_trade_is_stored() -> None:
    async def begun() -> None:
        async with Rig(36, rates={"ETHUSDT": 0.5}) as rig:
            rig.market.halt(600.0)
            rig.venue.force("rest_refused", 600.0)
            await rig.live()
            await asyncio.sleep(5.0)
            rig.market.issue("ETHUSDT")
            await rig.until(lambda: eth(rig).stored == 1, LONGEST_HOLD_S + 1.0, "it is stored")

    run(begun())


@pytest.mark.parametrize("start_at", ["now", "earliest"])
def test_ids_far_higher_after_a_long_pause_are_one_gap(start_at: str) -> None:
    async def restarted() -> None:
        async with Rig(37, rates=ETH, backfill_start=start_at) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            rig.market.skip("ETHUSDT", SKIPPED)  # as many as the trades of days
            await rig.restart(after_s=600.0)
            await rig.live()
            await asyncio.sleep(60.0)
            assert (eth(rig).missing, eth(rig).implausible) == (0, 0)
            assert eth(rig).venue_holes == SKIPPED
            assert rig.sink.records["ETHUSDT"].causes[-1] == "the program was not running"
            assert rig.wrong() == []

    run(restarted())


def test_endless_implausible_ids_cost_few_requests_and_log_lines(caplog) -> None:
    caplog.set_level(logging.INFO, logger="quantai_tui.stream")

    async def flooded() -> None:
        async with Rig(38, rates=ETH) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            asked = len(rig.venue.requests)
            caplog.clear()
            for number in range(2000):
                lie(rig, 10**9 + (number * 7_919_000_003) % 10**15)
                await asyncio.sleep(0.06)
            assert eth(rig).implausible >= 1990
            assert eth(rig).missing == 0
            assert len(rig.venue.requests) - asked < 20
            assert len(caplog.records) < 60
            assert rig.stream.snapshot().bad_frames >= 1990
            assert len(rig.stream.snapshot().quarantine) <= 20
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(flooded())


def test_wrong_ids_between_trades_of_a_real_jump_do_not_block_it() -> None:
    async def jumped() -> None:
        async with Rig(39, rates=ETH) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            rig.venue.force("rest_refused", 60.0)
            before = eth(rig).last_id
            rig.market.skip("ETHUSDT", SKIPPED)
            for number in range(60):
                lie(rig, HIGHEST - number * 10**12)
                await asyncio.sleep(0.3)
            assert eth(rig).last_id > before + SKIPPED
            assert eth(rig).last_id < 10**9
            await asyncio.sleep(200.0)
            assert rig.wrong() == []

    run(jumped())


async def test_wrong_id_on_a_real_connection_is_refuted_by_rest(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    await exchange.send_raw(frame(wrongly(HIGHEST, exchange.now_ms - 1)))
    await exchange.trade(3)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 5))
    await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].implausible == 1)
    assert [request.get("fromId") for request in exchange.rest_requests] == [None]
    snapshot = stream.snapshot()
    assert (snapshot.symbols["ETHUSDT"].missing, snapshot.symbols["ETHUSDT"].last_id) == (0, FIRST_ID + 5)
    assert "newest over REST" in snapshot.quarantine[0].reason


async def test_wrong_id_over_rest_too_is_used_only_beside_others(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(30)
    await eventually(lambda: sink.appended == 30)
    exchange.trades.append(wrongly(HIGHEST, exchange.now_ms - 1))
    await exchange.send_raw(frame(exchange.trades[-1]))
    await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].implausible == 1)
    assert (stream.snapshot().symbols["ETHUSDT"].missing, stream.snapshot().symbols["ETHUSDT"].last_id) == (0, FIRST_ID + 29)


async def test_wrong_id_only_over_rest_moves_no_quiet_symbol(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(30)
    await eventually(lambda: sink.appended == 30)
    exchange.trades.append(wrongly(HIGHEST, exchange.now_ms - 1))
    asked = len(exchange.rest_requests)
    stream.reconnect_now()
    await eventually(lambda: exchange.dials == 2 and stream.state is StreamState.LIVE)
    await clock.advance(1.0)  # a quiet symbol is looked at over REST
    await eventually(lambda: len(exchange.rest_requests) > asked)
    exchange.trades.pop()
    await exchange.trade(3)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 32))
    symbol = stream.snapshot().symbols["ETHUSDT"]
    assert (symbol.last_id, symbol.venue_holes) == (FIRST_ID + 32, 0)


async def test_store_with_a_wrong_highest_id_goes_on_and_tells_it(exchange, start, clock, caplog):
    sink = MemorySink()
    hole = (FIRST_ID + 3, HIGHEST - 1)
    sink.start = LedgerPosition(
        begin_id=FIRST_ID,
        last_id=HIGHEST,
        complete_through_id=FIRST_ID + 2,
        stored=4,
        missing=(hole,),
        last_time_us=START_MS * 1000,
    )
    exchange.make(30)
    stream = await start(sink)
    await reaches(stream, StreamState.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.holds(FIRST_ID + 3, FIRST_ID + 32))
    await eventually(lambda: "REST lags" in caplog.text)  # no request is under way: the next trade comes on the stream first
    await exchange.trade(1)
    await eventually(lambda: FIRST_ID + 33 in sink.trades)
    await clock.advance(5.0)
    await eventually(lambda: "is not the venue's" in stream.snapshot().symbols["ETHUSDT"].gap_note)
    symbol = stream.snapshot().symbols["ETHUSDT"]
    assert symbol.price == exchange.trades[-1].price
    assert "another DATA_DIR" in symbol.gap_note


async def a_recording(tmp_path, ids: list[int]) -> Recording:
    """A second of recorded trades."""
    path = tmp_path / "ids.qrec"
    recorder = Recorder()
    recorder.start(path, 10 * MB)
    _, inner = await a_link(recorder, Basket(), CONFIG)
    for number, id in enumerate(ids):
        inner.deliver(frame(wrongly(id, START_MS + number)))
    await recorder.stop()
    return Recording.open(path)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
async def test_a_recording_with_one_wrong_id_replays_without_it(tmp_path, where, caplog):
    ids = list(range(1000, 1200))
    ids.insert({"first": 0, "middle": 100, "last": 200}[where], HIGHEST)
    recording = await a_recording(tmp_path, ids)
    try:
        assert recording.known_trades("ETHUSDT", None, 1, 10.0)[0].id == 1199
        index = recording.trades["ETHUSDT"]
        assert len(index._strays) == 0, "all lie in the compact arrays"
        sink = MemorySink()
        stream, replay = stream_from_recording(recording, sink)
        await stream.start()
        await asyncio.wait_for(replay.over(), 15)
        await eventually(lambda: sink.holds(1000, 1199))
        snapshot = stream.snapshot().symbols["ETHUSDT"]
        await stream.stop()
        assert (snapshot.missing, snapshot.venue_holes) == (0, 0)
        assert len(caplog.records) < 20
    finally:
        recording.close()


async def test_a_recorded_jump_that_many_trades_confirm_is_replayed(tmp_path):
    recording = await a_recording(tmp_path, [*range(1000, 1100), *range(5_000_000, 5_000_100)])
    try:
        assert recording.known_trades("ETHUSDT", None, 1, 10.0)[0].id == 5_000_099
        assert len(recording.known_trades("ETHUSDT", 1, 1000, 10.0)) == 200
    finally:
        recording.close()


# `IdJumps` alone, with given times


async def judged(clock: ManualClock, last_id: int | None = 1_000_000) -> tuple[IdJumps, SymbolFeed]:
    sink = MemorySink()
    if last_id is not None:
        sink.start = LedgerPosition(begin_id=900_000, last_id=last_id, stored=100_001, last_time_us=int(clock.time() * 1e6))
    feeds = Feeds(sink, clock)
    await feeds.load(["ETHUSDT"], seed=False)
    feed = feeds.get("ETHUSDT")
    assert feed is not None
    return IdJumps(Quarantine(clock), limit=20_000, clock=clock), feed


def at(clock: ManualClock, id: int):
    return trade(id, time_ms=int(clock.time() * 1000))


@pytest.mark.parametrize("second", ["comes", "does not come"])
def test_rest_is_asked_about_a_first_trade_only_if_no_second_comes_soon(second: str) -> None:
    async def lived() -> None:
        async with Rig(36, rates={"ETHUSDT": 1e-6}) as rig:
            await rig.live()
            rig.market.issue("ETHUSDT")
            await asyncio.sleep(0.1)
            if second == "comes":
                rig.market.issue("ETHUSDT")
            await asyncio.sleep(0.5)
            assert len(rig.venue.requests) == (second == "does not come")
            assert eth(rig).stored == (2 if second == "comes" else 1)

    run(lived())


async def test_plausible_reach_is_100_times_the_peak_rate_plus_100000():
    pace = IdPace()
    assert pace.reach(1e6) == LEAST_REACH
    for tenth in range(50):
        pace.note(3, tenth / 10)
    assert pace.peak == 30
    assert pace.reach(10.0) == LEAST_REACH + 100 * 30 * 10


async def test_jump_within_reach_passes_and_a_larger_one_waits():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    assert [one.id for one in jumps.admit(feed, [at(clock, 1_000_000 + LEAST_REACH)])] == [1_000_000 + LEAST_REACH]
    jumps, feed = await judged(clock)
    assert jumps.admit(feed, [at(clock, 1_000_001 + LEAST_REACH)]) == []
    assert jumps.doubtful("ETHUSDT") == 1


async def test_known_ids_far_below_are_duplicates_and_do_not_wait():
    clock = ManualClock()
    jumps, feed = await judged(clock, last_id=1_200_000)
    assert [one.id for one in jumps.admit(feed, [at(clock, 900_010)])] == [900_010]
    assert jumps.admit(feed, [at(clock, 800_000)]) == []


async def test_many_wrong_ids_in_the_first_batch_cost_no_true_trade():
    clock = ManualClock()
    jumps, feed = await judged(clock, last_id=None)
    lies = [at(clock, number * 10**12) for number in range(1, 9)]
    true = [at(clock, id) for id in range(1000, 1060)]
    assert jumps.admit(feed, [*true[:50], *lies, *true[50:]]) == []
    assert jumps.release(feed) == true
    assert jumps.doubtful("ETHUSDT") + jumps.implausible("ETHUSDT") == len(lies)


async def test_twenty_frames_count_only_if_consecutive_and_after_5_s():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    jumps.admit(feed, [at(clock, id) for id in range(5_000_000, 5_000_000 + FURTHER_FRAMES + 1)])
    assert jumps.release(feed) == []
    await clock.advance(ANSWER_WITHIN_S)
    assert len(jumps.release(feed)) == FURTHER_FRAMES + 1
    jumps, feed = await judged(clock)
    jumps.admit(feed, [at(clock, id) for id in range(5_000_000, 5_000_080, 2)])
    await clock.advance(ANSWER_WITHIN_S)
    assert jumps.release(feed) == []


async def test_another_connection_that_brings_the_same_ids_confirms_them():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    jumps.admit(feed, [at(clock, 5_000_000)])
    jumps.witness([at(clock, 5_000_001)])
    assert jumps.release(feed) == []
    await clock.advance(ANSWER_WITHIN_S)
    assert [one.id for one in jumps.release(feed)] == [5_000_000]


async def test_an_answer_that_is_older_than_the_jump_refutes_nothing():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    old = at(clock, 1_000_000)
    await clock.advance(1.0)
    jumps.admit(feed, [at(clock, 5_000_000)])
    jumps.answer("ETHUSDT", old)
    assert jumps.doubtful("ETHUSDT") == 1
    jumps.answer("ETHUSDT", at(clock, 1_000_002))
    assert (jumps.doubtful("ETHUSDT"), jumps.implausible("ETHUSDT")) == (0, 1)


async def test_confirmed_numbering_far_below_is_accepted_and_flagged():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    await clock.advance(1.0)
    assert jumps.admit(feed, [at(clock, 5)]) == []
    jumps.answer("ETHUSDT", at(clock, 6))
    assert [one.id for one in jumps.release(feed)] == [5]
    assert feed.numbering.value == "in doubt"
    assert [one.id for one in jumps.admit(feed, [at(clock, 6), at(clock, 7)])] == [6, 7]


async def test_confirmed_run_without_trades_accepts_its_next_trade():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    jumps.admit(feed, [at(clock, 5_000_000)])
    await clock.advance(LONGEST_HOLD_S)
    assert jumps.release(feed) == []
    assert (jumps.doubtful("ETHUSDT"), jumps.implausible("ETHUSDT")) == (0, 1)
    jumps.answer("ETHUSDT", at(clock, 5_000_000))
    assert jumps.release(feed) == []
    assert jumps.admit(feed, [at(clock, 5_000_001)]) == []
    assert [one.id for one in jumps.release(feed)] == [5_000_001]


async def test_undecided_wrong_id_is_forgotten_in_the_end():
    clock = ManualClock()
    jumps, feed = await judged(clock)
    jumps.admit(feed, [at(clock, 5_000_000)])
    asked = 0
    for _ in range(3600):
        await clock.advance(1.0)
        jumps.release(feed)
        asked += jumps.question()[0] is not None
    assert asked < 20
    assert list(jumps.doubted) == []
    assert jumps.implausible("ETHUSDT") == 1


async def test_while_rest_fails_requests_for_many_symbols_are_few(caplog):
    clock = ManualClock()
    sink = MemorySink()
    sink.start = LedgerPosition(begin_id=900_000, last_id=1_000_000, stored=100_001)
    symbols = [f"S{number}USDT" for number in range(200)]
    feeds = Feeds(sink, clock)
    await feeds.load(symbols, seed=False)
    jumps = IdJumps(Quarantine(clock), limit=20_000, clock=clock)
    asked: list[str] = []

    class Refusing:
        async def agg_trades(self, symbol: str, from_id: int | None, limit: int = 1000) -> list[AggTrade]:
            asked.append(symbol)
            raise ConnectionRefusedError

    check = asyncio.create_task(JumpCheck(jumps, Refusing(), clock).run())
    for symbol in symbols:
        jumps.admit(feeds.get(symbol), [trade(9_000_000, symbol)])
    for _ in range(60):
        await clock.advance(1.0)
    check.cancel()
    await asyncio.wait([check])
    assert 5 <= len(asked) <= 20
    assert len(caplog.records) <= 2


@pytest.mark.parametrize("id", [HIGHEST, 3])
def test_wrong_id_on_the_second_connection_does_not_switch_to_it(id: int) -> None:
    async def rotated() -> None:
        async with Rig(40, rates=ETH) as rig:
            rig.market._next["ETHUSDT"] += 5_000_000
            await rig.live()
            await asyncio.sleep(60.0)
            (first,) = rig.venue.subscribed()
            rig.stream.rotate()
            while len(rig.venue.subscribed()) < 2:
                await asyncio.sleep(0.001)  # mute it before its first trade
            (second,) = set(rig.venue.subscribed()) - {first}
            second.muted = {"ETHUSDT"}
            second.push(frame(wrongly(id, rig.market.now_ms())))
            await asyncio.sleep(14.0)
            assert first in rig.venue.links, "the second connection has brought no plausible trade"
            await asyncio.sleep(120.0)
            assert rig.wrong() == []

    run(rotated())


@given(
    steps=st.lists(st.integers(1, 50_000), min_size=1, max_size=40),
    lies=st.lists(st.tuples(st.integers(0, 39), st.integers(0, HIGHEST)), max_size=20),
)
def test_real_trades_never_wait_among_any_wrong_ids(steps, lies):
    async def judge() -> None:
        clock = ManualClock()
        jumps, feed = await judged(clock)
        id = 1_000_000
        for place, step in enumerate(steps):
            id += step
            wrong = [wrong_id for at_place, wrong_id in lies if at_place == place and abs(wrong_id - id) > 10_000_000]
            came = [at(clock, one) for one in [*wrong, id]]
            believed = jumps.admit(feed, came)
            assert [one.id for one in believed] == [id]
            feed.ledger.observe(believed)
        assert jumps.doubtful("ETHUSDT") + jumps.implausible("ETHUSDT") <= len(lies)
        assert feed.ledger.last_id == id

    asyncio.run(judge())
