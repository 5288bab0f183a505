"""With closed or unwritable standard streams, commands print no traceback and stop everything in order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, Stage, says_live, stage
from e2e_terminal import wait_until

__all__ = ["stage"]  # a fixture

SCRIPT = str(Path(sys.executable).parent / "quantai-tui")
QUICK = ("ps", "config path", "config show", "config validate", "stop", "record", "import no-such-file", "--help", "--version")
DEMO = "demo --headless --for 1 --set TRAIN_AUTOSTART=false"


def run(command: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """Run `quantai-tui COMMAND` in a shell."""
    return subprocess.run(
        ["sh", "-c", f"exec {SCRIPT} {command} {redirections}"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", QUICK)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stream_keeps_exit_code_and_prints_no_traceback(command: str, closed: str) -> None:
    done = run(command, closed)
    assert done.returncode == (2 if command in {"stop", "record", "import no-such-file"} else 0), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["ps", "config show", "--help"])
def test_output_onto_a_full_disk_is_one_message(command: str) -> None:
    done = run(command, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "quantai-tui: the output cannot be written: No space left on device\n"
    assert run(command, ">/dev/full 2>/dev/full").returncode == 1


@LINUX_ONLY
@pytest.mark.parametrize(
    ("redirections", "code"), [(">&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1), (">/dev/full 2>/dev/full", 1)]
)
def test_headless_engine_stops_in_order_with_any_output(stage: Stage, redirections: str, code: int) -> None:
    done = run(DEMO, redirections)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "engine demo-7 stopped in" in stage.log_of("demo-7")
    assert "Traceback" not in stage.log_of("demo-7")
    stage.assert_nothing_left()


@LINUX_ONLY
def test_output_never_goes_into_a_file_with_a_reused_descriptor(stage: Stage) -> None:
    """Without a placeholder the store or a socket gets descriptor 1 or 2."""
    process = subprocess.Popen(["sh", "-c", f"exec {SCRIPT} serve demo --set TRAIN_AUTOSTART=false <&- >&- 2>&-"])
    try:
        entry = stage.entry()
        assert {str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)} == {"/dev/null"}
        assert stage.run("stop").returncode == 0, entry
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@LINUX_ONLY
def test_serve_with_unwritable_output_stops_in_order(stage: Stage) -> None:
    done = run("serve demo --set TRAIN_AUTOSTART=false", ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "quantai-tui: the output cannot be written: No space left on device\n"
    assert "engine demo-7 stopped in" in stage.log_of("demo-7")
    stage.assert_nothing_left()


@LINUX_ONLY
@pytest.mark.parametrize(("end", "code"), [("killed", 1), ("stop", 0)])
def test_plain_lines_end_with_1_when_the_engine_died(stage: Stage, end: str, code: int) -> None:
    command = [SCRIPT, "demo", "--plain", "--set", "TRAIN_AUTOSTART=false"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        pid = stage.pid("engine")
        assert process.stdout is not None
        for line in process.stdout:
            if says_live(line):
                break
        if end == "killed":
            os.kill(pid, 9)
        said, errors = process.communicate("stop\n" if end == "stop" else None, timeout=60)
        assert process.returncode == code, said + errors
        assert ("has ended" in said) == (end == "killed")
    finally:
        process.kill()
        process.wait()


@LINUX_ONLY
def test_plain_lines_onto_a_full_disk_tell_of_the_engine_that_runs(stage: Stage) -> None:
    done = run("demo --plain --set TRAIN_AUTOSTART=false", ">/dev/full </dev/null")
    assert done.returncode == 1
    assert done.stderr == (
        "quantai-tui: the engine keeps running: 'quantai-tui ps' lists it, 'quantai-tui stop' stops it\n"
        "quantai-tui: the output cannot be written: No space left on device\n"
    )
    wait_until(lambda: stage.processes("engine"), 20, "the engine")  # it was not stopped
