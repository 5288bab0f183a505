"""Workers that hang, cannot load torch or flood their log, and stops at awkward moments: real processes throughout."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_support import newest
from training_support import config, random_bars, store_of
from worker_support import exists, gone, supervisor, until

from quantai_tui.telemetry import TrainingState
from quantai_tui.training import TrainingSupervisor, WorkerConfig
from quantai_tui.training.child import WorkerLog
from quantai_tui.training.supervisor import WorkerUnavailable

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")


@pytest.fixture
async def supervise(folder: Path) -> AsyncIterator[Callable[..., TrainingSupervisor]]:
    made: list[TrainingSupervisor] = []

    def make(settings: WorkerConfig, **options: Any) -> TrainingSupervisor:
        made.append(supervisor(settings, folder, **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
async def trains(folder: Path) -> WorkerConfig:
    """A store with enough bars, and a folder for checkpoints that nobody writes unasked."""
    await store_of(random_bars(600), folder / "trades.sqlite")
    return config(
        store_path=str(folder / "trades.sqlite"),
        checkpoint_dir=str(folder / "checkpoints"),
        checkpoint_every_s=0.0,
        steps_per_s=50,
    )


async def stopped_in_time(worker: TrainingSupervisor) -> None:
    begin = time.monotonic()
    await worker.stop()
    assert time.monotonic() - begin < 3.0


async def test_a_stopped_training_goes_on_from_its_checkpoint_and_says_so(
    supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig, folder: Path
) -> None:
    worker = supervise(trains)
    await worker.start()
    await until(worker, lambda s: s.epochs_done >= 1)
    said = await worker.checkpoint()
    saved = await until(worker, lambda s: s.checkpoint is not None and not s.checkpoint.resumed)
    assert saved.checkpoint is not None
    assert f"saved in {folder / 'checkpoints'}" in said
    await stopped_in_time(worker)
    at = worker.snapshot().step
    assert at is not None
    left = newest(folder / "checkpoints")
    assert left.name.endswith((f"-step-{at}.pt", f"-step-{at + 1}.pt"))  # a step may end after the last report

    await worker.start()
    again = await until(worker, lambda s: s.checkpoint is not None and s.checkpoint.resumed)
    assert again.checkpoint is not None
    assert again.checkpoint.path == str(left)
    assert again.epochs_done >= 1
    further = await until(worker, lambda s: s.state is TrainingState.TRAINING and (s.step or 0) > again.checkpoint.step)
    assert further.step is not None
    assert further.step < at + 40  # neither from the beginning nor twice as far

    text = await worker.apply(config(**{**asdict(trains), "batch_size": 16}))
    assert text == "the worker starts again with new batch_size, from its checkpoint"
    await until(worker, lambda s: "steps of 32 samples, and now they have 16" in s.last_event)
    text = await worker.apply(config(**{**asdict(trains), "batch_size": 16, "window": 9}))
    assert text == "the worker starts again with new window: another model, from the beginning"
    fresh = await until(worker, lambda s: "training begins anew" in s.last_event)
    assert fresh.restarts == 0


def asdict(settings: WorkerConfig) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


async def test_a_stopped_process_is_killed_by_its_pid_and_training_goes_on(
    supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig
) -> None:
    worker = supervise(trains, silence_s=15.0)
    await worker.start()
    up = await until(worker, lambda s: s.state is TrainingState.TRAINING and (s.step or 0) > 3)
    assert await worker.checkpoint()
    assert up.pid is not None
    os.kill(up.pid, signal.SIGSTOP)
    hung = await until(worker, lambda s: s.restarts == 1)
    assert hung.last_event == "the worker gave no sign of life for 15 s and was killed"
    await gone(up.pid)
    again = await until(worker, lambda s: s.pid is not None and s.state is TrainingState.TRAINING)
    assert again.pid != up.pid
    assert again.checkpoint is not None
    assert again.checkpoint.resumed


async def test_a_hung_worker_can_be_stopped_in_time(supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig) -> None:
    worker = supervise(trains)
    await worker.start()
    up = await until(worker, lambda s: s.state is TrainingState.TRAINING)
    assert up.pid is not None
    os.kill(up.pid, signal.SIGSTOP)
    with pytest.raises(WorkerUnavailable, match="has not answered in 5 s"):
        await worker.checkpoint()
    await stopped_in_time(worker)
    await gone(up.pid)


async def test_a_paused_worker_is_stopped_in_time_with_its_place_kept(
    supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig, folder: Path
) -> None:
    worker = supervise(trains)
    await worker.start()
    await until(worker, lambda s: (s.step or 0) > 3)
    await worker.pause()
    held = await until(worker, lambda s: s.state is TrainingState.PAUSED)
    await stopped_in_time(worker)
    assert newest(folder / "checkpoints").name.endswith(f"-step-{held.step}.pt")


@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.3])
async def test_a_worker_that_saves_all_the_time_is_stopped_in_time_at_any_moment(
    moment_s: float, supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig, folder: Path
) -> None:
    worker = supervise(config(**{**asdict(trains), "checkpoint_every_s": 0.001, "steps_per_s": 0.0}))
    await worker.start()
    await until(worker, lambda s: (s.step or 0) > 3)
    await asyncio.sleep(moment_s)  # not for a state: the moment itself is what is tried
    await stopped_in_time(worker)
    assert newest(folder / "checkpoints").stat().st_size
    assert not list((folder / "checkpoints").glob("*.unfinished"))


async def test_a_worker_told_to_end_by_a_service_manager_saves_first(
    supervise: Callable[..., TrainingSupervisor], trains: WorkerConfig
) -> None:
    worker = supervise(trains)
    await worker.start()
    up = await until(worker, lambda s: (s.step or 0) > 3)
    assert up.pid is not None
    os.kill(up.pid, signal.SIGTERM)
    ended = await until(worker, lambda s: s.restarts == 1)
    assert ended.last_event == "the worker was killed by SIGTERM: by hand or by a service manager"
    again = await until(worker, lambda s: s.checkpoint is not None and s.checkpoint.resumed)
    assert again.checkpoint is not None
    assert again.checkpoint.step >= (up.step or 0)


async def test_a_worker_whose_engine_is_killed_saves_before_it_leaves(trains: WorkerConfig, folder: Path) -> None:
    engine = f"""
        import asyncio
        from pathlib import Path
        from training_support import config
        from worker_support import supervisor, until

        async def main():
            worker = supervisor(config(**{asdict(trains)!r}), Path({str(folder)!r}))
            await worker.start()
            await until(worker, lambda s: (s.step or 0) > 3)
            print(worker.snapshot().pid, flush=True)
            await asyncio.sleep(100)

        asyncio.run(main())
    """
    places = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(engine), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places}
    )
    try:
        assert process.stdout is not None
        pid = int(await asyncio.wait_for(process.stdout.readline(), 100))
    finally:
        process.kill()
        await process.wait()
    deadline = time.monotonic() + 20
    while exists(pid):
        assert time.monotonic() < deadline, "the worker has outlived its engine"
        await asyncio.sleep(0.02)
    assert newest(folder / "checkpoints").name.rpartition("-step-")[2] != "0.pt"


async def test_a_torch_that_cannot_be_loaded_fails_at_once_with_the_reason(
    supervise: Callable[..., TrainingSupervisor], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken" / "torch").mkdir(parents=True)
    (folder / "broken" / "torch" / "__init__.py").write_text(
        "raise ImportError('libcudart.so.12: cannot open shared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(folder / "broken"))))
    worker = supervise(config())
    await worker.start()
    reason = await asyncio.wait_for(worker.wait_failed(), 60)
    assert reason.startswith("torch cannot be loaded: libcudart.so.12: cannot open shared object file; install it again")
    failed = worker.snapshot()
    assert (failed.state, failed.restarts) == (TrainingState.FAILED, 0)
    assert any("libcudart" in line for line in failed.log_tail)


async def test_a_torch_that_hangs_while_it_loads_is_killed_after_the_grace_and_stopped_in_time(
    supervise: Callable[..., TrainingSupervisor], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "hung" / "torch").mkdir(parents=True)
    (folder / "hung" / "torch" / "__init__.py").write_text("import time\nwhile True: time.sleep(1)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(folder / "hung"))))
    worker = supervise(config(), grace_s=8.0)
    await worker.start()
    await until(worker, lambda s: s.detail == "loading torch")
    gone = await until(worker, lambda s: s.restarts == 1)
    assert gone.last_event == "the worker gave no sign of life for 8 s and was killed"
    await until(worker, lambda s: s.detail == "loading torch")
    await stopped_in_time(worker)


# Trains for all the engine knows, and writes as fast as it can.
FLOOD = """
import os, sys, threading, time
from quantai_tui.training.channel import WorkerChannel
from quantai_tui.training.messages import TOKEN_VARIABLE, Hello, Metrics, Ready
channel = WorkerChannel(sys.argv[-1])
channel.send(Hello(os.getpid(), os.environ[TOKEN_VARIABLE]))
channel.send(Ready("cpu", "fp16", "", 10_000, 1.0, 1e5, 2000, ""))

