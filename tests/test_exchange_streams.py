"""The stream side over real TLS: what a client of Binance's WebSocket API sees."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from exchange_support import NOON, Served, SetClock, ask, receive, replay, serving, synthetic
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from quantai_tui.exchange.budget import Limits
from quantai_tui.exchange.markets import SyntheticSpec
from quantai_tui.exchange.synthetic import SyntheticMarket
from quantai_tui.exchange.tape import BLOCK_S
from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame, decode_agg_trades

ETH = "ethusdt@aggTrade"
BTC = "btcusdt@aggTrade"


@asynccontextmanager
async def exchange(folder: Path, limits: Limits | None = None, rate: float = 5.0) -> AsyncIterator[Served]:
    """Two synthetic symbols that have been trading for some hours, in a time that runs five times as fast."""
    clock = SetClock(rate=rate)
    market = synthetic(symbols=("ETHUSDT", "BTCUSDT"), epoch_s=int(clock.time()) - 3 * 3600)
    async with serving(market, folder, limits=limits, clock=clock) as served:
        yield served


def consecutive(events: list[dict[str, Any]]) -> bool:
    return all(after["a"] == before["a"] + 1 for before, after in pairwise(events))


async def of_both(ws: ClientConnection) -> list[dict[str, Any]]:
    """Sixty frames, and more until both symbols have traded: one may be quiet while the other is busy."""
    frames = await receive(ws, 60)
    while len({frame.get("data", frame)["s"] for frame in frames}) < 2:
        frames += await receive(ws, 1)
    return frames


async def test_a_subscription_is_acknowledged_first_and_then_trades_come_with_consecutive_ids(tmp_path: Path) -> None:
    async with exchange(tmp_path, rate=1.0) as served, served.dial() as ws:
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": [ETH], "id": 41}))
        acknowledgement, *events = await receive(ws, 10)
        now_ms = time.time() * 1000
        assert acknowledgement == {"result": None, "id": 41}
        assert consecutive(events)
        assert set(events[0]) == set("eEsapqflTmM")
        assert {(event["e"], event["s"], event["M"]) for event in events} == {("aggTrade", "ETHUSDT", True)}
        assert all(event["T"] <= event["E"] <= now_ms for event in events)
        assert now_ms - events[-1]["E"] < 5000


async def test_ids_run_on_over_ten_seconds_and_the_edge_of_a_block(tmp_path: Path) -> None:
    clock = SetClock(NOON + BLOCK_S - 6.0, rate=5.0)
    async with serving(synthetic(), tmp_path, clock=clock) as served, served.dial() as ws:
        await ask(ws, "SUBSCRIBE", ETH)
        clock.run()
        events = [(await receive(ws, 1))[0]]
        while events[-1]["T"] < events[0]["T"] + 10_000:
            events += await receive(ws, 1)
        assert events[0]["T"] // 1000 // BLOCK_S + 1 == events[-1]["T"] // 1000 // BLOCK_S
        assert consecutive(events)


async def test_raw_paths_send_bare_events_and_combined_ones_name_the_stream(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path) as served,
        served.dial(f"/ws/{ETH}") as raw,
        served.dial(f"/ws/{ETH}/{BTC}") as several,
        served.dial(f"/stream?streams={ETH}/{BTC}") as combined,
        served.dial("/stream") as later,
    ):
        assert {event["s"] for event in await receive(raw, 5)} == {"ETHUSDT"}
        assert {event["s"] for event in await of_both(several)} == {"ETHUSDT", "BTCUSDT"}
        assert {(frame["stream"], frame["data"]["s"]) for frame in await of_both(combined)} == {
            (ETH, "ETHUSDT"),
            (BTC, "BTCUSDT"),
        }
        assert await ask(later, "SUBSCRIBE", BTC) == {"result": None, "id": 1}
        assert {frame["stream"] for frame in await receive(later, 5)} == {BTC}


async def test_microseconds_are_sent_to_those_who_ask_for_them(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served, served.dial(f"/ws/{ETH}?timeUnit=MICROSECOND") as ws:
        [event] = await receive(ws, 1)
        assert event["T"] // 10**15 == event["E"] // 10**15 == 1


async def test_subscriptions_are_listed_and_end_when_asked(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served, served.dial() as ws:
        assert await ask(ws, "SUBSCRIBE", ETH, BTC) == {"result": None, "id": 1}
        assert await ask(ws, "LIST_SUBSCRIPTIONS", id="list") == {"result": [ETH, BTC], "id": "list"}
        assert await ask(ws, "UNSUBSCRIBE", ETH, "never@aggTrade", id=3) == {"result": None, "id": 3}
        assert {event["s"] for event in await receive(ws, 10)} == {"BTCUSDT"}
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))["result"] == [BTC]


async def test_a_symbol_that_does_not_exist_is_acknowledged_and_stays_silent(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served, served.dial() as ws:
        for name in ("nosuch@aggTrade", "ETHUSDT@aggTrade", "ethusdt@kline_1m"):
            assert await ask(ws, "SUBSCRIBE", name) == {"result": None, "id": 1}
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))["result"] == ["nosuch@aggTrade", "ETHUSDT@aggTrade", "ethusdt@kline_1m"]
        async with served.dial(f"/ws/{ETH}") as loud:
            await receive(loud, 5)
        with pytest.raises(TimeoutError):
            await receive(ws, 1, seconds=0.2)


async def test_the_form_can_be_changed_on_a_connection(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served, served.dial(f"/ws/{ETH}") as ws:
        assert (await ask(ws, "GET_PROPERTY", "combined"))["result"] is False
        assert await ask(ws, "SET_PROPERTY", "combined", True) == {"result": None, "id": 1}
        assert (await receive(ws, 1))[0]["stream"] == ETH


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ("{nonsense", 3, "Invalid JSON"),
        ("[1]", 2, "expected an object"),
        ('{"method": "BUY", "params": [], "id": 9}', 2, "unknown variant `BUY`, expected one of `SUBSCRIBE`"),
        ('{"params": ["a"], "id": 9}', 2, "missing field `method`"),
        ('{"method": "SUBSCRIBE", "id": 9}', 2, "missing field `params`"),
        ('{"method": "SUBSCRIBE", "params": "a", "id": 9}', 2, "array of strings"),
        ('{"method": "SUBSCRIBE", "params": [7], "id": 9}', 2, "array of strings"),
        ('{"method": "SUBSCRIBE", "params": ["a"], "id": -1}', 2, "request ID must be an unsigned integer"),
        ('{"method": "SUBSCRIBE", "params": ["a", "b", "c", "d"], "id": 9}', 2, "too many parameters"),
        ('{"method": "SET_PROPERTY", "params": ["combined", 1], "id": 9}', 1, "expected Boolean"),
        ('{"method": "GET_PROPERTY", "params": ["colour"], "id": 9}', 0, "Unknown property"),
    ],
)
async def test_bad_control_messages_are_answered_as_the_venue_answers_them(
    tmp_path: Path, message: str, code: int, said: str
) -> None:
    async with exchange(tmp_path, Limits(streams_per_connection=3)) as served, served.dial() as ws:
        await ws.send(message)
        [reply] = await receive(ws, 1)
        error = reply["error"] if '"id": 9' in message else reply
        assert error["code"] == code
        assert said in error["msg"]
        assert reply.get("id") == (9 if '"id": 9' in message else None)
        assert await ask(ws, "SUBSCRIBE", ETH) == {"result": None, "id": 1}  # and the connection is none the worse


async def test_more_than_five_messages_in_a_second_end_the_connection_by_policy(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served, served.dial() as ws:
        for number in range(5):
            await ask(ws, "LIST_SUBSCRIPTIONS", id=number)
        await asyncio.sleep(1.05)  # the limit's own second
        for number in range(5):
            await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        await ws.ping()  # counts as well
        with pytest.raises(ConnectionClosedError):
            await receive(ws, 6)
        assert (ws.close_code, ws.close_reason) == (1008, "Too many requests")


async def test_no_other_path_is_served(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served:
        with pytest.raises(InvalidStatus) as refused:
            await served.dial("/market/ws")
        assert refused.value.response.status_code == 404


async def test_a_client_that_does_not_know_the_authority_is_not_served(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(served.ws_url + "/ws", ssl=ssl.create_default_context(), proxy=None)


async def test_pings_that_are_answered_keep_a_connection_alive(tmp_path: Path) -> None:
    limits = Limits(ping_interval_s=0.05, pong_deadline_s=2.0, messages_per_s=1000)
    async with exchange(tmp_path, limits) as served, served.dial(f"/ws/{ETH}") as ws:
        began = time.monotonic()
        while time.monotonic() - began < 3.0:
            await receive(ws, 1)


async def test_a_client_that_does_not_echo_the_payload_of_a_ping_is_closed(tmp_path: Path) -> None:
    limits = Limits(ping_interval_s=0.05, pong_deadline_s=0.2, messages_per_s=1000)
    async with exchange(tmp_path, limits) as served:
        reader, writer = await mute_client(served, "/ws")
        async with asyncio.timeout(10):
            frames = []
            while not frames or frames[-1][0] != 0x88:
                head = await reader.readexactly(2)
                frames.append((head[0], await reader.readexactly(head[1])))
                writer.write(bytes((0x8A, 0x80)) + bytes(4))  # an unsolicited pong does not count
        assert frames[0][0] == 0x89
        assert frames[0][1].isdigit()
        assert frames[-1][1] == (1008).to_bytes(2) + b"Pong timeout"
        writer.close()


async def test_a_connection_ends_when_its_lifetime_is_over(tmp_path: Path) -> None:
    limits = Limits(ping_interval_s=0.05, connection_lifetime_s=0.2, messages_per_s=1000)
    async with exchange(tmp_path, limits) as served, served.dial() as ws:
        async with asyncio.timeout(15):
            await ws.wait_closed()
        assert ws.close_code == 1001


async def test_a_replay_at_full_speed_arrives_whole_and_equal_to_the_file_and_to_rest(xrpeth: Path, tmp_path: Path) -> None:
    market, home = replay(xrpeth, tmp_path / "market", "max")
    async with serving(market, tmp_path / "tls") as served, served.dial(max_size=None) as ws:
        began = time.monotonic()
        await ask(ws, "SUBSCRIBE", "xrpeth@aggTrade")
        frames = [await asyncio.wait_for(ws.recv(), 10) for _ in range(market.total)]
        took = time.monotonic() - began
        trades = market.trades("XRPETH", 0, market.total, time.time())
        for frame, trade in zip(frames, trades, strict=True):
            assert frame.encode() == agg_trade_frame(trade, json.loads(frame)["E"], combined=False)
        assert took > market.total / 10_000 - 0.5  # not faster than it says
        fetched = []
        while len(fetched) < market.total:
            from_id = fetched[-1].id + 1 if fetched else market.first_id("XRPETH")
            status, body, _ = await served.get("/api/v3/aggTrades", symbol="XRPETH", fromId=from_id, limit=1000)
            assert status == 200
            fetched += decode_agg_trades(json.dumps(body).encode(), "XRPETH")
        assert fetched == trades
    home.close()


async def test_the_market_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "ETHUSDT-aggTrades-2024-01-01.csv"
    file.write_text("".join(f"{n},2456.12000000,0.10000000,{n},{n},{1704067200000 + n},True,True\n" for n in range(40_000)))
    market, home = replay(file, tmp_path / "market", "max", time.time())
    async with serving(market, tmp_path / "tls", limits=Limits(buffer_bytes=2_500_000), send_buffer=65_536) as served:
        reader, writer = await mute_client(served, f"/ws/{ETH}")
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        async with served.dial(f"/ws/{ETH}") as ws:
            events = await receive(ws, 25_000, seconds=40)  # of which the other leaves more unread than it may
            assert consecutive(events)
        transport.resume_reading()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            async with asyncio.timeout(15):
                await reader.readexactly(10**9)  # ends long before: it was cut off
        writer.close()
    home.close()


async def test_clients_are_told_when_the_exchange_leaves(tmp_path: Path) -> None:
    async with exchange(tmp_path) as served:
        ws = await served.dial(f"/ws/{ETH}")
        await receive(ws, 1)
    with pytest.raises(ConnectionClosed):
        await receive(ws, 10**6)
    assert ws.close_code == 1001


async def test_a_market_that_breaks_is_reported_to_whoever_runs_the_server(tmp_path: Path) -> None:
    class Broken(SyntheticMarket):
        def trades(self, symbol: str, from_id: int, limit: int, now_s: float) -> list[AggTrade]:
            raise ArithmeticError("no such market")

    async with serving(Broken(SyntheticSpec(), NOON), tmp_path) as served, served.dial(f"/ws/{ETH}"):
        assert served.server is not None
        with pytest.raises(ArithmeticError, match="no such market"):
            await asyncio.wait_for(served.server.failed, 15)


async def test_the_same_moment_of_the_same_seed_is_streamed_alike_by_two_exchanges(tmp_path: Path) -> None:
    clock = SetClock(start=NOON + 500, rate=5.0)
    async with (
        serving(synthetic(), tmp_path / "one", clock=clock) as one,
        serving(synthetic(), tmp_path / "other", clock=clock) as other,
        one.dial(f"/ws/{ETH}") as first,
        other.dial(f"/ws/{ETH}") as second,
    ):
        mine, theirs = await receive(first, 30), await receive(second, 30)
        while mine[-1]["a"] < theirs[-1]["a"]:  # it has been listening for longer
            mine += await receive(first, 1)
        by_id = {event["a"]: {k: v for k, v in event.items() if k != "E"} for event in mine}
        shared = [event for event in theirs if event["a"] in by_id]
        assert len(shared) > 10
        assert all(by_id[event["a"]] == {k: v for k, v in event.items() if k != "E"} for event in shared)


async def mute_client(served: Served, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has shaken hands and does nothing by itself: no pong, no close, a small receive buffer."""
    url = urlsplit(served.ws_url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=raw, ssl=served.tls, server_hostname="localhost", limit=65_536)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    return reader, writer
