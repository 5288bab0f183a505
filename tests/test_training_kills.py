"""kill -9 of real workers at moments chosen by seed: they come back every time, and end with the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("k")


def killed(folder: Path, seeds: int, at_once: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(folder), f"{seeds}", f"{at_once}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert len(outcomes) == seeds
    return outcomes


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_five_workers_killed_at_random_moments_end_with_the_same_bits(folder: Path) -> None:
    outcomes = killed(folder, 5, 2)
    assert [one for one in outcomes if one["differs"] or not one["finished"]] == []
    assert sum(one["kills"] for one in outcomes) >= 3  # on a loaded machine one may be done before its turn


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_workers_killed_at_random_moments_end_with_the_same_bits(folder: Path) -> None:
    outcomes = killed(folder, 100, 4)
    assert [one for one in outcomes if one["differs"] or not one["finished"]] == []
    assert sum(one["kills"] for one in outcomes) >= 90
