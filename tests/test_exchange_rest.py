"""The REST side over real TLS: rows, ranges, errors and the price of asking."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from exchange_support import NOON, Served, SetClock, serving, synthetic
from websockets.exceptions import InvalidStatus

from quantai_tui.exchange.budget import Limits, RequestBudget
from quantai_tui.exchange.synthetic import SyntheticMarket
from quantai_tui.market.wire import decode_agg_trades, decode_klines

NOW = NOON + 7200.5
ETH = "ETHUSDT"


@pytest.fixture
def market() -> SyntheticMarket:
    return synthetic(symbols=(ETH, "XRPETH"))


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture
async def served(market: SyntheticMarket, clock: SetClock, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(market, tmp_path, clock=clock) as served:
        yield served


async def ids(served: Served, **params: str | int) -> list[int]:
    status, rows, _ = await served.get("/api/v3/aggTrades", symbol=ETH, **params)
    assert status == 200
    return [row["a"] for row in rows]


async def test_agg_trades_from_an_id_are_the_markets_trades_field_by_field(served: Served, market: SyntheticMarket) -> None:
    from_id = market.last_id_at(ETH, NOW) - 5000
    status, body, _ = await served.get("/api/v3/aggTrades", symbol=ETH, fromId=from_id, limit=1000)
    assert status == 200
    assert decode_agg_trades(json.dumps(body).encode(), ETH) == market.trades(ETH, from_id, 1000, NOW)
    assert set(body[0]) == set("apqflTmM")


async def test_agg_trades_keep_to_what_exists_to_the_range_and_to_the_limit(served: Served, market: SyntheticMarket) -> None:
    first, last = market.first_id(ETH), market.last_id_at(ETH, NOW)
    assert await ids(served) == list(range(last - 499, last + 1))
    assert await ids(served, limit=3) == [last - 2, last - 1, last]
    assert await ids(served, fromId=last - 1) == [last - 1, last]
    assert await ids(served, fromId=last + 1) == []
    assert await ids(served, fromId=0, limit=2) == [first, first + 1]
    assert len(await ids(served, fromId=first, limit=5000)) == 1000
    start, end = (NOON + 600) * 1000, (NOON + 603) * 1000
    inside = [t.id for t in market.trades(ETH, first, 100_000, NOW) if start <= t.time <= end]
    assert len(inside) > 2
    assert await ids(served, startTime=start, endTime=end) == inside
    assert await ids(served, startTime=start, limit=2) == inside[:2]
    assert await ids(served, endTime=end, limit=2) == inside[-2:]
    assert await ids(served, startTime=int(NOW * 1000) + 5) == []


async def test_klines_are_binances_rows(served: Served, market: SyntheticMarket) -> None:
    status, body, _ = await served.get("/api/v3/klines", symbol=ETH, interval="1m", startTime=NOON * 1000, limit=30)
    assert status == 200
    bars = decode_klines(json.dumps(body).encode(), 60)
    assert [bar.close for bar in bars] == [bar.close for bar in market.klines(ETH, 60, NOON * 1000, None, 30, NOW)]
    assert body[0][0] == NOON * 1000
    assert body[0][6] == (NOON + 60) * 1000 - 1
    assert len(body[0]) == 12
    newest = (await served.get("/api/v3/klines", symbol=ETH, interval="1s", limit=2))[1]
    assert newest[-1][0] == int(NOW) * 1000


async def test_time_ping_and_exchange_info_answer(served: Served) -> None:
    assert (await served.get("/api/v3/ping"))[:2] == (200, {})
    assert (await served.get("/api/v3/time"))[1] == {"serverTime": int(NOW * 1000)}
    everything = (await served.get("/api/v3/exchangeInfo"))[1]
    assert [entry["symbol"] for entry in everything["symbols"]] == [ETH, "XRPETH"]
    one = (await served.get("/api/v3/exchangeInfo", symbol="XRPETH"))[1]["symbols"]
    assert [(s["symbol"], s["status"], s["baseAsset"], s["quoteAsset"]) for s in one] == [("XRPETH", "TRADING", "XRP", "ETH")]
    several = (await served.get("/api/v3/exchangeInfo", symbols='["ETHUSDT"]'))[1]["symbols"]
    assert several[0]["filters"][0]["tickSize"] == "0.01000000"


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("aggTrades", {}, -1102),
        ("aggTrades", {"symbol": "NOSUCH"}, -1121),
        ("aggTrades", {"symbol": "ethusdt"}, -1121),
        ("aggTrades", {"symbol": ETH, "limit": "ten"}, -1100),
        ("aggTrades", {"symbol": ETH, "limit": 0}, -1130),
        ("aggTrades", {"symbol": ETH, "fromId": -1}, -1100),
        ("aggTrades", {"symbol": ETH, "fromId": 1, "startTime": 1}, -1128),
        ("aggTrades", {"symbol": ETH, "from_id": 1}, -1104),
        ("klines", {"symbol": ETH}, -1102),
        ("klines", {"symbol": ETH, "interval": "7m"}, -1120),
        ("klines", {"symbol": "NOSUCH", "interval": "1m"}, -1121),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbols": "ETHUSDT"}, -1100),
    ],
)
async def test_bad_requests_are_refused_with_the_venues_codes(
    served: Served, path: str, params: dict[str, str | int], code: int
) -> None:
    status, body, headers = await served.get(f"/api/v3/{path}", **params)
    assert (status, body["code"]) == (400, code)
    assert body["msg"]
    assert int(headers["X-MBX-USED-WEIGHT-1M"]) > 0


async def test_every_answer_tells_the_weight_used_in_this_minute(served: Served, clock: SetClock) -> None:
    used = []
    for path, params in (
        ("time", {}),
        ("ping", {}),
        ("aggTrades", {"symbol": ETH, "limit": 1}),
        ("klines", {"symbol": ETH, "interval": "1m", "limit": 1}),
        ("exchangeInfo", {}),
    ):
        used.append(int((await served.get(f"/api/v3/{path}", **params))[2]["X-MBX-USED-WEIGHT-1M"]))
    assert used == [1, 2, 6, 8, 28]
    clock.now = NOW + 60
    assert (await served.get("/api/v3/ping"))[2]["X-MBX-USED-WEIGHT-1M"] == "1"


async def test_over_the_limit_is_429_until_the_minute_is_over(market: SyntheticMarket, clock: SetClock, tmp_path: Path) -> None:
    async with serving(market, tmp_path, limits=Limits(weight_per_minute=8), clock=clock) as served:
        for _ in range(2):
            assert (await served.get("/api/v3/aggTrades", symbol=ETH, limit=1))[0] == 200
        status, body, headers = await served.get("/api/v3/aggTrades", symbol=ETH, limit=1)
        assert (status, body["code"]) == (429, -1003)
        assert int(headers["Retry-After"]) == 60  # NOW is half a second into its minute
        assert clock.now is not None
        clock.now += int(headers["Retry-After"])
        assert (await served.get("/api/v3/aggTrades", symbol=ETH, limit=1))[0] == 200


async def test_going_on_regardless_is_418_and_shuts_the_streams_too(
    market: SyntheticMarket, clock: SetClock, tmp_path: Path
) -> None:
    async with serving(market, tmp_path, limits=Limits(weight_per_minute=1, refusals_before_ban=2), clock=clock) as served:
        statuses = [(await served.get("/api/v3/ping"))[0] for _ in range(3)]
        assert statuses == [200, 429, 429]
        status, body, headers = await served.get("/api/v3/ping")
        assert (status, body["code"], headers["Retry-After"]) == (418, -1003, "120")
        assert clock.now is not None
        clock.now += 1
        with pytest.raises(InvalidStatus) as refused:
            await served.dial()
        assert refused.value.response.status_code == 418
        assert refused.value.response.headers["Retry-After"] == "240"  # asking inside the ban made it longer
        clock.now += 241
        assert (await served.get("/api/v3/ping"))[0] == 200
        async with served.dial():
            pass


def test_a_ban_grows_to_three_days_and_no_further() -> None:
    clock = SetClock(NOW)
    budget = RequestBudget(Limits(weight_per_minute=0, refusals_before_ban=0), clock)
    waits = [refusal.retry_after_s for _ in range(20) if (refusal := budget.charge(1))]
    assert waits[:4] == [120, 240, 480, 960]
    assert waits[-1] == 3 * 24 * 3600
