"""A home of its own for everything that is started, and the processes that are started in it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from quantai_tui.engine.registry import Entry, running
from quantai_tui.engine.stopping import stop_engine
from quantai_tui.link import SocketLink
from quantai_tui.settings import names

ROOT = Path(__file__).resolve().parents[2]
_ENGINE_READY_WITHIN_S = 60.0


@contextmanager
def own_home() -> Iterator[Path]:
    """Settings, stores and sockets of whoever runs the benchmarks are neither read nor touched, here and in all children."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="quantai-bench-") as name:
        home = Path(name)
        for variable in ("CONFIG", "DATA", "STATE", "CACHE"):
            folder = home / variable.lower()
            folder.mkdir()
            os.environ[f"XDG_{variable}_HOME"] = str(folder)
        for setting in [*names(), "NO_COLOR", "SSH_CONNECTION", "TMUX"]:
            os.environ.pop(setting, None)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before.get("PYTHONPATH", "")]))
        work = home / "work"
        work.mkdir()
        started_in = Path.cwd()
        os.chdir(work)
        try:
            yield home
        finally:
            stop_engines()
            os.chdir(started_in)
            os.environ.clear()
            os.environ.update(before)


def program(*arguments: str) -> list[str]:
    """The command line of quantai-tui in this checkout."""
    return [sys.executable, "-m", "quantai_tui", *arguments]


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one module of these benchmarks."""
    return [sys.executable, "-m", f"tests.bench.{name}", *arguments]


def measured(name: str, *arguments: str) -> dict[str, Any]:
    """Run one of our modules as a process of its own; its last line is the result, in JSON."""
    done = subprocess.run(module(name, *arguments), stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@contextmanager
def engine(*arguments: str) -> Iterator[Entry]:
    """An engine, `quantai-tui serve ...`, from when it can be attached to until it has stopped."""
    log = Path("engine.out")
    with log.open("wb") as output:
        process = subprocess.Popen(program("serve", *arguments), stdout=output, stderr=output, start_new_session=True)
    try:
        yield _wait_for_engine(process, log)
    finally:
        stop_engines()
        process.terminate()
        process.wait(30)


def _wait_for_engine(process: subprocess.Popen[bytes], log: Path) -> Entry:
    deadline = time.monotonic() + _ENGINE_READY_WITHIN_S
    while time.monotonic() < deadline:
        for entry in running():
            if entry.pid == process.pid:
                return entry
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the engine did not come up: {log.read_text(errors='replace')[-2000:]}")


def wait_for_engines(count: int) -> None:
    """Until so many engines of our home have come up."""
    deadline = time.monotonic() + _ENGINE_READY_WITHIN_S
    while len(running()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not {count} engines within {_ENGINE_READY_WITHIN_S:g} s")
        time.sleep(0.05)


def stop_engines() -> None:
    """Stop every engine of our home."""
    for entry in running():
        trouble = asyncio.run(stop_engine(entry))
        if trouble:
            raise RuntimeError(trouble)


@asynccontextmanager
async def attached(entry: Entry) -> AsyncIterator[SocketLink]:
    """A link to a running engine, with its first snapshot there."""
    link = SocketLink(lambda: asyncio.sleep(0, Path(entry.socket)), client="benchmark")
    await link.start()
    try:
        async with asyncio.timeout(10):
            while link.snapshot is None:
                await asyncio.sleep(0.05)
        yield link
    finally:
        await link.close()
