"""What a restart, a crash, or a REST side that is late or wrong must not make the ledger forget."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from stream_support import FIRST_ID, SYMBOL, MemorySink, authority, clock, eventually, exchange, reaches, start, trade

from quantai_tui.market.schema import Gap, LedgerPosition
from quantai_tui.market.store import TradeStore
from quantai_tui.stream import Origin, Outcome, RestClient, SymbolLedger
from quantai_tui.stream.feed import INITIAL_BACKFILL
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.names import resolve
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState
HOUR_MS = 3_600_000


def symbol_of(stream, symbol=SYMBOL):
    return stream.snapshot().symbols[symbol]


async def test_a_rest_side_that_lags_for_long_loses_nothing_and_the_wait_is_shown(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, ping_interval=1000.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    exchange.rest_reaches = FIRST_ID + 2
    exchange.make(2500)
    await exchange.trade(1)
    await eventually(lambda: f"REST lags behind the stream at id {FIRST_ID + 3}" in stream.snapshot().cause)
    assert not stream.snapshot().repairing
    for _ in range(8):
        asked = len(exchange.rest_requests)
        await clock.advance(30.0)
        await eventually(lambda asked=asked: len(exchange.rest_requests) > asked and not stream.snapshot().repairing)
    assert symbol_of(stream).missing == 2500
    exchange.rest_reaches = FIRST_ID + 9999
    await clock.advance(30.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 2503))
    assert (symbol_of(stream).venue_holes, symbol_of(stream).unrecoverable) == (0, 0)


async def test_a_hole_at_the_venue_longer_than_three_pages_is_a_hole_from_end_to_end(exchange, start):
    sink = MemorySink()
    exchange.venue_lacks = set(range(FIRST_ID + 500, FIRST_ID + 3500))
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    exchange.make(3997)
    await exchange.trade(1)
    await eventually(lambda: symbol_of(stream).stored == 1001 and symbol_of(stream).missing == 0)
    assert (symbol_of(stream).venue_holes, symbol_of(stream).unrecoverable) == (3000, 0)


@pytest.mark.parametrize("outcome", [Outcome.VENUE_HOLE, Outcome.UNRECOVERABLE])
@pytest.mark.parametrize("origin", list(Origin))
def test_a_trade_whose_id_was_given_up_is_accepted_and_no_longer_counted_as_lost(outcome, origin):
    ledger = SymbolLedger()
    ledger.observe([trade(10), trade(20)])
    ledger.settle(11, 19, outcome)
    seen = ledger.observe([trade(15)], origin)
    assert ([one.id for one in seen.accepted], seen.filled) == ([15], [(15, 15)])
    assert (ledger.venue_holes + ledger.unrecoverable, ledger.stored, ledger.missing, ledger.duplicates) == (8, 3, 0, 0)
    assert ledger.observe([trade(15)]).accepted == []


def test_what_was_lost_before_a_restart_still_counts():
    position = LedgerPosition(begin_id=5, last_id=20, stored=9, venue_holes=4, unrecoverable=3)
    ledger = SymbolLedger(position)
    assert (ledger.venue_holes, ledger.unrecoverable) == (4, 3)


@pytest.mark.parametrize("start_at", ["earliest", FIRST_ID + 10])
async def test_history_asked_for_is_fetched_although_the_program_ended_before_rest_answered(
    exchange, start, clock, tmp_path, start_at
):
    exchange.step_ms = HOUR_MS
    exchange.make(40)
    exchange.rest_answers = [(500, {})] * 50
    store = await TradeStore.open(tmp_path / "store.sqlite")
    stream = await start(store, backfill_start=start_at, backfill_max_age_h=1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    await eventually(lambda: len(exchange.rest_requests) == 1)
    await clock.advance(0.5)  # a request after a failed one waits for a moment
    await eventually(lambda: symbol_of(stream).stored == 2)
    await stream.stop()
    await store.close()
    exchange.rest_answers = []
    store = await TradeStore.open(tmp_path / "store.sqlite")
    stream = await start(store, backfill_start=start_at, backfill_max_age_h=1.0)
    begin = FIRST_ID if start_at == "earliest" else start_at
    await eventually(lambda: symbol_of(stream).stored == FIRST_ID + 42 - begin)
    position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id) == (begin, FIRST_ID + 41)
    assert (position.gaps, symbol_of(stream).unrecoverable) == ((), 0)
    await stream.stop()
    await store.close()


async def test_where_nothing_came_before_the_first_live_trade_no_gap_stays_on_record(exchange, start, clock, tmp_path):
    exchange.rest_answers = [(500, {})]
    store = await TradeStore.open(tmp_path / "store.sqlite")
    stream = await start(store, backfill_start="earliest")
    await reaches(stream, S.LIVE)
    await exchange.trade(2)
    await eventually(lambda: symbol_of(stream).stored == 2)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in (await store.position(SYMBOL)).gaps] == [
        (FIRST_ID - 1, FIRST_ID - 1, INITIAL_BACKFILL)
    ]
    await clock.advance(2.0)
    async with asyncio.timeout(8):
        while (await store.position(SYMBOL)).gaps:
            await asyncio.sleep(0.01)
    assert (symbol_of(stream).venue_holes, symbol_of(stream).unrecoverable) == (0, 0)
    await stream.stop()
    await store.close()


async def test_a_ledger_that_was_begun_and_has_no_trade_yet_takes_its_history_for_history(exchange, start):
    sink = MemorySink()
    exchange.step_ms = HOUR_MS
    exchange.make(100)
    sink.start = LedgerPosition(begin_id=FIRST_ID)
    stream = await start(sink, backfill_start="earliest", backfill_max_age_h=1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 100))
    assert sink.gaps[0] == (FIRST_ID, FIRST_ID + 99, INITIAL_BACKFILL)


async def test_a_beginning_moves_back_only_after_the_gap_that_this_makes_is_on_record(exchange, start, clock):
    class Ordered(MemorySink):
        async def add_gap(self, symbol, first_id, last_id, cause, opened):
            written.append(("gap", first_id))
            await super().add_gap(symbol, first_id, last_id, cause, opened)

        async def begin(self, symbol, first_id, time_us):
            written.append(("begin", first_id))
            await super().begin(symbol, first_id, time_us)

    written: list[tuple[str, int]] = []
    exchange.make(40)
    exchange.rest_answers = [(500, {})]
    sink = Ordered()
    stream = await start(sink, backfill_start="earliest")
    await reaches(stream, S.LIVE)
    await exchange.trade(2)  # one alone would wait for REST, which fails
    await eventually(lambda: sink.appended == 2)
    await eventually(lambda: "repair waits" in stream.snapshot().cause)
    await clock.advance(2.0)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 41))
    live = FIRST_ID + 40
    assert written == [("gap", live - 1), ("begin", live), ("gap", FIRST_ID), ("begin", FIRST_ID)]


async def test_a_gap_before_the_ledger_is_no_question_any_more_when_history_is_not_asked_for(exchange, start):
    sink = MemorySink()
    exchange.make(20)
    marker = Gap(FIRST_ID + 9, FIRST_ID + 9, INITIAL_BACKFILL, 0.0)
    sink.start = LedgerPosition(begin_id=FIRST_ID + 10, last_id=FIRST_ID + 19, stored=10, gaps=(marker,))
    stream = await start(sink, backfill_start="now")
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.appended == 1)
    assert symbol_of(stream).missing == 0
    assert exchange.rest_requests == []


@pytest.mark.parametrize("start_at", ["now", "earliest"])
async def test_a_symbol_that_the_venue_does_not_know_is_named_and_the_others_go_on(exchange, start, clock, start_at):
    sink = MemorySink()
    exchange.unknown_symbols = {"NOSUCH"}
    stream = await start(sink, symbols=(SYMBOL, "NOSUCH"), backfill_start=start_at)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: sink.appended == 3)
    await clock.advance(2.0)
    await eventually(lambda: "NOSUCH" in stream.snapshot().cause)
    exchange.make(5)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 8))
    snapshot = stream.snapshot()
    assert snapshot.state is S.LIVE
    assert "NOSUCH is unknown to the venue" in snapshot.cause
    assert "repair waits" not in snapshot.cause
    assert snapshot.last_error.kind == "bad_symbol"
    assert "NOSUCH" in snapshot.last_error.advice
    assert "SYMBOLS" in snapshot.last_error.advice


async def test_a_ban_that_answers_a_request_for_bars_holds_back_everything(exchange, start, clock):
    stream = await start(MemorySink())
    await reaches(stream, S.LIVE)
    exchange.rest_answers = [(418, {"Retry-After": "120"})]
    first, second = await asyncio.gather(
        stream.warm_klines(SYMBOL, "1m", 5), asyncio.wait_for(stream.warm_klines(SYMBOL, "1h", 5), 0.3), return_exceptions=True
    )
    assert (getattr(first, "status", None), type(second)) == (418, TimeoutError)
    assert len(exchange.rest_requests) == 1
    assert "will dial in 120 s" in stream.reconnect_now()
    await reaches(stream, S.BACKOFF)
    assert exchange.dials == 1
    await clock.advance(120.0)
    await reaches(stream, S.LIVE)
    assert len(await stream.warm_klines(SYMBOL, "1m", 5)) == 5


def test_a_name_lookup_that_hangs_does_not_hold_up_the_end_of_the_program(dead_resolver):
    async def ask_both() -> None:
        rest = RestClient("https://stalled.invalid", lambda: None, Gate())
        for request in (lambda: resolve("stalled.invalid", 443), rest.server_time, rest.server_time):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await request()
        await rest.close()

    began = time.monotonic()
    asyncio.run(ask_both())
    assert time.monotonic() - began < 10.0, "not as long as the resolver is dead"
    assert dead_resolver.asked == 1, "one lookup of a name at a time, however often it is asked for"


@pytest.fixture
def dead_resolver(monkeypatch):
    """A resolver that is dead until the test is over."""
    over = threading.Event()
    state = SimpleNamespace(asked=0)

    def hang(*_: object) -> None:
        state.asked += 1
        over.wait(60.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield state
    over.set()
