"""kill -9 of the real worker at moments chosen by seed: it comes back every time, and ends with the same bits."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from checkpoint_support import differences, learnt, newest
from training_support import config, random_bars, store_of
from worker_support import supervisor, until

from quantai_tui.telemetry import TrainingState
from quantai_tui.training import TrainingSupervisor, WorkerConfig

_STEPS = 3 * 14
_AT_ONCE = 3


def settings(store: Path, checkpoints: Path, precision: str) -> WorkerConfig:
    """A scale that climbs until steps overflow; checkpoints so often that many a kill hits one being written."""
    return config(
        store_path=str(store),
        checkpoint_dir=str(checkpoints),
        checkpoint_every_s=0.03,
        max_epochs=3,
        steps_per_s=50.0,
        precision=precision,
        growth_interval=2,
        growth_factor=2.0,
        max_scale=2.0**40,
    )


async def killed(worker: TrainingSupervisor, at_step: int, later_s: float) -> bool:
    """False when the worker was faster."""
    before = worker.snapshot().restarts
    now = await until(worker, lambda s: (s.pid and (s.step or 0) >= at_step) or s.state is TrainingState.STOPPED)
    await asyncio.sleep(later_s)  # not for a state: any moment between two reports will do
    if now.state is TrainingState.STOPPED or now.pid is None:
        return False
    try:
        os.kill(now.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    await until(worker, lambda s: s.restarts > before or s.state is TrainingState.STOPPED)
    return True


async def trained(store: Path, folder: Path, precision: str, chance: random.Random | None = None) -> int:
    """Train to the end; with `chance` the worker is killed on the way. Returns how often it was."""
    worker = supervisor(settings(store, folder / "checkpoints", precision), folder)
    await worker.start()
    try:
        for _ in range(0 if chance is None else chance.choice((1, 1, 2))):
            assert chance is not None
            if not await killed(worker, 0 if chance.random() < 0.1 else chance.randrange(1, _STEPS), chance.uniform(0, 0.06)):
                break
        ended = await until(worker, lambda s: s.state in (TrainingState.STOPPED, TrainingState.FAILED))
        assert ended.detail == "trained 3 epochs"
        return ended.restarts
    finally:
        await worker.stop()


async def every_one_ends_alike(tmp_path: Path, seeds: int) -> int:
    """Returns how many kills hit a worker."""
    store = tmp_path / "trades.sqlite"
    await store_of(random_bars(600), store)
    wanted = {}
    for precision in ("fp16", "fp32"):
        assert await trained(store, tmp_path / precision, precision) == 0
        wanted[precision] = learnt(newest(tmp_path / precision / "checkpoints"))
        assert wanted[precision]["step"] == _STEPS
    assert wanted["fp16"]["stepper"]["monitor"]["counts"]["overflow_count"] > 0
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(seed: int) -> int:
        async with room:
            precision, folder = ("fp16", "fp32")[seed % 2], tmp_path / f"{seed}"
            kills = await trained(store, folder, precision, random.Random(seed))
            found = differences(wanted[precision], learnt(newest(folder / "checkpoints")))
            assert found == [], f"seed {seed}"
            return kills

    return sum(await asyncio.gather(*(one(seed) for seed in range(seeds))))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("k")


@pytest.mark.timeout(300)
async def test_five_workers_killed_at_random_moments_end_with_the_same_bits(folder: Path) -> None:
    assert await every_one_ends_alike(folder, 5) >= 4


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_hundred_workers_killed_at_random_moments_end_with_the_same_bits(folder: Path) -> None:
    assert await every_one_ends_alike(folder, 100) >= 100
