"""Training scripts and the engine that shows them: real scripts in processes of their own, real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from e2e_support import LINUX_ONLY, Stage, stage
from e2e_support import watch as see
from watch_support import Loop, Place, script, start

from quantai_tui import __version__
from quantai_tui.telemetry import GpuSnapshot, TrainingSnapshot, TrainingState
from quantai_tui.training import watch
from quantai_tui.training.channel import ChannelClosed, WorkerChannel
from quantai_tui.training.guest_protocol import GuestHello
from quantai_tui.training.messages import Event
from quantai_tui.training.supervisor import TrainingSupervisor, WorkerUnavailable

__all__ = ["stage"]

FOR_EVER = "train(steps=10**12)"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(path)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def shown(supervisor: TrainingSupervisor, enough: Callable[[TrainingSnapshot], object]) -> TrainingSnapshot:
    async with asyncio.timeout(60):
        while not enough(supervisor.snapshot()):
            await asyncio.sleep(0.02)
    return supervisor.snapshot()


async def trained(loop: Loop, until: Callable[[], object]) -> None:
    """Train, on this thread, beside the event loop."""
    async with asyncio.timeout(60):
        while not until():
            loop.step()
            loop.scaler.update()
            await asyncio.sleep(0.001)


@LINUX_ONLY
@pytest.mark.timeout(300)
@pytest.mark.processes
def test_the_readmes_example_is_shown_by_a_real_engine_and_goes_on_over_its_death(stage: Stage) -> None:
    engine = ("serve", "demo", "--set", "TRAIN_AUTOSTART=False")
    first = stage.start(*engine)
    entry = stage.entry()
    with running(script(stage.work, FOR_EVER)) as process:
        training = see(entry, lambda seen: seen.training.loss is not None and seen.training.overflow_count, 100).training
        assert training.state is TrainingState.TRAINING
        assert training.pid == process.pid
        assert (training.symbol, training.device, training.precision) == ("my-run", "cpu", "fp16")
        assert training.parameters == 16 * 64 + 64 + 64 + 1
        assert training.learning_rate == 1e-3
        assert training.scale is not None
        assert 0 < training.scale < 65536
        assert training.samples_per_s is None or training.samples_per_s > 0
        first.kill()
        first.wait()
        second = stage.start(*engine, log="second")
        stage_pid = second.pid
        again = see(stage.entry(), lambda seen: seen.pid == stage_pid and (seen.training.step or 0) > (training.step or 0), 100)
        assert again.training.pid == process.pid
        assert (again.training.overflow_count or 0) >= (training.overflow_count or 0)
        assert process.poll() is None
    gone = see(stage.entry(), lambda seen: seen.training.state is TrainingState.STOPPED).training
    assert "my-run" in gone.detail
    assert "without a word" in gone.detail


async def test_a_script_that_ends_or_fails_says_so(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        with watch(loop.scaler, loop.optimizer, name="short") as watched:
            await trained(loop, lambda: supervisor.snapshot().step)
            assert watched.note == "reports to the engine live-spot"
        ended = await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)
        assert ended.detail.endswith("reports no longer: it has ended")
        assert ended.pid is None
        assert ended.step == watched._steps.progress.step
        broken = watch(loop.scaler, loop.optimizer, name="broken").__enter__()
        await trained(loop, lambda: supervisor.snapshot().symbol == "broken" and supervisor.snapshot().step)
        error = KeyError("price")
        broken.__exit__(KeyError, error, error.__traceback__)
        failed = await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)
        assert failed.detail.endswith("it ended with KeyError: 'price'")


@pytest.mark.filterwarnings("error")
async def test_an_overflow_and_a_loss_that_is_not_finite_reach_the_engine(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        loop.scaler.set_growth_interval(10**9)  # else it overflows by itself while reports are waited for
        with watch(loop.scaler, loop.optimizer, batch_size=8) as watched:
            await trained(loop, lambda: supervisor.snapshot().step)
            supervisor.drain_samples()
            watched.epoch(3, steps=100)
            for _ in range(2):
                watched.loss(loop.step(float("inf")) * float("nan"), grad_norm=2.5)
                loop.scaler.update()
            await trained(loop, lambda: supervisor.snapshot().overflow_count)
            seen = supervisor.snapshot()
            assert seen.overflow_count == 2
            assert seen.nonfinite_loss == 2
            assert "held" not in seen.last_event
            assert seen.grad_norm == 2.5
            assert (seen.epoch, seen.steps_per_epoch) == (3, 100)
            assert sum(sample.overflows for sample in supervisor.drain_samples()) == 2


async def test_the_cause_of_an_overflow_and_its_culprits_reach_the_engine_where_a_model_was_given(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        loop.scaler.set_growth_interval(10**9)  # otherwise it overflows by itself while reports are awaited
        with watch(loop.scaler, loop.optimizer, loop.model) as watched:
            await trained(loop, lambda: supervisor.snapshot().step)
            watched.loss(loop.step(1e9))
            loop.scaler.update()
            await trained(loop, lambda: supervisor.snapshot().last_overflow)
    seen = supervisor.snapshot()
    assert seen.last_overflow is not None
    assert (seen.last_overflow.cause, set(seen.last_overflow.culprits)) == ("scale", {"weight", "bias"})
    assert seen.overflow_causes == {"scale": 1}


async def test_the_gpus_are_shown_beside_a_script_as_beside_the_worker(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        supervisor.take_gpus((GpuSnapshot("GPU-1", utilisation=0.5),), "one more does not answer")
        assert supervisor.worker_pids() == set()
        with watch(loop.scaler, loop.optimizer):
            await trained(loop, lambda: supervisor.snapshot().step)
            seen = supervisor.snapshot()
            assert ([gpu.uuid for gpu in seen.gpus], seen.gpu_note) == (["GPU-1"], "one more does not answer")
            assert supervisor.worker_pids() == {os.getpid()}
        await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)
        assert supervisor.worker_pids() == set()


async def test_the_engines_own_worker_has_the_place_and_a_script_is_told_so_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        with watch(loop.scaler, loop.optimizer, name="mine") as watched:
            await trained(loop, lambda: supervisor.snapshot().step)
            with pytest.raises(WorkerUnavailable, match="pause it where it runs"):
                await supervisor.pause()
            await supervisor.start()
            await shown(supervisor, lambda seen: seen.symbol == "ETHUSDT" and seen.state is not TrainingState.IDLE)
            await trained(loop, lambda: "takes no reports: the engine trains by itself from now on" in watched.note)
        with watch(loop.scaler, loop.optimizer) as refused:
            await trained(loop, lambda: "TRAIN_AUTOSTART=False" in refused.note)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING and "no reports" in record.message]
        assert len(warnings) == 2


async def test_a_second_script_waits_until_the_first_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantai_tui.training.reporter.LOOK_EVERY_S", 0.05)
    async with Place(tmp_path) as supervisor:
        loop, other = Loop(), Loop()
        with watch(loop.scaler, loop.optimizer, name="first"):
            await trained(loop, lambda: supervisor.snapshot().step)
            second = watch(other.scaler, other.optimizer, name="second")
            await trained(other, lambda: f"first (pid {os.getpid()}) reports to this engine already" in second.note)
        with second:
            await trained(other, lambda: supervisor.snapshot().symbol == "second" and supervisor.snapshot().step)


async def test_a_manual_reset_is_done_by_a_steered_script_and_declined_by_a_watched_one(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        with pytest.raises(WorkerUnavailable, match="not up"):
            await supervisor.reset_scaler()

        def reports() -> object:
            return supervisor.snapshot().pid and supervisor.snapshot().step

        for steer in (True, False):
            loop = Loop()
            with watch(loop.scaler, loop.optimizer, steer=steer):
                await trained(loop, reports)
                asked = asyncio.create_task(supervisor.reset_scaler())
                await trained(loop, asked.done)
                if steer:
                    assert asked.result().endswith("-> 32768")
                    assert supervisor.snapshot().scale_cap == 100_000
                else:
                    assert "steer=True" in str(asked.exception())
                    assert supervisor.snapshot().scale_cap is None
            await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)


async def test_an_engine_that_does_not_read_costs_reports_and_no_time(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        with watch(loop.scaler, loop.optimizer) as watched:
            await trained(loop, lambda: supervisor.snapshot().step)
            channel = watched._steps.reporter._channel
            assert channel is not None
            channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for _ in range(500):  # nobody reads: this test holds the event loop
                loop.step()
                watched._steps._report_at = float("-inf")
                loop.scaler.update()
            assert channel.dropped > 100
            held = watched._steps.progress.step
            await trained(loop, lambda: (supervisor.snapshot().step or 0) > held)


async def test_a_stranger_and_another_release_are_turned_away_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def talk(message: object) -> bytes:
        channel = WorkerChannel(path)
        try:
            channel.send(message)  # type: ignore[arg-type]
            return channel.receive()[0]
        except ChannelClosed:
            return b""
        finally:
            channel.close()

    async with Place(tmp_path) as supervisor:
        path = str(supervisor._guests._path)
        assert Path(path).stat().st_mode & 0o777 == 0o600
        old = await asyncio.to_thread(talk, GuestHello("0.0.1", "old", 1))
        assert b"0.0.1" in old
        assert __version__.encode() in old
        assert await asyncio.to_thread(talk, Event("info", "hello")) == b""  # type: ignore[arg-type]
        assert "hanging up" in caplog.text
        assert supervisor.snapshot().state is TrainingState.IDLE


async def test_a_forked_child_lets_go_of_the_connection(tmp_path: Path) -> None:
    async with Place(tmp_path) as supervisor:
        loop = Loop()
        watched = watch(loop.scaler, loop.optimizer)
        await trained(loop, lambda: supervisor.snapshot().step)
        released, release = os.pipe()
        child = os.fork()
        if child == 0:  # as a DataLoader's worker: it lives on when its parent has closed the watch
            os.close(release)
            os.read(released, 1)
            os._exit(0)
        os.close(released)
        try:
            watched.close()
            await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)
        finally:
            os.close(release)
            os.waitpid(child, 0)


async def test_of_several_engines_one_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place(tmp_path, "demo-1"), Place(tmp_path, "demo-2") as second:
        loop = Loop()
        with watch(loop.scaler, loop.optimizer) as watched:
            assert "several engines run (demo-1, demo-2)" in watched.note
        monkeypatch.setenv("QUANTAI_ENGINE", "demo-2")
        with watch(loop.scaler, loop.optimizer):
            await trained(loop, lambda: second.snapshot().step)


@pytest.mark.processes
async def test_a_script_does_not_outlive_its_own_end_for_the_sake_of_a_hung_engine(tmp_path: Path, own_home: Path) -> None:
    async with Place(tmp_path) as supervisor:
        process = start(script(own_home / "work", "train(steps=300)"))
        await shown(supervisor, lambda seen: seen.pid == process.pid)
        # From here on this process, the engine, does nothing until the script has ended.
        assert process.wait(100) == 0
        await shown(supervisor, lambda seen: seen.state is TrainingState.STOPPED)
