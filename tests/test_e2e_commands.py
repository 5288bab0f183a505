"""The other commands at a shell: serve, attach, ps, stop, import, config."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, Stage, stage
from e2e_terminal import wait_until

from quantai_tui.settings import names

__all__ = ["stage"]  # a fixture

pytestmark = [LINUX_ONLY, pytest.mark.timeout(90)]

QUIET = ("--set", "TRAIN_AUTOSTART=false")


def test_an_engine_in_the_foreground_is_attached_to_listed_and_stopped_by_name(stage: Stage) -> None:
    engine = stage.start("serve", "demo", "--seed", "11", *QUIET)
    said = wait_until((stage.work / "output").read_text, 40, "the engine's word that it runs")
    assert said == f"engine demo-11 runs (pid {engine.pid}); see it with 'quantai-tui attach demo-11'\n"

    listed = stage.run("ps")
    assert [line.split()[:3] for line in listed.stdout.splitlines()] == [
        ["NAME", "PID", "MODE"],
        ["demo-11", str(engine.pid), "demo"],
    ]

    terminal = stage.terminal("attach", "demo-11")
    terminal.wait_for(lambda text: "● LIVE" in text and "demo-11" in text, 40)

    second = stage.run("serve", "demo", "--seed", "11", *QUIET)
    assert (second.returncode, second.stdout) == (2, "")
    assert "demo-11 is running already" in second.stderr
    assert "quantai-tui attach demo-11" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    headless = stage.run("demo", "--seed", "11", "--headless")
    assert (headless.returncode, "demo-11 is running already" in headless.stderr) == (2, True)

    stopped = stage.run("stop", "demo-11")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "demo-11 has stopped\n", "")
    assert engine.wait(20) == 0
    terminal.wait_for("has ended", 10)
    terminal.press("q")
    terminal.wait_exit()
    terminal.assert_restored()
    assert stage.run("ps").stdout == "no engine runs\n"
    stage.assert_nothing_left()


def test_starting_a_demo_that_runs_already_attaches_to_it(stage: Stage) -> None:
    engine = stage.start("serve", "demo", *QUIET)
    entry = stage.entry()

    terminal = stage.terminal("demo")
    terminal.wait_for(lambda text: "● LIVE" in text and f"pid {engine.pid}" in text, 40)
    assert stage.entry().pid == entry.pid
    # The one that was started in vain says so first, and is gone a moment later.
    wait_until(lambda: [process.pid for process in stage.processes("engine")] == [engine.pid], 20, "one engine alone")

    terminal.hang_up()
    assert terminal.wait_exit() == 0
    assert stage.run("stop").returncode == 0
    stage.assert_nothing_left()


def test_attach_and_stop_say_what_there_is_to_choose_from(stage: Stage) -> None:
    nothing = stage.run("stop")
    assert (nothing.returncode, "no engine runs" in nothing.stderr) == (2, True)

    first = stage.start("serve", "demo", "--seed", "1", *QUIET, log="first")
    second = stage.start("serve", "demo", "--seed", "2", *QUIET, log="second")
    wait_until(lambda: len(stage.run("ps").stdout.splitlines()) == 3, 40, "two engines in ps")
    choice = stage.run("stop")
    assert (choice.returncode, "demo-1, demo-2" in choice.stderr) == (2, True)
    wrong = stage.run("stop", "demo-3")
    assert (wrong.returncode, "no engine named demo-3 runs" in wrong.stderr) == (2, True)

    assert stage.run("stop", "demo-1").returncode == 0
    assert first.wait(20) == 0
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    assert stage.run("ps").stdout == "no engine runs\n"
    stage.wait_quiet()


def test_an_import_repeated_stores_nothing_and_changes_nothing(stage: Stage, xrpeth: Path) -> None:
    first = stage.run("import", str(xrpeth))
    assert first.returncode == 0, first.stderr
    assert first.stdout == (
        f"{xrpeth.name}: 12477 trades of XRPETH, ids 13519807 to 13532283: 12477 stored, 0 were there already\n"
    )
    assert stage.stored_ids("live-spot") == list(range(13_519_807, 13_532_284))
    stage.assert_nothing_left()

    second = stage.run("import", str(xrpeth))
    assert (second.returncode, second.stdout.split(": ")[-1]) == (0, "0 stored, 12477 were there already\n")
    assert stage.stored_ids("live-spot") == list(range(13_519_807, 13_532_284))
    stage.assert_nothing_left()


def test_an_import_names_what_it_cannot_read_and_stores_what_came_before(stage: Stage) -> None:
    bad = stage.work / "ETHUSDT-aggTrades-2019-10-11.csv"
    bad.write_text("1,0.5,1.0,1,1,1570752011620,True,True\n2,0.5,x,2,2,1570752011621,True,True\n")
    done = stage.run("import", str(bad))

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{bad}, line 2: quantity is 'x'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    stage.assert_nothing_left()


def test_an_import_into_a_running_engine_is_refused(stage: Stage, xrpeth: Path) -> None:
    engine = stage.start("serve", "demo", *QUIET)
    stage.entry()
    done = stage.run("import", str(xrpeth), "--into", "demo-7")
    assert (done.returncode, "demo-7 is running already" in done.stderr) == (2, True)
    engine.terminate()
    assert engine.wait(20) == 0


def test_config_shows_every_setting_with_its_source_checks_files_and_says_where_they_lie(stage: Stage) -> None:
    path = stage.home / "config" / "quantai-tui" / "config.toml"
    assert stage.run("config", "path").stdout == f"{path}\n"

    path.parent.mkdir()
    path.write_text("WS_PING_INTERVAL = 7\n")
    shown = stage.run("config", "show", "--set", "LOG_LEVEL=DEBUG")
    assert shown.returncode == 0
    text = shown.stdout
    assert [name for name in names() if f"  {name} = " not in text] == []
    assert "WS_PING_INTERVAL = 7" in text
    assert str(path) in text
    assert "LOG_LEVEL = DEBUG" in text

    assert (stage.run("config", "validate").returncode, stage.run("config", "validate", str(path)).returncode) == (0, 0)
    path.write_text("WS_PING_INTERVAL = 0\nWS_PONG_TIMEOUTS = 3\n")
    for arguments in (["config", "validate"], ["config", "validate", str(path)]):
        wrong = stage.run(*arguments)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "WS_PING_INTERVAL" in wrong.stderr
        assert "WS_PONG_TIMEOUTS" in wrong.stderr
        assert "line 2" in wrong.stderr
