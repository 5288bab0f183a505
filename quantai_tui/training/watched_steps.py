"""The steps of a watched loop: the watch's part in each of them, in the place of `GradScaler.update`."""

from __future__ import annotations

import logging
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from ..telemetry import Clock, Severity, TrainingState
from .diagnosis import Diagnostician, Evidence
from .fused import FusedSkips
from .losses import LossTrace
from .messages import Ack, EpochDone, Event, Failed, Finished, Metrics, Overflowed, Ranks, Ready, Saved
from .monitor import GradScalerMonitor
from .observing import ObservingMonitor, StepOutcomes, is_fused
from .progress import Progress
from .reporter import EngineReporter
from .scaler import DynamicGradScalerConfig

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.1
_MOST_CLEAN = 1000  # less than a trace of losses holds
_FAULT = "a fault of the watch, not of your loop: it is watched no longer"
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class WatchedSteps:
    """Stands in the place of a scaler's `update`, keeps the books of the steps, and reports them.

    Held by the scaler once it is hooked, and holds the reporter: with the scaler both go. All methods but `hook` and `take_reset`
    are for the training thread.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        optimizers: Sequence[torch.optim.Optimizer],
        model: nn.Module | None,
        parameters: int,
        policy: DynamicGradScalerConfig | None,
        *,
        name: str,
        engine: str,
        batch_size: int,
        ready: Ready,
        clock: Clock,
    ) -> None:
        self._scaler, self._optimizers, self._parameters, self._policy = scaler, optimizers, parameters, policy
        self._model = None if model is None else weakref.ref(model)  # the scaler must not keep it alive
        self._diagnostician = Diagnostician()
        self._batch_size = batch_size
        self._clock = clock
        device = tensors_of(optimizers)[0].device
        self.trace = LossTrace(device)
        self._no_loss = torch.zeros((), device=device)
        self._monitor: GradScalerMonitor | None = None
        self._outcomes: StepOutcomes | FusedSkips | None = None
        self._resets: deque[int] = deque()  # asked for by a dashboard, from another thread
        self._hooking = threading.Lock()
        self._hooked = self.started = self._closed = False
        self._inside = self._tried = self._done = False
        self._bare = type(scaler).update.__get__(scaler)
        self._clean = 0  # steps that are not in the books yet; nothing happened in them
        self._most_clean = 0  # so many may come before the scale moves
        self._interval = 0
        self._unfused: set[int] = set()
        self._fresh = self.trace.fresh
        self._report_at = -math.inf
        us = weakref.ref(self)
        self.reporter = EngineReporter(
            name, ready, engine=engine, on_found=lambda: _hook(us), on_reset=lambda control: _ask_reset(us, control)
        )
        self.progress = Progress(self, clock, holds_scale=policy is not None)
        self.progress.state = TrainingState.TRAINING
        self._finalizer = weakref.finalize(self, _take_leave, self.reporter)
        if policy is not None:
            self.hook()
            self.begin()

    @property
    def monitor(self) -> GradScalerMonitor | None:
        """What follows the scaler, up to the last step; None before the first step seen, and where nothing is scaled."""
        self.enter_clean()
        return self._monitor

    def end(self, farewell: Finished | Failed) -> None:
        """Give scaler and optimizers back as they were, and take leave of the engine. Idempotent."""
        if self.started and not self._closed and self.reporter.connected:
            try:
                if self.monitor is not None:
                    self.monitor.settle()
                self.progress.flush(self, period_s=0.0)
            except Exception:
                log.exception(_FAULT)
                self._give_up()
        self._unhook()
        self._finalizer.detach()
        self.reporter.close(farewell)

    # As a reporter of Progress

    def metrics(self, metrics: Metrics) -> bool:
        return self.reporter.metrics(metrics if self._batch_size else msgspec.structs.replace(metrics, samples_per_s=None))

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved | Ranks) -> None:
        self.reporter.send(message)

    @property
    def learning_rate(self) -> float | None:
        rate = self._optimizers[0].param_groups[0]["lr"]
        return float(rate) if not isinstance(rate, Tensor) or rate.device.type == "cpu" else None

    @property
    def underflow_share(self) -> float | None:
        """Not known: that takes a backward pass of its own, which is not ours to make in somebody else's loop."""
        return None

    # Hooks

    @property
    def _ours(self) -> dict[str, Callable[..., Any]]:
        """What stands in the place of the scaler's methods."""
        return {"update": self._update, "load_state_dict": self._load_state_dict, "__getstate__": self._getstate}

    def hook(self) -> None:
        """From any thread: only a name is set. The rest is done by the training thread, in its next `update`."""
        with self._hooking:
            if not self._hooked and not self._closed:
                self._hooked = True
                vars(self._scaler).update(self._ours)

    def _unhook(self) -> None:
        with self._hooking:
            self._closed, self._most_clean = True, 0
            for method, ours in self._ours.items():
                if vars(self._scaler).get(method) == ours:
                    delattr(self._scaler, method)
        if isinstance(self._outcomes, StepOutcomes):
            self._outcomes.close()
        self._outcomes = None

    def begin(self) -> None:
        self.started = True
        if not self._scaler.is_enabled():
            return
        if self._policy is None:
            self._monitor = ObservingMonitor(self._scaler, self._parameters, clock=self._clock)
        else:
            self._monitor = GradScalerMonitor(self._scaler, self._policy, clock=self._clock, on_event=self._on_event)
        if is_fused(self._optimizers[0]) and on_cuda(self._optimizers[0]):
            self._outcomes = FusedSkips(self._scaler, self._optimizers[0])
        else:
            self._outcomes = StepOutcomes(self._scaler, self._optimizers)
            self._unfused = self._outcomes.stepped
        self._look_ahead()

    def _look_ahead(self) -> None:
        """How many clean steps are sure to leave the scale alone. All steps so far are in the books."""
        monitor, interval = self._monitor, self._scaler.get_growth_interval()
        self._interval = interval
        if isinstance(monitor, ObservingMonitor):
            monitor.follow_interval()
        if monitor is not None and not self._closed:
            left = interval - 1 - monitor.mirror.tracker
            self._most_clean = left if left >= 0 else _MOST_CLEAN
            self._most_clean = min(self._most_clean, _MOST_CLEAN)

    def _update(self, new_scale: float | Tensor | None = None) -> None:
        """In the place of `GradScaler.update`: does that, once, and whatever else goes wrong here stays here."""
        stepped, scaler = self._unfused, self._scaler
        if (
            self._clean < self._most_clean
            and new_scale is None
            and stepped
            and stepped.issuperset(scaler._per_optimizer_states)
            and scaler._growth_interval == self._interval
        ):
            # Every optimizer that was tried has stepped. Entered later, many at a time: code that runs once a step finds no cache
            # warm, and was measured to take ten times as long as in a loop of its own.
            stepped.clear()
            self._fresh.clear()
            self._bare()
            self._clean += 1
            if self._clock.monotonic() >= self._report_at:
                self._report()
            return
        self._update_with_care(new_scale)

    def _original(self, new_scale: float | Tensor | None) -> None:
        self._tried = True
        self._bare(new_scale)
        self._done = True

    def _update_with_care(self, new_scale: float | Tensor | None) -> None:
        if self._inside or self._closed:
            self._original(new_scale)
            return
        self.enter_clean()
        self._inside, self._tried, self._done = True, False, False
        try:
            self._stepped(new_scale)
            self._look_ahead()
            self._report_if_due()
        except Exception:
            if self._tried and not self._done:
                raise  # torch's own
            log.exception(_FAULT)
            self._give_up()
            if not self._tried:
                self._original(new_scale)
        finally:
            self._inside = False

    def _give_up(self) -> None:
        """For exception handlers."""
        self._unhook()
        self.reporter.close(Failed("the watch had a fault of its own, see the script's log; the script goes on"))

    def _stepped(self, new_scale: float | Tensor | None) -> None:
        monitor, outcomes, losses, progress = self._monitor, self._outcomes, self.trace.take(), self.progress
        if not self.started:
            self._original(new_scale)
            self.begin()
        elif monitor is None or outcomes is None:
            self._original(new_scale)
            progress.stepped(self._batch_size, 0, None)
        elif new_scale is not None:
            self._original(new_scale)
            if isinstance(outcomes, StepOutcomes):
                outcomes.take()  # it decided nothing
            progress.stepped(self._batch_size, 0, monitor.resync())
        else:
            if isinstance(monitor, ObservingMonitor):
                monitor.follow_interval()
            before = monitor.overflow_count
            if isinstance(outcomes, FusedSkips):
                loss = losses[-1] if losses and isinstance(losses[-1], Tensor) else self._no_loss
                outcomes.update(monitor, loss, progress.epoch, progress.epoch_step)
            else:
                skipped = outcomes.take()
                finite = not skipped or all(math.isfinite(loss) for loss in losses)
                scale = monitor.mirror.scale
                monitor.update(skipped, progress.epoch, progress.epoch_step, loss_finite=finite)
                if skipped:
                    self._explain(scale, losses[-1] if losses else None, monitor.consecutive_overflow)
            progress.stepped(self._batch_size, monitor.overflow_count - before, monitor.mirror.scale)

    def _explain(self, scale: float, loss: Tensor | float | None, in_a_row: int) -> None:
        """Name the cause and the guilty parameters, where the watch was given a model; their gradients survive a skipped step."""
        model = None if self._model is None else self._model()
        if model is None:
            return
        evidence = Evidence(model, scale=scale, loss=None if loss is None else torch.as_tensor(loss), in_a_row=in_a_row)
        found = self._diagnostician.explain(self.progress.step + 1, lambda: evidence)
        if found is not None:
            self.send(found)

    def enter_clean(self) -> None:
        """Into the books with the steps in which nothing happened."""
        monitor, progress, count = self._monitor, self.progress, self._clean
        self._clean = 0
        if monitor is None or not count:
            return
        try:
            for _ in range(count):
                monitor.check_overflow(False, progress.epoch, progress.epoch_step)
                monitor.record_scale(progress.epoch, progress.epoch_step)
                progress.stepped(self._batch_size, 0, monitor.mirror.scale)
            self._look_ahead()
        except Exception:
            log.exception(_FAULT)
            self._give_up()

    def _report(self) -> None:
        self.enter_clean()
        try:
            self._report_if_due()
        except Exception:
            log.exception(_FAULT)
            self._give_up()

    def _report_if_due(self) -> None:
        now = self._clock.monotonic()
        if now < self._report_at:
            return
        self._report_at = now + _REPORT_EVERY_S
        if self._monitor is not None:
            while self._resets:
                self._reset(self._monitor, self._resets.popleft())
            self._look_ahead()
        self.progress.flush(self, period_s=0.0)

    def _reset(self, monitor: GradScalerMonitor, control: int) -> None:
        before = monitor.scale
        self.reporter.send(Ack(control, True, f"scale {before:g} -> {monitor.reset_scale():g}"))

    def _load_state_dict(self, state_dict: dict[str, Any]) -> None:
        type(self._scaler).load_state_dict(self._scaler, state_dict)
        if self.monitor is None or self._closed:
            return
        try:
            self.monitor.resync()
            self._look_ahead()
        except Exception:
            log.exception(_FAULT)
            self._give_up()

    def _getstate(self) -> dict[str, Any]:
        """Whoever pickles or copies the scaler gets one that is not watched."""
        return {name: value for name, value in type(self._scaler).__getstate__(self._scaler).items() if name not in self._ours}

    def _on_event(self, severity: Severity, text: str) -> None:
        log.log(_LEVELS[severity], text)
        self.reporter.send(Event(severity, text))

    def take_reset(self, control: int) -> Ack | None:
        """From the reporter's thread: a dashboard asks for a manual reset."""
        if self._policy is None:
            return Ack(control, False, "this script's scale is its own: watch(..., steer=True) lets a dashboard reset it")
        self._resets.append(control)
        return None


def _hook(us: Callable[[], WatchedSteps | None]) -> None:
    watched = us()
    if watched is not None:
        watched.hook()


def _ask_reset(us: Callable[[], WatchedSteps | None], control: int) -> Ack | None:
    watched = us()
    return Ack(control, False, "this script trains no longer") if watched is None else watched.take_reset(control)


def _take_leave(reporter: EngineReporter) -> None:
    """At the end of the program, or when scaler and watch are gone."""
    error = getattr(sys, "last_value", None)
    reporter.close(Finished("it has ended") if error is None else failed(error))


def failed(error: BaseException) -> Failed:
    return Failed(f"it ended with {type(error).__name__}: {error}"[:500])


def tensors_of(optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    return [tensor for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]]


def on_cuda(optimizer: torch.optim.Optimizer) -> bool:
    return any(tensor.device.type == "cuda" for tensor in tensors_of([optimizer]))
