"""Hours and days of the stream in virtual time, on a venue in memory that is strict and breaks by plan."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Mapping

import pytest
from bench.report import Options
from bench.resilience import run as compare
from virtual.faults import KINDS, Faults, seeded_plan
from virtual.loop import run
from virtual.market import RATES
from virtual.rig import Rig

from quantai_tui.telemetry import StreamState

HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> None:
    """A day of failures has thousands of traces in its log, and pytest would keep them all."""
    caplog.set_level(logging.CRITICAL, logger="quantai_tui.stream")


@pytest.mark.parametrize("lives_s", [0.0, 0.3, 3.0, 9.0])
def test_a_venue_that_accepts_and_drops_is_dialled_at_most_20_times_in_5_minutes(lives_s: float) -> None:
    async def flapping() -> None:
        async with Rig(3) as rig:
            rig.venue.flaps_after_s = (lives_s, lives_s + 0.2)
            rig.venue.force("flapping", 300.0)
            await asyncio.sleep(300.0)
            assert 3 <= len(rig.venue.dialled) <= 20
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 400.0, "live once it holds")
            await asyncio.sleep(120.0)
            assert rig.wrong() == []

    run(flapping())


@pytest.mark.parametrize("asked_to_hurry", [False, True])
def test_a_429_on_the_handshake_keeps_every_dial_and_request_away_for_as_long_as_it_says(asked_to_hurry: bool) -> None:
    async def refused() -> None:
        async with Rig(4) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            for link in rig.venue.subscribed():
                link.drops = 5  # so that REST is wanted as well
            rig.venue.limits.refuse_next = (429, 5.0)
            rig.venue.cut_all()
            await rig.until(lambda: rig.venue.limits.told_at is not None, 10.0, "the refusal")
            await kept_away(rig, 5.0, asked_to_hurry)
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 10.0, "live again")
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(refused())


@pytest.mark.parametrize("asked_to_hurry", [False, True])
def test_a_429_on_rest_keeps_every_dial_and_request_away_for_as_long_as_it_says(asked_to_hurry: bool) -> None:
    async def refused() -> None:
        async with Rig(5) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            rig.venue.limits.refuse_next = (429, 5.0)
            for link in rig.venue.subscribed():
                link.drops = 5
            await rig.until(lambda: rig.venue.limits.told_at is not None, 60.0, "the refusal")
            rig.venue.cut_all()  # and now a dial is wanted as well
            await kept_away(rig, 5.0, asked_to_hurry)
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 10.0, "live again")
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(refused())


async def kept_away(rig: Rig, seconds: float, asked_to_hurry: bool) -> None:
    """Nothing leaves for so long after the refusal was told."""
    told = rig.venue.limits.told_at
    assert told is not None
    until = told + seconds
    while rig.now < until:
        if asked_to_hurry:
            rig.stream.reconnect_now()
        await asyncio.sleep(0.5)
    left = [*rig.venue.dialled, *(at for at, _ in rig.venue.requests)]
    assert [at - told for at in left if told < at < until] == []
    assert rig.venue.limits.violations == []


async def broken_hours(seed: int, hours: float, every_s: float) -> None:
    """Every kind of fault, one every few minutes, and what must be true at the end."""
    plan = seeded_plan(seed, hours, every_s=every_s)
    async with Rig(seed) as rig:
        await rig.live()
        faults = Faults(rig.venue, rig.clock, seed)
        await faults.run(plan)
        await rig.rest_of(hours * HOUR_S)
        faults.close()
        assert {fault.kind for fault in faults.done} == set(KINDS)
        assert faults.missed == []
        assert rig.wrong(60.0) == []
        assert any(rig.venue.lost.values())
        assert any(rig.market.holes.values())
        snapshot = rig.stream.snapshot()
        assert snapshot.state is StreamState.LIVE
        assert snapshot.repair_pending == 0
        for symbol, state in snapshot.symbols.items():
            record = rig.sink.records[symbol]
            assert (state.missing, state.stored) == (0, len(record.trades))
            assert state.venue_holes == len(record.lost["venue_hole"])
            assert state.unrecoverable == len(record.lost["unrecoverable"])
        assert rig.venue.limits.violations == []
        assert rig.venue.limits.bans_earned == 0
        assert rig.venue.limits.most_dials() <= 40  # of 300
        assert len(rig.venue.dialled) < 4 * len(plan)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_hours_with_every_kind_of_fault_lose_nothing_that_the_venue_still_has(seed: int) -> None:
    run(broken_hours(seed, hours=3.6, every_s=90.0))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(11, 17))
def test_a_day_with_a_fault_every_few_minutes_loses_nothing_that_the_venue_still_has(seed: int) -> None:
    run(broken_hours(seed, hours=24.0, every_s=240.0))


def test_a_machine_that_wakes_in_a_backoff_dials_at_once_and_has_forgotten_the_backoff() -> None:
    async def suspended() -> None:
        async with Rig(6, max_retries=0) as rig:
            await rig.live()
            rig.venue.force("refused", 500.0)
            rig.venue.cut_all()
            await rig.until(lambda: rig.stream.snapshot().backoff_total_s > 50.0, 300.0, "a long backoff")
            await rig.until(lambda: rig.stream.snapshot().backoff_remaining_s > 40.0, 120.0, "the beginning of one")
            assert rig.stream.snapshot().attempt >= 5
            dials = len(rig.venue.dialled)
            rig.clock.ahead += HOUR_S
            await asyncio.sleep(6.0)
            snapshot = rig.stream.snapshot()
            assert len(rig.venue.dialled) > dials
            assert snapshot.suspends == 1
            assert snapshot.attempt <= 3  # counts from one again
            assert snapshot.backoff_total_s < 10.0

    run(suspended())


def test_a_machine_that_wakes_with_a_dead_link_finds_out_at_once() -> None:
    async def suspended() -> None:
        async with Rig(7, ping_interval=600.0, pong_timeout=5.0) as rig:
            await rig.live()
            await asyncio.sleep(120.0)
            for link in rig.venue.links:
                link.black_hole = True
            rig.clock.ahead += HOUR_S
            begun, dials = rig.now, len(rig.venue.dialled)
            await rig.until(lambda: len(rig.venue.dialled) > dials, 20.0, "a dial, though the next ping is minutes away")
            await rig.until(lambda: rig.venue.subscribed() and rig.stream.state is StreamState.LIVE, 20.0, "live again")
            assert rig.now - begun < 15.0
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(suspended())


def test_commands_in_a_backoff_leave_no_task_behind() -> None:
    async def commanded() -> None:
        async with Rig(14, max_retries=0) as rig:
            await rig.live()
            rig.venue.force("refused", 900.0)
            rig.venue.cut_all()
            await rig.until(lambda: rig.stream.state is StreamState.BACKOFF, 30.0, "a backoff")
            await asyncio.sleep(0.5)
            tasks = len(asyncio.all_tasks())
            for _ in range(20):
                rig.stream.reconnect_now()
                await asyncio.sleep(0.5)  # fails at once, and waits a second
                assert rig.stream.state is StreamState.BACKOFF
            assert len(asyncio.all_tasks()) <= tasks
            rig.stream.disconnect()
            await asyncio.sleep(1.0)
            assert rig.stream.state is StreamState.IDLE
            assert len(asyncio.all_tasks()) <= tasks

    run(commanded())


@pytest.mark.parametrize("begins_after_s", [0.0, 47.0, 1_811.0])
def test_an_outage_of_an_hour_is_repaired_in_full_in_order_and_within_the_weight_that_others_leave(begins_after_s: float) -> None:
    async def outage() -> None:
        # The others use up so much of the 6,000 a minute that our own share lasts for a handful of pages.
        async with Rig(8, rates={"BTCUSDT": 4.0, "ETHUSDT": 2.0}, others_weight=4770) as rig:
            await rig.live()
            await asyncio.sleep(60.0 + begins_after_s)
            rig.venue.force("http_503", HOUR_S)
            rig.venue.force("rest_503", HOUR_S)
            rig.venue.cut_all()
            await asyncio.sleep(HOUR_S)
            fetched = {symbol: set(record.trades) for symbol, record in rig.sink.records.items()}
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 400.0, "live again")
            await asyncio.sleep(30.0)
            await rig.until(lambda: not rig.stream.snapshot().repair_pending, 1200.0, "everything fetched")
            assert rig.wrong() == []
            assert all(len(rig.sink.records[symbol].trades) - len(had) > 6_000 for symbol, had in fetched.items())
            assert rig.sink.backwards == 0
            assert max(rig.venue.limits.weights.values()) <= 4_808  # four fifths, and the page that shows it
            assert rig.venue.limits.violations == []

    run(outage())


async def rotating(lifetimes: float, lifetime_s: float, rotate_after_s: float, rates: Mapping[str, float] = RATES) -> None:
    """Connections are replaced before the venue ends them, for so many lifetimes."""
    async with Rig(9, rates=rates, lifetime_s=lifetime_s, rotate_after=rotate_after_s) as rig:
        await rig.live()
        await asyncio.sleep(60.0)
        asked, dials = len(rig.venue.requests), len(rig.venue.dialled)
        rig.venue.unseen_s = 0.0
        await rig.rest_of(lifetimes * lifetime_s)
        snapshot = rig.stream.snapshot()
        # Each takes as long as the rarest symbol needs for a trade on both links.
        assert int(lifetimes) <= snapshot.rotations <= int(lifetimes * lifetime_s / rotate_after_s)
        assert len(rig.venue.dialled) - dials == snapshot.rotations
        assert rig.venue.requests[asked:] == []
        assert rig.venue.unseen_s == 0.0
        assert rig.wrong() == []
        assert not any(record.causes for record in rig.sink.records.values())
        assert sum(state.duplicates for state in snapshot.symbols.values()) == 0
        assert snapshot.error_counts == {}


def test_connections_are_replaced_before_their_time_is_up_without_a_request_a_gap_or_a_duplicate() -> None:
    # Often enough that trades are on their way while one takes over from the other.
    run(rotating(lifetimes=9.0, lifetime_s=200.0, rotate_after_s=160.0, rates={"BTCUSDT": 30.0, "ETHUSDT": 1.0}))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_three_days_of_24_hour_connections_pass_without_a_request_a_gap_or_a_duplicate() -> None:
    run(rotating(lifetimes=3.0, lifetime_s=24 * HOUR_S, rotate_after_s=23.5 * HOUR_S))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_day_of_trouble_costs_a_tenth_at_most_of_what_it_costs_a_client_that_dials_every_five_seconds() -> None:
    assert {row.what: row.met for row in compare(Options()) if row.bound is not None and not row.met} == {}


def test_a_program_that_is_started_again_goes_on_where_its_store_ends() -> None:
    async def restarted() -> None:
        async with Rig(10) as rig:
            await rig.live()
            await asyncio.sleep(300.0)
            for link in rig.venue.subscribed():
                link.drops = 4
            rig.venue.force("rest_refused", 100.0)  # it ends with a gap still open
            await asyncio.sleep(20.0)
            await rig.restart(after_s=900.0)
            await rig.live()
            await asyncio.sleep(120.0)
            assert rig.wrong() == []
            assert rig.stream.snapshot().repair_pending == 0

    run(restarted())


def test_a_store_that_stands_still_slows_the_reading_down_and_costs_nothing() -> None:
    async def held() -> None:
        async with Rig(12, rates={"BTCUSDT": 20.0, "ETHUSDT": 10.0}, buffer_trades=100) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            rig.sink.hold()
            for _ in range(120):
                await asyncio.sleep(1.0)
                assert rig.stream.queued <= 400
            rig.sink.release()
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 120.0, "live again")
            await asyncio.sleep(120.0)
            assert rig.wrong() == []
            assert rig.venue.limits.violations == []

    run(held())


def test_a_stall_that_no_second_connection_can_explain_stays_on_the_screen() -> None:
    async def stalled() -> None:
        async with Rig(16, rates={"BTCUSDT": 5.0}) as rig:
            await rig.live()
            await asyncio.sleep(120.0)
            rig.venue.force("http_503", 60.0)
            for link in rig.venue.subscribed():
                link.muted = None
            await rig.until(lambda: rig.stream.state is StreamState.STALLED, 30.0, "stalled")
            for _ in range(40):
                await asyncio.sleep(1.0)
                assert rig.stream.state is StreamState.STALLED
            await asyncio.sleep(60.0)
            assert rig.stream.state is StreamState.LIVE
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(stalled())


def test_a_link_that_is_cancelled_from_within_is_a_failure_like_any_other() -> None:
    async def cancelled() -> None:
        async with Rig(17) as rig:
            await rig.live()
            (link,) = rig.venue.subscribed()
            link.end(asyncio.CancelledError())
            await rig.until(lambda: len(rig.venue.dialled) == 2, 10.0, "dialled again")
            await rig.until(lambda: rig.stream.state is StreamState.LIVE, 10.0, "live")

    run(cancelled())


def test_whoever_waits_for_a_state_and_leaves_is_forgotten() -> None:
    async def waited() -> None:
        async with Rig(24) as rig:
            await rig.live()
            refs = []
            for _ in range(3):
                waiting = asyncio.create_task(rig.stream.machine.wait_for(StreamState.FAILED))
                await asyncio.sleep(0.1)
                refs.append(weakref.ref(waiting._fut_waiter))
                waiting.cancel()
                await asyncio.wait([waiting])
                del waiting
            gc.collect()
            assert [ref() for ref in refs] == [None, None, None]

    run(waited())


def test_a_probe_for_one_symbol_does_not_excuse_another_that_it_has_not_listened_to_for_long_enough() -> None:
    async def probed() -> None:
        async with Rig(5, rates={"BTCUSDT": 5.0, "XRPETH": 0.1}) as rig:
            await rig.live()
            await asyncio.sleep(HOUR_S)
            (first,) = rig.venue.subscribed()
            limit = rig.stream.snapshot().symbols["XRPETH"].silence_limit_s
            assert limit is not None
            began = rig.now
            first.muted = {"XRPETH"}  # a true stall, and just before it is suspected another symbol is quiet on both links
            await asyncio.sleep(limit - 20.0)
            first.muted = {"XRPETH", "BTCUSDT"}
            await rig.until(lambda: len(rig.venue.links) == 2, 10.0, "a second connection")
            for link in rig.venue.links - {first}:
                link.muted = {"BTCUSDT"}
            await rig.until(lambda: len(rig.venue.links) == 1, 30.0, "an answer")
            assert rig.venue.subscribed() == [first]
            first.muted = {"XRPETH"}
            await rig.until(lambda: first not in rig.venue.links, limit + 60.0 - (rig.now - began), "the stall found out")

    run(probed())
