"""The virtual loop, the venue in memory and its plans: what a test of the stream in virtual time stands on must itself hold."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket

import pytest
from bench.resilience import Outcome, rows, script
from virtual.faults import KINDS, Fault, Faults, seeded_plan
from virtual.limits import Limits
from virtual.loop import RealWorld, Stuck, VirtualClock, VirtualLoop, clock_here, run
from virtual.rig import Rig

from quantai_tui.market.trades import AggTrade


def test_a_day_passes_at_once_and_all_that_tells_time_agrees() -> None:
    async def day() -> list[float]:
        clock, loop = clock_here(), asyncio.get_running_loop()
        begun, unix = clock.monotonic(), clock.time()
        heard: list[float] = []
        loop.call_later(3600.0, lambda: heard.append(loop.time() - begun))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200.0):
                await clock.sleep(86_400.0)
        heard.append(clock.monotonic() - begun)
        clock.ahead += 100.0
        heard.append(clock.time() - unix)
        return heard

    assert run(day()) == [3600.0, 7200.0, 7300.0]


def test_what_would_wait_for_the_real_world_is_refused() -> None:
    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def look_up() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 9)

    async def thread() -> None:
        await asyncio.to_thread(lambda: None)

    async def raw() -> None:
        with socket.socket() as sock:
            asyncio.get_running_loop().add_reader(sock, lambda: None)

    for real in (connect, look_up, thread, raw):
        with pytest.raises(RealWorld):
            run(real())


def test_a_task_that_is_left_over_is_named() -> None:
    async def leave() -> None:
        asyncio.create_task(asyncio.sleep(5.0), name="forgotten")  # noqa: RUF006

    with pytest.raises(AssertionError, match="forgotten"):
        run(leave())


def test_a_task_that_fails_unseen_is_told() -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    async def look_away() -> None:
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(1.0)

    with pytest.raises(AssertionError, match="unseen"):
        run(look_away())


def test_who_waits_for_what_can_never_come_or_goes_round_without_waiting_is_stopped() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="nothing will ever happen"):
        run(wait())
    with pytest.raises(Stuck, match="nobody waits"):
        run(spin())


@pytest.fixture
def limits() -> tuple[Limits, VirtualLoop]:
    loop = VirtualLoop()
    return Limits(VirtualClock(loop)), loop


def test_the_301st_dial_in_five_minutes_is_banned_and_every_later_one_doubles_the_ban(limits: tuple[Limits, VirtualLoop]) -> None:
    book, loop = limits
    for _ in range(300):
        loop.now += 0.5
        assert book.take_dial(loop.now) is None
    loop.now += 0.5
    refusal = book.take_dial(loop.now)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (418, 120)
    book.told()
    for expected in (240, 480, 960):
        loop.now += 1.0
        refusal = book.refuses(loop.now)
        assert refusal is not None
        assert refusal.retry_after_s == expected
    assert book.bans_earned == 4


def test_who_was_not_told_of_a_ban_yet_breaks_no_rule(limits: tuple[Limits, VirtualLoop]) -> None:
    book, loop = limits
    book.impose(429, 5.0)
    left_before = loop.now
    loop.now += 1.0
    assert book.refuses(left_before) is not None
    book.told()
    assert book.refuses(left_before) is not None  # was on its way when the first was told
    assert book.violations == []
    loop.now += 4.5
    assert book.refuses(loop.now) is None
    assert book.banned_until == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_for_a_day_has_every_kind_leaves_the_end_in_peace_and_depends_on_its_seed_alone(seed: int) -> None:
    plan = seeded_plan(seed, 24.0)
    assert plan == seeded_plan(seed, 24.0)
    assert plan != seeded_plan(seed + 1, 24.0)
    assert {fault.kind for fault in plan} == set(KINDS)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert plan[-1].at < 23.5 * 3600
    assert len(plan) > 150


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_fault_alone_is_survived_without_a_loss(kind: str) -> None:
    async def broken() -> None:
        async with Rig(random.Random(kind).randrange(1000)) as rig:
            await rig.live()
            await asyncio.sleep(120.0)  # enough to know each symbol's usual silence
            faults = Faults(rig.venue, rig.clock)
            faults.inject(Fault(0.0, kind, max(KINDS[kind])))
            await asyncio.sleep(max(KINDS[kind]) + 600.0)
            faults.close()
            assert rig.wrong() == []
            assert rig.venue.limits.violations == []
            assert len(rig.venue.dialled) <= 30

    run(broken())


def break_record(rig: Rig, how: str) -> None:
    """What a broken stream would have done to its store."""
    record = rig.sink.records["BTCUSDT"]
    id = sorted(record.trades)[10]
    if how == "lost":
        del record.trades[id]
    elif how == "altered":
        record.trades[id] = AggTrade(id, "1", "1", 0, 0, 0, False, "BTCUSDT")
    elif how == "invented":
        record.trades[7] = record.trades[id]
    else:
        record.lost[how].add(id)


@pytest.mark.parametrize("how", ["lost", "altered", "invented", "venue_hole", "unrecoverable"])
def test_the_rig_sees_what_a_broken_stream_would_do(how: str) -> None:
    async def broken() -> list[str]:
        async with Rig(2) as rig:
            await rig.live()
            await asyncio.sleep(120.0)
            assert rig.wrong() == []
            break_record(rig, how)
            return rig.wrong()

    assert run(broken())


def test_the_sink_sees_duplicates_and_what_is_left_out_without_a_word() -> None:
    async def misuse() -> list[str]:
        rig = Rig(2)
        one = AggTrade(5, "1", "1", 0, 0, 0, False, "BTCUSDT")
        await rig.sink.begin("BTCUSDT", 5, 0)
        await rig.sink.append("BTCUSDT", [one])
        await rig.sink.append("BTCUSDT", [one])
        await rig.sink.append("BTCUSDT", [AggTrade(9, "1", "1", 0, 0, 0, False, "BTCUSDT")])
        await rig.stream.stop()
        return rig.sink.breaches

    twice, *_, left_out = run(misuse())
    assert "twice" in twice
    assert "6-8 were left out" in left_out


def test_the_script_of_the_comparison_is_the_same_every_time_and_has_what_it_promises() -> None:
    day = script(24.0)
    assert day == script(24.0)
    assert {fault.kind for fault in day} >= {"tls_bad_mac", "maintenance", "ban_429", "half_open", "stall", "reset", "close_1001"}
    assert all(after.at > before.at + before.for_s for before, after in itertools.pairwise(day))


def test_the_comparison_tells_a_bound_that_is_missed() -> None:
    ours = Outcome(dials=30, failed=20, tls_errors=0, down_s=50.0, avoidable_s=9.0, lost=1, bans=0, inside_bans=0, trades=1000)
    old = Outcome(
        dials=150, failed=100, tls_errors=0, down_s=900.0, avoidable_s=100.0, lost=100, bans=3, inside_bans=9, trades=1000
    )
    met = {row.what: row.met for row in rows(ours, old, 24.0)}
    assert met["failed attempts"] is False
    assert met["avoidable time down"] is True
    assert met["SSL errors"] is None
    assert met["time down, all"] is None
