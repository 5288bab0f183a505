"""What was missed is fetched over REST, in order; what cannot be had is named for what it is."""

from __future__ import annotations

import asyncio

import pytest
from stream_support import FIRST_ID, START_MS, SYMBOL, MemorySink, authority, clock, eventually, exchange, reaches, start

from quantai_tui.market.schema import Gap, LedgerPosition
from quantai_tui.market.store import TradeStore
from quantai_tui.stream.feed import INITIAL_BACKFILL
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState
HOUR_MS = 3_600_000


async def live_with_a_gap(exchange, start, sink, missing, **changes):
    """A live stream that has 3 trades, missed so many, and then saw one more."""
    stream = await start(sink, **changes)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    exchange.make(missing)
    await exchange.trade(1)
    await eventually(lambda: sink.gaps)
    return stream


def symbol_of(stream):
    return stream.snapshot().symbols[SYMBOL]


async def test_ids_skipped_on_a_live_link_are_fetched_page_by_page_in_order(exchange, start):
    sink = MemorySink()
    await live_with_a_gap(exchange, start, sink, 2500)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 2503))
    pages = [(int(r["fromId"]), int(r["limit"])) for r in exchange.rest_requests]
    assert pages == [(FIRST_ID + 3, 1000), (FIRST_ID + 1003, 1000), (FIRST_ID + 2003, 500)]
    assert sink.gaps == [(FIRST_ID + 3, FIRST_ID + 2502, "ids skipped on a live link")]


async def test_live_trades_do_not_wait_behind_a_repair(exchange, start, clock):
    sink = MemorySink()
    exchange.rest_answers = [(503, {})] * 3
    stream = await live_with_a_gap(exchange, start, sink, 10)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    await exchange.trade(5)
    await eventually(lambda: sink.appended == 9)
    assert symbol_of(stream).complete_through_id == FIRST_ID + 2
    for delay in (2.0, 4.0, 8.0):
        asked = len(exchange.rest_requests)
        await clock.advance(delay)
        await eventually(lambda asked=asked: len(exchange.rest_requests) > asked and not stream.snapshot().repairing)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 18))
    await eventually(lambda: "repair waits" not in stream.snapshot().cause)


async def test_ids_that_the_venue_lacks_too_are_named_a_hole_at_the_venue(exchange, start):
    sink = MemorySink()
    exchange.venue_lacks = {FIRST_ID + 4, FIRST_ID + 5, FIRST_ID + 12}
    stream = await live_with_a_gap(exchange, start, sink, 10)
    await eventually(lambda: symbol_of(stream).missing == 0)
    symbol = symbol_of(stream)
    assert (symbol.repaired, symbol.venue_holes, symbol.unrecoverable) == (7, 3, 0)
    assert symbol.complete_through_id == FIRST_ID + 13
    assert (FIRST_ID + 4, FIRST_ID + 5, "venue_hole") in sink.closed
    assert (FIRST_ID + 12, FIRST_ID + 12, "venue_hole") in sink.closed


async def test_history_that_the_venue_has_dropped_is_unrecoverable_and_the_rest_is_fetched(exchange, start):
    sink = MemorySink()
    exchange.rest_keeps_from = FIRST_ID + 8
    stream = await live_with_a_gap(exchange, start, sink, 10)
    await eventually(lambda: symbol_of(stream).missing == 0)
    symbol = symbol_of(stream)
    assert (symbol.repaired, symbol.venue_holes, symbol.unrecoverable) == (5, 0, 5)
    assert (FIRST_ID + 3, FIRST_ID + 7, "unrecoverable") in sink.closed
    assert "does not keep them" in symbol.gap_note


async def test_a_rest_side_that_lags_behind_the_stream_is_given_time(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    late = exchange.make(3)
    newest = exchange.make(1)
    exchange.trades = exchange.trades[:1]
    await exchange.send(newest)
    await eventually(lambda: symbol_of(stream).missing == 3)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    await clock.advance(2.0)
    await eventually(lambda: len(exchange.rest_requests) == 2 and not stream.snapshot().repairing, "asked again, in vain")
    exchange.trades += late + newest
    await clock.advance(4.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 4))
    assert symbol_of(stream).venue_holes == 0


