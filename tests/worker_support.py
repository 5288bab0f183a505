"""A supervisor and its real worker for tests: short folders, states waited for, clocks that do not dawdle."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantai_tui.telemetry import TrainingSnapshot
from quantai_tui.training import TrainingSupervisor, WorkerConfig


class Hasty:
    """Waits before a restart are short."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)


def supervisor(settings: WorkerConfig, folder: Path, **options: Any) -> TrainingSupervisor:
    """With patience for a loaded machine; `folder` holds socket and log."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return TrainingSupervisor(
        settings, socket_path=folder / "s", log_path=folder / "worker.log", **{"clock": Hasty(), "grace_s": 120.0, **options}
    )


async def until(
    of: TrainingSupervisor, holds: Callable[[TrainingSnapshot], object], within_s: float = 100, every_s: float = 0.01
) -> TrainingSnapshot:
    deadline = time.monotonic() + within_s
    while not holds(snapshot := of.snapshot()):
        assert time.monotonic() < deadline, (snapshot, snapshot.log_tail)
        await asyncio.sleep(every_s)
    return snapshot


def exists(pid: int) -> bool:
    """Whether a process runs. One that has ended and was not waited for still has a number."""
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


async def gone(pid: int) -> None:
    """A killed process ends when the kernel gets round to it: on a busy machine that is not at once."""
    while exists(pid):
        await asyncio.sleep(0.02)
