"""The supervisor and its worker: real child processes, a real socket, a real store; ended in every way that happens."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from training_support import SYMBOL, config, random_bars, store_of
from worker_support import exists, gone

from quantai_tui.telemetry import TrainingSnapshot, TrainingState
from quantai_tui.training import TrainingSupervisor, WorkerConfig
from quantai_tui.training.messages import Hello, encode_frame
from quantai_tui.training.supervisor import WorkerUnavailable

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path, whatever the name of the test."""
    made = tmp_path_factory.mktemp("w")
    made.chmod(0o700)
    return made


@pytest.fixture
async def supervise(folder: Path) -> AsyncIterator[Callable[..., TrainingSupervisor]]:
    made: list[TrainingSupervisor] = []

    def make(settings: WorkerConfig, **options: Any) -> TrainingSupervisor:
        # The worker is nice: where others want the cores, it may be half a minute before torch is loaded.
        options = {"grace_s": 90.0, **options}
        made.append(TrainingSupervisor(settings, socket_path=folder / "s", log_path=folder / "worker.log", **options))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


async def until(
    supervisor: TrainingSupervisor, holds: Callable[[TrainingSnapshot], object], within_s: float = 80
) -> TrainingSnapshot:
    deadline = time.monotonic() + within_s
    while not holds(snapshot := supervisor.snapshot()):
        assert time.monotonic() < deadline, snapshot
        await asyncio.sleep(0.02)
    return snapshot


def script(folder: Path, text: str) -> str:
    """A stand-in for the interpreter."""
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


class HastyClock:
    """Waits are short, and remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.001)


async def test_a_worker_trains_pauses_resets_resumes_takes_settings_and_stops_in_time(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    path = folder / "trades.sqlite"
    supervisor = supervise(config(store_path=str(path)))
    assert supervisor.snapshot().state is TrainingState.IDLE
    await supervisor.start()
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
    waiting = await until(supervisor, lambda s: s.state is TrainingState.WAITING)
    assert waiting.detail == "waiting: 0 of 200 bars"
    await store_of(random_bars(600), path)

    trained = await until(supervisor, lambda s: s.epochs_done >= 1)
    assert trained.state is TrainingState.TRAINING
    assert (trained.device, trained.precision, trained.symbol, trained.data_bars) == ("cpu", "fp16", SYMBOL, 600)
    assert trained.scale == 65536.0
    assert None not in (trained.accuracy, trained.baseline_accuracy, trained.loss, trained.grad_norm, trained.learning_rate)
    assert trained.age_s is not None
    assert trained.age_s < 5
    assert trained.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, trained.pid) >= 10
    assert supervisor.drain_samples()

    assert await supervisor.pause() == "paused"
    paused = await until(supervisor, lambda s: s.state is TrainingState.PAUSED)
    assert await supervisor.reset_scaler() == "scale 65536 -> 32768"
    reset = await until(supervisor, lambda s: s.scale == 32768.0)
    assert reset.step == paused.step
    assert reset.resets == 1
    assert "max_scale" in await supervisor.apply(config(store_path=str(path), max_scale=1000.0))
    assert await supervisor.resume() == "resumed"
    await until(supervisor, lambda s: s.state is TrainingState.TRAINING and s.scale == s.scale_cap == 1000.0)

    begin = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - begin < 3.0
    await gone(trained.pid)
    assert supervisor.snapshot().state is TrainingState.STOPPED
    assert not (folder / "s").exists()


async def test_a_killed_worker_is_started_again_paused_if_it_was_and_its_counts_go_on(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    path = folder / "trades.sqlite"
    await store_of(random_bars(600), path)
    supervisor = supervise(config(store_path=str(path)))
    await supervisor.start()
    first = await until(supervisor, lambda s: s.step and s.step > 5)
    await supervisor.pause()
    held = await until(supervisor, lambda s: s.state is TrainingState.PAUSED)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    gone = await until(supervisor, lambda s: s.state is TrainingState.RESTARTING)
    assert gone.detail.startswith("the worker was killed by SIGKILL: by hand, or by the kernel because memory ran out")
    assert gone.detail.endswith("starting again in 1 s, attempt 1 of 5")
    again = await until(supervisor, lambda s: s.state is TrainingState.PAUSED)
    assert again.pid not in (None, first.pid)
    assert (again.restarts, again.step) == (1, held.step)
    await supervisor.resume()
    assert held.step is not None
    await until(supervisor, lambda s: s.step and s.step > held.step)


async def test_a_worker_paused_at_its_start_comes_up_paused_and_settings_it_cannot_take_start_another_one(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    path = folder / "trades.sqlite"
    await store_of(random_bars(600), path)
    supervisor = supervise(config(store_path=str(path)))
    await supervisor.start()
    assert await supervisor.pause() == "will come up paused"
    first = await until(supervisor, lambda s: s.state in (TrainingState.PAUSED, TrainingState.TRAINING))
    assert (first.state, first.step) == (TrainingState.PAUSED, 0)
    assert await supervisor.resume() == "resumed"
    await until(supervisor, lambda s: s.step)
    assert await supervisor.apply(config(store_path=str(path), precision="fp32", max_epochs=1)) == (
        "the worker starts again with new max_epochs, precision"
    )
    ended = await until(supervisor, lambda s: s.state is TrainingState.STOPPED)
    assert ended.detail == "trained 1 epochs"
    assert (ended.precision, ended.scale, ended.restarts) == ("fp32", None, 0)
    assert first.pid is not None
    await gone(first.pid)


async def test_a_worker_leaves_when_its_engine_is_killed(folder: Path) -> None:
    path = folder / "trades.sqlite"
    await store_of(random_bars(600), path)
    engine = f"""
        import asyncio
        from pathlib import Path
        from training_support import config
        from quantai_tui.training import TrainingSupervisor

        async def main():
            supervisor = TrainingSupervisor(
                config(store_path={str(path)!r}), socket_path=Path({str(folder)!r}) / "s", log_path=Path({str(folder)!r}) / "log"
            )
            await supervisor.start()
            while not (supervisor.snapshot().step):
                await asyncio.sleep(0.02)
            print(supervisor.snapshot().pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    places = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(engine), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places}
    )
    try:
        assert process.stdout is not None
        pid = int(await asyncio.wait_for(process.stdout.readline(), 80))
        assert exists(pid)
    finally:
        process.kill()
        await process.wait()
    deadline = time.monotonic() + 20.0  # two are its own; it is nice, and leaves when it is its turn
    while exists(pid):
        assert time.monotonic() < deadline, "the worker has outlived its engine"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.4, 0.8])
