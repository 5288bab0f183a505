"""What the loop tells of itself: counters kept step by step, turned into Metrics at most 25 times a second."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..telemetry import Clock, Severity, TrainingState
from .heat import ProcessorHeat
from .messages import EpochDone, Event, Metrics, Overflowed, Ranks, Ready, Saved
from .monitor import GradScalerMonitor
from .saved_state import LARGEST_COUNT, whole

FLUSH_PERIOD_S = 0.04
_RATE_PERIOD_S = 1.0
_NONFINITE_PERIOD_S = 10.0
_PACE_SHARE = 0.3  # of the newest second in the pace that the end of the epoch is told from
_MEMORY = Path("/proc/self/statm")


class Reporter(Protocol):
    """Where a loop reports to. Called from the training thread; neither call may block."""

    def metrics(self, metrics: Metrics) -> bool:
        """False when it was dropped: what it said of its steps is said again with the next."""
        ...

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved | Ranks) -> None: ...


class Trace(Protocol):
    def drain(self) -> NDArray[np.float32]:
        """Loss and gradient norm of the steps since the last call: [steps, 2]."""
        ...


class Trained(Protocol):
    """What is moved step by step, as far as it is told of. `monitor` is None where nothing is scaled."""

    @property
    def monitor(self) -> GradScalerMonitor | None: ...

    @property
    def trace(self) -> Trace: ...

    @property
    def learning_rate(self) -> float | None: ...

    @property
    def underflow_share(self) -> float | None: ...


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM now; None where the system does not tell."""
    try:
        return int(_MEMORY.read_text("ascii").split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


class Progress:
    """The running numbers of a training loop.

    `holds_scale`: on a step whose loss was not finite. `processor_heat` tells the degrees Celsius of this machine's processors.
    """

    def __init__(
        self,
        reporter: Reporter,
        clock: Clock,
        *,
        holds_scale: bool = True,
        processor_heat: Callable[[], float | None] | None = None,
    ) -> None:
        self._reporter = reporter
        self._holds_scale = holds_scale
        self._clock = clock
        self.state = TrainingState.WAITING
        self.detail = ""
        self.paused_because = ""
        self.epoch = 0
        self.epoch_step = 0
        self.steps_per_epoch = 0
        self.step = 0
        self.nonfinite_loss = 0
        self._flushed_at = float("-inf")
        self._overflows = 0
        self._scale_max: float | None = None
        self._loss_sum = 0.0
        self._loss_count = 0
        self._loss: float | None = None
        self._grad_norm: float | None = None
        self._samples = 0
        self._samples_since: float | None = None
        self._samples_per_s: float | None = None
        self._step_since = 0
        self._steps_per_s: float | None = None
        self._memory: int | None = None
        self._processor_heat = processor_heat or ProcessorHeat().celsius
        self._heat: float | None = None
        self._nonfinite_told_at = float("-inf")
        self._unscaled_skips = 0  # without a scaler a skipped step means a gradient that is not finite

    def state_dict(self) -> dict[str, Any]:
        """The counters that go on in another life."""
        return {"epoch": self.epoch, "epoch_step": self.epoch_step, "step": self.step, "nonfinite_loss": self.nonfinite_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, TypeError and KeyError, and then changes nothing."""
        counts = {name: whole(state, name, at_most=LARGEST_COUNT) for name in ("epoch", "epoch_step", "step", "nonfinite_loss")}
        self.epoch, self.epoch_step, self.step = counts["epoch"], counts["epoch_step"], counts["step"]
        self.nonfinite_loss = counts["nonfinite_loss"]

    def settle(self, stepper: Trained) -> None:
        """Count what the steps so far have left in the trace, so that a checkpoint has it."""
        self._take_trace(stepper, self._clock.monotonic())

    def stepped(self, samples: int, skipped: int, scale: float | None) -> None:
        self.step += 1
        self.epoch_step += 1
        self._samples += samples
        if scale is None:
            self._unscaled_skips += skipped
        else:
            self._overflows += skipped
            self._scale_max = scale if self._scale_max is None else max(self._scale_max, scale)

    def event(self, level: Severity, text: str) -> None:
        self._reporter.send(Event(level, text))

    def flush(self, stepper: Trained, *, period_s: float = FLUSH_PERIOD_S) -> None:
        """Report, unless the last report is younger than `period_s`."""
        now = self._clock.monotonic()
        if now - self._flushed_at < period_s:
            return
        self._flushed_at = now
        self._take_trace(stepper, now)
        self._take_rate(now)
        if self._reporter.metrics(self._metrics(stepper)):
            self._overflows = 0
            self._scale_max = None
            self._loss_sum = 0.0
            self._loss_count = 0

    def _take_trace(self, stepper: Trained, now: float) -> None:
        rows = stepper.trace.drain()
        if not len(rows):
            return
        losses, norms = rows[:, 0], rows[:, 1]
        finite = losses[np.isfinite(losses)]
        self._loss_sum += float(finite.sum(dtype=np.float64))
        self._loss_count += len(finite)
        if self._loss_count:
            self._loss = self._loss_sum / self._loss_count
        norms = norms[np.isfinite(norms)]
        if len(norms):
            self._grad_norm = float(norms[-1])
        bad = len(losses) - len(finite)
        self.nonfinite_loss += bad
        if now - self._nonfinite_told_at < _NONFINITE_PERIOD_S:
            return
        if bad:
            text = f"loss not finite in {self.nonfinite_loss} steps so far: check data and weights; these steps are skipped"
            self.event(Severity.CRITICAL, text + (", the scale is held" if stepper.monitor and self._holds_scale else ""))
        elif self._unscaled_skips:
            text = f"gradient not finite in {self._unscaled_skips} steps, the loss was: suspect a square root or a logarithm at 0"
            self.event(Severity.CRITICAL, text)
        else:
            return
        self._unscaled_skips = 0
        self._nonfinite_told_at = now

    def _take_rate(self, now: float) -> None:
        if self.state is not TrainingState.TRAINING:
            self._samples_since = self._samples_per_s = self._steps_per_s = None
        elif self._samples_since is None:
            self._samples, self._samples_since, self._step_since = 0, now, self.step
        elif now - self._samples_since >= _RATE_PERIOD_S:
            self._samples_per_s = self._samples / (now - self._samples_since)
            pace = (self.step - self._step_since) / (now - self._samples_since)
            before = pace if self._steps_per_s is None else self._steps_per_s
            self._steps_per_s = before + _PACE_SHARE * (pace - before)
            self._samples, self._samples_since, self._step_since = 0, now, self.step
            self._memory = resident_bytes()
            self._heat = self._processor_heat()

    def _eta(self) -> float | None:
        left = self.steps_per_epoch - self.epoch_step
        return left / self._steps_per_s if self._steps_per_s and self.steps_per_epoch and left >= 0 else None

    def _metrics(self, stepper: Trained) -> Metrics:
        monitor = stepper.monitor
        return Metrics(
            state=self.state,
            detail=self.detail,
            step=self.step,
            epoch=self.epoch,
            epoch_step=self.epoch_step,
            steps_per_epoch=self.steps_per_epoch,
            loss=self._loss,
            grad_norm=self._grad_norm,
            learning_rate=stepper.learning_rate if self.step else None,
            samples_per_s=self._samples_per_s,
            scale=monitor.scale if monitor else None,
            scale_max=self._scale_max,
            scale_max_seen=monitor.max_seen if monitor else None,
            growth_tracker=monitor.mirror.tracker if monitor else None,
            scale_growth_rate=monitor.growth_rate if monitor else None,
            overflows=self._overflows,
            overflow_count=monitor.overflow_count if monitor else None,
            overflow_rate=monitor.overflow_rate if monitor else None,
            consecutive_overflow=monitor.consecutive_overflow if monitor else None,
            resets=monitor.reset_count if monitor else None,
            nonfinite_loss=self.nonfinite_loss,
            headroom_octaves=monitor.headroom_octaves if monitor else None,
            paused_because=self.paused_because,
            underflow_share=stepper.underflow_share,
            epoch_eta_s=self._eta(),
            memory_bytes=self._memory,
            processor_temperature_c=self._heat,
        )
