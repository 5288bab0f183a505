"""Engines of one user share bans and dials: the venue counts by address, not by program."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
from pathlib import Path

from stream_support import ScriptedExchange, authority, eventually, exchange

from quantai_tui.engine import source
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.places import dials_file, state_root
from quantai_tui.stream.gate import DIALS_PER_WINDOW, Gate, scope_of
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures


def settings_of(exchange: ScriptedExchange, folder: Path) -> tuple[str, ...]:
    return (
        f"EXCHANGE_WS_URL=wss://localhost:{exchange.ws_port}",
        f"EXCHANGE_REST_URL=https://localhost:{exchange.rest_port}",
        f"EXCHANGE_CA_FILE={exchange.ca_file}",
        f"DATA_DIR={folder}",
        "TRAIN_AUTOSTART=False",
    )


async def test_a_ban_that_one_engine_has_met_holds_the_next_one_back(exchange: ScriptedExchange, tmp_path: Path) -> None:
    exchange.upgrade_status = (429, {"Retry-After": "600"})
    first = Engine(source.live(), overrides=settings_of(exchange, tmp_path / "one"), serve=False)
    await first.start()
    await eventually(lambda: first.snapshot().stream.state is StreamState.BACKOFF, "the ban", timeout=20)
    await first.stop()
    assert exchange.dials == 1
    asked = len(exchange.rest_requests)  # the warm start was, before the ban

    exchange.upgrade_status = None
    second = Engine(source.live(), overrides=settings_of(exchange, tmp_path / "two"), serve=False)
    await second.start()
    try:
        await eventually(lambda: second.snapshot().stream.state is StreamState.BACKOFF, "held back", timeout=20)
        shown = second.snapshot().stream
        assert 500 < shown.backoff_remaining_s <= 600
        assert "429" in shown.cause
        assert (exchange.dials, len(exchange.rest_requests)) == (1, asked), "neither a dial nor a request inside the ban"
    finally:
        await second.stop()


async def test_a_ban_that_an_engine_in_another_process_has_met_is_respected_though_it_was_killed(
    exchange: ScriptedExchange, tmp_path: Path
) -> None:
    exchange.upgrade_status = (418, {"Retry-After": "600"})
    sets = [part for setting in settings_of(exchange, tmp_path / "one") for part in ("--set", setting)]
    other = subprocess.Popen(
        [sys.executable, "-m", "quantai_tui", "--headless", "--no-exit-on-failure", *sets],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    gate = Gate(path=dials_file(), scope=scope_of(f"wss://localhost:{exchange.ws_port}"))
    try:
        await eventually(lambda: gate.closed_for > 500 or other.poll() is not None, "the ban in the shared record", timeout=40)
    finally:
        other.send_signal(signal.SIGKILL)
        _, errors = await asyncio.to_thread(other.communicate)
    assert gate.closed_for > 500, errors
    assert gate.dials_left == DIALS_PER_WINDOW - 1
    assert Gate(path=dials_file()).closed_for == 0.0, "an exchange on this machine bans nobody from the venue"

    exchange.upgrade_status = None
    engine = Engine(source.live(), overrides=settings_of(exchange, tmp_path / "two"), serve=False)
    await engine.start()
    try:
        await eventually(lambda: engine.snapshot().stream.state is StreamState.BACKOFF, "held back", timeout=20)
        assert "418" in engine.snapshot().stream.cause
        assert exchange.dials == 1
    finally:
        await engine.stop()


async def test_an_engine_that_cannot_share_its_dials_says_so_and_runs(exchange: ScriptedExchange, tmp_path: Path) -> None:
    state_root().parent.mkdir(parents=True, exist_ok=True)
    state_root().write_text("a file where the folder should be")
    engine = Engine(source.live(), overrides=settings_of(exchange, tmp_path / "one"), serve=False)
    await engine.start()
    try:
        await eventually(lambda: engine.snapshot().stream.state is StreamState.LIVE, "live all the same", timeout=20)
        assert "dials and bans are not shared" in engine.snapshot().note
    finally:
        await engine.stop()


def test_the_shared_record_lies_in_a_private_folder() -> None:
    state_root().mkdir(parents=True)
    state_root().chmod(0o755)
    assert dials_file().parent == state_root()
    assert stat.S_IMODE(state_root().stat().st_mode) == 0o700
