"""The pinger: a dead link is found in time, and a busy machine is not taken for one."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest
from stream_support import ManualClock, ScriptedExchange, authority, eventually, exchange, settle_loop

from quantai_tui.stream import FailureKind, IllegalTransition, LinkFault, StateMachine, WebSocketHeartbeat
from quantai_tui.stream.heartbeat import RoundTrips
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures


class Peer:
    """Something that can be pinged; it answers only while `answering`."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.pending: list[asyncio.Future[float]] = []
        self.answering = True

    async def ping(self, payload: bytes) -> asyncio.Future[float]:
        self.payloads.append(payload)
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.pending.append(future)
        if self.answering:
            future.set_result(0.025)
        return future


async def test_the_first_ping_leaves_at_once_and_the_next_after_the_interval():
    clock, peer = ManualClock(), Peer()
    heartbeat = WebSocketHeartbeat(peer.ping, interval=30.0, timeout=10.0, clock=clock)
    assert not heartbeat.is_alive()
    await heartbeat.start()
    await settle_loop()
    assert len(peer.payloads) == 1
    await clock.advance(29.0)
    assert len(peer.payloads) == 1
    await clock.advance(1.0)
    assert len(set(peer.payloads)) == 2, "every ping has a payload of its own"
    assert heartbeat.is_alive()
    assert heartbeat.round_trips.snapshot().last == 25.0
    await heartbeat.stop()
    assert not heartbeat.is_alive()
    await heartbeat.stop()


async def test_no_pong_within_the_timeout_means_dead():
    clock, peer = ManualClock(), Peer()
    peer.answering = False
    heartbeat = WebSocketHeartbeat(peer.ping, interval=30.0, timeout=10.0, clock=clock)
    await heartbeat.start()
    await clock.advance(9.9)
    assert heartbeat.is_alive()
    await clock.advance(0.2)
    with pytest.raises(LinkFault) as caught:
        await heartbeat.wait_dead()
    assert caught.value.kind is FailureKind.PONG_TIMEOUT
    assert not heartbeat.is_alive()
    assert heartbeat.round_trips.missed == 1
    await heartbeat.stop()


async def test_time_in_which_the_machine_was_held_up_does_not_count_against_the_link():
    clock, peer = ManualClock(), Peer()
    peer.answering = False
    heartbeat = WebSocketHeartbeat(peer.ping, interval=30.0, timeout=10.0, clock=clock)
    await heartbeat.start()
    await clock.advance(2.0)
    clock._now += 60.0  # the process was stopped, or the loop blocked, for a minute
    await clock.advance(0.5)
    assert heartbeat.is_alive()
    assert heartbeat.worst_lag_s > 55.0
    peer.pending[0].set_result(62.0)
    await settle_loop()
    assert heartbeat.round_trips.missed == 0
    await heartbeat.stop()


async def test_the_deadline_stands_still_while_reading_is_paused():
    clock, peer, paused = ManualClock(), Peer(), True
    peer.answering = False
    heartbeat = WebSocketHeartbeat(peer.ping, timeout=10.0, paused=lambda: paused, clock=clock)
    await heartbeat.start()
    await clock.advance(100.0)
    assert heartbeat.is_alive()
    paused = False
    await clock.advance(10.5)
    assert not heartbeat.is_alive()
    await heartbeat.stop()


async def test_a_real_connection_is_pinged_and_timed(exchange: ScriptedExchange):
    from websockets.asyncio.client import connect

    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    async with connect(f"wss://localhost:{exchange.ws_port}", ssl=context, ping_interval=None, proxy=None) as connection:
        heartbeat = WebSocketHeartbeat(connection.ping, interval=0.05, timeout=5.0)
        await heartbeat.start()
        await eventually(lambda: len(heartbeat.round_trips._recent) >= 3)
        measured = heartbeat.round_trips.snapshot()
        assert 0 < measured.min <= measured.p50 <= measured.p95 < 5000
        await heartbeat.stop()


async def test_a_loop_that_is_really_blocked_longer_than_the_timeout_does_not_kill_the_link(exchange: ScriptedExchange):
    from websockets.asyncio.client import connect

    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    async with connect(f"wss://localhost:{exchange.ws_port}", ssl=context, ping_interval=None, proxy=None) as connection:
        heartbeat = WebSocketHeartbeat(connection.ping, interval=0.01, timeout=0.2)
        await heartbeat.start()
        for _ in range(3):
            await asyncio.sleep(0.005)
            time.sleep(0.4)
        await eventually(lambda: len(heartbeat.round_trips._recent) >= 3)
        assert heartbeat.is_alive()
        await heartbeat.stop()


def test_round_trips_are_ranked_and_smoothed():
    trips = RoundTrips()
    assert trips.snapshot().last is None
    for value in range(1, 101):
        trips.add(float(value))
    snapshot = trips.snapshot()
    assert (snapshot.last, snapshot.min, snapshot.p50, snapshot.p95) == (100.0, 1.0, 51.0, 96.0)
    assert 90 < snapshot.ewma < 100


async def test_the_state_machine_refuses_a_way_that_does_not_exist_and_tells_who_waits():
    machine = StateMachine(ManualClock())
    waiting = asyncio.create_task(machine.wait_for(StreamState.HANDSHAKING, StreamState.LIVE))
    await settle_loop()
    with pytest.raises(IllegalTransition, match="from idle to live"):
        machine.to(StreamState.LIVE, "wishful thinking")
    machine.to(StreamState.CONNECTING, "dialling")
    since = machine.since
    machine.to(StreamState.CONNECTING, "still dialling")
    assert (machine.cause, machine.since) == ("still dialling", since)
    machine.to(StreamState.HANDSHAKING, "TLS")
    machine.to(StreamState.BACKOFF, "failed")
    assert await waiting is StreamState.HANDSHAKING, "a state that was only passed through counts"
    machine.to(StreamState.STOPPED, "stopped")
    with pytest.raises(IllegalTransition):
        machine.to(StreamState.CONNECTING, "after the end")
