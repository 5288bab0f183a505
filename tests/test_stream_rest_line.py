"""REST on a line that fails and recovers, and gaps of several symbols or many pages, without needless waits."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from pathlib import Path

import pytest
from faults_support import SYMBOL, S, rig
from stream_support import ManualClock, MemorySink, authority, eventually, settle_loop, trade
from transport_support import server_tls, tcp_server
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.market.trades import AggTrade, Bar
from quantai_tui.stream import LinkFault, RestClient, StreamConfig, rest_connections
from quantai_tui.stream.feed import Feeds
from quantai_tui.stream.gate import Gate
from quantai_tui.stream.repair import Repairer
from quantai_tui.stream.rest_pace import MOST_AT_ONCE, Pace

__all__ = ["authority"]  # a fixture

RTT_S = 0.16  # of a request to the virtual venue, including its connection


async def test_requests_on_a_dead_line_are_resent_when_it_is_back(tmp_path: Path) -> None:
    async with rig(tmp_path, ping_interval=0.5, pong_timeout=1.0) as rigged:
        assert len(await rigged.stream.warm_klines(SYMBOL, "1m", 3)) == 3  # over a connection that stays in the pool
        await rigged.inject("black-hole", port="both", for_s=3600.0)
        asked = asyncio.create_task(rigged.stream.warm_klines(SYMBOL, "1m", 5))
        await rigged.until(lambda: S.BACKOFF in rigged.path, "the stream detects the dead link")
        assert not asked.done()
        await rigged.mend()
        began = asyncio.get_running_loop().time()
        await rigged.recovered()
        assert len(await asked) == 5
        assert asyncio.get_running_loop().time() - began < 8.0, "not after the timeout of the lost request"


async def test_headers_that_never_end_are_not_waited_for(authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X-More: 1\r\n")
            await asyncio.sleep(0.05)

    monkeypatch.setattr(rest_connections, "_HEAD_TIMEOUT_S", 1.5)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with tcp_server(dribble, server_tls(authority)) as port:
        rest = RestClient(f"https://localhost:{port}", lambda: context, Gate())
        async with asyncio.timeout(8):
            with pytest.raises(LinkFault, match=r"no answer to /api/v3/time within 1\.5 s"):
                await rest.server_time()
        await rest.close()


def test_the_first_repair_request_leaves_within_1_s_of_a_working_line() -> None:
    async def black_hole() -> None:
        async with Rig(31, rates={"BTCUSDT": 60.0, "ETHUSDT": 30.0}, ping_interval=20.0, pong_timeout=5.0) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            (link,) = rig.venue.subscribed()
            link.drops = 5
            await asyncio.sleep(0.2)  # a gap is known, and its request is sent into the dead line
            dead_s = 40.0
            rig.venue.force("rest_hang", dead_s)
            rig.venue.force("connect_stall", dead_s)
            link.drops = 5
            await asyncio.sleep(0.3)
            link.black_hole = True
            await rig.until(lambda: rig.stream.state is not S.LIVE, 30.0, "found dead")
            await rig.until(lambda: rig.stream.state is S.LIVE, 60.0, "live again")
            live_at = rig.now - rig.stream.snapshot().uptime_s
            assert rig.stream.snapshot().repair_pending > 0 or rig.venue.requests[-1][0] > live_at
            await rig.until(lambda: not rig.stream.snapshot().repair_pending, 5.0, "up to 5,000 trades within 5 s")
            first = next(at for at, _ in rig.venue.requests if at >= live_at)
            assert first - live_at < 1.0
            await asyncio.sleep(40.0)
            assert rig.wrong() == []

    run(black_hole())


def test_pages_of_a_long_gap_are_fetched_together_and_stored_in_order() -> None:
    async def long_gap() -> None:
        async with Rig(32, rates={"BTCUSDT": 5.0}) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            (link,) = rig.venue.subscribed()
            link.drops = 30_000
            for _ in range(30_000):
                rig.market.issue("BTCUSDT")
            began = rig.now
            await rig.until(lambda: rig.stream.snapshot().repair_pending, 10.0, "a gap")
            await rig.until(lambda: not rig.stream.snapshot().repair_pending, 60.0, "fetched")
            assert rig.now - began < 30 * RTT_S / 2, "sequential pages take at least twice as long"
            assert rig.sink.backwards == 0
            await asyncio.sleep(40.0)
            assert rig.wrong() == []

    run(long_gap())


@pytest.mark.parametrize(("initial_s", "least"), [(1.0, 3), (0.1, 6)])
def test_failed_request_is_retried_by_stream_delays_up_to_5_s(initial_s: float, least: int) -> None:
    async def outage(seconds: float) -> None:
        async with Rig(33, rates={"BTCUSDT": 20.0}, initial_delay=initial_s, jitter=0.0) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            rig.venue.force("rest_503", seconds)
            (link,) = rig.venue.subscribed()
            link.drops = 5
            asked = len(rig.venue.requests)
            await asyncio.sleep(seconds)
            times = [at for at, _ in rig.venue.requests[asked:]]
            assert len(times) >= least, "the first delays follow the settings"
            assert max(after - before for before, after in itertools.pairwise(times)) < 5.0 + 2 * RTT_S
            await rig.until(lambda: not rig.stream.snapshot().repair_pending, 5.5, "repaired 5 s after the outage")

    run(outage(8.0))
    run(outage(300.0))


class OneSided:
    """A REST history that never answers for one symbol."""

    used_weight: int | None = None
    weight_wait_s = 0.0

    def __init__(self, never: str) -> None:
        self.never = never

    def renew(self) -> None:
        """No connections."""

    async def agg_trades(self, symbol: str, from_id: int | None, limit: int = 1000) -> list[AggTrade]:
        if symbol == self.never:
            await asyncio.Event().wait()
        return [trade(id, symbol) for id in range(from_id or 0, (from_id or 0) + limit)]

    async def recent_klines(self, symbol: str, interval: str, count: int) -> list[Bar]:
        return []

    async def close(self) -> None:
        """Nothing is open."""


async def test_the_gap_of_one_symbol_does_not_wait_for_anothers() -> None:
    clock, sink = ManualClock(), MemorySink()
    feeds = Feeds(sink, clock)
    await feeds.load(["AAA", "BBB"], seed=False)
    config = StreamConfig(symbols=("AAA", "BBB"), jitter=0.0)
    repairer = Repairer(feeds, OneSided("AAA"), config, rng=random.Random(1), clock=clock)
    work = asyncio.create_task(repairer.run())
    for symbol in ("AAA", "BBB"):
        feed = feeds.get(symbol)
        assert feed is not None
        await feeds.take_live(feed, [trade(1, symbol), trade(10, symbol)])
    repairer.wake()
    await eventually(lambda: [feed.ledger.missing for feed in feeds] == [8, 0], "only the symbol without an answer")
    work.cancel()
    await asyncio.wait([work])


async def in_turn(pace: Pace, left: list[int], number: int, over: asyncio.Event, weight: int = 4) -> None:
    async with pace.turn(weight) as turn:
        left.append(number)
        await over.wait()
        turn.answered()


async def test_requests_are_sent_singly_until_a_good_answer() -> None:
    clock = ManualClock()
    pace, left, over = Pace(Gate(clock), clock), [], asyncio.Event()
    asking = [asyncio.create_task(in_turn(pace, left, n, over)) for n in range(40)]
    await settle_loop()
    assert left == [0]
    over.set()
    await asyncio.gather(*asking)
    assert left == list(range(40)), "in the order of the calls"
    over.clear()
    left.clear()
    asking = [asyncio.create_task(in_turn(pace, left, n, over)) for n in range(40)]
    await settle_loop()
    assert len(left) == MOST_AT_ONCE
    over.set()
    await asyncio.gather(*asking)
    pace.failed()
    over.clear()
    left.clear()
    asking = [asyncio.create_task(in_turn(pace, left, n, over)) for n in range(3)]
    await settle_loop()
    assert left == []
    await clock.advance(0.3)
    assert left == [0]
    await clock.advance(1.0)
    assert left == [0, 1], "a missing answer does not block the others"
    over.set()
    await asyncio.gather(*asking)


@pytest.mark.parametrize(("used", "leave"), [(4700, 8), (4790, 2), (4797, 1)])
async def test_requests_in_flight_count_towards_the_weight(used: int, leave: int) -> None:
    clock = ManualClock()
    pace, left, over = Pace(Gate(clock), clock), [], asyncio.Event()
    for _ in range(3):
        pace.answered()
    pace.note_weight(str(used))
    asking = [asyncio.create_task(in_turn(pace, left, n, over)) for n in range(20)]
    await settle_loop()
    assert len(left) == leave
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


async def test_weight_of_cancelled_requests_counts() -> None:
    clock = ManualClock()
    pace, left, over = Pace(Gate(clock), clock), [], asyncio.Event()
    for _ in range(3):
        pace.answered()
    pace.note_weight("4780")
    given_up = [asyncio.create_task(in_turn(pace, left, n, over)) for n in range(4)]
    await settle_loop()
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)
    pace.note_weight("4772")  # an answer that arrived out of order
    asking = [asyncio.create_task(in_turn(pace, left, 10 + n, over)) for n in range(4)]
    await settle_loop()
    assert left == [0, 1, 2, 3, 10], "one request, whose answer tells the weight"
    await clock.advance(60.0)
    assert left[:6] == [0, 1, 2, 3, 10, 11]
    over.set()
    await asyncio.gather(*asking)
