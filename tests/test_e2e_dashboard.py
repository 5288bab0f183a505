"""What an operator sees and does at a terminal, with everything behind it real."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, SPARKS, Stage, stage
from e2e_terminal import Terminal

__all__ = ["stage"]  # a fixture

pytestmark = LINUX_ONLY


def shows_everything(text: str) -> bool:
    """A connection that is up, a round trip, a loss, a scale against its cap, and sparklines with something in them."""
    return (
        "● LIVE" in text
        and bool(re.search(r"rtt\s+[\d.,]+ p50", text))
        and bool(re.search(r"loss\s+\d", text))
        and bool(re.search(r"[\d,]+\s+\d+ % of cap", text))
        and bool(SPARKS & set(text))
    )


def disconnect_and_connect_again(terminal: Terminal) -> None:
    terminal.press("d")
    terminal.wait_for(lambda text: " disconnect: done" in text and "○ IDLE  for" in text, 20)
    terminal.press("d")
    terminal.wait_for(lambda text: " connect: done" in text and "● LIVE" in text, 30)


def pause_and_resume(terminal: Terminal) -> None:
    terminal.press(" ")
    terminal.wait_for(lambda text: "pause training: done" in text and "‖ PAUSED" in text, 20)
    terminal.press(" ")
    terminal.wait_for(lambda text: "start training: done" in text and "▶ TRAINING" in text, 20)


def reset_the_scaler(terminal: Terminal) -> None:
    terminal.press("R")
    terminal.wait_for("Reset the gradient scale", 20)
    terminal.press("y")
    terminal.wait_for(re.compile(r"reset scale: done.*-> 32768").search, 10)  # half of 2^16, the initial one of a small model


def open_and_leave_the_editor(terminal: Terminal) -> None:
    terminal.press("c")
    terminal.wait_for("BACKFILL_START", 20)
    terminal.press("\x1b")
    terminal.wait_for(lambda text: "BACKFILL_START" not in text and "● LIVE" in text, 20)


def read_the_help(terminal: Terminal) -> None:
    terminal.press("?")
    terminal.wait_for("esc leaves", 20)
    terminal.press("\x1b")
    terminal.wait_gone("esc leaves")


def change_the_theme(terminal: Terminal) -> None:
    terminal.press("T")
    terminal.wait_for(re.compile(r"theme: \w+").search, 20)


def leave(stage: Stage, terminal: Terminal) -> None:
    terminal.press("q")
    assert terminal.wait_exit(30) == 0
    terminal.assert_restored()
    assert terminal.text.strip() == ""
    stage.assert_nothing_left()


@pytest.mark.timeout(200)
def test_the_demo_is_up_within_twenty_seconds_at_80_columns_obeys_every_key_and_leaves_nothing_behind(stage: Stage) -> None:
    begun = time.monotonic()
    terminal = stage.terminal("demo")
    terminal.wait_for(shows_everything, 60)
    assert time.monotonic() - begun - stage.kept_waiting_s() < 20
    assert {process.role for process in stage.processes()} == {"program", "engine", "exchange", "worker"}

    disconnect_and_connect_again(terminal)
    pause_and_resume(terminal)
    reset_the_scaler(terminal)
    read_the_help(terminal)
    change_the_theme(terminal)
    open_and_leave_the_editor(terminal)

    leave(stage, terminal)
    ids = stage.stored_ids("demo-7")
    assert ids == list(range(ids[0], ids[-1] + 1))


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_the_demo_in_process_shows_the_same_and_ends_with_its_dashboard(stage: Stage) -> None:
    terminal = stage.terminal("demo", "--in-process")
    terminal.wait_for(shows_everything, 60)
    assert {process.role for process in stage.processes()} == {"program", "exchange", "worker"}

    disconnect_and_connect_again(terminal)
    pause_and_resume(terminal)

    leave(stage, terminal)


@pytest.mark.timeout(120)
def test_a_killed_exchange_is_waited_for_and_what_was_missed_is_whole_again(stage: Stage) -> None:
    terminal = stage.terminal("demo", "--set", "TRAIN_AUTOSTART=false", columns=120, rows=40)
    terminal.wait_for(lambda text: "● LIVE" in text and re.search(r"ETHUSDT .*whole", text), 40)
    before = stage.pid("exchange")

    os.kill(before, signal.SIGKILL)

    terminal.wait_for(lambda text: "◆ BACKOFF" in text and re.search(r"attempt \d+ of 10", text) and "next in" in text, 20)
    mended = re.compile(r"whole, \d+ repaired.*ETHUSDT: \d+ trades \d+-\d+", re.DOTALL)
    terminal.wait_for(lambda text: "● LIVE" in text and mended.search(text), 40)
    assert stage.pid("exchange") != before

    leave(stage, terminal)
    ids = stage.stored_ids("demo-7")
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert re.search(r"ETHUSDT: \d+ trades \d+-\d+ missing since", stage.log_of("demo-7"))


def test_a_replay_has_a_dashboard_too(stage: Stage, xrpeth: Path) -> None:
    terminal = stage.terminal("replay", str(xrpeth), "--speed", "max", "--set", "TRAIN_AUTOSTART=false", columns=120, rows=40)
    terminal.wait_for(lambda text: "REPLAY finished" in text and "XRPETH" in text, 30)
    leave(stage, terminal)


def test_after_a_reconnect_even_a_small_screen_says_whole_and_dials_no_more(stage: Stage) -> None:
    terminal = stage.terminal("demo", "--set", "TRAIN_AUTOSTART=false")
    terminal.wait_for(lambda text: "● LIVE" in text and re.search(r"ETHUSDT .*whole", text), 40)
    terminal.press("d")
    # Long enough for trades to be missed; and off, or the key would not mean 'connect'.
    terminal.wait_for(lambda text: "○ IDLE" in text and re.search(r"last ([2-9]|\d\d) s ago", text), 30)
    terminal.press("d")
    terminal.wait_for(lambda text: "● LIVE" in text and re.search(r"trades \d+-\d+, repaired", text), 30)
    text = terminal.wait_for(re.compile(r"ETHUSDT .*whole").search, 20)
    assert "attempt 1 of 10" not in text
    leave(stage, terminal)


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_a_demo_that_is_left_while_it_starts_is_stopped_all_the_same(stage: Stage, key: str) -> None:
    terminal = stage.terminal("demo", "--set", "TRAIN_AUTOSTART=false")
    # A dashboard that is slower to paint than its engine is to start shows it at once.
    terminal.wait_for(lambda text: "starting engine" in text or "● LIVE" in text)
    terminal.press(key)
    assert terminal.wait_exit(45) == 0
    terminal.assert_restored()
    stage.assert_nothing_left()