async def test_an_outage_longer_than_the_age_limit_is_repaired_only_that_far_back(exchange, start):
    sink = MemorySink()
    exchange.step_ms = HOUR_MS // 10
    stream = await live_with_a_gap(exchange, start, sink, 300, backfill_max_age_h=24.0)
    await eventually(lambda: symbol_of(stream).missing == 0)
    symbol = symbol_of(stream)
    assert (symbol.unrecoverable, symbol.repaired) == (60, 240)
    assert "by choice" in symbol.gap_note
    newest = FIRST_ID + 303
    assert min(id for id in sink.trades if id > FIRST_ID + 2) == newest - 240
    assert len(exchange.rest_requests) < 15


async def test_a_ban_pronounced_over_rest_holds_back_the_dials_too(exchange, start, clock):
    sink = MemorySink()
    exchange.rest_answers = [(418, {"Retry-After": "120"})]
    stream = await live_with_a_gap(exchange, start, sink, 2)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    assert "will dial in 120 s" in stream.reconnect_now()
    await reaches(stream, S.BACKOFF)
    assert exchange.dials == 1
    await clock.advance(120.0)
    await reaches(stream, S.LIVE)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 5))


async def test_within_the_time_that_a_429_asks_for_not_one_request_leaves(exchange, start, clock):
    sink = MemorySink()
    exchange.rest_answers = [(429, {"Retry-After": "5"})]
    stream = await live_with_a_gap(exchange, start, sink, 2)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    await clock.advance(4.9)
    await asyncio.sleep(0.05)
    assert len(exchange.rest_requests) == 1
    await clock.advance(1.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 5))


async def test_requests_pause_when_the_weight_is_nearly_used_up(exchange, start, clock):
    sink = MemorySink()
    exchange.rest_headers = {"X-MBX-USED-WEIGHT-1M": "4900"}
    stream = await live_with_a_gap(exchange, start, sink, 1500)
    await eventually(lambda: sink.appended == 4 + 1000)
    await eventually(lambda: "the weight of this minute is used up" in stream.snapshot().cause)
    assert stream.snapshot().repair_pending == 500
    await asyncio.sleep(0.1)
    assert len(exchange.rest_requests) == 1
    exchange.rest_headers = {}
    await clock.advance(60.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 1503))


async def test_after_a_restart_the_ledger_goes_on_where_the_store_stands(exchange, start, tmp_path):
    path = tmp_path / "store.sqlite"
    store = await TradeStore.open(path)
    stream = await start(store)
    await reaches(stream, S.LIVE)
    await exchange.trade(5)
    await eventually(lambda: symbol_of(stream).stored == 5)
    await stream.stop()
    await store.close()
    exchange.make(8)
    store = await TradeStore.open(path)
    stream = await start(store)
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    await eventually(lambda: symbol_of(stream).repaired == 8)
    await eventually(lambda: symbol_of(stream).stored == 15, "the two may come in two batches")
    assert "the program was not running" in symbol_of(stream).gap_note
    position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id, position.stored) == (FIRST_ID, FIRST_ID + 14, 15)
    await stream.stop()
    await store.close()


async def test_gaps_that_the_store_has_on_record_are_repaired_as_soon_as_there_is_a_link(exchange, start):
    sink = MemorySink()
    exchange.make(20)
    sink.start = LedgerPosition(begin_id=FIRST_ID, last_id=FIRST_ID + 19, stored=15, missing=((FIRST_ID + 5, FIRST_ID + 9),))
    stream = await start(sink)
    await eventually(lambda: sink.holds(FIRST_ID + 5, FIRST_ID + 9))
    assert sink.closed == [(FIRST_ID + 5, FIRST_ID + 9, "repaired")]
    assert symbol_of(stream).complete_through_id == FIRST_ID + 19


