"""The engine as its commands and snapshots show it, with a real embedded exchange, a real store and a real worker."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from quantai_tui.cli.options import Wanted
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.linger import logout_warning
from quantai_tui.engine.local import LocalLink
from quantai_tui.engine.registry import running
from quantai_tui.engine.starting import StartError
from quantai_tui.link import Command, CommandName, LinkState
from quantai_tui.settings import default_config_path
from quantai_tui.telemetry import (
    AlertBook,
    EngineSnapshot,
    StreamSnapshot,
    StreamState,
    TrainingSnapshot,
    TrainingState,
)

QUIET = ("TRAIN_AUTOSTART=False",)  # most of these need no torch


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def demo_engine(*overrides: str, **options: bool) -> Engine:
    return Engine(Wanted("demo", seed=3).source(), overrides=overrides, **options)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = demo_engine(*QUIET)
    await engine.start()
    await until(lambda: engine.snapshot().stream.state is StreamState.LIVE)
    yield engine
    await engine.stop()


async def ask(engine: Engine, name: CommandName, **args: object) -> tuple[bool, str, object]:
    ack = await engine.execute(Command(1, name, args))
    return ack.ok, ack.message, ack.data


async def test_a_demo_engine_goes_live_and_fetches_history(engine: Engine) -> None:
    def symbol_is_stored() -> bool:
        symbol = engine.snapshot().stream.symbols.get("ETHUSDT")
        return symbol is not None and symbol.stored > 0 and symbol.missing == 0

    await until(symbol_is_stored)
    await until(lambda: engine.snapshot().stream.rtt_ms.last is not None)
    await until(lambda: any("warm start: 6000 bars" in line for line in engine.snapshot().log))
    snapshot = engine.snapshot()
    assert snapshot.mode == "demo"
    assert "synthetic" in snapshot.note
    assert snapshot.stream.tls_version == "TLSv1.3"
    assert snapshot.replay_progress is None


async def test_disconnect_and_connect_are_answered_in_words_and_lose_nothing(engine: Engine) -> None:
    await until(lambda: engine.snapshot().stream.symbols["ETHUSDT"].stored > 0)
    done, message, _ = await ask(engine, CommandName.DISCONNECT)
    assert done
    assert "disconnected" in message
    await until(lambda: engine.snapshot().stream.state is StreamState.IDLE)
    before = engine.snapshot().stream.symbols["ETHUSDT"].last_id
    assert before is not None
    assert (await ask(engine, CommandName.CONNECT))[0]
    await until(lambda: (engine.snapshot().stream.symbols["ETHUSDT"].last_id or 0) > before)
    await until(lambda: engine.snapshot().stream.symbols["ETHUSDT"].missing == 0)
    await engine.store.flush()
    position = await engine.store.position("ETHUSDT")
    assert position.begin_id is not None
    assert position.complete_through_id is not None
    assert position.stored == position.complete_through_id - position.begin_id + 1


async def test_a_command_with_wrong_arguments_is_refused_and_hurts_nothing(engine: Engine) -> None:
    done, message, _ = await ask(engine, CommandName.RECONNECT, now=True)
    assert not done
    assert "arguments" in message
    assert (await ask(engine, CommandName.RECONNECT))[0]


async def test_without_a_worker_a_scaler_reset_says_so(engine: Engine) -> None:
    done, message, _ = await ask(engine, CommandName.SCALER_RESET)
    assert not done
    assert "worker is not up" in message


async def test_without_a_worker_there_is_no_checkpoint_to_save_and_the_answer_says_so(engine: Engine) -> None:
    done, message, _ = await ask(engine, CommandName.CHECKPOINT)
    assert not done
    assert message == "the training worker is not up: there is nothing to save"


async def test_saved_settings_are_checked_written_logged_and_applied(engine: Engine) -> None:
    done, _, form = await ask(engine, CommandName.SETTINGS_DESCRIBE)
    assert done
    assert isinstance(form, dict)
    fields = {field["name"]: field for field in form["fields"]}
    assert fields["SYMBOLS"]["locked"]
    assert fields["TRAIN_AUTOSTART"]["locked"] == "--set TRAIN_AUTOSTART"
    assert not fields["WS_PING_INTERVAL"]["locked"]

    _, _, problems = await ask(engine, CommandName.SETTINGS_VALIDATE, values={"WS_RECONNECT_MAX_DELAY": "0.1"})
    assert problems == [{"name": "WS_RECONNECT_MAX_DELAY", "message": "must be at least WS_RECONNECT_INITIAL_DELAY"}]
    refused, _, result = await ask(
        engine, CommandName.SETTINGS_SAVE, values={"WS_PING_INTERVAL": "soon"}, revision=form["revision"]
    )
    assert not refused
    assert not default_config_path().exists()

    reconnects = engine.snapshot().stream.reconnects
    values = {"WS_PING_INTERVAL": "0.2", "LOG_LEVEL": "DEBUG", "KEYS": "rotate=ctrl+r,quit=x"}
    saved, _, result = await ask(engine, CommandName.SETTINGS_SAVE, values=values, revision=form["revision"])
    assert saved
    assert isinstance(result, dict)
    assert result["applied"] == {
        "WS_PING_INTERVAL": "stream reconnects with the new numbers",
        "LOG_LEVEL": "live now",
        "KEYS": "live now",
    }
    assert engine.snapshot().keys == ("rotate=ctrl+r", "quit=x")
    assert "WS_PING_INTERVAL = 0.2" in default_config_path().read_text()
    await until(lambda: engine.snapshot().stream.reconnects > reconnects or engine.snapshot().stream.uptime_s < 5)
    await until(lambda: engine.snapshot().stream.state is StreamState.LIVE)
    assert logging.getLogger("quantai_tui").level == logging.DEBUG
    assert "setting WS_PING_INTERVAL: 5.0 -> 0.2" in engine.folder.log.read_text()

    other = {"values": {"LOG_LEVEL": "INFO"}, "revision": form["revision"]}
    again, why, _ = await ask(engine, CommandName.SETTINGS_SAVE, **other)
    assert (again, why) == (False, "settings are on trial: keep them or undo them first")
    assert (await ask(engine, CommandName.SETTINGS_CONFIRM, save=result["trial_id"]))[0]
    again, _, result = await ask(engine, CommandName.SETTINGS_SAVE, **other)
    assert not again
    assert isinstance(result, dict)
    assert "DEBUG" in result["conflict_text"]
    assert "INFO" in result["proposed_text"]


async def test_stack_traces_go_to_the_log_and_never_to_the_screen(engine: Engine) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("quantai_tui.engine").exception("something failed")
    assert any("something failed" in line for line in engine.snapshot().log)
    assert not any("Traceback" in line or "boom" in line for line in engine.snapshot().log)
    assert "RuntimeError: boom" in engine.folder.log.read_text()


async def test_a_stopped_engine_leaves_no_write_ahead_log_no_socket_and_no_child() -> None:
    engine = demo_engine(*QUIET)
    await engine.start()
    await until(lambda: engine.snapshot().stream.state is StreamState.LIVE)
    exchange = engine.exchange.pid if engine.exchange is not None else None
    assert exchange is not None
    socket = Path(engine.entry().socket)
    assert socket.exists()
    await engine.stop()
    await engine.stop()
    assert not socket.exists()
    assert not Path(f"/proc/{exchange}").exists()
    assert sorted(path.name for path in engine.folder.path.glob("market.sqlite3*")) == ["market.sqlite3"]


async def test_one_engine_per_folder_and_bad_input_are_start_errors(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="WS_PING_INTERVAL = -1"):
        demo_engine("WS_PING_INTERVAL=-1")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be written"):
        await demo_engine(f"DATA_DIR={tmp_path / 'file' / 'below'}").start()
    first = demo_engine(*QUIET)
    await first.start()
    try:
        with pytest.raises(StartError, match="demo-3 is running already") as caught:
            await demo_engine(*QUIET).start()
        assert caught.value.entry is not None
    finally:
        await first.stop()


async def test_a_local_link_starts_and_stops_its_engine() -> None:
    async def build() -> Engine:
        return demo_engine(*QUIET)

    link = LocalLink(build, period_s=0.1)
    await link.start()
    try:
        await until(lambda: link.snapshot is not None and link.snapshot.stream.state is StreamState.LIVE)
        assert link.state is LinkState.ATTACHED
        assert link.engine_name == "demo-3"
        assert (await link.command(CommandName.STOP)).ok
        await until(lambda: link.state is LinkState.FAILED)
    finally:
        await link.close()


async def test_a_local_link_says_why_its_engine_did_not_start() -> None:
    async def build() -> Engine:
        return demo_engine("LOG_LEVEL=loud")

    link = LocalLink(build)
    await link.start()
    await until(lambda: link.state is LinkState.FAILED)
    assert "LOG_LEVEL = loud" in link.detail
    assert link.exit_code == 2
    await link.close()


def headless(*arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantai_tui", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False)


def test_a_venue_that_cannot_be_reached_ends_a_headless_run_with_3() -> None:
    unreachable = ["EXCHANGE_WS_URL=wss://127.0.0.1:1", "EXCHANGE_REST_URL=https://127.0.0.1:1"]
    few = ["WS_RECONNECT_INITIAL_DELAY=0.1", "WS_RECONNECT_MAX_RETRIES=2", "TRAIN_AUTOSTART=False"]
    done = headless("--headless", *(f"--set={setting}" for setting in unreachable + few))
    assert done.returncode == 3
    assert "failed for good" in done.stderr
    assert "Nothing listens there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.processes
def test_a_worker_that_cannot_run_ends_a_headless_run_with_4() -> None:
    done = headless("demo", "--headless", "--set=TRAIN_DEVICE=cuda:63")
    assert done.returncode == 4
    assert "training failed for good" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_is_warned_of_logout_without_reason(tmp_path: Path) -> None:
    assert logout_warning(tmp_path) == ""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert logout_warning(tmp_path) == ""
    drop_ins = tmp_path / "etc/systemd/logind.conf.d"
    drop_ins.mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text("[Login]\n#KillUserProcesses=yes\n")
    assert logout_warning(tmp_path) == ""
    (drop_ins / "10-kill.conf").write_text("[Login]\nKillUserProcesses=yes\n")
    assert "enable-linger" in logout_warning(tmp_path)
    (drop_ins / "20-spare.conf").write_text("[Login]\nKillUserProcesses=no\n")
    assert logout_warning(tmp_path) == ""


def snapshot_with(**training: object) -> EngineSnapshot:
    return EngineSnapshot(time=time.time(), training=TrainingSnapshot(state=TrainingState.TRAINING, **training))  # type: ignore[arg-type]


def test_an_alert_stands_until_its_lower_threshold_and_keeps_its_time() -> None:
    book = AlertBook(lambda: 600.0)
    assert book.evaluate(snapshot_with(overflow_rate=0.19)) == ()
    (raised,) = book.evaluate(snapshot_with(overflow_rate=0.21))
    (still,) = book.evaluate(snapshot_with(overflow_rate=0.16))
    assert (raised.key, still.since) == ("overflow-rate", raised.since)
    assert book.evaluate(snapshot_with(overflow_rate=0.14)) == ()


def test_an_alert_never_says_of_the_scale_what_is_no_longer_so() -> None:
    book = AlertBook(lambda: 600.0)
    (at_cap,) = book.evaluate(snapshot_with(scale=100000.0, scale_cap=100000.0))
    (after_one_overflow,) = book.evaluate(snapshot_with(scale=50000.0, scale_cap=100000.0))
    assert "100000 is at its cap" in at_cap.text
    assert "was at its cap, 50000 now" in after_one_overflow.text
    assert book.evaluate(snapshot_with(scale=25000.0, scale_cap=100000.0)) == ()


@pytest.mark.parametrize(
    ("snapshot", "key"),
    [
        (EngineSnapshot(stream=StreamSnapshot(state=StreamState.LIVE, failed_last_5min=3)), "reconnects"),
        (EngineSnapshot(stream=StreamSnapshot(state=StreamState.LIVE, last_message_age_s=601.0)), "silence"),
        (EngineSnapshot(stream=StreamSnapshot(ssl_errors=2, attempts_total=10)), "ssl-errors"),
        (EngineSnapshot(stream=StreamSnapshot(state=StreamState.FAILED)), "stream-failed"),
        (snapshot_with(scale=100000.0, scale_cap=100000.0), "scale-at-cap"),
        (snapshot_with(consecutive_overflow=5), "overflow-run"),
        (snapshot_with(nonfinite_loss=1), "nonfinite"),
        (EngineSnapshot(training=TrainingSnapshot(state=TrainingState.FAILED)), "worker-failed"),
    ],
)
def test_each_rule_raises_its_alert_and_a_quiet_engine_none(snapshot: EngineSnapshot, key: str) -> None:
    assert key in {alert.key for alert in AlertBook(lambda: 600.0).evaluate(snapshot)}
    assert AlertBook(lambda: 600.0).evaluate(EngineSnapshot()) == ()


async def test_an_engine_that_starts_while_its_predecessor_stops_waits_for_it() -> None:
    first = demo_engine(*QUIET)
    await first.start()
    stopping = asyncio.create_task(first.stop())
    await until(lambda: running() == [])
    assert not stopping.done()
    second = demo_engine(*QUIET)
    await second.start()
    try:
        assert stopping.done()
    finally:
        await second.stop()
        await stopping


@pytest.mark.processes
async def test_two_starts_at_once_make_one_worker(engine: Engine) -> None:
    await asyncio.gather(ask(engine, CommandName.TRAIN_START), ask(engine, CommandName.TRAIN_START))
    await until(lambda: engine.snapshot().training.state is not TrainingState.STARTING, 40)
    assert engine.snapshot().training.restarts == 0
    assert not any("token" in line for line in engine.snapshot().log)


async def test_an_engine_that_stops_takes_no_more_commands() -> None:
    engine = demo_engine(*QUIET)
    await engine.start()
    engine.request_stop()
    assert await ask(engine, CommandName.TRAIN_START) == (False, "the engine is stopping", None)
    await engine.stop()
    assert engine.snapshot().training.pid is None


async def test_the_silence_alert_follows_the_setting_in_force(engine: Engine) -> None:
    _, _, form = await ask(engine, CommandName.SETTINGS_DESCRIBE)
    assert isinstance(form, dict)
    await until(lambda: engine.snapshot().stream.symbols["ETHUSDT"].stored > 0)
    values = {"WS_MESSAGE_WARNING_TIMEOUT": "0.5"}
    assert (await ask(engine, CommandName.SETTINGS_SAVE, values=values, revision=form["revision"]))[0]
    await ask(engine, CommandName.RECONNECT)
    await until(lambda: engine.snapshot().stream.state is StreamState.LIVE)
    pid = engine.exchange.pid if engine.exchange is not None else None
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: any(alert.key == "silence" for alert in engine.snapshot().alerts))
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_engine_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = demo_engine("DATA_DIR=below", *QUIET)
    await engine.start()
    try:
        monkeypatch.chdir(tmp_path)
        assert [entry.name for entry in running()] == ["demo-3"]
        assert Path(running()[0].folder).is_absolute()
    finally:
        await engine.stop()


def test_status_lines_that_nobody_reads_do_not_hold_up_the_engine() -> None:
    command = [sys.executable, "-m", "quantai_tui", "demo", "--headless", "--json", "--set=TRAIN_AUTOSTART=False"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        # A pipe of one page is full after a few lines, and then nobody reads on.
        fcntl.fcntl(process.stdout.fileno(), 1031, 4096)
        assert process.stdout.readline().startswith(b"{")
        full = time.monotonic() + 20
        while time.monotonic() < full and not select.select([process.stdout], [], [], 0.05)[0]:
            continue
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.processes
def test_a_file_too_short_to_train_on_is_said_to_be_so(xrpeth: Path, tmp_path: Path) -> None:
    short = tmp_path / "XRPETH-aggTrades-2019-10-11.csv"
    with gzip.open(xrpeth, "rt") as whole:
        short.write_text("".join(line for line, _ in zip(whole, range(300), strict=False)))
    done = headless("replay", str(short), "--headless")
    assert done.returncode == 2
    assert "too short to train on" in done.stderr
    assert "stored 300" in done.stdout
    assert headless("replay", str(short), "--headless", "--set=TRAIN_AUTOSTART=False").returncode == 0


def test_an_engine_below_nohup_lets_a_hang_up_pass() -> None:
    command = ["nohup", sys.executable, "-m", "quantai_tui", "serve", "demo", "--set=TRAIN_AUTOSTART=False"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"runs" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert [entry.pid for entry in running()] == [process.pid]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
