"""Stopping an unresponsive engine signals only the process that holds its lock."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantai_tui.engine.registry import Entry, is_alive
from quantai_tui.engine.stopping import stop_engine

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no /proc/locks")

HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def entry_of(folder: Path, pid: int) -> Entry:
    return Entry("live-spot", "live", pid, str(folder / "nobody.sock"), str(folder), str(folder / "engine.log"), time.time())


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_process_that_does_not_hold_the_lock_gets_no_signal(tmp_path: Path, innocent: subprocess.Popen[bytes]) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = await stop_engine(entry_of(tmp_path, innocent.pid))
    assert "does not answer" in problem
    assert str(innocent.pid) in problem
    assert innocent.poll() is None


async def test_stopping_a_missing_pid_is_reported(tmp_path: Path, innocent: subprocess.Popen[bytes]) -> None:
    innocent.kill()
    innocent.wait()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "does not answer" in await stop_engine(entry_of(tmp_path, innocent.pid))


async def test_no_signal_after_the_engine_has_ended(tmp_path: Path, innocent: subprocess.Popen[bytes]) -> None:
    (tmp_path / "lock").touch()
    assert await stop_engine(entry_of(tmp_path, innocent.pid)) == ""
    assert innocent.poll() is None


async def test_unresponsive_engine_gets_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"held\n"
        entry = entry_of(tmp_path, process.pid)
        assert is_alive(entry)
        assert await stop_engine(entry) == ""
        assert process.wait(10) == -15
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
