"""The exchange as a process: its first line, what it keeps over a restart, and how it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from exchange_support import Child, ask, child, receive

import quantai_tui
from quantai_tui.exchange.folder import ExchangeFolder
from quantai_tui.exchange.markets import ExchangeError, SyntheticSpec
from quantai_tui.exchange.process import main, run
from quantai_tui.exchange.server import bind

ETH = "ethusdt@aggTrade"


async def first_trades(running: Child, symbol: str, count: int = 50) -> list[dict[str, Any]]:
    from_id = running.ready["first_id"][symbol]
    rows: list[dict[str, Any]] = (await running.served().get("/api/v3/aggTrades", symbol=symbol, fromId=from_id, limit=count))[1]
    return rows


@contextmanager
def kept(*urls: str) -> Iterator[None]:
    """Hold ports, without listening, for an exchange that is to come back to them: others are given free ones all the time.

    Where two sockets may be bound to one port alike, which is so on Linux.
    """
    with ExitStack() as held:
        for url in urls if sys.platform == "linux" else ():
            held.enter_context(bind(int(url.rsplit(":", 1)[1])))
        yield


async def test_it_says_in_one_line_where_it_serves_and_what(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "exchange"
    async with child("--folder", folder, "--seed", 3, "--symbols", "ETHUSDT,BTCUSDT") as running:
        ready = running.ready
        assert ready["symbols"] == ["ETHUSDT", "BTCUSDT"]
        assert ready["ws_url"].startswith("wss://127.0.0.1:")
        assert ready["rest_url"].startswith("https://127.0.0.1:")
        assert (ready["mode"], ready["total"], ready["notes"]) == ("demo", None, [])
        assert ready["last_id"] == {"ETHUSDT": None, "BTCUSDT": None}
        async with running.served().dial(f"/ws/{ETH}") as ws:
            [event] = await receive(ws, 1)
            assert event["a"] > ready["first_id"]["ETHUSDT"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == dict.fromkeys(
            ("ca.pem", "ca.key", "state.json", "lock"), 0o600
        )


async def test_killed_and_started_again_it_is_the_same_exchange_further_on(tmp_path: Path) -> None:
    arguments = ("--folder", tmp_path / "x", "--seed", 3, "--history-h", 2)
    async with child(*arguments) as running:
        before, trades = running.ready, await first_trades(running, "ETHUSDT")
        authority = Path(before["ca_file"]).read_bytes()
        newest = (await running.served().get("/api/v3/aggTrades", symbol="ETHUSDT", limit=1))[1][0]
        await running.kill()
    with kept(before["ws_url"], before["rest_url"]):
        async with child(*arguments) as running:
            assert running.ready == before
            assert Path(before["ca_file"]).read_bytes() == authority
            assert await first_trades(running, "ETHUSDT") == trades
            again: list[dict[str, Any]] = []
            async with asyncio.timeout(15):
                while len(again) < 2:  # made while nobody was there, unless the market was quiet
                    served = running.served()
                    again = (await served.get("/api/v3/aggTrades", symbol="ETHUSDT", fromId=newest["a"], limit=1000))[1]
        assert again[0] == newest
        assert [row["a"] for row in again] == list(range(newest["a"], newest["a"] + len(again)))


async def test_a_replay_goes_on_while_the_exchange_is_down_and_ends_where_the_file_does(xrpeth: Path, tmp_path: Path) -> None:
    arguments = ("--folder", tmp_path / "x", "--file", xrpeth, "--speed", "max")
    async with child(*arguments) as running:
        assert (running.ready["mode"], running.ready["total"]) == ("replay", 12_477)
        assert running.ready["first_id"] == {"XRPETH": 13_519_807}
        assert running.ready["last_id"] == {"XRPETH": 13_532_283}
        assert await first_trades(running, "XRPETH") == []
        began = time.time()
        async with running.served().dial() as ws:
            await ask(ws, "SUBSCRIBE", "xrpeth@aggTrade")
            [event] = await receive(ws, 1)
            assert event["a"] == 13_519_807
        await running.kill()
    async with child(*arguments) as running:
        served = running.served()
        newest = 0
        async with asyncio.timeout(10):
            while newest != 13_532_283:
                newest = (await served.get("/api/v3/aggTrades", symbol="XRPETH", limit=1))[1][0]["a"]
        assert time.time() - began >= 12_477 / 10_000 - 0.1


async def test_it_leaves_when_its_parent_is_gone(tmp_path: Path) -> None:
    async with child("--folder", tmp_path / "x") as running, running.served().dial(f"/ws/{ETH}") as ws:
        await receive(ws, 1)
        began = time.monotonic()
        assert await running.leave() == 0
        assert time.monotonic() - began < 5.0


async def test_it_leaves_on_a_signal(tmp_path: Path) -> None:
    async with child("--folder", tmp_path / "x") as one, child("--folder", tmp_path / "y") as other:
        one.process.send_signal(signal.SIGTERM)
        other.process.send_signal(signal.SIGINT)
        assert await one.ended() == await other.ended() == 0


async def test_a_port_that_is_taken_is_named_and_another_one_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        async with child("--folder", tmp_path / "x", "--ws-port", taken) as running:
            [note] = running.ready["notes"]
            assert str(taken) in note
            assert not running.ready["ws_url"].endswith(f":{taken}")
            async with running.served().dial(f"/ws/{ETH}") as ws:
                await receive(ws, 1)


@pytest.mark.parametrize("damaged", ["ca.pem", "ca.key"])
def test_a_damaged_authority_is_replaced_and_that_is_said(tmp_path: Path, damaged: str) -> None:
    home = ExchangeFolder(tmp_path)
    assert home.server_tls()[1] == []
    kept = home.ca_file.read_bytes()
    assert home.server_tls()[1] == []
    assert home.ca_file.read_bytes() == kept
    (tmp_path / damaged).write_text("not a certificate")
    [note] = home.server_tls()[1]
    assert "certificate authority" in note
    assert home.server_tls()[1] == []
    home.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--seed", "-4"), "seed -4"),
        (("--seed", "four"), "four"),
        (("--symbols", "ETH/USDT"), "ETH/USDT"),
        (("--symbols", ","), "no symbols"),
        (("--file", "x-aggTrades.csv", "--speed", "fast"), "fast"),
        (("--file", "x-aggTrades.csv", "--speed", "nan"), "nan"),
        (("--ws-port", "70000"), "70000"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_arguments_that_make_no_exchange_are_one_line_with_the_remedy_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert main(["--folder", str(tmp_path / "x"), *arguments]) == 2
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"error", "remedy"}
    assert named in said["error"]
    assert said["remedy"]
    assert not (tmp_path / "x").exists()


async def test_a_file_that_is_not_there_is_one_line_with_the_remedy_and_status_2(tmp_path: Path) -> None:
    async with child("--folder", tmp_path / "x", "--file", tmp_path / "ETHUSDT-aggTrades-2024.csv") as running:
        assert str(tmp_path / "ETHUSDT-aggTrades-2024.csv") in running.ready["error"]
        assert running.ready["remedy"]
        assert await running.ended() == 2


async def test_a_folder_belongs_to_one_exchange_at_a_time_and_waits_a_moment_for_the_one_before(tmp_path: Path) -> None:
    async with child("--folder", tmp_path) as running:
        with pytest.raises(ExchangeError, match=f"another exchange is running on the folder {tmp_path}"):
            await asyncio.to_thread(ExchangeFolder, tmp_path, 0.1)
        waiting = asyncio.create_task(asyncio.to_thread(ExchangeFolder, tmp_path, 20.0))
        await running.leave()
        (await waiting).close()


async def test_a_folder_belongs_to_one_market(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    await run(tmp_path, SyntheticSpec(1), stop=stop, ready=lambda _: None)
    with pytest.raises(ExchangeError, match=r"another market.*seed 1, not seed 2"):
        await run(tmp_path, SyntheticSpec(2), stop=stop, ready=lambda _: None)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ExchangeError, match=r"state\.json cannot be read"):
        await run(tmp_path, SyntheticSpec(1), stop=stop, ready=lambda _: None)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExchangeError, match="file/x"):
        ExchangeFolder(tmp_path / "file" / "x")


def test_it_starts_without_torch_and_textual() -> None:
    script = (
        "import json, sys; import quantai_tui.exchange.process; print(json.dumps([m for m in ('torch', 'textual', 'pydantic')"
        " if m in sys.modules]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(quantai_tui.__file__).resolve().parents[1])}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    assert json.loads(answer.stdout) == []
