"""The training loop: epoch after epoch over a market that goes on, paused, resumed, reset and stopped between two steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..market import BarColumns, StoreError
from ..telemetry import SYSTEM_CLOCK, Clock, Severity, TrainingState
from . import dataset
from .config import LIVE_FIELDS, WorkerConfig, changed_fields
from .evaluation import Evaluation
from .messages import ControlKind, Ready
from .model import CLASSES
from .planted import OverflowPlan
from .precision import choose
from .progress import Progress, Reporter
from .stepper import Stepper

_HEARTBEAT_S = 0.5

ReadBars = Callable[[str, str, int, int], BarColumns | None]
Build = Callable[[BarColumns, int, int, int], dataset.Dataset]
Answer = Callable[[bool, str], None]


class _StopRequested(Exception):
    """Unwinds the loop from wherever it is."""


@dataclass(frozen=True, slots=True)
class _Request:
    kind: ControlKind
    answer: Answer
    config: WorkerConfig | None = None


def _no_answer(ok: bool, text: str) -> None:
    """For callers who do not wait to hear."""


class TrainingLoop:
    """Trains until stopped, or for `max_epochs`.

    `run` belongs to one thread; the `request_*` methods may be called from any. A request is carried out between two steps (also
    while paused or waiting for data), then `answer(ok, text)` is called from the training thread. `read` gives the newest
    bars, and `build` makes of them what is trained and validated on.
    """

    def __init__(
        self,
        config: WorkerConfig,
        reporter: Reporter,
        *,
        read: ReadBars = dataset.read_bars,
        build: Build = dataset.build,
        clock: Clock = SYSTEM_CLOCK,
        paused: bool = False,
    ) -> None:
        self._config = config
        self._reporter = reporter
        self._read = read
        self._build = build
        self._clock = clock
        self._requests: deque[_Request] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._paused = paused
        self._step_due = 0.0
        self._validation_from_us = 0
        self._evaluation = Evaluation()
        self._progress = Progress(reporter, clock)
        precision = choose(config.device, config.precision, config.model_size)
        self._stepper = Stepper(config, len(dataset.FEATURES), precision, self._progress.event)
        self._shuffle = torch.Generator().manual_seed(config.seed)
        self._plan = OverflowPlan(config.plant_overflow_every_s, clock)

    def request_pause(self, answer: Answer = _no_answer) -> None:
        self._request(_Request(ControlKind.PAUSE, answer))

    def request_resume(self, answer: Answer = _no_answer) -> None:
        self._request(_Request(ControlKind.RESUME, answer))

    def request_reset_scale(self, answer: Answer = _no_answer) -> None:
        """The manual reset: half of the initial scale, even if that raises it."""
        self._request(_Request(ControlKind.RESET_SCALER, answer))

    def request_settings(self, config: WorkerConfig, answer: Answer = _no_answer) -> None:
        """Take over a config that differs in live fields only; any other difference is refused."""
        self._request(_Request(ControlKind.SETTINGS, answer, config))

    def request_stop(self, answer: Answer = _no_answer) -> None:
        self._stopping = True
        self._request(_Request(ControlKind.STOP, answer))

    def _request(self, request: _Request) -> None:
        self._requests.append(request)
        self._wake.set()

    def run(self) -> bool:
        """True when `max_epochs` are done, False when it was stopped."""
        self._reporter.send(self._ready())
        try:
            self._control()
            while not self._config.max_epochs or self._progress.epoch < self._config.max_epochs:
                self._epoch(self._next_data())
        except _StopRequested:
            return False
        self._progress.flush(self._stepper, period_s=0.0)
        return True

    # Between two steps

    def _control(self) -> None:
        """Carry out what was requested; while paused, stay here."""
        while True:
            while self._requests:
                self._carry_out(self._requests.popleft())
            if self._stopping:
                raise _StopRequested
            if not self._paused:
                return
            before = self._progress.state
            self._progress.state = TrainingState.PAUSED
            self._progress.flush(self._stepper, period_s=_HEARTBEAT_S if before is TrainingState.PAUSED else 0.0)
            self._sleep(_HEARTBEAT_S)
            self._step_due = 0.0

    def _sleep(self, seconds: float) -> None:
        """Wait, at most until the next request."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _carry_out(self, request: _Request) -> None:
        match request.kind:
            case ControlKind.PAUSE:
                self._paused = True
                request.answer(True, "paused")
            case ControlKind.RESUME:
                self._paused = False
                request.answer(True, "resumed")
            case ControlKind.STOP:
                request.answer(True, "stopping")
            case ControlKind.RESET_SCALER:
                self._reset_scale(request.answer)
            case ControlKind.SETTINGS:
                assert request.config is not None
                self._take_settings(request.config, request.answer)

    def _reset_scale(self, answer: Answer) -> None:
        monitor = self._stepper.monitor
        if monitor is None:
            answer(False, f"nothing to reset: {self._stepper.precision.name} runs without a gradient scaler")
            return
        before = monitor.scale
        text = f"scale {before:g} -> {monitor.reset_scale():g}"
        self._progress.event(Severity.INFO, f"manual reset: {text}")
        answer(True, text)

    def _take_settings(self, config: WorkerConfig, answer: Answer) -> None:
        changed = changed_fields(self._config, config)
        if refused := changed - LIVE_FIELDS:
            answer(False, f"{', '.join(sorted(refused))} cannot change while the worker runs: restart it")
            return
        self._config = config
        self._stepper.apply(config)
        if "plant_overflow_every_s" in changed:
            self._plan = OverflowPlan(config.plant_overflow_every_s, self._clock)
        self._reporter.send(self._ready())
        answer(True, f"now in force: {', '.join(sorted(changed))}" if changed else "nothing changed")

    def _ready(self) -> Ready:
        stepper, monitor = self._stepper, self._stepper.monitor
        return Ready(
            device=str(stepper.precision.device),
            precision=stepper.precision.name,
            reason=stepper.precision.reason,
            parameters=stepper.parameters,
            scale_floor=monitor.config.floor if monitor else None,
            scale_cap=monitor.config.cap if monitor else None,
            growth_interval=monitor.config.growth_interval if monitor else None,
            planted=self._plan.describe() if monitor else "",
        )

    # Data

    def _next_data(self) -> dataset.Dataset:
        """Read the store again: the market has gone on. Waits until there are enough bars."""
        while True:
            self._control()
            config, progress = self._config, self._progress
            try:
                bars = self._read(config.store_path, config.symbol, config.interval_s, config.max_bars)
                have, trouble = 0 if bars is None else len(bars.close), ""
            except StoreError as error:  # not written to yet, or locked: the engine owns the store and reports its health
                bars, have, trouble = None, 0, f" ({error})"
            if bars is not None and have >= config.bars_needed:
                data = self._build(bars, config.window, config.horizon, self._validation_from_us)
                # Never back: bars that were trained on come again once history is whole.
                self._validation_from_us = max(self._validation_from_us, data.validation_from_us)
                return data
            progress.state = TrainingState.WAITING
            progress.detail = f"waiting: {have} of {config.bars_needed} bars{trouble}"
            progress.flush(self._stepper)
            self._sleep(_HEARTBEAT_S)

    def _windows(self, features: Tensor, at: Tensor) -> Tensor:
        return features[at[:, None] + torch.arange(1 - self._config.window, 1, device=at.device)]

    # Training and validation

    def _epoch(self, data: dataset.Dataset) -> None:
        config, progress, device = self._config, self._progress, self._stepper.precision.device
        progress.epoch += 1
        progress.epoch_step = 0
        progress.steps_per_epoch = max(1, len(data.train) // config.batch_size)
        progress.detail = self._stepper.precision.reason
        if config.max_epochs:
            self._stepper.total_steps = config.max_epochs * progress.steps_per_epoch
        features = torch.from_numpy(data.features).to(device)
        order = torch.randperm(len(data.train), generator=self._shuffle)
        at = torch.from_numpy(data.train.at)[order].to(device)
        labels = torch.from_numpy(data.train.labels)[order].to(device)
        for number in range(progress.steps_per_epoch):
            self._control()
            self._pace()
            progress.state = TrainingState.TRAINING
            batch = _filled(number * config.batch_size, config.batch_size, len(at), device)
            self._step(self._windows(features, at[batch]), labels[batch])
        probabilities = self._validate(features, data.validation)
        self._reporter.send(self._evaluation.report(progress.epoch, data, probabilities))

    def _step(self, windows: Tensor, labels: Tensor) -> None:
        progress, stepper = self._progress, self._stepper
        factor = 1.0
        if stepper.monitor is not None:
            factor = self._plan.factor()
            if self._plan.just_begun:
                progress.event(Severity.INFO, f"{self._plan.describe()}: begins")
        skipped = stepper.step(windows, labels, progress.epoch, progress.epoch_step, factor)
        progress.stepped(len(labels), skipped, stepper.monitor.scale if stepper.monitor else None)
        progress.flush(stepper)

    def _pace(self) -> None:
        """Hold `steps_per_s`, without ever catching up on lost time."""
        rate = self._config.steps_per_s
        if not rate:
            return
        while (left := self._step_due - self._clock.monotonic()) > 0:
            self._progress.flush(self._stepper, period_s=_HEARTBEAT_S)
            self._sleep(min(left, _HEARTBEAT_S))
            self._control()
        self._step_due = self._clock.monotonic() + 1 / rate

    def _validate(self, features: Tensor, part: dataset.Part) -> NDArray[np.float32]:
        """The model's probabilities of each class, [samples, 3]."""
        at, size = torch.from_numpy(part.at).to(features.device), self._config.batch_size
        said = torch.empty(len(part) + size, CLASSES, device=features.device)
        for start in range(0, len(part), size):
            self._control()
            batch = _filled(start, size, len(part), features.device)
            # What only fills the last batch up lies behind the last sample, and is cut off below.
            said[start : start + size] = self._stepper.probabilities(self._windows(features, at[batch]))
            self._progress.flush(self._stepper)
        return said[: len(part)].cpu().numpy()


def _filled(start: int, size: int, count: int, device: torch.device) -> Tensor:
    """`size` indices from `start` on, going round at `count`: every batch has the same shape.

    The CPU backend keeps a compiled kernel for each shape it has seen, up to a thousand of them. With data that grows by a window
    a second, batches of what is left over took a worker from 330 MB to 1.2 GB within the hour.
    """
    return torch.arange(start, start + size, device=device) % count
