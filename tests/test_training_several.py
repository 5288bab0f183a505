"""The worker as several processes: a real supervisor, torchrun's agent, real ranks over a real store."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ranks_support import WITHIN_S, environment, free_port, gone
from sockets_support import listeners
from training_support import config, random_bars, store_of

from quantai_tui.telemetry import TrainingSnapshot, TrainingState
from quantai_tui.training import TrainingSupervisor, WorkerConfig

pytestmark = [pytest.mark.processes, pytest.mark.timeout(500)]  # they import torch, on loaded cores


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("w")
    made.chmod(0o700)
    return made


@pytest.fixture
async def supervise(folder: Path) -> AsyncIterator[Callable[[WorkerConfig], TrainingSupervisor]]:
    made: list[TrainingSupervisor] = []

    def make(settings: WorkerConfig) -> TrainingSupervisor:
        made.append(
            TrainingSupervisor(settings, socket_path=folder / "s", log_path=folder / "worker.log", grace_s=WITHIN_S, silence_s=60)
        )
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


async def until(supervisor: TrainingSupervisor, holds: Callable[[TrainingSnapshot], object]) -> TrainingSnapshot:
    deadline = time.monotonic() + WITHIN_S
    while not holds(snapshot := supervisor.snapshot()):
        assert time.monotonic() < deadline, snapshot
        await asyncio.sleep(0.05)
    return snapshot


async def settings(folder: Path, **changes: Any) -> WorkerConfig:
    await store_of(random_bars(600), folder / "store.sqlite")
    return config(**{"store_path": str(folder / "store.sqlite"), "nproc": 2, "checkpoint_dir": str(folder / "kept"), **changes})


async def test_two_ranks_are_steered_as_one_worker_and_come_back_when_one_is_killed(
    folder: Path, supervise: Callable[[WorkerConfig], TrainingSupervisor]
) -> None:
    supervisor = supervise(await settings(folder))
    await supervisor.start()
    seen = await until(supervisor, lambda now: now.state is TrainingState.TRAINING and len(now.ranks) == 2)
    assert [rank.rank for rank in seen.ranks] == [0, 1]
    assert seen.ranks[0].pid != seen.ranks[1].pid
    assert await supervisor.pause() == "paused"
    await until(supervisor, lambda now: now.state is TrainingState.PAUSED)
    assert "->" in await supervisor.reset_scaler()
    assert await supervisor.resume() == "resumed"
    assert "saved" in await supervisor.checkpoint()
    before = (await until(supervisor, lambda now: now.state is TrainingState.TRAINING)).step
    os.kill(seen.ranks[1].pid, signal.SIGKILL)
    await until(supervisor, lambda now: now.restarts == 1)
    again = await until(
        supervisor,
        lambda now: (
            now.state is TrainingState.TRAINING
            and now.step is not None
            and now.step > before
            and {rank.pid for rank in now.ranks}.isdisjoint({rank.pid for rank in seen.ranks})
        ),
    )
    assert len(again.ranks) == 2
    await supervisor.stop()
    assert supervisor.snapshot().state is TrainingState.STOPPED
    for rank in again.ranks:
        assert gone(rank.pid)


async def test_ranks_of_one_machine_open_only_gloo_ports_on_loopback(
    folder: Path, supervise: Callable[[WorkerConfig], TrainingSupervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listening store would unpickle data from any user of this machine."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")  # as an operator sets it for several machines
    supervisor = supervise(await settings(folder))
    await supervisor.start()
    seen = await until(supervisor, lambda now: now.state is TrainingState.TRAINING and len(now.ranks) == 2)
    ranks = {rank.pid for rank in seen.ranks}
    found = listeners(os.getpid())
    assert {each.pid for each in found} <= ranks, "the agent listens nowhere"
    assert all(each.on_loopback for each in found), found
    meeting_place = folder / "s.ranks"
    assert meeting_place.stat().st_mode & 0o777 == 0o700
    await supervisor.stop()
    assert not meeting_place.exists()


async def test_two_ranks_finish_their_epochs(folder: Path, supervise: Callable[[WorkerConfig], TrainingSupervisor]) -> None:
    supervisor = supervise(await settings(folder, max_epochs=2, plant_overflow_every_s=0.5, batch_size=33))
    await supervisor.start()
    done = await until(supervisor, lambda now: now.state in (TrainingState.STOPPED, TrainingState.FAILED))
    assert done.state is TrainingState.STOPPED, done
    assert done.epoch == 2
    assert "trained 2 epochs" in done.detail


async def test_a_batch_too_small_for_the_ranks_ends_the_worker_for_good_and_says_why(
    folder: Path, supervise: Callable[[WorkerConfig], TrainingSupervisor]
) -> None:
    supervisor = supervise(await settings(folder, batch_size=1))
    await supervisor.start()
    done = await until(supervisor, lambda now: now.state is TrainingState.FAILED)
    assert "1 samples cannot be shared by 2 processes" in done.detail


async def test_a_machine_lent_by_hand_takes_part_and_is_free_again_after_a_stop(
    folder: Path, supervise: Callable[[WorkerConfig], TrainingSupervisor]
) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-P",
        "-m",
        "quantai_tui.training.node",
        "--rdzv-endpoint",
        endpoint,
        "--nnodes",
        "2",
        "--nproc",
        "1",
    ]
    lent = subprocess.Popen(command, env=environment(), stderr=(folder / "lent.log").open("wb"), process_group=0)
    try:
        supervisor = supervise(await settings(folder, nproc=1, nnodes=2, rdzv_endpoint=endpoint))
        await supervisor.start()
        seen = await until(supervisor, lambda now: now.state is TrainingState.TRAINING and len(now.ranks) == 2)
        await supervisor.stop()
        free = "this machine is free again"
        deadline = time.monotonic() + WITHIN_S
        while free not in (folder / "lent.log").read_text():
            assert time.monotonic() < deadline, (folder / "lent.log").read_text()
            await asyncio.sleep(0.1)
        assert gone(seen.ranks[1].pid)
        assert lent.poll() is None
        os.killpg(lent.pid, signal.SIGINT)
        assert await asyncio.to_thread(lent.wait, 30) == 0
    finally:
        lent.kill()
        lent.wait()
