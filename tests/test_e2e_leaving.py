"""Terminals that sleep, hang up or are killed, signals at any moment: the engine goes on where it should, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from e2e_support import LINUX_ONLY, Stage, sample, stage, watch
from e2e_terminal import Terminal, wait_until

from quantai_tui.engine.registry import running
from quantai_tui.telemetry import EngineSnapshot, StreamState

__all__ = ["stage"]  # a fixture

pytestmark = [LINUX_ONLY, pytest.mark.timeout(120)]

QUIET = ("--set", "TRAIN_AUTOSTART=false")
SYMBOL = "ETHUSDT"


def is_whole(snapshot: EngineSnapshot) -> bool:
    symbol = snapshot.stream.symbols[SYMBOL]
    whole = symbol.missing == 0 and symbol.last_id is not None and symbol.complete_through_id == symbol.last_id
    return whole and snapshot.stream.state is StreamState.LIVE


def live(stage: Stage, *arguments: str) -> Terminal:
    terminal = stage.terminal(*arguments)
    terminal.wait_for("● LIVE", 40)
    return terminal


def stop(stage: Stage) -> None:
    """End whatever engine is listed, and see that nothing stays."""
    for entry in running():
        done = stage.run("stop", entry.name)
        assert (done.returncode, done.stdout) == (0, f"{entry.name} has stopped\n"), done.stderr
    stage.assert_nothing_left()


def assert_consecutive(ids: list[int]) -> None:
    assert ids, "nothing is stored"
    assert ids == list(range(ids[0], ids[-1] + 1))


def sleep_at_the_far_end(stage: Stage, for_s: float) -> None:
    terminal = live(stage, "demo", *QUIET, "--set", "WS_PING_INTERVAL=0.5")
    entry = stage.entry()
    watch(entry, lambda snapshot: snapshot.stream.rtt_ms.last is not None)

    terminal.stop_reading()
    for _ in range(12):
        terminal.press("T")  # whole repaints: the terminal's buffer and the dashboard's queue are full at once
    seen = sample(entry, for_s)
    terminal.signal(signal.SIGKILL)
    assert terminal.wait_exit() == -signal.SIGKILL
    after = watch(entry, is_whole)

    assert {snapshot.stream.state for snapshot in seen} == {StreamState.LIVE}
    assert len({snapshot.stream.rtt_ms.last for snapshot in seen}) >= for_s  # a new round trip at least once a second
    through = [snapshot.stream.symbols[SYMBOL].complete_through_id or 0 for snapshot in seen]
    assert through == sorted(through)
    assert len(set(through)) >= for_s
    assert all(snapshot.stream.symbols[SYMBOL].missing == 0 for snapshot in seen)
    assert (after.stream.reconnects, after.stream.rtt_ms.missed) == (0, 0)

    second = live(stage, "attach")
    second.hang_up()
    assert second.wait_exit() == 0
    stop(stage)
    assert_consecutive(stage.stored_ids("demo-7"))


def test_a_terminal_that_stops_reading_and_a_killed_dashboard_do_not_touch_the_engine(stage: Stage) -> None:
    sleep_at_the_far_end(stage, 8)


@pytest.mark.soak
def test_a_terminal_that_sleeps_for_long_does_not_touch_the_engine(stage: Stage) -> None:
    sleep_at_the_far_end(stage, 20)


def test_a_hang_up_ends_the_dashboard_and_leaves_the_engine(stage: Stage) -> None:
    first = live(stage, "demo", *QUIET)
    first.signal(signal.SIGHUP)
    assert first.wait_exit() == 0
    first.assert_restored()
    listed = stage.run("ps")
    assert "demo-7" in listed.stdout

    second = live(stage, "attach", "demo-7")
    second.hang_up()
    assert second.wait_exit() == 0
    assert stage.run("ps").stdout.split()[5:8] == listed.stdout.split()[5:8]  # the same name, pid and mode

    third = stage.terminal("attach")
    third.wait_for("● LIVE", 40)
    third.stop_reading()
    for _ in range(12):
        third.press("T")
    third.signal(signal.SIGHUP)
    third.wait_exit()
    stop(stage)


def test_an_interrupt_at_the_dashboard_of_a_demo_stops_everything(stage: Stage) -> None:
    terminal = live(stage, "demo")
    terminal.signal(signal.SIGINT)
    assert terminal.wait_exit() == 0
    terminal.assert_restored()
    stage.assert_nothing_left()

    second = live(stage, "demo", *QUIET)
    second.press("\x03")
    assert second.wait_exit() == 0
    second.assert_restored()
    stage.assert_nothing_left()


def test_a_terminated_dashboard_detaches_and_a_terminated_engine_stops_in_good_order(stage: Stage) -> None:
    terminal = live(stage, "demo")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait_exit() == 0
    terminal.assert_restored()
    assert [entry.name for entry in running()] == ["demo-7"]

    again = live(stage, "attach")
    os.kill(stage.entry().pid, signal.SIGTERM)
    again.wait_for("has ended", 20)
    again.press("q")
    assert again.wait_exit() == 0
    again.assert_restored()
    stage.assert_nothing_left()
    assert_consecutive(stage.stored_ids("demo-7"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_dashboard_and_engine_signalled_at_once_leave_nothing_behind(stage: Stage, number: signal.Signals) -> None:
    terminal = live(stage, "demo")
    engine = stage.pid("engine")
    os.kill(engine, number)
    terminal.signal(number)
    assert terminal.wait_exit() == 0
    terminal.assert_restored()
    stage.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["at once", "when the engine starts", "to both when the engine starts", "at the first frame"])
def test_a_signal_while_the_demo_starts_ends_the_dashboard_and_leaves_no_orphan(
    stage: Stage, number: signal.Signals, moment: str
) -> None:
    terminal = stage.terminal("demo", *QUIET)
    if moment == "at once":
        wait_until(lambda: stage.processes("program"), 20, "the program")
    elif moment == "at the first frame":
        terminal.wait_for(lambda text: text.strip())
    else:
        engine = stage.pid("engine")
        if moment.startswith("to both"):
            os.kill(engine, number)
    terminal.signal(number)
    terminal.wait_exit()
    terminal.assert_restored()
    if moment != "at once":  # that early, Python itself is still starting, and answers as Python does
        assert "Traceback" not in terminal.text

    # What was on its way either leaves or is a whole engine that `ps` shows and `stop` ends.
    wait_until(lambda: running() or not stage.processes(), 20, lambda: f"an engine in ps, or none; {stage.processes()}")
    stop(stage)
    if moment == "to both when the engine starts":
        again = stage.run("demo", "--headless", "--for", "1", *QUIET)
        assert (again.returncode, again.stderr) == (0, "")
        stage.assert_nothing_left()


def test_an_interrupt_that_falls_into_an_import_is_not_lost() -> None:
    """What is raised in the callback of a weak reference Python prints and drops; the import system has such callbacks."""
    interrupted = """