async def test_a_worker_can_be_stopped_at_any_moment_of_its_start(
    moment_s: float, folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    supervisor = supervise(config(store_path=str(folder / "none")))
    await supervisor.start()
    await asyncio.sleep(moment_s)  # not for a state: the moment itself is what is tried
    pid = supervisor.snapshot().pid
    begin = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - begin < 3.0
    if pid is not None:
        await gone(pid)


# Says that it is ready and training, and then nothing, as one that hangs in a driver.
FROZEN = """
import os, sys, time
from quantai_tui.training.channel import WorkerChannel
from quantai_tui.training.messages import TOKEN_VARIABLE, Hello, Metrics, Ready
channel = WorkerChannel(sys.argv[-1])
channel.send(Hello(os.getpid(), os.environ[TOKEN_VARIABLE]))
channel.send(Ready("cpu", "fp16", "", 10_000, 1.0, 1e5, 2000, ""))
channel.send_metrics(Metrics("training", step=7))
time.sleep(60)
"""


async def test_a_frozen_worker_is_killed_and_started_again(folder: Path, supervise: Callable[..., TrainingSupervisor]) -> None:
    (folder / "frozen.py").write_text(FROZEN)
    supervisor = supervise(config(), python=script(folder, f'exec "{sys.executable}" "{folder}/frozen.py" "$@"'), silence_s=0.6)
    await supervisor.start()
    up = await until(supervisor, lambda s: s.state is TrainingState.TRAINING)
    begin = time.monotonic()
    with pytest.raises(WorkerUnavailable, match="ended before it could answer"):
        await supervisor.reset_scaler()
    assert time.monotonic() - begin < 4
    again = await until(supervisor, lambda s: s.state is TrainingState.RESTARTING)
    assert again.detail.startswith("the worker gave no sign of life for 0.6 s and was killed")
    assert again.step == 7
    assert up.pid is not None
    await gone(up.pid)


async def test_a_worker_that_never_reports_is_killed_after_the_grace(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    supervisor = supervise(config(), python=script(folder, "exec sleep 60"), grace_s=0.6)
    await supervisor.start()
    gone = await until(supervisor, lambda s: s.state is TrainingState.RESTARTING)
    assert gone.detail.startswith("the worker gave no sign of life for 0.6 s")


async def test_a_worker_that_keeps_dying_is_given_up_with_the_reason_and_the_last_line_of_its_log(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    clock = HastyClock()
    supervisor = supervise(config(), python=script(folder, "echo libcudart is not what it was >&2; exit 3"), clock=clock)
    await supervisor.start()
    reason = await asyncio.wait_for(supervisor.wait_failed(), 40)
    assert reason == (
        "the worker ended with exit code 3; given up after 6 failures in a row; last in the log: libcudart is not what it was"
    )
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0]
    failed = supervisor.snapshot()
    assert (failed.state, failed.restarts, failed.pid) == (TrainingState.FAILED, 5, None)
    assert failed.log_tail[-1] == "libcudart is not what it was"
    assert not (folder / "s").exists()
    with pytest.raises(WorkerUnavailable, match="start it first"):
        await supervisor.pause()
    with pytest.raises(WorkerUnavailable, match="no scale to reset"):
        await supervisor.reset_scaler()
    await supervisor.start()
    assert supervisor.snapshot().state is TrainingState.STARTING


async def test_a_python_that_is_not_there_fails_at_once_by_name(supervise: Callable[..., TrainingSupervisor]) -> None:
    supervisor = supervise(config(), python="/nowhere/python")
    await supervisor.start()
    assert "/nowhere/python" in await asyncio.wait_for(supervisor.wait_failed(), 40)


async def test_an_error_that_would_come_again_is_not_tried_again(
    folder: Path, supervise: Callable[..., TrainingSupervisor]
) -> None:
    bars = random_bars(400)
    await store_of(bars._replace(low=bars.low * 0), folder / "trades.sqlite")
    supervisor = supervise(config(store_path=str(folder / "trades.sqlite")))
    await supervisor.start()
    reason = await asyncio.wait_for(supervisor.wait_failed(), 40)
    assert reason.startswith("ValueError: the bar opened at")
    assert supervisor.snapshot().restarts == 0
    assert "Traceback" in (folder / "worker.log").read_text()


async def test_a_stranger_on_the_socket_is_turned_away(folder: Path, supervise: Callable[..., TrainingSupervisor]) -> None:
    supervisor = supervise(config(), python=script(folder, "exec sleep 60"))
    await supervisor.start()
    await until(supervisor, lambda s: s.pid is not None)
    for first in (encode_frame(Hello(1, "guessed")), b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1", b"GET / HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_unix_connection(str(folder / "s"))
        writer.write(first)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert supervisor.snapshot().state is TrainingState.STARTING


def _supervising() -> int:
    return sum(task.get_name() == "training supervisor" for task in asyncio.all_tasks())


async def test_two_starts_at_once_start_one_worker(folder: Path, supervise: Callable[..., TrainingSupervisor]) -> None:
    supervisor = supervise(config(), python=script(folder, f'echo started >> "{folder}/starts"; exec sleep 60'))
    await asyncio.gather(supervisor.start(), supervisor.start())
    assert _supervising() == 1
    await until(supervisor, lambda s: (folder / "starts").exists())
    await asyncio.gather(supervisor.stop(), supervisor.start(), supervisor.stop())
    assert _supervising() == 0
    assert not (folder / "s").exists()


async def test_after_closing_no_worker_is_started_any_more(folder: Path, supervise: Callable[..., TrainingSupervisor]) -> None:
    supervisor = supervise(config(), python=script(folder, "exec sleep 60"))
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop())
    starting = asyncio.create_task(supervisor.start())
    await asyncio.sleep(0)  # both have begun: the one ends the worker, the other waits for it
    await supervisor.close()
    await stopping
    for start in (starting, supervisor.start()):
        with pytest.raises(WorkerUnavailable, match="the engine is stopping"):
            await start
    assert _supervising() == 0
    await supervisor.close()


async def test_what_goes_wrong_is_logged_within_the_packages_own_tree(
    folder: Path, supervise: Callable[..., TrainingSupervisor], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = supervise(config(), python="/nowhere/python")
    await supervisor.start()
    await asyncio.wait_for(supervisor.wait_failed(), 40)
    assert {record.name.partition(".")[0] for record in caplog.records if "training has failed" in record.message} == {
        "quantai_tui"
    }


async def test_a_stop_right_behind_a_start_leaves_no_socket(folder: Path, supervise: Callable[..., TrainingSupervisor]) -> None:
    supervisor = supervise(config())
    await supervisor.start()
    await supervisor.stop()
    assert not (folder / "s").exists()


def test_a_socket_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        TrainingSupervisor(config(), socket_path=tmp_path / ("x" * 120), log_path=tmp_path / "log")
