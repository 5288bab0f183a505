"""The byte proxy before the exchange, seen from the client's side: what each thing that goes wrong on a line looks like."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from itertools import pairwise
from pathlib import Path

import pytest
from door_support import breakable, nothing_left
from exchange_support import receive
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from quantai_tui.exchange.fault import FaultError
from quantai_tui.exchange.server import HOST

LONG_S = 8.0  # for what must come; a loaded machine takes its time


async def ending(ws: ClientConnection) -> BaseException:
    """Read on; the exception behind the one that ends the connection."""
    async with asyncio.timeout(LONG_S):
        with pytest.raises(ConnectionClosedError) as caught:
            await _all_of(ws)
    assert caught.value.rcvd is None, "a close frame came"
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


async def _all_of(ws: ClientConnection) -> None:
    while True:
        await ws.recv()


async def consecutive(ws: ClientConnection, count: int) -> bool:
    return all(after["a"] == before["a"] + 1 for before, after in pairwise(await receive(ws, count)))


async def silent(ws: ClientConnection, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await ws.recv()
    except TimeoutError:
        return True
    return False


async def drained(ws: ClientConnection) -> None:
    """Read what was under way, until nothing has come for a while."""
    while not await silent(ws, 0.3):
        pass


async def test_an_undisturbed_door_passes_frames_in_order_and_the_good_byes_of_both_sides(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        assert await consecutive(ws, 50)
        await ws.close()
        assert ws.close_code == 1000
        assert (await served.get("/api/v3/ping"))[0] == 200


async def test_a_reset_in_the_middle_of_a_record_is_a_connection_reset(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await ws.recv()
        assert "1 open connection" in await served.inject("reset")
        assert isinstance(await ending(ws), ConnectionResetError)
        async with served.trades() as again:
            assert await consecutive(again, 3)


async def test_a_reset_comes_within_seconds_where_nothing_is_said(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.dial("/ws", ping_interval=None) as ws:
        await served.inject("reset")
        assert isinstance(await ending(ws), ConnectionResetError)


@pytest.mark.parametrize("kind", ["half-close", "truncate-record"])
async def test_an_end_without_a_good_bye_is_an_unexpected_end_of_stream(tmp_path: Path, kind: str) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await ws.recv()
        await served.inject(kind)
        assert isinstance(await ending(ws), EOFError)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_flipped_byte_is_a_bad_record_mac(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with breakable(tmp_path) as served:
        served.tls.maximum_version = version
        async with served.trades() as ws:
            await ws.recv()
            await served.inject("flip-byte")
            cause = await ending(ws)
            assert isinstance(cause, ssl.SSLError)
            assert cause.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_flipped_byte_on_connections_that_come_spares_their_handshake(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with breakable(tmp_path) as served, served.trades() as before:
        await served.inject("flip-byte", for_s=30.0, connections="new")
        served.tls.maximum_version = version
        async with asyncio.timeout(LONG_S):
            reader, writer = await asyncio.open_connection(HOST, served.ws_port, ssl=served.tls)
            writer.write(b"GET /ws HTTP/1.1\r\n\r\n")
            with pytest.raises(ssl.SSLError) as caught:
                await reader.read()
        writer.transport.abort()
        assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
        assert await consecutive(before, 10)
        await served.clear()
        async with served.trades() as after:
            assert await consecutive(after, 3)


async def test_a_wound_for_new_connections_alone_wants_to_know_for_how_long(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        with pytest.raises(FaultError, match="no `for`"):
            await served.inject("reset", connections="new")


async def test_in_a_black_hole_nothing_moves_and_nothing_is_closed_and_later_dials_are_well(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await ws.recv()
        await served.inject("black-hole")
        await drained(ws)
        pong = asyncio.ensure_future(await ws.ping())
        with pytest.raises(TimeoutError):  # TCP is through, the handshake is not answered
            await asyncio.wait_for(served.trades(), 0.5)
        await served.clear()
        async with served.trades() as again:
            assert await consecutive(again, 3)
        assert await silent(ws, 0.2)
        assert not pong.done()
        assert ws.close_code is None


async def test_a_black_hole_can_spare_open_connections_and_refuse_dials(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await served.inject("black-hole", connections="new", how="refuse")
        with pytest.raises(ConnectionRefusedError):
            await served.trades()
        assert await consecutive(ws, 10)


async def test_a_stalled_handshake_is_answered_when_the_stall_is_over(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as before:
        await served.inject("stall-tls")
        with pytest.raises(ConnectionAbortedError):
            await asyncio.open_connection(HOST, served.ws_port, ssl=served.tls, ssl_handshake_timeout=0.3)
        dial = asyncio.ensure_future(_dialled(served.trades()))
        assert await consecutive(before, 10)
        assert not dial.done()
        await served.clear()
        async with asyncio.timeout(LONG_S), await dial as ws:
            assert await consecutive(ws, 3)


async def _dialled(dial: connect) -> ClientConnection:
    return await dial


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_stalled_upgrade_lets_the_tls_handshake_pass(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with breakable(tmp_path) as served:
        served.tls.maximum_version = version
        await served.inject("stall-upgrade-bytes")
        async with asyncio.timeout(LONG_S):
            reader, writer = await asyncio.open_connection(HOST, served.ws_port, ssl=served.tls)
            writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.4)
            await served.clear()
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")
        writer.transport.abort()


async def test_a_refused_port_comes_back_as_the_same_and_open_connections_go_on(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await served.inject("refuse")
        with pytest.raises(ConnectionRefusedError):
            await served.trades()
        with pytest.raises(OSError):
            _listening_elsewhere(served.ws_port)
        assert await consecutive(ws, 10)
        await served.clear()
        async with served.trades() as again:
            assert await consecutive(again, 3)


def _listening_elsewhere(port: int) -> None:
    with socket.socket() as other:  # without SO_REUSEADDR, as any other program
        other.bind((HOST, port))


async def test_a_fault_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        began = time.monotonic()
        await served.inject("refuse", for_s=0.5)
        async with asyncio.timeout(LONG_S):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    (await served.trades()).transport.abort()
                    break
                await asyncio.sleep(0.02)
        assert time.monotonic() - began >= 0.4


async def test_latency_delays_each_way_and_keeps_the_order(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await ws.recv()
        await served.inject("latency", delay_ms=80.0, jitter_ms=40.0)
        times = []
        for _ in range(3):
            began = time.monotonic()
            await asyncio.wait_for(await ws.ping(), LONG_S)
            times.append(time.monotonic() - began)
        assert min(times) >= 2 * 0.04
        assert await consecutive(ws, 30)


async def test_what_is_late_on_the_rest_port_is_not_late_on_the_other(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await served.inject("latency", delay_ms=250.0, jitter_ms=1.0, port="rest")
        began = time.monotonic()
        rest = asyncio.create_task(served.get("/api/v3/ping"))
        pings = []
        while not rest.done():
            sent = time.monotonic()
            await asyncio.wait_for(await ws.ping(), LONG_S)
            pings.append(time.monotonic() - sent)
            await asyncio.sleep(0.3)  # the exchange ends who sends more than five a second
        assert (await rest)[0] == 200
        assert time.monotonic() - began >= 4 * 0.249  # there and back for the handshake, and again for the request
        assert min(pings) < 0.249


async def test_a_stuttering_line_freezes_again_and_again_and_loses_nothing(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await served.inject("stutter", freeze_ms=400.0, every_ms=700.0)
        began, ids, pauses = time.monotonic(), [], 0
        while time.monotonic() - began < 1.6:
            before = time.monotonic()
            ids.append((await receive(ws, 1))[0]["a"])
            pauses += time.monotonic() - before > 0.25
        assert pauses >= 2
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_stutter_that_never_pauses_is_refused_with_a_remedy(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served:
        with pytest.raises(FaultError, match="no less than") as caught:
            await served.inject("stutter", freeze_ms=500.0, every_ms=500.0)
        assert "black-hole" in caught.value.remedy


async def test_connections_over_the_cap_are_reset(tmp_path: Path) -> None:
    async with breakable(tmp_path) as served, served.trades() as ws:
        await served.inject("connection-cap")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await served.trades()
        assert await consecutive(ws, 3)
        await ws.close()
        await served.clear()
        async with served.trades() as again:
            assert await consecutive(again, 3)


async def test_closing_under_every_fault_at_once_leaves_nothing_and_takes_no_time(tmp_path: Path) -> None:
    connections: list[ClientConnection] = []
    dial: asyncio.Task[ClientConnection] | None = None
    async with nothing_left():
        async with breakable(tmp_path) as served:
            for kind in ("black-hole", "latency", "stutter", "throttle"):
                connections.append(await served.trades())
                await served.inject(kind, connections="open")
            await served.inject("stall-tls")
            await served.inject("reset", connections="all", for_s=60.0)
            dial = asyncio.create_task(_dialled(served.trades()))
            await asyncio.sleep(0)
            began = time.monotonic()
        assert time.monotonic() - began < LONG_S
        for ws in connections:
            async with asyncio.timeout(LONG_S):
                with pytest.raises(ConnectionClosed):
                    await _all_of(ws)
        with pytest.raises((OSError, ConnectionClosed, EOFError)):
            await dial