import os, signal, weakref
from quantai_tui.interrupts import end_at_once

class Module: ...

def import_something():
    module = Module()
    watched = weakref.ref(module, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del module
    print("goes on", flush=True)
    return watched

{how}
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted in good order")
"""
    for how, code, said in (
        ("with end_at_once(): import_something()", -signal.SIGINT, ""),
        ("import_something()", 0, "goes on\ninterrupted in good order\n"),
        ("with end_at_once(): pass", 0, "interrupted in good order\n"),
    ):
        done = subprocess.run([sys.executable, "-c", interrupted.format(how=how)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, said), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["at once", "when the exchange starts", "when it runs"])
def test_a_signal_ends_an_engine_in_the_foreground_in_good_order(stage: Stage, number: signal.Signals, moment: str) -> None:
    process = stage.start("serve", "demo", *QUIET)
    if moment == "at once":
        wait_until(lambda: b"serve" in _command_line(process.pid), 20, "the engine's process")
    elif moment == "when the exchange starts":
        stage.pid("exchange")
    else:
        stage.entry()
    process.send_signal(number)
    code = process.wait(20)
    stage.assert_nothing_left()
    if moment != "at once":  # that early, Python itself is still starting, and answers as Python does
        assert (code, (stage.work / "output.err").read_text()) == (0, "")


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
        return file.read()


def test_a_killed_engine_takes_worker_and_exchange_along_and_the_next_one_repairs_the_gap(stage: Stage) -> None:
    terminal = live(stage, "demo")
    stage.pid("worker")
    entry = stage.entry()
    last = watch(entry, is_whole).stream.symbols[SYMBOL].last_id
    assert last is not None
    killed = time.monotonic()

    os.kill(entry.pid, signal.SIGKILL)

    wait_until(lambda: {process.role for process in stage.processes()} == {"program"}, 20, lambda: str(stage.processes()))
    terminal.wait_for("has ended", 20)
    terminal.press("q")
    terminal.wait_exit()
    terminal.assert_restored()
    assert running() == []
    wait_until(lambda: time.monotonic() - killed > 3, 5, "a gap of some seconds")

    second = live(stage, "demo", *QUIET)
    mended = watch(stage.entry(), lambda snapshot: is_whole(snapshot) and snapshot.stream.symbols[SYMBOL].repaired > 0)
    assert (mended.stream.symbols[SYMBOL].last_id or 0) > last
    second.press("q")
    assert second.wait_exit() == 0
    stage.assert_nothing_left()
    assert_consecutive(stage.stored_ids("demo-7"))


@pytest.mark.parametrize("moment", ["while it starts", "when it runs"])
def test_a_second_signal_does_not_cut_short_what_the_first_one_began(stage: Stage, moment: str) -> None:
    process = stage.start("serve", "demo", *QUIET)
    if moment == "while it starts":
        stage.pid("exchange")
    else:
        wait_until(lambda: b"runs" in (stage.work / "output").read_bytes(), 20, "the engine's word that it runs")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert (stage.work / "output.err").read_text() == ""
    stage.assert_nothing_left()


def test_leaving_a_live_market_asks_and_leaves_the_engine_there_or_stops_it(stage: Stage) -> None:
    venue = stage.venue(seed=3)
    addresses = [
        f"--set={name}={venue[key]}"
        for name, key in (("EXCHANGE_WS_URL", "ws_url"), ("EXCHANGE_REST_URL", "rest_url"), ("EXCHANGE_CA_FILE", "ca_file"))
    ]
    terminal = live(stage, *QUIET, *addresses)
    terminal.wait_for("live market", 10)
    terminal.press("q")
    terminal.wait_for("leave it running", 10)
    terminal.press("\x1b")
    terminal.wait_gone("leave it running")
    terminal.press("q")
    terminal.wait_for("leave it running", 10)
    terminal.press("l")
    assert terminal.wait_exit() == 0
    terminal.assert_restored()
    assert [entry.name for entry in running()] == ["live-spot"]
    before = watch(stage.entry(), is_whole).stream.symbols[SYMBOL].last_id or 0

    again = live(stage, "attach")
    watch(stage.entry(), lambda snapshot: (snapshot.stream.symbols[SYMBOL].last_id or 0) > before)
    again.press("q")
    again.wait_for("stop it", 10)
    again.press("s")
    assert again.wait_exit(15) == 0
    again.assert_restored()
    wait_until(lambda: {process.role for process in stage.processes()} == {"exchange"}, 10, lambda: str(stage.processes()))
    assert_consecutive(stage.stored_ids("live-spot"))
