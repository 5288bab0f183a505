"""Fault scripts and single faults through the real child process, and through the engine's owner of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from exchange_support import child, receive, until
from websockets.exceptions import InvalidStatus

from quantai_tui.engine.exchange_child import ExchangeChild, ExchangeFailed, ExchangeInfo
from quantai_tui.exchange.catalogue import FAULTS
from quantai_tui.telemetry import SYSTEM_CLOCK

ETH = "ethusdt@aggTrade"


async def test_a_script_is_played_from_the_first_subscription_on(tmp_path: Path) -> None:
    script = tmp_path / "storm.toml"
    script.write_text('seed = 3\n[[fault]]\nat = 0.5\nkind = "close"\ncode = 1012\n[[fault]]\nat = 0.5\nkind = "http-status"\n')
    async with child("--folder", tmp_path / "x", "--history-h", 2, "--faults", script) as running:
        assert running.ready["faults"] == []
        served = running.served()
        async with served.dial(f"/ws/{ETH}") as ws:
            async with asyncio.timeout(10):
                await ws.wait_closed()
            assert ws.close_code == 1012
        with pytest.raises(InvalidStatus):
            await served.dial()
        said = await running.order('{"fault": {"kind": "clear"}}')
        assert said == {"error": "this exchange takes no faults", "remedy": "start it with --breakable"}
        assert await running.leave() == 0


async def test_a_script_that_needs_the_line_gets_the_doors(tmp_path: Path) -> None:
    script = tmp_path / "storm.toml"
    script.write_text('[[fault]]\nat = 0.3\nkind = "reset"\n')
    async with (
        child("--folder", tmp_path / "x", "--history-h", 2, "--faults", script) as running,
        running.served().dial(f"/ws/{ETH}") as ws,
    ):
        async with asyncio.timeout(10):
            await ws.wait_closed()
        assert ws.close_code == 1006


async def test_a_breakable_exchange_takes_faults_a_line_each_and_answers_in_order(tmp_path: Path) -> None:
    async with child("--folder", tmp_path / "x", "--history-h", 2, "--breakable") as running:
        assert running.ready["faults"] == [{"kind": kind.name, "text": kind.text} for kind in FAULTS.values()]
        async with running.served().dial(f"/ws/{ETH}") as ws:
            await receive(ws, 1)
            assert await running.order('{"fault": {"kind": "close", "code": 1008}}') == {
                "fault": "close",
                "note": "one connection closed with 1008",
            }
            async with asyncio.timeout(10):
                await ws.wait_closed()
            assert ws.close_code == 1008
        for line, said in (
            ('{"fault": {"kind": "cloze"}}', "unknown kind 'cloze'"),
            ('{"fault": {"kind": "close", "code": 7}}', "`code` of close is 7"),
            ('{"fault": {"kind": "close"}, "more": 1}', "not understood"),
            ("nonsense", "not understood"),
            ("[" * 20_000, "not understood"),
            ("x" * 70_000, "more than 65536 bytes"),
        ):
            answer = await running.order(line)
            assert set(answer) == {"error", "remedy"}
            assert said in answer["error"]
        assert (await running.order('\n{"fault": {"kind": "latency", "for": 60}}'))["fault"] == "latency"
        async with running.served().dial(f"/ws/{ETH}") as ws:
            await receive(ws, 3)
        assert (await running.order('{"fault": {"kind": "clear"}}'))["note"] == "ended: latency"
        assert await running.leave() == 0


async def test_a_script_with_a_mistake_is_one_line_with_the_remedy_and_status_2(tmp_path: Path) -> None:
    script = tmp_path / "storm.toml"
    script.write_text('[[fault]]\nat = 1\nkind = "bang"\n')
    async with child("--folder", tmp_path / "x", "--faults", script) as running:
        assert f"{script}, line 1, fault 1: unknown kind 'bang'" in running.ready["error"]
        assert running.ready["remedy"].startswith("did you mean 'ban'? Known: close")
        assert await running.ended() == 2
    assert not (tmp_path / "x").exists()


@asynccontextmanager
async def owned(folder: Path, *more: str) -> AsyncIterator[tuple[ExchangeChild, ExchangeInfo]]:
    command = [sys.executable, "-m", "quantai_tui.exchange", "--folder", str(folder / "x"), "--history-h", "2", *more]
    exchange = ExchangeChild(command, folder / "exchange.log", SYSTEM_CLOCK)
    info = await exchange.start()
    try:
        yield exchange, info
    finally:
        await exchange.stop()


async def test_the_engine_injects_and_every_question_gets_its_own_answer(tmp_path: Path) -> None:
    async with owned(tmp_path, "--breakable") as (exchange, info):
        assert [offer.kind for offer in info.faults] == list(FAULTS)
        answers = await asyncio.gather(
            exchange.inject({"kind": "stall", "for": 60}),
            exchange.inject({"kind": "nonsense"}),
            exchange.inject({"kind": "lifetime", "lifetime": 90}),
            exchange.inject({"kind": "close", "code": object()}),
            exchange.inject({"kind": "clear"}),
            return_exceptions=True,
        )
        assert answers[0] == "0 connections hear nothing, for 60 s"
        assert isinstance(answers[1], ExchangeFailed)
        assert "unknown kind 'nonsense'" in str(answers[1])
        assert answers[2] == "connections live 90 s"
        assert isinstance(answers[3], ExchangeFailed)
        assert answers[4] == "ended: lifetime, stall"
        given_up = asyncio.create_task(exchange.inject({"kind": "stall"}))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await exchange.inject({"kind": "clear"}) == "ended: stall"
    with pytest.raises(ExchangeFailed, match="not running"):
        await exchange.inject({"kind": "clear"})


async def test_an_exchange_that_dies_is_no_answer_and_its_successor_answers_again(tmp_path: Path) -> None:
    async with owned(tmp_path, "--breakable") as (exchange, _):
        pid = exchange.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it will not answer this
        asked = asyncio.create_task(exchange.inject({"kind": "stall"}))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ExchangeFailed, match="ended before it answered"):
            await asyncio.wait_for(asked, 8)
        with pytest.raises(ExchangeFailed, match="not running"):
            await exchange.inject({"kind": "stall"})
        await until(lambda: exchange.pid not in (None, pid), 30)

        async def answered() -> str:
            while True:
                try:
                    return await exchange.inject({"kind": "clear"})
                except ExchangeFailed:
                    await asyncio.sleep(0.05)

        assert await asyncio.wait_for(answered(), 30) == "nothing was wrong"


async def test_an_exchange_that_is_not_breakable_says_so(tmp_path: Path) -> None:
    async with owned(tmp_path) as (exchange, info):
        assert info.faults == ()
        with pytest.raises(ExchangeFailed, match=r"takes no faults; start it with --breakable"):
            await exchange.inject({"kind": "close"})
