"""A recording lived through again by the stream's own code."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
from recording_support import CONFIG, MB, Basket, Begin, MemoryTransport, a_link, begin, frame, replayed
from stream_support import (
    FIRST_ID,
    SYMBOL,
    ManualClock,
    MemorySink,
    ScriptedExchange,
    authority,
    eventually,
    exchange,
    reaches,
    settle_loop,
    trade,
)
from virtual.reader import CheckingReader

from quantai_tui.stream import FailureKind, HttpStatusError, LinkFault, Phase, ResilientStream, classify
from quantai_tui.stream.advice import RULES
from quantai_tui.stream.recorded import Recording
from quantai_tui.stream.recording import Recorder, RecordingHistory, RecordingTransport
from quantai_tui.stream.replay_clock import ReplayClock
from quantai_tui.stream.replaying import Replay, stream_from_recording
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "begin", "exchange"]  # fixtures

S = StreamState


async def an_outage(exchange: ScriptedExchange, stream: ResilientStream, sink: MemorySink, path: Path) -> None:
    """Trades; a malformed frame among them; a cut while trades happen; a repair over REST; more trades; then it is stopped."""
    stream.start_recording(path, 10 * MB)
    await stream.start()
    await reaches(stream, S.LIVE)
    await exchange.trade(20)
    await exchange.send_raw(b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTr')
    await exchange.trade(5)
    await eventually(lambda: sink.appended == 25)
    exchange.cut()
    exchange.make(30)
    await reaches(stream, S.BACKOFF, S.CONNECTING)
    await reaches(stream, S.LIVE)
    await exchange.trade(10)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 64))
    await eventually(lambda: not stream.snapshot().repairing)
    await stream.stop_recording()
    await stream.stop()


def story(stream: ResilientStream) -> dict[str, object]:
    """What a replay has to show again."""
    snapshot = stream.snapshot()
    symbol = snapshot.symbols[SYMBOL]
    return {
        "states": [change.state for change in stream.machine.changes if change.state is not S.STOPPED],
        "kind": snapshot.last_error.kind if snapshot.last_error else None,
        "errors": snapshot.error_counts,
        "bad": stream.get_connection_stats()["bad_frames"],
        "reconnects": snapshot.reconnects,
        "stored": symbol.stored,
        "repaired": symbol.repaired,
        "duplicates": symbol.duplicates,
        "lost": (symbol.missing, symbol.venue_holes, symbol.unrecoverable),
        "price": symbol.price,
    }


@pytest.mark.parametrize("speed", [float("inf"), 4.0])
async def test_a_recorded_outage_is_lived_through_again_the_same(exchange, begin: Begin, tmp_path, speed):
    path = tmp_path / "outage.qrec"
    lived, again = MemorySink(), MemorySink()
    stream = begin(lived)
    await an_outage(exchange, stream, lived, path)
    told = story(stream)
    assert (told["kind"], told["bad"], told["repaired"]) == (FailureKind.RESET, 1, 30)
    assert story(await replayed(path, again, speed=speed)) == told
    assert again.trades == lived.trades
    assert again.holds(FIRST_ID, FIRST_ID + 64)
    assert [gap[:2] for gap in again.gaps] == [gap[:2] for gap in lived.gaps] == [(FIRST_ID + 25, FIRST_ID + 54)]


@pytest.mark.parametrize("speed", [float("inf"), 4.0])
async def test_iterating_over_a_replay_yields_ids_in_order(exchange, begin: Begin, tmp_path, speed):
    path, lived, reader = tmp_path / "outage.qrec", MemorySink(), CheckingReader()
    await an_outage(exchange, begin(lived), lived, path)
    with closing(Recording.open(path)) as recording:
        stream, replay = stream_from_recording(recording, None, speed=speed)
        reading = asyncio.create_task(reader.read(stream))
        await stream.start()
        await eventually(lambda: len(reader.of(SYMBOL).trades) == 65)
        await replay.over()
        await stream.stop()
        await reading
    assert reader.breaches == []
    assert (reader.of(SYMBOL).begin_id, reader.of(SYMBOL).gaps, reader.of(SYMBOL).late) == (FIRST_ID, [], [])


async def test_two_replays_of_a_recording_come_to_the_same(exchange, begin: Begin, tmp_path):
    path = tmp_path / "outage.qrec"
    lived, first, second = MemorySink(), MemorySink(), MemorySink()
    await an_outage(exchange, begin(lived), lived, path)
    assert story(await replayed(path, first)) == story(await replayed(path, second))
    assert first.order == second.order


async def test_a_recording_begun_on_a_live_link_replays_what_came_from_then_on(exchange, begin: Begin, tmp_path):
    path = tmp_path / "late.qrec"
    lived, again = MemorySink(), MemorySink()
    stream = begin(lived)
    await stream.start()
    await reaches(stream, S.LIVE)
    await exchange.trade(5)
    await eventually(lambda: lived.appended == 5)
    stream.start_recording(path, MB)
    await exchange.trade(7)
    await eventually(lambda: lived.appended == 12)
    await stream.stop_recording()
    replayed_stream = await replayed(path, again)
    assert again.order == list(range(FIRST_ID + 5, FIRST_ID + 12))
    assert replayed_stream.snapshot().symbols[SYMBOL].missing == 0


async def test_what_was_neither_streamed_nor_fetched_is_a_hole(tmp_path):
    path = tmp_path / "hole.qrec"
    recorder = Recorder()
    recorder.start(path, MB)
    _, inner = await a_link(recorder, Basket())
    for id in (*range(10, 15), *range(18, 20)):
        inner.deliver(frame(trade(id)))
    await recorder.stop()
    sink = MemorySink()
    stream = await replayed(path, sink)
    symbol = stream.snapshot().symbols[SYMBOL]
    assert (symbol.stored, symbol.venue_holes, symbol.complete_through_id) == (7, 3, 19)
    assert sink.closed == [(15, 17, "venue_hole")]


async def test_what_was_fetched_is_fetched_again_and_never_before_its_time(tmp_path):
    class Venue:
        used_weight = None

        async def agg_trades(self, symbol, from_id, limit=1000):
            return [trade(id) for id in range(15, 18)]

        async def close(self):
            pass

    path = tmp_path / "fetched.qrec"
    recorder = Recorder()
    recorder.start(path, MB)
    _, inner = await a_link(recorder, Basket())
    for id in range(10, 15):
        inner.deliver(frame(trade(id)))
    inner.deliver(frame(trade(18)))
    await RecordingHistory(Venue(), recorder).agg_trades(SYMBOL, 15, 3)
    inner.deliver(frame(trade(19)))
    await recorder.stop()
    recording = Recording.open(path)
    at = [at for at, _ in recording.messages(recording.links[0])]

    def known(moment, from_id=0):
        return [one.id for one in recording.known_trades(SYMBOL, from_id, 1000, moment)]

    assert known(-1.0) == []
    assert known(at[2]) == [10, 11, 12]
    assert known(at[5], 13) == [13, 14, 15, 16, 17, 18]
    assert known(at[6], 19) == [19]
    assert [one.id for one in recording.known_trades(SYMBOL, None, 2, at[4])] == [13, 14]
    recording.close()
    sink = MemorySink()
    await replayed(path, sink)
    assert sink.holds(10, 19)
    assert (sink.trades[16], sink.closed) == (trade(16), [(15, 17, "repaired")])


def _expired() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired")
    error.verify_code, error.verify_message = 10, "certificate has expired"
    return error


@pytest.mark.parametrize(
    ("error", "phases"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 1),
        (ConnectionRefusedError(111, "Connection refused"), 1),
        (TimeoutError(), 2),
        (TimeoutError(), 3),
        (_expired(), 2),
        (HttpStatusError(418, retry_after_s=120.0), 3),
        (HttpStatusError(451), 3),
        *[(LinkFault(kind, f"a fault: {kind.value}", min_wait_s=2.5), 3) for kind in RULES],
    ],
    ids=lambda value: getattr(value, "kind", None) or repr(value),
)
async def test_a_dial_and_a_link_that_failed_fail_again_by_the_same_kind(tmp_path, error, phases):
    path = tmp_path / "failures.qrec"
    recorder = Recorder()
    recorder.start(path, MB)
    inner = MemoryTransport()
    transport = RecordingTransport(inner, recorder)
    inner.failure, inner.phases = error, inner.phases[:phases]
    with pytest.raises(type(error)):
        await transport.dial(CONFIG, Basket(), lambda phase: None)
    inner.failure = None
    link = await transport.dial(CONFIG, Basket(), lambda phase: None)
    inner.links[0].deliver(frame(trade(1)))
    inner.links[0].over.set_exception(error)
    with pytest.raises(type(error)):
        await link.until_closed()
    await recorder.stop()

    recording = Recording.open(path)
    replay = Replay(recording)
    announced: list[Phase] = []
    with pytest.raises(LinkFault) as dial:
        await replay.transport.dial(CONFIG, Basket(), announced.append)
    assert announced == inner.phases
    assert _told(dial.value) == _told(error, announced[-1])
    basket = Basket()
    again = await replay.transport.dial(CONFIG, basket, lambda phase: None)
    with pytest.raises(LinkFault) as ended:
        await again.until_closed()
    assert basket.taken == [frame(trade(1))]
    assert _told(ended.value) == _told(error, Phase.LIVE)
    await asyncio.wait_for(replay.over(), 8)
    await again.close()
    recording.close()


def _told(error: Exception, phase: Phase = Phase.LIVE) -> tuple[object, ...]:
    failure = classify(error, phase)
    return failure.kind, failure.type, failure.message, failure.min_wait_s, failure.fatal


async def test_a_refused_subscription_and_a_lost_one_are_met_again(exchange, begin: Begin, tmp_path):
    path = tmp_path / "refused.qrec"
    exchange.refusal = b'{"error":{"code":2,"msg":"Invalid request: too many parameters"},"id":1}'
    stream = begin(MemorySink(), cooldown=0.0)
    stream.start_recording(path, MB)
    await stream.start()
    await reaches(stream, S.FAILED)
    await stream.stop_recording()
    recording = Recording.open(path)
    again, _ = stream_from_recording(recording, MemorySink())
    await again.start()
    await reaches(again, S.FAILED)
    assert again.snapshot().last_error.kind == FailureKind.SUBSCRIBE_REJECTED
    assert again.snapshot().last_error.message == stream.snapshot().last_error.message
    await again.stop()
    recording.close()


async def test_a_link_that_died_without_a_word_is_found_dead_again_and_round_trips_are_as_they_were(tmp_path):
    path = tmp_path / "dead.qrec"
    recorder = Recorder()
    recorder.start(path, MB)
    link, inner = await a_link(recorder, Basket())
    pong = await link.ping(b"1")
    inner.pongs[0].set_result(0.125)
    assert await pong == 0.125
    await settle_loop()
    inner.deliver(frame(trade(1)))
    await link.ping(b"2")
    await link.close()
    await recorder.stop()
    recording = Recording.open(path)
    stream, replay = stream_from_recording(recording, MemorySink(), ping_interval=2.0, pong_timeout=2.0)
    await stream.start()
    await eventually(lambda: stream.snapshot().rtt_ms.last == 125.0)
    await eventually(lambda: stream.snapshot().last_error is not None)
    assert stream.snapshot().last_error.kind == FailureKind.PONG_TIMEOUT
    await asyncio.wait_for(replay.over(), 8)
    await stream.stop()
    recording.close()


async def test_what_only_the_operator_ended_goes_on_as_closed(tmp_path):
    path = tmp_path / "left.qrec"
    recorder = Recorder()
    recorder.start(path, MB)
    for id in (1, 2):
        link, inner = await a_link(recorder, Basket())
        inner.deliver(frame(trade(id)))
        await link.close()
    await recorder.stop()
    sink = MemorySink()
    stream = await replayed(path, sink)
    assert sink.order == [1, 2]
    assert stream.snapshot().last_error.kind == FailureKind.CLOSED


async def test_a_replay_waits_for_a_slow_sink_and_loses_nothing(tmp_path):
    path = tmp_path / "many.qrec"
    recorder = Recorder()
    recorder.start(path, 10 * MB)
    _, inner = await a_link(recorder, Basket())
    for id in range(5000):
        inner.deliver(frame(trade(id)))
    await recorder.stop()
    recording = Recording.open(path)
    sink = MemorySink()
    sink.gate.clear()
    stream, replay = stream_from_recording(recording, sink, buffer_trades=100)
    await stream.start()
    await eventually(lambda: stream.paused)
    assert stream.queued < 400
    assert not replay.is_over
    sink.gate.set()
    await asyncio.wait_for(replay.over(), 15)
    await eventually(lambda: sink.holds(0, 4999))
    assert stream.snapshot().symbols[SYMBOL].missing == 0
    await stream.stop()
    recording.close()


async def test_a_replay_clock_runs_as_told_and_who_sleeps_feels_the_change():
    base = ManualClock()
    clock = ReplayClock(10.0, base)
    before = clock.monotonic()
    sleeper = asyncio.create_task(clock.sleep(100.0))
    await base.advance(5.0)
    assert clock.monotonic() - before == pytest.approx(50.0)
    clock.rate = 1.0
    await base.advance(49.0)
    assert not sleeper.done()
    await base.advance(1.5)
    assert sleeper.done()
    assert clock.monotonic() - before == pytest.approx(100.5)


@pytest.mark.parametrize("speed", [float("inf"), 4.0])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_connection_replaced_without_a_break_is_replayed_without_a_loss(
    exchange, begin: Begin, tmp_path, announced, speed
):
    path = tmp_path / "rotated.qrec"
    lived, again = MemorySink(), MemorySink()
    stream = begin(lived)
    stream.start_recording(path, MB)
    await stream.start()
    await reaches(stream, S.LIVE)
    await exchange.trade(5)
    if announced:
        await exchange.send_raw(b'{"e":"serverShutdown","E":1770123456789}')
    else:
        stream.rotate()
    await eventually(lambda: len(exchange.subscribed) == 2)
    for _ in range(200):
        await exchange.trade(1)
        await asyncio.sleep(0.02)
        if stream.snapshot().rotations:
            break
    await exchange.trade(5)
    last = exchange.next_id - 1
    await eventually(lambda: lived.holds(FIRST_ID, last))
    await stream.stop_recording()
    await stream.stop()
    assert stream.snapshot().rotations == 1

    stream = await replayed(path, again, until=lambda stream: stream.snapshot().rotations == announced, speed=speed)
    assert again.trades == lived.trades
    assert again.holds(FIRST_ID, last)
    symbol = stream.snapshot().symbols[SYMBOL]
    assert (symbol.missing, symbol.venue_holes, symbol.unrecoverable) == (0, 0, 0)
    if announced:
        assert (stream.snapshot().rotations, stream.snapshot().last_error, again.gaps) == (1, None, [])
