"""Faults of single frames: each byte by byte as a socket sees it, or through a plain client where that is enough."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from exchange_support import Served, SetClock, receive, serving, synthetic, until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from quantai_tui.exchange.alterations import AlterableMarket, Alterations
from quantai_tui.exchange.fault import FaultError

ETH = "ethusdt@aggTrade"
BTC = "btcusdt@aggTrade"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = SetClock(rate=20.0)
    market = synthetic(symbols=("ETHUSDT", "BTCUSDT"), epoch_s=int(clock.time()) - 3 * 3600)
    async with serving(market, tmp_path, clock=clock) as served:
        yield served


class Wire:
    """A connection read frame by frame: the first byte of each, and its payload."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self._reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2))
        elif size == 127:
            size = int.from_bytes(await self._reader.readexactly(8))
        return first, await self._reader.readexactly(size)

    async def frames(self, count: int) -> list[tuple[int, bytes]]:
        async with asyncio.timeout(15):
            return [await self.frame() for _ in range(count)]

    async def up_to_odd(self) -> list[tuple[int, bytes]]:
        """All frames up to the first that is no whole trade, that one included."""
        frames: list[tuple[int, bytes]] = []
        async with asyncio.timeout(15):
            while not frames or trade_of(frames[-1]) is not None:
                frames.append(await self.frame())
        return frames


def trade_of(frame: tuple[int, bytes]) -> dict[str, Any] | None:
    """The trade in a frame as the venue sends it; None for every other frame."""
    try:
        event = json.loads(frame[1])
    except ValueError:
        return None
    event = event.get("data", event)
    return event if frame[0] == 0x81 and event.get("e") == "aggTrade" and set("apqT") <= set(event) else None


@asynccontextmanager
async def wire(served: Served, path: str = f"/ws/{ETH}") -> AsyncIterator[Wire]:
    url = urlsplit(served.ws_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=served.tls, server_hostname="localhost")
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    yield Wire(reader)
    writer.transport.abort()


def is_malformed(first: int, payload: bytes) -> bool:
    return first == 0x81 and payload.startswith(b'{"') and not payload.endswith(b"}")


def lacks_fields(first: int, payload: bytes) -> bool:
    event = json.loads(payload)
    event = event.get("data", event)
    return first == 0x81 and event["e"] == "aggTrade" and not {"p", "T"} & set(event)


def is_unknown(first: int, payload: bytes) -> bool:
    event = json.loads(payload)
    return first == 0x81 and event.get("data", event)["e"] == "auctionUpdate"


def is_no_utf8(first: int, payload: bytes) -> bool:
    with pytest.raises(UnicodeDecodeError):
        payload.decode()
    return first == 0x81


def is_compressed(first: int, payload: bytes) -> bool:
    return first == 0xC1 and b"aggTrade" in zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


BAD = [
    ("malformed", is_malformed),
    ("missing-fields", lacks_fields),
    ("unknown-event", is_unknown),
    ("bad-utf8", is_no_utf8),
    ("binary", lambda first, payload: first == 0x82 and len(payload) == 64),
    ("compressed", is_compressed),
    ("oversized", lambda first, payload: first == 0x81 and 3_000_000 < len(payload) < 3_000_100),
]


@pytest.mark.parametrize(("kind", "holds"), BAD, ids=[kind for kind, _ in BAD])
async def test_a_bad_frame_comes_between_its_neighbours_or_instead_of_one(served: Served, kind: str, holds: Any) -> None:
    more = {"size": 3_000_000} if kind == "oversized" else {}
    async with wire(served) as raw, wire(served, f"/stream?streams={ETH}") as combined:
        for line in (raw, combined):
            await line.frames(3)
        await served.inject(kind, **more)
        for line in (combined, raw):
            *before, odd = await line.up_to_odd()
            assert holds(*odd)
            after = await line.frames(3)
            trades = [trade_of(frame) for frame in (*before, *after)]
            assert all(late and early and late["a"] == early["a"] + 1 for early, late in pairwise(trades))
        await served.inject(kind, replace=True, **more)
        *before, odd = await raw.up_to_odd()
        assert holds(*odd)
        last, [first] = trade_of([*after, *before][-1]), await raw.frames(1)
        assert last
        assert (trade_of(first) or {})["a"] == last["a"] + 2
        status, rows, _ = await served.get("/api/v3/aggTrades", symbol="ETHUSDT", fromId=last["a"] + 1, limit=1)
        assert (status, rows[0]["a"]) == (200, last["a"] + 1)


async def test_bad_frames_come_as_many_and_as_often_as_asked_for(served: Served) -> None:
    async with wire(served, f"/ws/{ETH}/{BTC}") as line:
        await line.frames(3)
        await served.inject("malformed", count=3, every=4, symbol="BTCUSDT")
        frames: list[tuple[int, bytes]] = []
        while sum(trade_of(frame) is None for frame in frames) < 3:
            frames += await line.frames(1)
        between = [trade["s"] for frame in frames if (trade := trade_of(frame))]
        assert between.count("BTCUSDT") >= 8
        frames += await line.frames(60)
        assert sum(trade_of(frame) is None for frame in frames) == 3
        odd = [at for at, frame in enumerate(frames) if trade_of(frame) is None]
        for early, late in pairwise(odd):
            assert sum((trade_of(frame) or {}).get("s") == "BTCUSDT" for frame in frames[early:late]) == 4


