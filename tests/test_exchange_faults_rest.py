"""Faults of REST, as a plain HTTP client meets them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from exchange_support import NOON, Served, SetClock, receive, serving, synthetic
from websockets.exceptions import InvalidStatus

from quantai_tui.exchange.synthetic import SyntheticMarket

ETH = "ETHUSDT"
NOW = NOON + 7200.5


@pytest.fixture
def market() -> SyntheticMarket:
    return synthetic(symbols=(ETH,))


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture
async def served(market: SyntheticMarket, clock: SetClock, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        yield served


async def ids(served: Served, from_id: int, limit: int = 10) -> list[int]:
    status, rows, _ = await served.get("/api/v3/aggTrades", symbol=ETH, fromId=from_id, limit=limit)
    assert status == 200
    return [row["a"] for row in rows]


async def text(served: Served, path: str) -> tuple[int, str, dict[str, str]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=served.tls)) as session,
        session.get(served.rest_url + path) as response,
    ):
        return response.status, await response.text(), dict(response.headers)


async def test_pages_may_end_early(served: Served, market: SyntheticMarket) -> None:
    first = market.first_id(ETH)
    await served.inject("rest-short", rows=3)
    assert await ids(served, first) == [first, first + 1, first + 2]
    await served.inject("clear")
    assert len(await ids(served, first)) == 10


async def test_bodies_may_be_cut_off(served: Served, market: SyntheticMarket) -> None:
    path = f"/api/v3/aggTrades?symbol={ETH}&fromId={market.first_id(ETH)}&limit=10"
    whole = (await text(served, path))[1]
    await served.inject("rest-cut")
    for asked in (path, f"/api/v3/klines?symbol={ETH}&interval=1m"):
        status, body, _ = await text(served, asked)
        assert status == 200
        with pytest.raises(ValueError):
            json.loads(body)
    assert whole.startswith((await text(served, path))[1])


async def test_pages_may_hold_wrong_rows(served: Served, market: SyntheticMarket) -> None:
    first = market.first_id(ETH) + 50
    sound = list(range(first, first + 10))
    for how, rows in (
        ("late", sound[1:]),
        ("backwards", sound[::-1]),
        ("gap", sound[:5] + sound[6:]),
    ):
        await served.inject("rest-wrong-rows", how=how)
        assert await ids(served, first) == rows
    await served.inject("rest-wrong-rows", how="foreign")
    assert not set(await ids(served, first)) & set(sound)
    assert not set(await ids(served, market.first_id(ETH))) & set(range(market.first_id(ETH), first))


async def test_too_much_asking_is_429_and_going_on_is_418_for_streams_as_well_and_after_a_restart(
    served: Served, market: SyntheticMarket, clock: SetClock, tmp_path: Path
) -> None:
    await served.inject("rest-limit", retry_after=10.0, refusals=2, lifetime=30.0)
    for _ in range(2):
        status, _, headers = await served.get("/api/v3/ping")
        assert (status, headers["Retry-After"]) == (429, "10")
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) > 6000
    assert (await served.get("/api/v3/ping"))[0::2][0] == 418
    with pytest.raises(InvalidStatus) as refused:
        await served.dial("/ws")
    assert refused.value.response.status_code == 418
    assert refused.value.response.headers["Retry-After"] == "60"  # asking inside the ban made it longer
    assert served.server is not None
    await served.server.close()
    async with serving(market, tmp_path / "other", clock=clock) as unrelated:
        assert (await unrelated.get("/api/v3/ping"))[0] == 200


async def test_a_ban_outlives_the_exchange_and_ends(market: SyntheticMarket, tmp_path: Path) -> None:
    clock = SetClock(NOW)
    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        await served.inject("ban", lifetime=40.0)
    clock.now = NOW + 39
    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        assert (await served.get("/api/v3/ping"))[0] == 418
    clock.now = NOW + 3600
    async with serving(market, tmp_path, clock=clock, remembers=True) as served:
        assert (await served.get("/api/v3/ping"))[0] == 200
        await served.inject("ban")
        await served.inject("clear")
        assert (await served.get("/api/v3/ping"))[0] == 200


async def test_who_waits_out_a_429_is_served_again(served: Served, clock: SetClock) -> None:
    await served.inject("rest-limit", retry_after=10.0)
    status, _, headers = await served.get("/api/v3/ping")
    assert status == 429
    assert clock.now is not None
    clock.now += int(headers["Retry-After"])
    assert (await served.get("/api/v3/ping"))[0] == 200


@pytest.mark.parametrize("code", [403, 451, 500, 502, 503, 504])
async def test_an_error_may_come_instead_of_an_answer(served: Served, code: int) -> None:
    await served.inject("rest-status", code=code, retry_after=3.0)
    status, body, headers = await text(served, "/api/v3/time")
    assert (status, headers["Retry-After"], headers["Content-Type"].split(";")[0]) == (code, "3", "text/html")
    assert "<html>" in body
    await served.inject("clear")
    assert (await served.get("/api/v3/time"))[0] == 200


async def test_a_stalled_answer_comes_when_the_stall_is_over(served: Served) -> None:
    await served.inject("rest-stall")
    asked = asyncio.create_task(served.get("/api/v3/ping"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.4)
    await served.inject("clear")
    assert (await asyncio.wait_for(asked, 10))[0] == 200


async def test_rest_may_be_behind_the_stream(tmp_path: Path) -> None:
    async with serving(synthetic(epoch_s=int(time.time()) - 7200), tmp_path) as served:
        await served.inject("rest-lag", behind=30.0)
        async with served.dial("/ws/ethusdt@aggTrade") as ws:
            [event] = await receive(ws, 1)
        assert await ids(served, event["a"]) == []
        asked_ms = time.time() * 1000
        newest = (await served.get("/api/v3/aggTrades", symbol=ETH, limit=1))[1][0]
        assert asked_ms - 60_000 < newest["T"] <= time.time() * 1000 - 30_000
        assert newest["a"] < event["a"]
        await served.inject("clear")
        assert (await ids(served, event["a"]))[0] == event["a"]
