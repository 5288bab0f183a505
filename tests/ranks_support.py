"""Starts the processes of ranks_child.py and waits for what they write."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WITHIN_S = 150.0  # a torch that is imported four times over on two loaded cores


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def child(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "ranks_child", *map(str, arguments)]
    return subprocess.Popen(command, env=env or environment(), **options)


def agent(out: Path, *arguments: object, host: bool = True, scenario: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
    given = [*arguments, "--scenario", json.dumps(scenario or {})]
    return child("agent", "--out", out, "--parent", os.getpid(), *(["--host"] if host else []), *given)


def until(holds: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


def seen(out: Path, world: int) -> list[dict[str, Any]]:
    """What each rank has written at its end, in the order of ranks."""
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(world)]


def gone(pid: int) -> bool:
    """Ended, or dead and only waiting for whoever is its parent now to ask why."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
