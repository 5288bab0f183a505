"""Fault scripts from the command line: checked before anything starts, played by the demo, and told in its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-m", "quantai_tui")


def quantai(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*PROGRAM, *arguments), capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)


def script(path: Path, *faults: str) -> str:
    path.write_text("".join(f"[[fault]]\n{fault}\n\n" for fault in faults))
    return str(path)


@pytest.mark.parametrize("command", [("demo",), ("serve", "demo")])
def test_a_bad_fault_script_is_one_error_before_anything_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    path = script(tmp_path / "bad.toml", 'kind = "close"', 'kind = "close"\ncod = 1012')
    done = quantai(*command, "--faults", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"quantai-tui: {path}, line 4, fault 2: unknown key 'cod' in close; did you mean 'code'?")
    assert not list(tmp_path.glob("**/engine.log"))


@pytest.mark.parametrize("command", [("serve", "live"), ("replay", "file")])
def test_faults_are_for_the_demo_alone(command: tuple[str, ...], tmp_path: Path) -> None:
    done = quantai(*command, "--faults", script(tmp_path / "good.toml", 'kind = "close"'))
    assert done.returncode == 2
    assert "--faults" in done.stderr


def test_the_demo_plays_a_script_loses_nothing_and_tells_it_in_json(tmp_path: Path) -> None:
    path = script(tmp_path / "outage.toml", 'at = 1.0\nkind = "close"\ncode = 1012', 'at = 5.0\nkind = "malformed"\ncount = 3')
    done = quantai("demo", "--headless", "--json", "--for", "14", "--faults", path, "--set=TRAIN_AUTOSTART=False")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    stream, symbol = last["stream"], last["stream"]["symbols"]["ETHUSDT"]
    assert stream["reconnects"] == 1
    assert stream["bad_frames"] == 3
    assert (symbol["missing"], symbol["unrecoverable"], symbol["venue_holes"]) == (0, 0, 0)
    assert symbol["stored"] > 0
    assert (stream["rotations"], stream["probes"], stream["banned_for_s"]) == (0, 0, 0.0)
    assert 200 < stream["dials_left"] < 300
    assert stream["transport"] in ("websockets", "picows")