async def test_a_plain_client_ends_at_what_the_protocol_forbids_with_the_code_for_it(served: Served) -> None:
    for kind, code in (("compressed", 1002), ("oversized", 1009), ("bad-utf8", 1007)):
        async with served.dial(f"/ws/{ETH}") as ws:
            await receive(ws, 2)
            await served.inject(kind)
            with pytest.raises(ConnectionClosed) as ended:
                await receive(ws, 10_000)
            assert ended.value.sent is not None
            assert ended.value.sent.code == code


async def test_a_fragmented_trade_is_whole_again_at_the_client(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws, wire(served) as line:
        await receive(ws, 2)
        await line.frames(2)
        await served.inject("fragmented", count=5, pieces=4)
        events = await receive(ws, 60)
        assert all(late["a"] == early["a"] + 1 for early, late in pairwise(events))
        *_, first = await line.up_to_odd()
        rest = await line.frames(4)
        assert [head for head, _ in (first, *rest)] == [0x01, 0x8A, 0x00, 0x00, 0x80]
        assert json.loads(first[1] + b"".join(part for head, part in rest if head != 0x8A))["e"] == "aggTrade"


async def past_it(served: Served, ws: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """All that comes until the fault has happened as often as it was asked for, and a little more.

    However much had been sent before it began.
    """
    assert served.server is not None
    faults = served.server.faults
    await until(lambda: not faults.among(frozenset({kind})))
    _, [newest], _ = await served.get("/api/v3/aggTrades", symbol="ETHUSDT", limit=1)
    events = await receive(ws, 1)
    while events[-1]["s"] != "ETHUSDT" or events[-1]["a"] <= newest["a"]:
        events += await receive(ws, 1)
    return events + await receive(ws, 20)


async def test_trades_may_come_twice(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 2)
        await served.inject("duplicate", count=4, every=3, span=2)
        ids = [event["a"] for event in await past_it(served, ws, "duplicate")]
        twice = {trade_id for trade_id in ids if ids.count(trade_id) == 2}
        assert len(twice) == 4
        assert max(ids) - min(ids) + 1 == len(set(ids)) == len(ids) - 4
        for trade_id in twice:
            first = ids.index(trade_id)
            assert len({later for later in ids[first + 1 : ids.index(trade_id, first + 1)] if later > trade_id}) == 2


async def test_trades_may_change_places_without_one_being_lost(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}/{BTC}") as ws:
        await receive(ws, 5)
        await served.inject("reorder", count=3, span=6, symbol="ETHUSDT")
        events = await past_it(served, ws, "reorder")
        eth = [event["a"] for event in events if event["s"] == "ETHUSDT"]
        btc = [event["a"] for event in events if event["s"] == "BTCUSDT"]
        assert btc == sorted(btc)
        assert eth != sorted(eth)
        assert sorted(eth) == list(range(min(eth), min(eth) + len(eth)))
        displaced = [at for at, (trade_id, sound) in enumerate(zip(eth, sorted(eth), strict=True)) if trade_id != sound]
        assert displaced[-1] - displaced[0] < 18


async def test_a_reordering_that_is_cleared_gives_back_what_it_held(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws:
        last = (await receive(ws, 5))[-1]["a"]
        await served.inject("reorder", count=1000, span=1000)
        await asyncio.sleep(0.2)  # some trades are being held
        await served.inject("clear")
        ids = [event["a"] for event in await receive(ws, 80)]
        assert ids == list(range(last + 1, last + 81))


async def test_a_hole_is_on_rest_and_a_hole_of_the_venue_is_nowhere_even_after_a_restart(tmp_path: Path) -> None:
    clock = SetClock(rate=20.0)
    market = synthetic(epoch_s=int(clock.time()) - 3 * 3600)

    async def missing(served: Served, kind: str) -> tuple[list[int], list[int]]:
        """The ids that the stream left out, and those of them that REST lacks."""
        async with served.dial(f"/ws/{ETH}") as ws:
            await receive(ws, 3)
            await served.inject(kind, count=7, every=2)
            ids = [event["a"] for event in await past_it(served, ws, kind)]
        left_out = sorted(set(range(ids[0], ids[-1] + 1)) - set(ids))
        status, rows, _ = await served.get("/api/v3/aggTrades", symbol="ETHUSDT", fromId=ids[0], limit=len(ids))
        assert status == 200
        assert len(rows) == len(ids)  # a hole makes no page shorter
        return left_out, sorted(set(left_out) - {row["a"] for row in rows})

    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        left_out, lacking = await missing(served, "hole")
        assert (len(left_out), lacking) == (7, [])
        left_out, lacking = await missing(served, "venue-hole")
        assert len(left_out) == 7
        assert lacking == left_out
    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        status, rows, _ = await served.get("/api/v3/aggTrades", symbol="ETHUSDT", fromId=left_out[0], limit=20)
        assert status == 200
        assert not set(left_out) & {row["a"] for row in rows}


def test_a_market_loses_no_more_than_it_can_keep() -> None:
    market = AlterableMarket(synthetic(), Alterations(lost={"ETHUSDT": tuple(range(19_995))}))
    market.require_room(5)
    with pytest.raises(FaultError, match="lost 20000 trades"):
        market.require_room(6)


async def test_the_same_seed_makes_the_same_noise_and_order(tmp_path: Path) -> None:
    async def noise(folder: Path) -> list[bytes]:
        clock = SetClock(rate=20.0)
        async with serving(synthetic(epoch_s=int(clock.time()) - 7200), folder, clock=clock) as served, wire(served) as line:
            await served.inject("binary", count=3)
            frames: list[tuple[int, bytes]] = []
            while sum(first == 0x82 for first, _ in frames) < 3:
                frames += await line.frames(1)
            return [payload for first, payload in frames if first == 0x82]

    assert await noise(tmp_path / "one") == await noise(tmp_path / "other")
