"""What carries and collects a worker's reports: its channel, its log, and the view over all of its lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from training_support import SYMBOL

from quantai_tui.telemetry import SYSTEM_CLOCK, TrainingState
from quantai_tui.training.channel import ChannelClosed, WorkerChannel
from quantai_tui.training.child import WorkerLog
from quantai_tui.training.messages import Ack, Event, FrameReader, Metrics
from quantai_tui.training.progress import Progress
from quantai_tui.training.view import TrainingView


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path, whatever the name of the test."""
    made = tmp_path_factory.mktemp("w")
    made.chmod(0o700)
    return made


def test_counts_go_on_over_the_lives_of_the_worker_and_what_was_unknown_stays_so() -> None:
    view = TrainingView(SYSTEM_CLOCK)
    assert view.snapshot(SYMBOL, ()).step is None
    view.take_metrics(Metrics(TrainingState.TRAINING, step=100, overflow_count=7, resets=1, nonfinite_loss=2, loss=0.5))
    view.fold()
    view.fold()
    between = view.snapshot(SYMBOL, ())
    assert (between.step, between.overflow_count, between.resets, between.nonfinite_loss) == (100, 7, 1, 2)
    view.take_metrics(Metrics(TrainingState.TRAINING, step=10, overflow_count=1, resets=0))
    after = view.snapshot(SYMBOL, ())
    assert (after.step, after.overflow_count, after.resets, after.nonfinite_loss) == (110, 8, 1, 2)
    view.take_metrics(Metrics(TrainingState.TRAINING, step=11))
    assert view.snapshot(SYMBOL, ()).overflow_count is None


def test_what_a_dead_worker_measured_last_is_not_shown_as_if_it_were_new() -> None:
    view = TrainingView(SYSTEM_CLOCK)
    measured = {
        "loss": 0.5, "grad_norm": 1.0, "learning_rate": 1e-3, "samples_per_s": 900.0, "scale": 1.0, "scale_max_seen": 65536.0,
        "growth_tracker": 3, "scale_growth_rate": -1.0, "overflow_rate": 0.6, "consecutive_overflow": 5, "epoch": 2,
        "epoch_step": 9, "steps_per_epoch": 10, "epoch_eta_s": 0.2, "memory_bytes": 10**9,
        "processor_temperature_c": 61.0,
    }  # fmt: skip
    view.take_metrics(Metrics(TrainingState.TRAINING, step=100, overflow_count=7, resets=1, **measured))  # type: ignore[arg-type]
    alive = view.snapshot(SYMBOL, ())
    assert {name: getattr(alive, name) for name in measured} == measured
    view.fold()
    dead = view.snapshot(SYMBOL, ())
    assert {name: getattr(dead, name) for name in measured} == dict.fromkeys(measured)
    assert (dead.step, dead.overflow_count, dead.resets) == (100, 7, 1)
    assert dead.age_s is not None


class Hand:
    """A clock moved by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Still:
    """Training of which nothing is told but how far it is."""

    monitor = learning_rate = underflow_share = None
    trace: Any = None

    def drain(self) -> NDArray[np.float32]:
        return np.empty((0, 2), np.float32)


class Kept:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.told: list[Metrics] = []

    def metrics(self, metrics: Metrics) -> bool:
        self.told.append(metrics)
        return True

    def send(self, message: object) -> None:
        raise AssertionError(message)


def test_the_end_of_the_epoch_is_told_from_the_pace_of_the_last_seconds_and_memory_is_that_of_the_process() -> None:
    clock, reporter, still = Hand(), Kept(), Still()
    still.trace = still
    progress = Progress(reporter, clock, processor_heat=lambda: 61.0)
    progress.steps_per_epoch = 100

    def second(steps: int, state: TrainingState = TrainingState.TRAINING) -> Metrics:
        progress.state = state
        for _ in range(steps):
            progress.stepped(samples=32, skipped=0, scale=None)
        clock.advance(1.0)
        progress.flush(still)
        return reporter.told[-1]

    first = second(0)
    assert (first.epoch_eta_s, first.memory_bytes) == (None, None)
    told = second(20)
    assert told.epoch_eta_s == pytest.approx(80 / 20)
    assert told.memory_bytes is not None
    assert 10**6 < told.memory_bytes < 10**12
    assert (first.processor_temperature_c, told.processor_temperature_c) == (None, 61.0)
    slower = second(10).epoch_eta_s
    assert slower is not None
    assert 70 / 20 < slower < 70 / 10  # one slow second moves it a little, not all the way
    assert second(0, TrainingState.PAUSED).epoch_eta_s is None


async def test_when_nobody_reads_metrics_are_dropped_and_counted_and_the_rest_arrives(folder: Path) -> None:
    gate = asyncio.Event()
    bodies: list[bytes] = []
    all_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        frames = FrameReader()
        while data := await reader.read(65536):
            bodies.extend(frames.feed(data))
        writer.close()
        all_read.set()

    async with await asyncio.start_unix_server(serve, str(folder / "c"), limit=4096):
        channel = await asyncio.to_thread(WorkerChannel, str(folder / "c"))
        begin = time.monotonic()
        sent = sum(channel.send_metrics(Metrics(TrainingState.TRAINING, "x" * 500)) for _ in range(5000))
        channel.send(Ack(7, True, "done"))
        channel.send(Event("info", "said"))  # type: ignore[arg-type]
        assert time.monotonic() - begin < 5
        assert channel.dropped == 5000 - sent > 0
        gate.set()
        assert await asyncio.to_thread(channel.flush, 20.0)
        channel._socket.close()
        await asyncio.wait_for(all_read.wait(), 20)
    assert len(bodies) == sent + 2
    assert b"done" in bodies[-2]
    assert b"said" in bodies[-1]


async def test_a_closed_socket_is_told_to_the_sender(folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(serve, str(folder / "c")):
        channel = await asyncio.to_thread(WorkerChannel, str(folder / "c"))
        with pytest.raises(ChannelClosed):
            await asyncio.to_thread(channel.receive)
        with pytest.raises(ChannelClosed):
            channel.send(Event("info", "too late"))  # type: ignore[arg-type]
        channel._socket.close()


async def test_a_log_that_grows_is_cut_and_its_tail_stays_readable(folder: Path) -> None:
    log = WorkerLog(folder / "log" / "worker.log")
    descriptor = log.open()
    try:
        for number in range(30_000):
            os.write(descriptor, f"line {number} {'x' * 80}\n".encode())
        log.refresh()
        assert log.tail[-1].startswith("line 29999 ")
        assert len(log.tail) == 20
        os.write(descriptor, b"after the cut\n")
        log.refresh()
    finally:
        os.close(descriptor)
    assert log.tail == ("after the cut",)
    assert (folder / "log" / "worker.log.1").stat().st_size > 2_000_000
    with contextlib.suppress(FileNotFoundError):
        log.path.unlink()
    log.refresh()
    assert "cannot be read" in log.tail[0]
