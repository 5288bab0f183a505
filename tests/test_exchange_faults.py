"""Faults of connections and streams, as a plain client of the embedded exchange meets them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from exchange_support import Served, SetClock, ask, receive, replay, serving, synthetic
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidMessage, InvalidStatus

from quantai_tui.exchange.budget import Limits
from quantai_tui.exchange.catalogue import FAULTS
from quantai_tui.exchange.fault import Fault, FaultError
from quantai_tui.exchange.faults import Faults
from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import decode_agg_trades, decode_klines

ETH = "ethusdt@aggTrade"
BTC = "btcusdt@aggTrade"
RATE = 20.0  # the exchange's time runs twenty times as fast: a fault `for` 20 s lasts one


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = SetClock(rate=RATE)
    market = synthetic(symbols=("ETHUSDT", "BTCUSDT"), epoch_s=int(clock.time()) - 3 * 3600)
    async with serving(market, tmp_path, clock=clock, limits=Limits(messages_per_s=1000)) as served:
        yield served


async def ended(ws: ClientConnection, seconds: float = 10.0) -> int | None:
    """The close code with which the connection ends."""
    async with asyncio.timeout(seconds):
        await ws.wait_closed()
    return ws.close_code


async def until_closed(ws: ClientConnection) -> list[dict[str, Any]]:
    """All frames up to the end of the connection."""
    async with asyncio.timeout(10):
        return [json.loads(message) async for message in ws]


async def before_silence(ws: ClientConnection, seconds: float = 0.4) -> list[dict[str, Any]]:
    """Nothing comes any more for so long, past what had been sent already, which is returned."""
    # The answer to a ping comes behind all that was sent before it.
    await asyncio.wait_for(await ws.ping(), 10)
    events: list[dict[str, Any]] = []
    while len(events) < 5000:
        try:
            async with asyncio.timeout(seconds):
                events.append(json.loads(await ws.recv()))
        except TimeoutError:
            return events
    raise AssertionError("it is not silent")


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["a"] for event in events]


async def fetched(served: Served, from_id: int, count: int, symbol: str = "ETHUSDT") -> list[AggTrade]:
    status, body, _ = await served.get("/api/v3/aggTrades", symbol=symbol, fromId=from_id, limit=count)
    assert status == 200
    return decode_agg_trades(json.dumps(body).encode(), symbol)


async def goes_on_without(served: Served, ws: ClientConnection, symbol: str) -> None:
    """From now on the symbol's trades do not come, while its neighbour's do."""
    _, [newest], _ = await served.get("/api/v3/aggTrades", symbol=symbol, limit=1)
    other = "ETHUSDT" if symbol == "BTCUSDT" else "BTCUSDT"
    _, [goal], _ = await served.get("/api/v3/aggTrades", symbol=other, limit=1)
    async with asyncio.timeout(15):
        while True:
            [event] = await receive(ws, 1)
            assert event["s"] == other or event["a"] <= newest["a"]
            if event["s"] == other and event["a"] > goal["a"] + 40:
                return


async def goes_on_with_both(ws: ClientConnection) -> None:
    """Trades of both symbols come (again: `goes_on_without` has read what was there before)."""
    symbols: set[str] = set()
    async with asyncio.timeout(15):
        while symbols != {"ETHUSDT", "BTCUSDT"}:
            symbols.add((await receive(ws, 1))[0]["s"])


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 4321])
async def test_a_close_carries_its_code_and_reason_to_every_connection(served: Served, code: int) -> None:
    async with served.dial(f"/ws/{ETH}") as one, served.dial(f"/stream?streams={ETH}") as other:
        await receive(one, 1)
        assert await served.inject("close", code=code, reason="as asked for") == f"2 connections closed with {code}"
        assert await ended(one) == await ended(other) == code
        assert one.close_reason == "as asked for"
    async with served.dial(f"/ws/{ETH}") as again:
        await receive(again, 3)


async def test_a_close_that_lasts_meets_those_who_come_meanwhile_too(served: Served) -> None:
    await served.inject("close", code=1008, for_s=6000.0)
    for _ in range(3):
        async with served.dial(f"/ws/{ETH}") as ws:
            assert await ended(ws) == 1008
    await served.inject("clear")
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 3)


async def test_flapping_drops_what_it_has_accepted_with_and_without_a_close_frame(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as open_before:
        await receive(open_before, 1)
        await served.inject("flap", for_s=6000.0)
        assert await ended(open_before) == 1006
    async with served.dial(f"/ws/{ETH}") as ws:
        assert await ended(ws) == 1006
    await served.inject("flap", for_s=6000.0, after=0.3, code=1013)
    began = time.monotonic()
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 1)
        assert await ended(ws) == 1013
        assert time.monotonic() - began > 0.2


@pytest.mark.parametrize("code", [403, 418, 429, 451, 503])
async def test_an_upgrade_is_answered_with_that_status_and_says_when_to_come_back(served: Served, code: int) -> None:
    await served.inject("http-status", code=code, for_s=6000.0)
    with pytest.raises(InvalidStatus) as refused:
        await served.dial(f"/ws/{ETH}")
    assert refused.value.response.status_code == code
    assert 5000 <= int(refused.value.response.headers["Retry-After"]) <= 6000
    await served.inject("http-status", code=code, retry_after=7.0)
    with pytest.raises(InvalidStatus) as refused:
        await served.dial(f"/ws/{ETH}")
    assert refused.value.response.headers["Retry-After"] == "7"
    await served.inject("http-status", code=code, retry_after=-1.0)
    with pytest.raises(InvalidStatus) as refused:
        await served.dial(f"/ws/{ETH}")
    assert "Retry-After" not in refused.value.response.headers


async def test_a_fault_ends_by_itself_when_its_time_is_over(served: Served) -> None:
    await served.inject("http-status", for_s=60.0)
    with pytest.raises(InvalidStatus):
        await served.dial(f"/ws/{ETH}")
    async with asyncio.timeout(10):
        while True:
            try:
                async with served.dial(f"/ws/{ETH}") as ws:
                    await receive(ws, 1)
                break
            except InvalidStatus:
                await asyncio.sleep(0.02)


async def test_every_dial_and_request_is_on_record_refused_ones_too(served: Served) -> None:
    await served.inject("http-status")
    for _ in range(3):
        with pytest.raises(InvalidStatus):
            await served.dial(f"/ws/{ETH}")
    await served.get("/api/v3/ping")
    assert served.server is not None
    assert [what for _, what in served.server.visits] == [*[f"ws /ws/{ETH}"] * 3, "rest /api/v3/ping"]


async def test_a_stalled_upgrade_is_answered_when_the_stall_is_over(served: Served) -> None:
    await served.inject("upgrade-stall", for_s=6000.0)
    with pytest.raises((TimeoutError, InvalidMessage)):
        await served.dial(f"/ws/{ETH}", open_timeout=0.5)
    patient = asyncio.ensure_future(served.dial(f"/ws/{ETH}", open_timeout=20).__aenter__())
    await asyncio.sleep(0.3)
    assert not patient.done()
    await served.inject("clear")
    ws = await asyncio.wait_for(patient, 10)
    await receive(ws, 3)
    await ws.close()


async def test_a_shutdown_is_told_in_each_form_and_the_close_follows_after_its_lead(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as raw, served.dial(f"/stream?streams={ETH}") as combined:
        await receive(raw, 1)
        await receive(combined, 1)
        began = time.monotonic()
        await served.inject("server-shutdown", lead=0.5)
        said: list[dict[str, Any]] = []
        for ws in (raw, combined):
            said += [frame for frame in await until_closed(ws) if "serverShutdown" in str(frame)]
            assert ws.close_code == 1001
        assert time.monotonic() - began > 0.4
        assert said[0]["e"] == said[1]["data"]["e"] == "serverShutdown"
        assert said[1]["stream"] == "!serverShutdown"
        assert said[0]["E"] == said[1]["data"]["E"]


async def test_a_shutdown_without_a_lead_closes_at_once_and_one_may_be_an_empty_threat(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws:
        await served.inject("server-shutdown", lead=-1.0)
        await receive(ws, 30)
        await served.inject("server-shutdown", code=1012)
        assert await ended(ws) == 1012


async def test_a_lifetime_ends_old_connections_and_new_ones_at_their_age(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as old:
        await receive(old, 1)
        await served.inject("lifetime", lifetime=0.5)
        assert await ended(old) == 1001
    began = time.monotonic()
    async with served.dial(f"/ws/{ETH}") as ws:
        assert await ended(ws) == 1001
        assert time.monotonic() - began > 0.3
    await served.inject("lifetime", lifetime=3600.0)
    async with served.dial(f"/ws/{ETH}") as ws:
        await served.inject("lifetime", lifetime=2.0)
        await served.inject("clear")
        with pytest.raises(TimeoutError):
            await ended(ws, 2.3)


async def test_withheld_pongs_leave_pings_unanswered_while_data_flows(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}", ping_interval=None) as ws:
        await asyncio.wait_for(await ws.ping("before"), 5)
        await served.inject("pongs-withheld", for_s=6000.0)
        answered = await ws.ping("meanwhile")
        await receive(ws, 30)
        assert not answered.done()
        await served.inject("clear")
        await asyncio.wait_for(await ws.ping("after"), 5)
        assert answered.done()  # a pong answers the pings before it too


async def test_a_stall_leaves_pongs_and_control_alone_and_a_hole_that_rest_can_fill(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}/{BTC}", ping_interval=None) as ws:
        events = await receive(ws, 10)
        await served.inject("stall", for_s=6000.0)
        events += await before_silence(ws)
        before = events[-1]
        assert await ask(ws, "LIST_SUBSCRIPTIONS") == {"result": [ETH, BTC], "id": 1}
        async with served.dial(f"/ws/{ETH}") as late:
            await before_silence(late)
        await served.inject("clear")
        while (after := (await receive(ws, 1))[0])["s"] != before["s"]:
            pass
        assert after["a"] > before["a"] + 1
        count = after["a"] - before["a"]
        assert [t.id for t in await fetched(served, before["a"] + 1, count, before["s"])] == list(
            range(before["a"] + 1, after["a"] + 1)
        )


async def test_a_stall_of_open_connections_spares_those_that_come(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 1)
        await served.inject("stall", connections="open", for_s=6000.0)
        async with served.dial(f"/ws/{ETH}") as fresh:
            await receive(fresh, 10)
            await before_silence(ws)
            await receive(fresh, 10)


async def test_what_was_held_comes_at_once_and_whole(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 5)
        await served.inject("hold", for_s=6000.0)
        await before_silence(ws, 0.5)
        async with served.dial(f"/ws/{ETH}") as late:
            await before_silence(late, 0.1)
        await served.inject("clear")
        events = await receive(ws, 100)
        assert events[0]["E"] - events[0]["T"] > 300 * RATE  # it waited
        assert all(after == before + 1 for before, after in pairwise(ids(events)))
        assert [t.id for t in await fetched(served, events[0]["a"], 100)] == ids(events)


async def test_one_symbol_may_be_silent_while_its_neighbour_goes_on(served: Served) -> None:
    async with served.dial(f"/ws/{ETH}/{BTC}") as ws:
        await receive(ws, 5)
        await served.inject("silent-symbol", symbol="BTCUSDT", for_s=6000.0)
        await goes_on_without(served, ws, "BTCUSDT")
        await served.inject("clear")
        await goes_on_with_both(ws)
        with pytest.raises(FaultError, match="'DOGEUSDT' does not trade here"):
            await served.inject("silent-symbol", symbol="DOGEUSDT")
        await goes_on_with_both(ws)


@pytest.mark.parametrize("listed", [False, True])
async def test_a_lost_subscription_is_silent_and_listed_or_not_and_can_be_had_again(served: Served, listed: bool) -> None:
    async with served.dial(f"/ws/{ETH}/{BTC}") as ws:
        await receive(ws, 5)
        assert await served.inject("lost-subscription", symbol="BTCUSDT", listed=listed) == "one connection lost btcusdt@aggTrade"
        await goes_on_without(served, ws, "BTCUSDT")
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))["result"] == ([ETH, BTC] if listed else [ETH])
        assert await ask(ws, "SUBSCRIBE", BTC, id=9) == {"result": None, "id": 9}
        await goes_on_with_both(ws)


async def test_while_subscriptions_are_being_lost_new_ones_are_acknowledged_in_vain(served: Served) -> None:
    async with served.dial() as ws:
        await served.inject("lost-subscription", symbol="ETHUSDT", for_s=6000.0)
        assert await ask(ws, "SUBSCRIBE", ETH) == {"result": None, "id": 1}
        await before_silence(ws)
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))["result"] == []
        await served.inject("clear")
        await ask(ws, "SUBSCRIBE", ETH)
        await receive(ws, 5)


async def test_a_burst_is_fifty_thousand_real_trades_a_second_that_rest_knows_too(tmp_path: Path) -> None:
    market = synthetic(epoch_s=int(time.time()) - 3 * 3600)
    async with serving(market, tmp_path, remembers=True) as served, served.dial(f"/ws/{ETH}") as ws:
        first = (await receive(ws, 1))[0]
        began = time.monotonic()
        assert re.match(r"about 5000\d trades of ETHUSDT", await served.inject("burst", for_s=1.0))
        events = await receive(ws, 45_000, 30)
        took = time.monotonic() - began
        assert took > 0.7
        while events[-1]["T"] < first["T"] + 2500:
            events += await receive(ws, 1)
        assert all(after == before + 1 for before, after in pairwise([first["a"], *ids(events)]))
        assert all(after["T"] >= before["T"] for before, after in pairwise(events))
        assert all(event["T"] <= event["E"] <= time.time() * 1000 for event in events)
        middle = events[20_000]["a"]
        rows = await fetched(served, middle, 1000)
        assert [(t.id, t.price, t.quantity, t.time) for t in rows] == [
            (event["a"], event["p"], event["q"], event["T"]) for event in events[20_000:21_000]
        ]
        # Bars: as many trades as were sent, second by second.
        start = events[0]["T"] // 1000 + 1
        status, body, _ = await served.get(
            "/api/v3/klines", symbol="ETHUSDT", interval="1s", startTime=start * 1000, endTime=start * 1000 + 999
        )
        assert status == 200
        [bar] = decode_klines(json.dumps(body).encode(), 1)
        of_second = [event for event in events if event["T"] // 1000 == start]
        assert (bar.trades, bar.open, bar.close) == (len(of_second), of_second[0]["p"], of_second[-1]["p"])
        kept = await fetched(served, middle, 50)
    async with serving(market, tmp_path, remembers=True) as again:
        assert await fetched(again, middle, 50) == kept
        async with again.dial(f"/ws/{ETH}") as ws:
            [event] = await receive(ws, 1)
            assert event["a"] > ids(events)[-1]
            assert abs(event["T"] - time.time() * 1000) < 5000


async def test_a_burst_hurries_a_replay_and_leaves_its_stamps_alone(tmp_path: Path) -> None:
    file = tmp_path / "ETHUSDT-aggTrades-2024-01-01.csv"
    file.write_text("".join(f"{n},2456.12,0.1,{n},{n},{1704067200000 + 100 * n},True,True\n" for n in range(20_000)))
    market, home = replay(file, tmp_path / "market", 1.0, time.time())
    async with serving(market, tmp_path / "tls") as served, served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 2)
        assert re.match(r"about 500\d trades", await served.inject("burst", for_s=0.5, rate=10_000.0))
        events = await receive(ws, 4500)
        assert all(event["T"] == 1704067200000 + 100 * event["a"] for event in events)
        assert all(after == before + 1 for before, after in pairwise(ids(events)))
    home.close()


async def test_a_script_happens_at_its_times_from_the_first_subscription_on(tmp_path: Path) -> None:
    clock = SetClock(rate=RATE)
    async with serving(synthetic(epoch_s=int(clock.time()) - 7200), tmp_path, clock=clock) as served:
        assert served.server is not None
        served.server.faults.play([Fault("close", at=100.0, code=1012), Fault("close", at=20.0, code=1008)])
        async with served.dial() as unsubscribed:
            with pytest.raises(TimeoutError):
                await ended(unsubscribed, 1.2)
        began = time.monotonic()
        async with served.dial(f"/ws/{ETH}") as ws:
            assert await ended(ws) == 1008
            assert time.monotonic() - began > 20 / RATE - 0.2
        async with served.dial(f"/ws/{ETH}") as ws:
            assert await ended(ws) == 1012
            assert time.monotonic() - began > 100 / RATE - 0.2


async def test_what_cannot_be_done_is_refused_and_says_what_to_do(served: Served) -> None:
    with pytest.raises(FaultError, match="unknown kind 'clos'") as refused:
        await served.inject("clos")
    assert "did you mean 'close'" in refused.value.remedy
    with pytest.raises(FaultError, match="reset needs the byte proxy") as refused:
        await served.inject("reset")
    assert "--breakable" in refused.value.remedy
    with pytest.raises(FaultError, match="close code 1006 may not be sent"):
        await served.inject("close", code=1006)
    with pytest.raises(FaultError, match="499 is no HTTP status"):
        await served.inject("http-status", code=499)
    async with served.dial(f"/ws/{ETH}") as ws:
        await receive(ws, 3)  # none of it did anything


async def test_all_kinds_without_the_door_are_offered_by_an_exchange_without_one(served: Served) -> None:
    assert served.server is not None
    offered = [kind.name for kind in served.server.faults.offered]
    assert offered == [name for name, kind in FAULTS.items() if kind.layer not in ("line", "tls")]


async def test_a_later_fault_of_a_kind_ends_the_one_before_and_clear_says_what_it_ended() -> None:
    clock = SetClock(1000.0)
    faults = Faults(clock)
    log: list[str] = []

    async def begin(fault: Fault) -> str:
        log.append(f"begin {fault.lifetime:g}")
        return "lives are short"

    async def end(fault: Fault) -> None:
        log.append(f"end {fault.lifetime:g}")

    faults.offer("lifetime", begin, end)
    faults.offer("stall")
    await faults.inject(Fault("lifetime", lifetime=3.0))
    assert await faults.inject(Fault("lifetime", lifetime=4.0, for_s=60.0)) == "lives are short, for 60 s"
    await faults.inject(Fault("stall"))
    assert log == ["begin 3", "end 3", "begin 4"]
    assert await faults.clear() == "ended: lifetime, stall"
    assert log[-1] == "end 4"
    assert await faults.clear() == "nothing was wrong"
    await faults.close()
