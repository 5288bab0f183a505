"""Faults of the line, in the bytes between real sockets: cut, damaged, swallowed, held up, slowed down."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults_support import BUSY_S, FIRST_DIAL, REDIAL, S, on_both_transports, rig

from quantai_tui.stream import FailureKind

K = FailureKind

# What asyncio and the libraries make of an end without a good-bye differs: a cut line, or one that was cut inside TLS.
CUT = frozenset({K.RESET, K.TLS_CUT})


@on_both_transports
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("reset", CUT),
        ("half-close", CUT),
        ("truncate-record", CUT),
        ("flip-byte", frozenset({K.TLS_BROKEN})),
    ],
)
async def test_a_wound_to_the_line_costs_one_dial_and_no_trade(
    tmp_path: Path, transport: str, fault: str, kinds: frozenset[FailureKind]
) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject(fault)
        # An open connection without data is dealt its wound after a second.
        await rigged.until(lambda: rigged.snapshot.last_error is not None, "a failure", within=1.0)
        assert rigged.snapshot.last_error is not None
        kind = FailureKind(rigged.snapshot.last_error.kind)
        assert kind in kinds
        await rigged.shown(kind, "retrying")
        await rigged.recovered(within=0.05)
        assert rigged.path == REDIAL
        assert (rigged.dials, rigged.snapshot.attempts_total) == (2, 2)
        assert rigged.snapshot.ssl_errors == (0 if kind is K.RESET else 1)
        await rigged.nothing_lost()


@on_both_transports
async def test_records_that_are_damaged_on_every_connection_are_counted_and_survived(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject("flip-byte", for_s=600.0)
        await rigged.until(lambda: rigged.snapshot.ssl_errors >= 3, "three damaged links", within=1.0)
        await rigged.shown(K.TLS_BROKEN, "faulty middlebox")
        await rigged.mend()
        await rigged.recovered(within=1.0)
        assert S.FAILED not in rigged.path
        await rigged.nothing_lost(duplicates=None)


@on_both_transports
async def test_a_half_open_connection_is_found_dead_by_its_pongs(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport, ping_interval=0.2, pong_timeout=0.6) as rigged:
        await rigged.inject("black-hole", connections="open")
        await rigged.shown(K.PONG_TIMEOUT, "will be fetched", within=0.8)
        await rigged.recovered(within=0.05)
        assert (rigged.path, rigged.dials) == (REDIAL, 2)
        assert rigged.symbol.repaired > 0
        await rigged.nothing_lost()


async def test_a_network_that_swallows_everything_is_dialled_until_it_is_back(tmp_path: Path) -> None:
    async with rig(tmp_path, ping_interval=0.2, pong_timeout=0.6, ssl_timeout=0.5) as rigged:
        await rigged.inject("black-hole", port="both")
        await rigged.shown(K.PONG_TIMEOUT, "will be fetched", within=0.8)
        await rigged.shown(K.TLS_TIMEOUT, "a filter in between", within=0.6)
        await rigged.mend()
        await rigged.recovered(within=0.5 + 0.2)
        assert rigged.path[-4:] == FIRST_DIAL
        await rigged.nothing_lost()


@on_both_transports
async def test_a_tls_handshake_that_stalls_is_given_up_in_time(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport, ssl_timeout=0.5) as rigged:
        await rigged.inject("stall-tls")
        await rigged.inject("close")
        await rigged.shown(K.TLS_TIMEOUT, "WS_SSL_TIMEOUT", within=0.6)
        await rigged.mend()
        await rigged.recovered(within=0.6)
        assert rigged.path[:4] == (S.BACKOFF, S.CONNECTING, S.HANDSHAKING, S.BACKOFF)
        assert rigged.path[-4:] == FIRST_DIAL
        assert (rigged.dials, rigged.snapshot.error_counts["timeout_error"] >= 1) == (2, True)
        await rigged.nothing_lost()


async def test_a_port_that_refuses_is_dialled_by_the_backoff_until_it_listens(tmp_path: Path) -> None:
    async with rig(tmp_path, max_delay=0.4) as rigged:
        await rigged.inject("refuse", for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(K.REFUSED, "Nothing listens there")
        await rigged.until(lambda: rigged.snapshot.attempts_total >= 5, "four dials more", within=1.0)
        assert rigged.snapshot.backoff_total_s <= 0.4
        await rigged.mend()
        await rigged.recovered(within=0.4)
        assert set(rigged.path[:-4]) == {S.BACKOFF, S.CONNECTING}
        assert (rigged.path[-4:], rigged.dials) == (FIRST_DIAL, 2)
        await rigged.nothing_lost()


async def test_retries_that_are_used_up_are_followed_by_single_probes(tmp_path: Path) -> None:
    async with rig(tmp_path, max_retries=3, cooldown=0.3) as rigged:
        await rigged.inject("refuse", for_s=600.0)
        await rigged.inject("close")
        await rigged.until(lambda: rigged.stream.state is S.COOLING_DOWN, "a cool-down", within=0.4)
        assert "3 retries used up" in rigged.snapshot.cause
        await rigged.shown(K.REFUSED, "Nothing listens there")
        await rigged.mend()
        await rigged.recovered(within=0.3)
        await rigged.nothing_lost()


async def test_a_name_that_cannot_be_resolved_is_shown_as_such_and_asked_again(tmp_path: Path) -> None:
    async with rig(tmp_path, flowing=False, ws_url="wss://nowhere.invalid:9443") as rigged:
        await rigged.shown(K.DNS, "name was not found", within=BUSY_S)
        await rigged.until(lambda: rigged.snapshot.attempts_total >= 2, "a second dial", within=2 * BUSY_S)
        assert set(rigged.path) <= {S.IDLE, S.CONNECTING, S.BACKOFF}
        assert (rigged.dials, rigged.questions) == (0, 0)


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ("picows", {"kind": "latency", "delay_ms": 300.0, "jitter_ms": 100.0}),
        ("websockets", {"kind": "stutter", "freeze_ms": 400.0, "every_ms": 600.0}),
        ("picows", {"kind": "throttle", "bytes_per_s": 30_000.0}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else value,
)
async def test_a_slow_line_is_no_outage(tmp_path: Path, transport: str, fault: dict[str, object]) -> None:
    async with rig(tmp_path, transport=transport, ping_interval=0.2, pong_timeout=BUSY_S) as rigged:
        stored = rigged.symbol.stored
        await rigged.inject(port="both", for_s=600.0, **fault)
        pings = 0.25 if fault["kind"] == "latency" else 0.0
        await rigged.until(lambda: (rigged.snapshot.rtt_ms.last or 0.0) / 1000 >= pings, "a slow pong", within=1.0)
        await rigged.until(lambda: rigged.symbol.stored >= stored + 60, "a second's trades, late", within=2.0)
        await rigged.recovered(within=1.0)
        assert (rigged.path, rigged.dials, rigged.questions) == ((), 1, 0)
        await rigged.mend()
        await rigged.nothing_lost()


async def test_a_dial_over_a_slow_line_with_jitter_succeeds(tmp_path: Path) -> None:
    async with rig(tmp_path, ssl_timeout=BUSY_S) as rigged:
        await rigged.inject("latency", delay_ms=150.0, jitter_ms=100.0, port="both", for_s=600.0)
        await rigged.inject("close")
        await rigged.until(lambda: rigged.snapshot.reconnects == 1, "a reconnect", within=1.0 + 8 * 0.25)
        await rigged.recovered(within=2.0)
        assert rigged.dials == 2
        await rigged.mend()
        await rigged.nothing_lost()
