"""The operator's story of a link that breaks: it is found out, waited for, dialled again, and nothing is lost."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest
import trustme
from stream_support import FIRST_ID, SYMBOL, MemorySink, authority, clock, eventually, exchange, reaches, settle_loop, start
from virtual.loop import run
from virtual.rig import Rig

from quantai_tui.market.store import TradeStore
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "clock", "exchange", "start"]  # fixtures

S = StreamState


async def test_a_stream_is_live_within_a_second_and_says_what_it_runs_on(exchange, start):
    sink = MemorySink()
    began = time.process_time()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    assert time.process_time() - began < 1.0, "of work: the clock stood still, so that it has waited for nothing"
    await exchange.trade(5)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 4))
    await eventually(lambda: stream.snapshot().rtt_ms.last is not None, "the first ping follows the subscription at once")
    snapshot = stream.snapshot()
    assert snapshot.tls_version == "TLSv1.3"
    assert [change.state for change in stream.machine.changes] == [S.IDLE, S.CONNECTING, S.HANDSHAKING, S.SUBSCRIBING, S.LIVE]
    assert sink.begins == [FIRST_ID]
    symbol = snapshot.symbols[SYMBOL]
    assert (symbol.stored, symbol.missing, symbol.duplicates) == (5, 0, 0)
    assert symbol.last_id == symbol.complete_through_id == FIRST_ID + 4
    assert symbol.price == sink.trades[FIRST_ID + 4].price


async def test_a_dead_server_is_retried_after_1_2_and_4_seconds_and_what_was_missed_is_fetched(exchange, start, clock, tmp_path):
    store = await TradeStore.open(tmp_path / "store.sqlite")
    stream = await start(store)
    await reaches(stream, S.LIVE)
    await exchange.trade(10)
    await eventually(lambda: stream.snapshot().symbols[SYMBOL].stored == 10)
    await exchange.close_ws()
    for expected in (1.0, 2.0, 4.0):
        await eventually(lambda delay=expected: stream.snapshot().backoff_total_s == delay, f"a backoff of {expected} s")
        snapshot = stream.snapshot()
        assert snapshot.state is S.BACKOFF
        assert snapshot.backoff_remaining_s == pytest.approx(expected)
        exchange.make(20)
        if expected == 4.0:
            await exchange.open_ws()
        await clock.advance(expected)
    await reaches(stream, S.LIVE)
    await exchange.trade(5)
    await eventually(lambda: stream.snapshot().symbols[SYMBOL].repaired == 60)
    await eventually(lambda: stream.snapshot().symbols[SYMBOL].stored == 75, "the five may come in two batches")
    assert stream.snapshot().symbols[SYMBOL].missing == 0
    position = await store.position(SYMBOL)
    assert (position.begin_id, position.complete_through_id, position.missing, position.stored) == (
        FIRST_ID,
        FIRST_ID + 74,
        (),
        75,
    )
    assert store.counts(SYMBOL).duplicates == 0
    snapshot = stream.snapshot()
    assert "repaired" in snapshot.symbols[SYMBOL].gap_note
    assert (snapshot.reconnects, snapshot.attempts_total, snapshot.success_rate) == (1, 4, pytest.approx(1 / 3))
    assert [entry.delay_s for entry in snapshot.history] == [0.0, 1.0, 2.0, 4.0]
    assert snapshot.failed_last_5min == 2
    assert stream.get_connection_stats()["reconnect_statistics"]["total_attempts"] == 3
    await stream.stop()
    await store.close()


async def test_a_server_that_falls_silent_without_closing_is_found_out_by_a_missing_pong(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink, ping_interval=30.0, pong_timeout=10.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: stream.snapshot().rtt_ms.last is not None and len(sink.order) == 3)
    exchange.stop_answering()
    await clock.advance(30.0)
    assert stream.state is S.LIVE
    exchange.make(4)
    await clock.advance(10.0)
    await reaches(stream, S.BACKOFF)
    error = stream.snapshot().last_error
    assert (error.kind, error.type) == ("pong_timeout", "timeout_error")
    await clock.advance(1.0)
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 7))
    assert stream.snapshot().rtt_ms.missed == 0, "a new connection starts with a clean record"


async def test_a_certificate_of_an_unknown_authority_ends_the_attempts_and_names_the_remedy(exchange, start, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    stream = await start(MemorySink(), ca_file=str(other), exit_on_failure=True)
    failure = await asyncio.wait_for(stream.wait_failed(), 5)
    assert failure.fatal
    snapshot = stream.snapshot()
    assert snapshot.state is S.FAILED
    assert (snapshot.last_error.type, snapshot.last_error.kind) == ("ssl_error", "tls_untrusted")
    assert "EXCHANGE_CA_FILE" in snapshot.last_error.advice
    assert (snapshot.ssl_errors, snapshot.attempts_total, exchange.dials) == (1, 1, 0)


async def test_a_certificate_for_another_host_is_told_apart(exchange, start):
    stream = await start(MemorySink(), ws_url=f"wss://127.0.0.1:{exchange.ws_port}")
    await reaches(stream, S.FAILED)
    assert stream.snapshot().last_error.kind == "tls_hostname"


async def test_a_ca_file_that_does_not_exist_is_a_plain_error_and_nothing_is_dialled(exchange, start, tmp_path):
    stream = await start(MemorySink(), ca_file=str(tmp_path / "none.pem"))
    await reaches(stream, S.FAILED)
    error = stream.snapshot().last_error
    assert error.kind == "config"
    assert "none.pem" in error.message
    assert exchange.dials == 0


async def test_a_server_that_does_not_speak_tls_is_named_as_such(start):
    server = await asyncio.start_server(_plain_greeting, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await start(MemorySink(), ws_url=f"wss://localhost:{port}")
    await reaches(stream, S.FAILED)
    assert stream.snapshot().last_error.kind == "not_tls"
    server.close()


async def _plain_greeting(reader, writer):
    writer.write(b"220 some.host ESMTP ready, and this is no TLS record at all\r\n" * 4)
    await writer.drain()
    writer.close()


async def test_a_tls_handshake_that_hangs_is_a_timeout_and_not_a_network_error(start):
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await start(MemorySink(), ws_url=f"wss://localhost:{port}", ssl_timeout=0.2)
    await reaches(stream, S.BACKOFF)
    error = stream.snapshot().last_error
    assert (error.kind, error.type) == ("tls_timeout", "timeout_error")
    assert S.HANDSHAKING in [change.state for change in stream.machine.changes]
    server.close()


async def test_used_up_retries_end_the_stream_where_that_was_asked_for(exchange, start, clock):
    await exchange.close_ws()
    stream = await start(MemorySink(), max_retries=2, exit_on_failure=True)
    for delay in (1.0, 2.0):
        await eventually(lambda delay=delay: stream.snapshot().backoff_total_s == delay)
        assert not stream.failed.is_set()
        await clock.advance(delay)
    failure = await asyncio.wait_for(stream.wait_failed(), 5)
    assert failure.kind == "refused"
    snapshot = stream.snapshot()
    assert (snapshot.state, snapshot.attempt, snapshot.attempts_total) == (S.FAILED, 2, 3)
    assert snapshot.error_counts == {"network_error": 3}


async def test_used_up_retries_otherwise_cool_down_and_probe_once_per_cooldown(exchange, start, clock):
    await exchange.close_ws()
    stream = await start(MemorySink(), max_retries=1, cooldown=300.0)
    await reaches(stream, S.BACKOFF)
    await clock.advance(1.0)
    await reaches(stream, S.COOLING_DOWN)
    assert stream.snapshot().backoff_total_s == 300.0
    await clock.advance(300.0)
    await eventually(lambda: stream.snapshot().attempts_total == 3 and stream.state is S.COOLING_DOWN)
    await exchange.open_ws()
    await clock.advance(300.0)
    await reaches(stream, S.LIVE)


async def test_links_that_deliver_and_break_only_lengthen_the_delays(exchange, start, clock):
    stream = await start(MemorySink(), max_retries=1, exit_on_failure=True)
    for expected in (1.0, 2.0, 4.0):
        await reaches(stream, S.LIVE)
        await exchange.trade(1)
        await eventually(lambda: stream.snapshot().last_message_age_s == 0.0)
        exchange.cut()
        await eventually(lambda expected=expected: stream.snapshot().backoff_total_s == expected)
        await clock.advance(expected)
    await reaches(stream, S.LIVE)
    await clock.advance(10.0)
    await exchange.trade(1)
    await eventually(lambda: stream.snapshot().backoff_schedule_s[:1] == (1.0,))
    exchange.cut()
    await eventually(lambda: stream.snapshot().backoff_total_s == 1.0)


def test_a_link_that_is_cut_as_soon_as_it_delivers_is_no_failed_attempt() -> None:
    """What it has brought is not handed over yet when it ends."""

    async def lived() -> None:
        async with Rig(41, rates={"ETHUSDT": 0.01}, max_retries=1, exit_on_failure=True) as rig:
            for _ in range(4):
                await rig.until(lambda: rig.venue.subscribed() and rig.stream.state is S.LIVE, 60.0, "live")
                (link,) = rig.venue.subscribed()
                had = len(rig.venue.handed["ETHUSDT"])
                rig.market.issue("ETHUSDT")
                while len(rig.venue.handed["ETHUSDT"]) == had:
                    await asyncio.sleep(0.001)
                link.cut()
                await rig.until(lambda: rig.stream.state is not S.LIVE, 10.0, "cut")
                assert rig.stream.state is S.BACKOFF

    run(lived())


async def test_reconnect_now_skips_a_backoff_but_not_a_ban(exchange, start, clock):
    await exchange.close_ws()
    stream = await start(MemorySink())
    await reaches(stream, S.BACKOFF)
    await exchange.open_ws()
    exchange.upgrade_status = (429, {"Retry-After": "90"})
    assert stream.reconnect_now() == "dialling now"
    await eventually(lambda: stream.snapshot().backoff_total_s == 90.0)
    assert stream.snapshot().last_error.kind == "rate_limited"
    exchange.upgrade_status = None
    assert stream.reconnect_now().startswith("will dial in 90 s, not before")
    await settle_loop()
    assert stream.state is S.BACKOFF
    assert exchange.dials == 1
    await clock.advance(90.0)
    await reaches(stream, S.LIVE)


async def test_reconnect_now_on_a_live_link_dials_again_at_once(exchange, start):
    stream = await start(MemorySink())
    await reaches(stream, S.LIVE)
    assert "dropped" in stream.reconnect_now()
    await eventually(lambda: exchange.dials == 2)
    await reaches(stream, S.LIVE)
    assert stream.snapshot().reconnects == 1
    await eventually(lambda: len(exchange.connections) == 1, "the old connection is closed")


async def test_disconnect_holds_until_connect_and_what_was_missed_is_fetched(exchange, start, clock):
    sink = MemorySink()
    stream = await start(sink)
    await reaches(stream, S.LIVE)
    await exchange.trade(3)
    await eventually(lambda: len(sink.order) == 3)
    assert "disconnected" in stream.disconnect()
    await reaches(stream, S.IDLE)
    assert stream.disconnect() == "is disconnected already"
    exchange.make(7)
    await clock.advance(3600.0)
    assert stream.state is S.IDLE
    assert exchange.dials == 1
    stream.connect()
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await eventually(lambda: sink.holds(FIRST_ID, FIRST_ID + 10))
    assert sink.gaps == [(FIRST_ID + 3, FIRST_ID + 9, "disconnected by the operator")]
    assert sink.closed == [(FIRST_ID + 3, FIRST_ID + 9, "repaired")]


async def test_new_settings_are_taken_over_by_reconnecting(exchange, start):
    stream = await start(MemorySink())
    await reaches(stream, S.LIVE)
    told = stream.apply(exchange.config(max_retries=3, symbols=("BTCUSDT",)))
    assert told == "stream reconnects with the new numbers; at the next start: symbols"
    await eventually(lambda: exchange.dials == 2)
    await reaches(stream, S.LIVE)
    assert stream.snapshot().max_attempts == 3


async def test_a_refused_subscription_is_final_and_says_what_the_venue_said(exchange, start):
    exchange.refusal = b'{"error":{"code":2,"msg":"Invalid request: bad\\u001b[31m symbol"},"id":1}'
    stream = await start(MemorySink())
    await reaches(stream, S.FAILED)
    error = stream.snapshot().last_error
    assert error.kind == "subscribe_rejected"
    assert "code 2" in error.message
    assert "\x1b" not in error.message


async def test_a_subscription_that_is_not_acknowledged_is_given_up_and_tried_again(exchange, start):
    exchange.acks = False
    stream = await start(MemorySink(), subscribe_timeout=0.2)
    await reaches(stream, S.BACKOFF)
    assert stream.snapshot().last_error.kind == "subscribe_timeout"


@pytest.mark.parametrize("trade", ["while the second connection is dialled", "on both connections"])
async def test_silence_is_first_shown_and_then_answered_by_reconnecting(exchange, start, clock, trade):
    stream = await start(MemorySink(), message_warning_timeout=600.0, message_timeout=1200.0, ping_interval=5000.0)
    await reaches(stream, S.LIVE)
    await eventually(lambda: stream.snapshot().rtt_ms.last is not None)
    exchange.upgrades.clear()
    await clock.advance(601.0)
    assert stream.state is S.STALLED
    await eventually(lambda: exchange.dials == 2)
    if trade == "on both connections":
        exchange.upgrades.set()
        await eventually(lambda: len(exchange.subscribed) == 2)
    await exchange.trade(1)
    await eventually(lambda: stream.snapshot().last_message_age_s == 0.0)
    exchange.upgrades.set()
    await reaches(stream, S.LIVE)  # the second connection, which was asked, has nothing to say against the first
    await eventually(lambda: len(exchange.connections) == 1)
    await clock.advance(1201.0)
    await reaches(stream, S.BACKOFF, S.CONNECTING)
    assert stream.snapshot().last_error.kind == "data_stall"


@pytest.mark.parametrize("state", [S.HANDSHAKING, S.SUBSCRIBING, S.LIVE, S.BACKOFF, S.COOLING_DOWN, S.FAILED, S.IDLE])
async def test_every_command_and_a_stop_work_in_every_state(exchange, start, clock, state):
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    changes: dict[str, object] = {}
    if state is S.HANDSHAKING:
        changes["ws_url"] = f"wss://localhost:{silent.sockets[0].getsockname()[1]}"
    elif state is S.SUBSCRIBING:
        exchange.acks = False
    elif state in (S.BACKOFF, S.COOLING_DOWN, S.FAILED):
        await exchange.close_ws()
    if state in (S.COOLING_DOWN, S.FAILED):
        changes |= {"max_retries": 1, "cooldown": 0.0 if state is S.FAILED else 60.0}
    stream = await start(MemorySink(), **changes)
    if state in (S.COOLING_DOWN, S.FAILED):
        await reaches(stream, S.BACKOFF)
        await clock.advance(1.0)
    if state is S.IDLE:
        stream.disconnect()
    await reaches(stream, state)
    exchange.stop_answering()
    async with asyncio.timeout(5):  # about a second at most; 10 s is what the library beneath gives a good-bye by itself
        await stream.stop()
    assert stream.state is S.STOPPED
    others = [task for task in asyncio.all_tasks() if "quantai_tui" in str(task.get_coro().cr_code.co_filename)]
    assert others == []
    for command in (stream.reconnect_now, stream.disconnect, stream.connect, stream.reset):
        assert command() == "the stream has been stopped"
    await stream.stop()
    silent.close()


@pytest.mark.parametrize("state", [S.LIVE, S.BACKOFF, S.FAILED, S.IDLE])
async def test_every_command_answers_with_one_line_and_leads_back_to_live(exchange, start, clock, state):
    if state in (S.BACKOFF, S.FAILED):
        await exchange.close_ws()
    stream = await start(MemorySink(), max_retries=1 if state is S.FAILED else 10, cooldown=0.0)
    if state is S.FAILED:
        await reaches(stream, S.BACKOFF)
        await clock.advance(1.0)
    if state is S.IDLE:
        stream.disconnect()
    await reaches(stream, state)
    if state in (S.BACKOFF, S.FAILED):
        await exchange.open_ws()
    for command in (stream.reset, stream.disconnect, stream.connect, stream.reset, stream.reconnect_now, stream.connect):
        line = command()
        assert line
        assert "\n" not in line
        await settle_loop()
    await reaches(stream, S.LIVE)


async def test_the_server_is_verified_with_tls_1_2_or_newer():
    from quantai_tui.stream.tls import tls_context

    context = tls_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_a_fault_of_the_program_itself_is_shown_and_does_not_hide_in_a_task(exchange, start):
    def broken(symbol: str, count: int) -> None:
        raise ZeroDivisionError("a bug")

    stream = await start(MemorySink())
    stream._intake.on_heard = broken
    await reaches(stream, S.LIVE)
    await exchange.trade(1)
    await reaches(stream, S.FAILED)
    assert "A fault of this program" in stream.snapshot().cause
    assert stream.reconnect_now().startswith("the stream has ended by a fault of its own")
    await eventually(lambda: not exchange.subscribed, "the connection is closed")
    await stream.stop()
    assert stream.state is S.STOPPED


@pytest.mark.parametrize("url", ["ws://localhost:{port}", "WS://localhost:{port}", "http://localhost:{port}", "localhost:{port}"])
async def test_an_address_without_tls_is_refused_and_nothing_is_dialled(exchange, start, url):
    stream = await start(MemorySink(), ws_url=url.format(port=exchange.ws_port))
    await reaches(stream, S.FAILED)
    error = stream.snapshot().last_error
    assert error.kind == "config"
    assert "must begin with wss://" in error.message
    assert exchange.dials == 0
