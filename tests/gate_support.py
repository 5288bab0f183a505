"""Clocks that run apart, and other processes, for the tests of what engines share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantai_tui.stream.gate import DIALS_PER_WINDOW, Gate

ROOT = Path(__file__).resolve().parents[1]


class TwoClocks:
    """Wall and monotonic time, which a test moves together or apart."""

    def __init__(self) -> None:
        self.mono, self.wall = 5000.0, time.time()

    def monotonic(self) -> float:
        return self.mono

    def time(self) -> float:
        return self.wall

    def pass_by(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dials.json"


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that has `Gate`, `Path`, and its arguments in `sys.argv`; `code` is the body of a coroutine."""
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    program = (
        "import asyncio, sys, time\nfrom pathlib import Path\nfrom quantai_tui.stream.gate import Gate\n"
        f"async def main():\n{body}\nasyncio.run(main())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


async def take_all(gate: Gate, tries: int = DIALS_PER_WINDOW + 5) -> int:
    return sum([(await gate.take_dial())[0] == 0.0 for _ in range(tries)])
