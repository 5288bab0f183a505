"""The order of trades when iterating over a stream: by id, with old gaps skipped, or as they arrive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_support import ScriptedExchange, authority, eventually, exchange, trade
from virtual.faults import Faults, seeded_plan
from virtual.loop import clock_here, run
from virtual.reader import CheckingReader
from virtual.rig import Rig

from quantai_tui.stream import Outcome, ResilientStream, TradeBatch
from quantai_tui.stream.batch_queue import BatchQueue
from quantai_tui.stream.batches import IdOrder
from quantai_tui.stream.feed import Feeds
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures

A, B = "AAAUSDT", "BBBUSDT"


def told(batches: Sequence[TradeBatch]) -> list[object]:
    """Each batch as its ids, as its gap, or as "late" with its ids."""
    return [batch.gap or (["late"] if batch.late else []) + [one.id for one in batch.trades] for batch in batches]


def trades(*ids: int, symbol: str = A) -> list:
    return [trade(id, symbol) for id in ids]


def test_trades_behind_a_gap_wait_until_it_is_filled() -> None:
    order = IdOrder(100, 60.0)
    assert told(order.take(A, trades(1, 2), 0.0)) == [[1, 2]]
    assert told(order.take(A, trades(6, 7), 0.0)) == []
    assert (order.held, order.held_of(A), order.held_of(B)) == (2, 2, 0)
    assert told(order.take(A, trades(3, 4), 1.0)) == [[3, 4]]
    assert told(order.take(A, trades(5), 2.0)) == [[5, 6, 7]]
    assert (order.held, order.deadline) == (0, None)


def test_gap_holds_back_its_own_symbol_only() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(5), 0.0)
    assert told(order.take(B, trades(9, 10, symbol=B), 0.0)) == [[9, 10]]


def test_gap_is_skipped_after_its_time_and_its_trades_are_late() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(5), 10.0)
    order.take(A, trades(9), 20.0)
    assert order.deadline == 70.0
    assert order.expire(69.9) == []
    assert told(order.expire(70.0)) == [(2, 4), [5]]
    assert told(order.take(A, trades(3, 6), 71.0)) == [["late", 3], [6]]
    assert told(order.expire(80.0)) == [(7, 8), [9]]
    assert told(order.take(A, trades(2, 4), 81.0)) == [["late", 2, 4]]
    assert told(order.take(A, trades(3, 7), 82.0)) == [["late", 7]]  # 3 has arrived before


def test_filling_a_part_of_a_gap_keeps_its_deadline() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(9), 10.0)
    order.take(A, trades(5), 30.0)  # out of order: it splits the gap of 2-8
    assert told(order.take(A, trades(2, 3, 4), 40.0)) == [[2, 3, 4, 5]]
    assert told(order.expire(70.0)) == [(6, 8), [9]]


def test_abandoned_ids_are_skipped_in_order_without_waiting() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(5, 9), 0.0)
    assert order.give_up(A, 6, 8) == []  # 2-4 may still arrive
    assert told(order.give_up(A, 2, 3)) == [(2, 3)]
    assert told(order.take(A, trades(4), 1.0)) == [[4, 5], (6, 8), [9]]
    assert told(order.take(A, trades(7), 2.0)) == [["late", 7]]
    assert order.give_up(A, 2, 3) == []  # announced before


def test_partly_abandoned_gap_is_announced_once() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(9, 11), 0.0)
    order.give_up(A, 5, 6)
    order.give_up(A, 10, 10)
    assert told(order.expire(60.0)) == [(2, 8), [9], (10, 10), [11]]
    assert order.give_up(A, 2, 8) == []
    order.take(A, trades(15), 61.0)
    assert told(order.give_up(A, 12, 14)) == [(12, 14), [15]]


def test_waiting_or_late_trade_is_not_yielded_twice() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(5), 0.0)
    order.take(A, trades(5), 0.0)
    assert order.held == 1
    assert told(order.expire(60.0)) == [(2, 4), [5]]
    assert told(order.take(A, trades(1, 3, 5), 61.0)) == [["late", 3]]
    assert order.take(A, trades(3), 62.0) == []


def test_trade_abandoned_too_early_is_still_yielded_in_order() -> None:
    order = IdOrder(100, 60.0)
    order.take(A, trades(1), 0.0)
    order.take(A, trades(9), 0.0)
    order.give_up(A, 4, 8)
    order.take(A, trades(6), 0.0)
    assert told(order.take(A, trades(2, 3), 0.0)) == [[2, 3], (4, 5), [6], (7, 8), [9]]


def test_when_too_many_wait_the_symbol_with_most_skips_its_gap() -> None:
    order = IdOrder(4, 60.0)
    for symbol in (A, B):
        order.take(symbol, trades(1, symbol=symbol), 0.0)
    order.take(A, trades(3), 0.0)
    order.take(B, trades(3, 4, 5, symbol=B), 1.0)
    assert told(order.take(B, trades(7, 8, symbol=B), 2.0)) == [(2, 2), [3, 4, 5]]
    assert (order.held_of(A), order.held_of(B)) == (1, 2)


def test_with_no_room_for_waiting_a_gap_is_skipped_at_once() -> None:
    order = IdOrder(0, 60.0)
    assert told(order.take(A, trades(1), 0.0) + order.take(A, trades(3), 0.0)) == [[1], (2, 2), [3]]


def test_live_trades_wait_while_the_beginning_of_history_is_unknown() -> None:
    order = IdOrder(100, 60.0, begin_id=0)
    order.await_history(A, 99)
    order.begin(A, 100)
    assert order.take(A, trades(100, 101), 0.0) == []
    assert order.begin(A, 97) == []
    assert told(order.take(A, trades(97, 98), 1.0)) == [[97, 98]]
    assert told(order.take(A, trades(99), 1.0)) == [[99, 100, 101]]


def test_live_trades_continue_once_no_history_precedes_them() -> None:
    order = IdOrder(100, 60.0, begin_id=0)
    order.await_history(A, 99)
    order.begin(A, 100)
    order.take(A, trades(100, 101), 0.0)
    assert told(order.begin(A, 100)) == [[100, 101]]


def test_slow_history_is_skipped_from_its_requested_start() -> None:
    order = IdOrder(100, 60.0, begin_id=90)
    order.await_history(A, 99)
    order.begin(A, 100)
    order.take(A, trades(100), 0.0)
    assert told(order.expire(60.0)) == [(90, 99), [100]]
    order.begin(A, 90)
    assert told(order.take(A, trades(90, 91), 61.0)) == [["late", 90, 91]]
    assert told(order.take(A, trades(101), 61.0)) == [[101]]


def test_a_start_above_the_first_trade_holds_nothing_back() -> None:
    order = IdOrder(100, 60.0, begin_id=500)
    order.await_history(A, 99)
    order.begin(A, 100)
    assert told(order.take(A, trades(100), 0.0)) == [[100]]


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from((A, B)), st.lists(st.integers(-8, 12), min_size=1, max_size=12)),
    st.tuples(st.just("fetch"), st.sampled_from((A, B)), st.integers(1, 8)),
    st.tuples(st.just("give_up"), st.sampled_from((A, B)), st.sampled_from((Outcome.VENUE_HOLE, Outcome.UNRECOVERABLE))),
    st.tuples(st.just("late_find"), st.sampled_from((A, B)), st.integers(0, 40)),
    st.tuples(st.just("seed"), st.sampled_from((A, B)), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.just(A), st.sampled_from((0.1, 20.0, 45.0))),
)


@settings(max_examples=200)
@given(
    st.lists(STEPS, max_size=40),
    st.integers(1, 30),
    st.integers(0, 30),
    st.sampled_from((None, 0, 5)),
    st.sampled_from((0.0, 0.05, 15.0)),
    st.sampled_from((2, 1024)),
)
def test_every_id_is_yielded_once_in_order_or_late(steps, limit, most, begin_id, pause_s, max_gaps) -> None:
    """Any interleaving of arrivals, gaps, repairs, verdicts and expiry, with a fast and a slow reader."""

    async def lived() -> None:
        clock = clock_here()
        queue = BatchQueue(limit, IdOrder(most, 60.0, begin_id), clock)
        feeds = Feeds(queue, clock)
        await feeds.load((A, B), seed=begin_id is not None)
        for feed in feeds:
            feed.ledger.max_gaps = max_gaps  # above it, known ids are requested again
        reader = CheckingReader()

        async def read() -> None:
            async for batch in queue:
                reader.note(batch)
                await asyncio.sleep(pause_s)

        reading = asyncio.create_task(read())
        seen: dict[str, set[int]] = {A: set(), B: set()}
        top = {A: 40, B: 40}
        for what, symbol, detail in steps:
            feed = feeds.get(symbol)
            open_gap = feed.ledger.first_gap
            if what == "arrive":
                # Steps forward, back and in place: gaps, unordered trades and repetitions.
                ids = [max(31, top[symbol] + step) for step in detail]
                top[symbol] = max(top[symbol], *ids)
                first = min(ids) if feed.ledger.begin_id is None else feed.ledger.begin_id
                await feeds.take_live(feed, trades(*ids, symbol=symbol))
                seen[symbol].update(id for id in ids if id >= first)
            elif what == "fetch" and open_gap:
                ids = range(open_gap[0], min(open_gap[0] + detail, open_gap[1] + 1))
                await feeds.take_fetched(feed, trades(*ids, symbol=symbol))
                seen[symbol].update(ids)
            elif what == "give_up" and open_gap:
                await feeds.give_up(feed, open_gap, detail, "test")
            elif what == "late_find" and feed.ledger.begin_id is not None:
                id = top[symbol] - detail
                if feed.ledger.begin_id <= id:
                    await feeds.take_live(feed, trades(id, symbol=symbol))
                    seen[symbol].add(id)
            elif what == "seed" and not feed.seeded:
                await feeds.seed(feed, max(begin_id, detail), 0)
            elif what == "wait":
                await asyncio.sleep(detail)
        assert queue.held <= most
        held_until = clock.monotonic()
        queue.finish()
        queue.close()
        await reading
        assert pause_s or clock.monotonic() == held_until
        assert reader.breaches == []
        for symbol in (A, B):
            known = reader.of(symbol)
            got = known.trades + known.late
            assert sorted(got) == sorted(seen[symbol])
            feed = feeds.get(symbol)
            passed = {id for gap in known.gaps for id in range(gap[0], gap[1] + 1)}
            assert passed.isdisjoint(known.trades)
            if seen[symbol]:
                assert max(known.trades) == feed.ledger.last_id

    run(lived())


async def test_gap_after_a_cut_is_filled_before_later_trades(exchange: ScriptedExchange) -> None:
    reader = CheckingReader()
    async with ResilientStream(exchange.config(initial_delay=0.05)) as stream:
        reading = asyncio.create_task(reader.read(stream))
        await eventually(lambda: exchange.subscribed)
        await exchange.trade(3)
        await eventually(lambda: len(reader.of("ETHUSDT").trades) == 3)
        exchange.cut()
        exchange.make(2500)
        await eventually(lambda: stream.state is StreamState.LIVE and stream.snapshot().reconnects == 1)
        await exchange.trade(1)
        await eventually(lambda: len(reader.of("ETHUSDT").trades) == 2504)
    await reading
    assert reader.breaches == []
    assert (reader.of("ETHUSDT").gaps, reader.of("ETHUSDT").late) == ([], [])


def test_hour_of_faults_is_yielded_in_order_and_complete() -> None:
    async def broken() -> None:
        pauses = random.Random(3)
        reader = CheckingReader(lambda: pauses.choice((0.0, 0.0, 0.0, 5.0)))
        async with Rig(31, reader=reader, buffer_trades=200) as rig:
            await rig.live()
            faults = Faults(rig.venue, rig.clock, 31)
            await faults.run(seeded_plan(31, 1.0, every_s=90.0))
            await rig.rest_of(3600.0)
            faults.close()
            market, until_ms = rig.market, rig.market.now_ms() - 60_000
            await rig.end()
            assert reader.breaches == []
            for symbol in market.symbols:
                known = reader.of(symbol)
                issued = {id for id in market.ids(symbol, until_ms) if id >= known.begin_id}
                got = {*known.trades, *known.late}
                assert issued - got <= rig.venue.lost[symbol]
                assert len(got) > 400
                assert len(known.late) < len(got) / 2

    run(broken())


def test_rest_outage_holds_back_one_symbol_for_a_minute() -> None:
    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(32, reader=reader, rates={A: 5.0, B: 5.0}) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            rig.venue.force("rest_503", 150.0)
            (link,) = rig.venue.subscribed()
            link.drops = 1
            await rig.until(lambda: sum(one.held for one in rig.stream.snapshot().symbols.values()), 10.0, "trades that wait")
            (holed,) = [name for name, one in rig.stream.snapshot().symbols.items() if one.held]
            other = A if holed == B else B
            begun, before = rig.now, len(reader.of(other).trades)
            await asyncio.sleep(30.0)
            assert rig.stream.queued >= rig.stream.snapshot().symbols[holed].held > 100
            assert rig.stream.get_connection_stats()["waiting_trades"] > 100
            assert len(reader.of(other).trades) - before > 100  # it continued
            await rig.until(lambda: reader.of(holed).gaps, 60.0, "the skipped gap")
            assert 55.0 <= rig.now - begun <= 62.0
            await rig.until(lambda: reader.of(holed).late, 150.0, "the late trade")
            assert reader.of(holed).gaps == [(reader.of(holed).late[0],) * 2]
        assert reader.breaches == []

    run(lived())


def test_small_buffer_does_not_block_the_repair_of_a_gap() -> None:
    """Only twenty trades may wait unread while hundreds wait behind the gap: writing must continue to fill it."""

    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(33, reader=reader, rates={A: 20.0}, buffer_trades=20, overload_after=5.0) as rig:
            await rig.live()
            await asyncio.sleep(10.0)
            rig.venue.force("rest_503", 25.0)
            (link,) = rig.venue.subscribed()
            link.drops = 3
            await rig.until(lambda: rig.stream.queued > 300, 30.0, "trades that wait")
            assert not rig.stream.paused
            await rig.until(lambda: rig.stream.queued == 0, 60.0, "the filled gap")
        assert reader.breaches == []
        assert (reader.of(A).gaps, reader.of(A).late) == ([], [])

    run(lived())


def test_time_of_a_busy_reader_does_not_age_a_gap() -> None:
    async def lived() -> None:
        clock = clock_here()
        queue = BatchQueue(3, IdOrder(100, 60.0), clock)
        async with aclosing(aiter(queue)) as batches:
            await queue.append(A, trades(1))
            assert told([await anext(batches)]) == [[1]]
            await queue.append(A, trades(3))
            await queue.append(B, trades(1, 2, 3, symbol=B))
            filling = asyncio.create_task(queue.append(A, trades(2)))
            await asyncio.sleep(300.0)  # the reader is busy, and the trade that fills the gap waits for it
            assert not filling.done()
            assert told([await anext(batches), await anext(batches)]) == [[1, 2, 3], [2, 3]]
            await filling

    run(lived())


def test_history_before_the_first_live_trade_comes_first() -> None:
    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(34, reader=reader, rates={A: 20.0, B: 1.0}, backfill_start="earliest", idle=True) as rig:
            await asyncio.sleep(600.0)  # the venue has a history
            rig.venue.force("rest_503", 20.0)  # and live trades arrive before it can be requested
            await rig.stream.start()
            await rig.live()
            await rig.until(lambda: rig.stream.queued > 100, 15.0, "live trades that wait")
            await rig.until(lambda: rig.stream.queued == 0, 60.0, "all of the history")
            await asyncio.sleep(10.0)
            first = {symbol: rig.market.issued[symbol][0].id for symbol in (A, B)}
        assert reader.breaches == []
        for symbol in (A, B):
            assert reader.of(symbol).trades[0] == first[symbol]
            assert (reader.of(symbol).gaps, reader.of(symbol).late) == ([], [])

    run(lived())


def test_history_slower_than_a_minute_is_skipped_and_late() -> None:
    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(35, reader=reader, rates={A: 2.0}, backfill_start="earliest", idle=True) as rig:
            await asyncio.sleep(600.0)
            rig.venue.force("rest_503", 100.0)
            await rig.stream.start()
            await rig.live()
            first_live = rig.market.issued[A][-1].id
            await rig.until(lambda: reader.of(A).gaps, 70.0, "the skipped history")
            assert reader.of(A).gaps[0][0] == 0
            assert reader.of(A).gaps[0][1] >= first_live
            await rig.until(lambda: reader.of(A).late, 120.0, "the late history")
            await rig.until(lambda: not rig.stream.snapshot().repair_pending, 60.0, "all of it")
            await rig.end()
            assert reader.of(A).late == [one.id for one in rig.market.issued[A] if one.id <= reader.of(A).gaps[0][1]]
        assert reader.breaches == []

    run(lived())


def test_ids_that_the_venue_lacks_are_skipped_once_known() -> None:
    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(36, reader=reader, rates={A: 5.0}) as rig:
            await rig.live()
            await asyncio.sleep(10.0)
            rig.market.skip(A, 7)
            begun = rig.now
            await rig.until(lambda: reader.of(A).gaps, 20.0, "the skipped gap")
            assert rig.now - begun < 15.0
            (gap,) = reader.of(A).gaps
            assert set(range(gap[0], gap[1] + 1)) == rig.market.holes[A]
        assert reader.breaches == []

    run(lived())


def test_stopping_yields_trades_that_wait_behind_a_gap() -> None:
    async def lived() -> None:
        reader = CheckingReader()
        async with Rig(37, reader=reader, rates={A: 10.0}) as rig:
            await rig.live()
            await asyncio.sleep(10.0)
            rig.venue.force("rest_503", 100.0)
            (link,) = rig.venue.subscribed()
            link.drops = 2
            await rig.until(lambda: rig.stream.queued > 50, 20.0, "trades that wait")
            await rig.end()
            assert reader.breaches == []
            assert sum(last - first + 1 for first, last in reader.of(A).gaps) == 2
            assert {id for id in rig.venue.handed[A] if id >= reader.of(A).begin_id} == set(reader.of(A).trades)

    run(lived())


def test_stopping_a_stream_with_a_slow_reader_loses_nothing_received() -> None:
    async def lived() -> None:
        reader = CheckingReader(lambda: 2.0)
        async with Rig(38, reader=reader, rates={A: 20.0}, buffer_trades=30) as rig:
            await rig.live()
            await rig.until(lambda: rig.stream.paused, 60.0, "reading paused")
            await rig.end()
            got = reader.of(A).trades
            assert got == list(range(got[0], got[-1] + 1))
            assert set(got) == {id for id in rig.venue.handed[A] if id >= got[0]}

    run(lived())


async def test_iterating_again_resumes_without_loss() -> None:
    queue = BatchQueue(100, IdOrder(100, 60.0))
    await queue.append(A, trades(1))
    await queue.append(A, trades(2, 4))
    async with aclosing(aiter(queue)) as batches:
        assert told([await anext(batches)]) == [[1]]
    await queue.append(A, trades(3))
    queue.close()
    assert told([batch async for batch in queue]) == [[2], [3, 4]]


async def test_cancelled_wait_for_the_next_batch_loses_none() -> None:
    queue = BatchQueue(100, IdOrder(100, 60.0))
    await queue.append(A, trades(1, 3))
    batches = aiter(queue)
    assert told([await anext(batches)]) == [[1]]
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await queue.append(A, trades(2))
    queue.close()
    assert told([batch async for batch in queue]) == [[2, 3]]


async def test_arrival_order_yields_live_trades_before_older_ones() -> None:
    queue = BatchQueue(100)
    await queue.append(A, trades(1, 4))
    await queue.append(A, trades(2, 3))
    queue.close()
    assert told([batch async for batch in queue]) == [[1, 4], [2, 3]]


def test_arrival_order_can_be_configured() -> None:
    async def lived() -> list[int]:
        ids: list[int] = []
        async with Rig(39, rates={A: 5.0}, order="arrival", reader=CheckingReader()) as rig:
            rig.reader.note = lambda batch: ids.extend(one.id for one in batch.trades)  # type: ignore[method-assign, union-attr]
            await rig.live()
            await asyncio.sleep(10.0)
            (link,) = rig.venue.subscribed()
            link.drops = 3
            await rig.until(lambda: rig.stream.snapshot().symbols[A].repaired == 3, 20.0, "repaired")
        return ids

    ids = run(lived())
    assert ids != sorted(ids)
    assert sorted(ids) == list(range(min(ids), max(ids) + 1))