def report():
    step = 0
    while True:
        step += 1
        channel.send_metrics(Metrics("training", step=step))
        time.sleep(0.02)

threading.Thread(target=report, daemon=True).start()
block = (b"x" * 119 + b"\\n") * 8192
while True:
    begin = time.monotonic()
    os.write(2, block)
    time.sleep(max(0.0, 0.01 - (time.monotonic() - begin)))  # about 100 MB/s
"""


async def test_a_worker_that_floods_its_log_is_held_within_bounds_and_does_not_hold_up_the_engine(
    supervise: Callable[..., TrainingSupervisor], folder: Path
) -> None:
    (folder / "flood.py").write_text(FLOOD)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/flood.py" "$@"\n')
    python.chmod(0o755)
    worker = supervise(config(), python=str(python))
    log, older = folder / "worker.log", folder / "worker.log.1"
    await worker.start()
    written, before, cuts = 0, 0, 0
    reports: set[int | None] = set()

    def cut_often(snapshot: Any) -> bool:
        """Counts how often the file has become smaller, and what was written in between."""
        nonlocal written, before, cuts
        size = log.stat().st_size if log.exists() else 0
        cuts += size < before
        written += max(size - before, 0)
        before = size
        reports.add(snapshot.step)
        return cuts >= 3

    flooded = await until(worker, cut_often, every_s=0.002)
    assert written > 8 << 20
    assert len(reports) > 10
    assert older.stat().st_size <= 2 << 20
    assert set(flooded.log_tail[-1]) <= {"x"}
    await stopped_in_time(worker)
    WorkerLog(log).refresh()
    assert log.stat().st_size + older.stat().st_size <= 4 << 20