async def test_a_quiet_symbol_is_asked_what_it_traded_while_the_link_was_down(exchange, start, clock):
    sink = MemorySink()
    exchange.make(2500)
    sink.start = LedgerPosition(begin_id=FIRST_ID, last_id=FIRST_ID + 9, stored=10)
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await clock.advance(2.0)
    await eventually(lambda: sink.holds(FIRST_ID + 10, FIRST_ID + 2499))
    await eventually(lambda: symbol_of(stream).complete_through_id == FIRST_ID + 2499)


@pytest.mark.parametrize("start_at", ["earliest", FIRST_ID + 500])
async def test_history_from_the_chosen_beginning_is_fetched_beside_the_live_stream(exchange, start, tmp_path, start_at):
    store = await TradeStore.open(tmp_path / "store.sqlite")
    exchange.step_ms = HOUR_MS
    exchange.make(2300)
    stream = await start(store, backfill_start=start_at, backfill_max_age_h=1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    begin = FIRST_ID if start_at == "earliest" else start_at
    newest = FIRST_ID + 2302
    await eventually(lambda: symbol_of(stream).stored == newest - begin + 1)
    await eventually(lambda: symbol_of(stream).complete_through_id == newest)
    position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id) == (begin, newest)
    assert position.stored == newest - begin + 1
    assert symbol_of(stream).unrecoverable == 0, "the age limit is for outages, not for history that was asked for"
    await stream.stop()
    await store.close()


async def test_history_is_fetched_even_when_nothing_trades_any_more(exchange, start):
    sink = MemorySink()
    exchange.make(2300)
    await start(sink, backfill_start="earliest")
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 2299))


async def test_a_beginning_moves_back_when_live_trades_came_before_the_answer(exchange, start, clock):
    sink = MemorySink()
    exchange.make(40)
    exchange.rest_answers = [(500, {})]
    stream = await start(sink, backfill_start="earliest")
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    await eventually(lambda: sink.begins == [FIRST_ID + 40])
    await eventually(lambda: len(exchange.rest_requests) == 1 and clock._sleepers and not stream.snapshot().repairing)
    await clock.advance(2.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 41))
    assert sink.begins == [FIRST_ID + 40, FIRST_ID]
    assert sink.gaps == [(FIRST_ID + 39, FIRST_ID + 39, INITIAL_BACKFILL), (FIRST_ID, FIRST_ID + 39, INITIAL_BACKFILL)]


async def test_history_half_fetched_at_a_restart_is_still_exempt_from_the_age_limit(exchange, start):
    sink = MemorySink()
    exchange.step_ms = HOUR_MS
    exchange.make(100)
    sink.start = LedgerPosition(
        begin_id=FIRST_ID,
        last_id=FIRST_ID + 99,
        stored=10,
        missing=((FIRST_ID + 10, FIRST_ID + 98),),
        gaps=(Gap(FIRST_ID + 10, FIRST_ID + 98, INITIAL_BACKFILL, 0.0),),
    )
    stream = await start(sink, backfill_start="earliest", backfill_max_age_h=1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID + 10, FIRST_ID + 98) or symbol_of(stream).missing == 0)
    assert symbol_of(stream).unrecoverable == 0


async def test_bars_for_the_warm_start_come_in_pages_and_without_the_open_one(exchange, start):
    stream = await start(MemorySink())
    exchange.now_ms = START_MS // 60_000 * 60_000 + 90_000
    bars = await stream.warm_klines(SYMBOL, "1m", 2500)
    assert len(bars) == 2500
    opens = [bar.open_time_us for bar in bars]
    assert opens == list(range(opens[0], opens[0] + 2500 * 60_000_000, 60_000_000))
    assert opens[-1] + 60_000_000 <= exchange.now_ms * 1000 < opens[-1] + 120_000_000
    assert await stream.warm_klines(SYMBOL, "1m", 0) == []
    with pytest.raises(ValueError, match="no such interval"):
        await stream.warm_klines(SYMBOL, "7m", 1)
