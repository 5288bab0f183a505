"""A connection is replaced before it is broken: nothing missed, nothing twice, nothing asked of REST."""

from __future__ import annotations

import asyncio

import pytest
from stream_support import FIRST_ID, MemorySink, ScriptedExchange, authority, clock, eventually, exchange, reaches, start
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState
SHUTDOWN = {
    "raw": b'{"e":"serverShutdown","E":1}',
    "combined": b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
}


async def live(stream, exchange: ScriptedExchange, trades: int = 3) -> None:
    await reaches(stream, S.LIVE)
    await exchange.trade(trades)
    await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].stored == exchange.next_id - FIRST_ID)


async def overlap(stream, exchange: ScriptedExchange, connections: int = 2) -> None:
    """Until both connections are subscribed and the second is being listened to."""
    await eventually(lambda: len(exchange.subscribed) == connections)
    await eventually(lambda: stream.snapshot().successor.startswith("second connection: live"))


def whole(sink: MemorySink, exchange: ScriptedExchange) -> bool:
    return sink.order == list(range(FIRST_ID, exchange.next_id))


async def test_on_demand_both_links_deliver_the_same_trade_and_then_the_first_is_closed(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    assert "second connection" in stream.rotate()
    await reaches(stream, S.ROTATING)
    await overlap(stream, exchange)
    await exchange.trade(5)
    await reaches(stream, S.LIVE)
    await eventually(lambda: len(exchange.connections) == 1)
    await exchange.trade(2)
    await eventually(lambda: whole(sink, exchange), f"{sink.order}")
    snapshot = stream.snapshot()
    symbol = snapshot.symbols["ETHUSDT"]
    assert (symbol.duplicates, symbol.missing, symbol.repaired, snapshot.rotations) == (0, 0, 0, 1)
    assert (exchange.dials, exchange.rest_requests, snapshot.reconnects) == (2, [], 0)


@pytest.mark.parametrize("form", SHUTDOWN)
async def test_an_announced_shutdown_is_left_before_it_happens(exchange, start, form):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    await exchange.send_raw(SHUTDOWN[form])
    await overlap(stream, exchange)
    await exchange.trade(4)
    await eventually(lambda: stream.snapshot().rotations == 1)
    await eventually(lambda: whole(sink, exchange))
    await reaches(stream, S.LIVE)  # a rotation is counted a moment before the second connection is the present one
    assert "shuts down" in stream.snapshot().cause
    assert (exchange.rest_requests, stream.snapshot().last_error) == ([], None)


async def test_before_the_venues_24_hours_are_over_the_connection_is_replaced(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, rotate_after=3600.0, ping_interval=5000.0, message_warning_timeout=1e5, message_timeout=2e5)
    await live(stream, exchange)
    await clock.advance(3599.0)
    assert (exchange.dials, stream.snapshot().rotates_in_s) == (1, pytest.approx(1.0, abs=0.5))
    await clock.advance(2.0)
    await overlap(stream, exchange)
    await exchange.trade(1)
    await eventually(lambda: stream.snapshot().rotations == 1)
    await eventually(lambda: whole(sink, exchange))
    await reaches(stream, S.LIVE)  # a rotation is counted a moment before the second connection is the present one
    assert stream.snapshot().rotates_in_s == pytest.approx(3600.0)
    assert exchange.rest_requests == []


async def test_where_nothing_trades_the_links_are_exchanged_after_a_moment(exchange, start, clock):
    stream = await start(MemorySink())
    await live(stream, exchange)
    stream.rotate()
    await overlap(stream, exchange)
    await clock.advance(1.0)
    assert stream.state is S.ROTATING
    await clock.advance(2.0)
    await eventually(lambda: stream.snapshot().rotations == 1)
    assert exchange.rest_requests == []


async def test_a_successor_that_cannot_be_had_leaves_the_first_link_alone_and_is_tried_again(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    exchange.upgrade_status = (503, {})
    stream.rotate()
    await eventually(lambda: exchange.dials == 2)
    await reaches(stream, S.LIVE)
    assert stream.snapshot().last_error.kind == "server_error"
    await exchange.trade(2)
    await eventually(lambda: whole(sink, exchange))
    assert (len(exchange.connections), stream.snapshot().attempt) == (1, 0)


async def test_a_successor_that_brings_nothing_is_dropped(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    first = next(iter(exchange.subscribed))
    stream.rotate()
    await overlap(stream, exchange)
    exchange.subscribed = {first}
    await exchange.trade(3)
    await eventually(lambda: whole(sink, exchange))
    for _ in range(20):
        await clock.advance(1.0)
        await exchange.trade(1)
    await eventually(lambda: len(exchange.connections) == 1)
    assert (stream.state, stream.snapshot().rotations) == (S.LIVE, 0)
    await eventually(lambda: whole(sink, exchange))


async def test_when_the_first_link_breaks_during_the_overlap_the_second_takes_over_at_once(exchange, start):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    first = exchange.connections[0]
    stream.rotate()
    await overlap(stream, exchange)
    exchange.subscribed.discard(first)
    lost = exchange.make(2)
    await exchange.trade(2)  # on the second alone: the first has lost two
    first.transport.abort()
    await eventually(lambda: set(sink.trades) >= {trade.id for trade in lost})
    await eventually(lambda: sorted(sink.order) == list(range(FIRST_ID, exchange.next_id)))
    await reaches(stream, S.LIVE)
    assert stream.snapshot().last_error.kind == "reset"
    assert exchange.dials == 2


async def test_when_the_first_link_breaks_before_the_second_is_up_the_second_is_waited_for(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    exchange.acks = False
    stream.rotate()
    await eventually(lambda: len(exchange.connections) == 2)
    exchange.connections[0].transport.abort()
    await reaches(stream, S.SUBSCRIBING)
    exchange.acks = True
    exchange.make(2)
    await exchange.connections[-1].send('{"result":null,"id":1}', text=True)
    exchange.subscribed.add(exchange.connections[-1])
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sorted(sink.order) == list(range(FIRST_ID, exchange.next_id)))
    assert exchange.dials == 2


@pytest.mark.parametrize("command", ["stop", "disconnect", "reconnect_now"])
async def test_a_command_during_the_overlap_ends_both_links(exchange, start, command):
    sink = MemorySink()
    stream = await start(sink)
    await live(stream, exchange)
    both = list(exchange.connections)
    stream.rotate()
    await overlap(stream, exchange)
    both += [one for one in exchange.connections if one not in both]
    if command == "stop":
        await stream.stop()
    else:
        getattr(stream, command)()
    await eventually(lambda: not set(both) & set(exchange.connections))
    assert len(both) == 2
    await eventually(lambda: whole(sink, exchange))


async def test_rotating_without_a_live_link_is_refused_in_words(exchange, start):
    exchange.acks = False
    stream = await start(MemorySink())
    await reaches(stream, S.SUBSCRIBING)
    assert stream.rotate() == "there is no live connection to replace: subscribing"


async def passing(clock, condition) -> None:
    """Let time pass, a second in a few real milliseconds, until the condition holds."""
    for _ in range(200):
        await clock.advance(1.0)
        for _ in range(20):
            if condition():
                return
            await asyncio.sleep(0.005)
    raise AssertionError("did not come about")


async def busy(stream, exchange: ScriptedExchange, clock, seconds: int = 90) -> None:
    """A trade a second, until the usual rate is known."""
    await reaches(stream, S.LIVE)
    for _ in range(seconds):
        await exchange.trade(1)
        await eventually(lambda: stream.snapshot().symbols["ETHUSDT"].last_id == exchange.next_id - 1)
        await clock.advance(1.0)


async def test_a_busy_symbol_that_falls_silent_is_asked_about_on_a_second_connection(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, ping_interval=5000.0)
    await busy(stream, exchange, clock)
    first = next(iter(exchange.subscribed))
    limit = stream.snapshot().symbols["ETHUSDT"].silence_limit_s
    assert limit < 30
    await clock.advance(limit + 1)
    await reaches(stream, S.STALLED)
    await overlap(stream, exchange)
    exchange.make(3)  # the first link has lost them
    exchange.subscribed.discard(first)
    await exchange.trade(2)
    await eventually(lambda: stream._intake.held == 2, "the second connection has brought them")
    await passing(clock, lambda: stream.state is S.LIVE)
    await eventually(lambda: len(exchange.connections) == 1)
    await eventually(lambda: sorted(sink.order) == list(range(FIRST_ID, exchange.next_id)))
    assert (stream.snapshot().probes, stream.snapshot().symbols["ETHUSDT"].missing) == (1, 0)


async def test_a_quiet_market_is_not_taken_for_a_dead_link(exchange, start, clock):
    stream = await start(MemorySink(), ping_interval=5000.0)
    await busy(stream, exchange, clock)
    limit = stream.snapshot().symbols["ETHUSDT"].silence_limit_s
    await clock.advance(limit + 1)
    await overlap(stream, exchange)
    await passing(clock, lambda: len(exchange.connections) == 1)
    snapshot = stream.snapshot()
    assert (snapshot.state, snapshot.reconnects, snapshot.probes) == (S.LIVE, 0, 1)
    assert snapshot.symbols["ETHUSDT"].silence_limit_s > limit


async def turn_out(condition) -> None:
    """Wait in virtual time, to the millisecond, until the condition holds."""
    async with asyncio.timeout(60.0):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("command", ["reconnect_now", "disconnect"])
def test_a_command_while_the_last_trades_of_a_dead_link_are_handed_over_loses_none_of_them(command) -> None:
    async def interrupted() -> None:
        async with Rig(11, rates={"BTCUSDT": 0.5}) as rig:
            await rig.live()
            await asyncio.sleep(120.0)
            (first,) = rig.venue.subscribed()
            first.latency_s = 0.02
            rig.stream.rotate()
            await turn_out(lambda: len(rig.venue.subscribed()) == 2)
            rig.venue.subscribed()[1].latency_s = 0.5  # so that the overlap lasts
            await turn_out(lambda: "live" in rig.stream.snapshot().successor)
            await turn_out(lambda: rig.stream.queued)
            assert rig.stream.state is S.ROTATING
            rig.sink.hold()
            first.cut()
            await asyncio.sleep(0.01)
            getattr(rig.stream, command)()
            await asyncio.sleep(5.0)
            rig.sink.release()
            await asyncio.sleep(5.0)
            rig.stream.connect()
            await rig.until(lambda: rig.stream.state is S.LIVE, 60.0, "live")
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(interrupted())


def test_a_shutdown_that_every_connection_announces_does_not_use_up_the_dials() -> None:
    async def announced() -> None:
        async with Rig(12, rates={"BTCUSDT": 20.0}) as rig:
            await rig.live()
            told = set()
            until = rig.now + 300.0
            while rig.now < until:
                for link in set(rig.venue.subscribed()) - told:
                    told.add(link)
                    link.push(SHUTDOWN["raw"])
                await asyncio.sleep(0.05)
            assert 2 <= len(rig.venue.dialled) <= 20
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(announced())


def test_a_gap_is_put_down_to_the_end_of_the_link_whose_successor_was_still_on_its_way() -> None:
    async def succeeded() -> None:
        async with Rig(14, rates={"BTCUSDT": 5.0}) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            (first,) = rig.venue.subscribed()
            rig.stream.rotate()
            await turn_out(lambda: len(rig.venue.links) == 2)
            (second,) = rig.venue.links - {first}
            second.latency_s = 2.0  # so late is it acknowledged, and it lacks the first trades
            second.drops = 20
            await turn_out(lambda: rig.stream.queued)
            first.cut()
            await asyncio.sleep(0.02)
            assert (rig.stream.state, rig.stream.snapshot().successor) == (S.SUBSCRIBING, "")
            await rig.until(lambda: rig.stream.state is S.LIVE, 60.0, "live")
            await asyncio.sleep(60.0)
            assert rig.wrong() == []
            assert rig.sink.records["BTCUSDT"].causes[0] == "live: no close frame received or sent"
            assert len(rig.venue.dialled) == 2

    run(succeeded())


def test_a_link_that_ends_while_a_dial_is_asked_for_is_noticed_at_once() -> None:
    async def asked() -> None:
        async with Rig(15) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            take, asking = rig.gate.take_dial, asyncio.Event()

            async def slowly() -> tuple[float, str]:
                asking.set()
                await asyncio.sleep(4.0)
                return await take()

            rig.gate.take_dial = slowly  # type: ignore[method-assign]
            rig.stream.rotate()
            await asking.wait()
            rig.venue.cut_all()
            await asyncio.sleep(0.1)
            assert rig.stream.state is S.BACKOFF

    run(asked())


def test_one_trade_of_a_thin_symbol_that_was_on_its_way_does_not_speak_against_the_successor() -> None:
    async def thin() -> None:
        async with Rig(18, rates={"BTCUSDT": 10.0, "XRPETH": 1 / 3600}) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            (first,) = rig.venue.subscribed()
            first.latency_s = 0.6
            rig.stream.rotate()
            await turn_out(lambda: len(rig.venue.links) == 2)
            rig.market.issue("XRPETH")  # before the second link has subscribed
            await rig.until(lambda: rig.stream.snapshot().rotations == 1, 30.0, "rotated")
            assert (rig.stream.snapshot().last_error, len(rig.venue.dialled)) == (None, 2)
            await asyncio.sleep(60.0)
            assert rig.wrong() == []

    run(thin())


def test_asking_twice_in_a_hurry_is_one_rotation() -> None:
    async def hurried() -> None:
        async with Rig(23) as rig:
            await rig.live()
            await asyncio.sleep(60.0)
            rig.stream.rotate()
            await turn_out(lambda: len(rig.venue.links) == 2)
            assert "second connection" in rig.stream.rotate()
            await asyncio.sleep(120.0)
            assert (rig.stream.snapshot().rotations, len(rig.venue.dialled)) == (1, 2)

    run(hurried())


def test_a_replaced_link_that_is_still_closing_when_the_stream_stops_is_waited_for() -> None:
    async def stopped() -> None:
        async with Rig(20, rates={"BTCUSDT": 10.0}) as rig:
            await rig.live()
            await asyncio.sleep(30.0)
            (first,) = rig.venue.subscribed()
            first.close = lambda: asyncio.sleep(0.5)  # as long as a good-bye may take
            rig.stream.rotate()
            await turn_out(lambda: rig.stream.snapshot().rotations)
            (second,) = rig.venue.links - {first}
            second.cut()
            await asyncio.sleep(0.01)
            await rig.stream.stop()
            assert [task for task in asyncio.all_tasks() if task.get_name().startswith("link")] == []

    run(stopped())
