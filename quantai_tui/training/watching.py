"""`watch`: a user's own PyTorch loop, observed where it is and shown by a running engine."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import torch
from torch import Tensor, nn

from ..telemetry import SYSTEM_CLOCK, Clock, Severity, TrainingState
from .config import check_number
from .fused import FusedSkips
from .guest_protocol import LONGEST_NAME
from .losses import LossTrace
from .messages import Ack, EpochDone, Event, Failed, Finished, Metrics, Overflowed, Ready, Saved
from .monitor import GradScalerMonitor
from .observing import ObservingMonitor, StepOutcomes, is_fused
from .progress import Progress
from .reporter import EngineReporter
from .scaler import DynamicGradScalerConfig

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.1
_FAULT = "a fault of the watch, not of your loop: it is watched no longer"
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


def watch(
    scaler: torch.amp.GradScaler,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    model: nn.Module | None = None,
    *,
    name: str = "",
    engine: str = "",
    steer: bool | DynamicGradScalerConfig = False,
    batch_size: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Watch:
    """Watch a training loop of your own and report it to a running engine, if there is one. Call it before the loop.

    The loop stays torch's recipe: `scaler.step(optimizer)`, `scaler.update()`. Name every optimizer that `scaler` steps. Unless
    `steer` is given nothing is changed: the same steps, the same weights, to the bit, with and without an engine. With `steer`
    the scale is kept within bounds, held on steps with a non-finite loss, and reset, as the engine's own worker does it: by a
    config, or, with True, by the default for the number of parameters; and a dashboard may reset it.

    The engine is `engine`, else the one named by QUANTAI_ENGINE, else the only one that runs. It shows the loop while it trains
    nothing itself (TRAIN_AUTOSTART=False). While there is none, one look at the user's private folder every 2 s, in a thread, is
    all; until the first is found, nothing is hooked into the loop. Only rank 0 of several processes reports.

    `name` is shown (default: the script's), `batch_size` is the number of samples in one optimizer step, for samples/s.
    Raises ValueError for what cannot be watched; afterwards only what torch itself would have raised.
    """
    return Watch(scaler, optimizer, model, name=name, engine=engine, steer=steer, batch_size=batch_size, clock=clock)


class Watch:
    """A watched loop, from `watch` until `close`, the end of a `with` block, or the end of the program.

    `loss` and `epoch` may be called and need not. All methods are for the training thread.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        model: nn.Module | None,
        *,
        name: str,
        engine: str,
        steer: bool | DynamicGradScalerConfig,
        batch_size: int | None,
        clock: Clock,
    ) -> None:
        self._scaler = scaler
        self._optimizers = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else tuple(optimizer)
        self._check_arguments(name, steer, batch_size)
        tensors = list(model.parameters()) if model is not None else _tensors(self._optimizers)
        self._device = _tensors(self._optimizers)[0].device
        self._parameters = sum(tensor.numel() for tensor in tensors)
        self._batch_size = batch_size or 0
        self._clock = clock
        self._policy = self._policy_of(steer)
        self.trace = LossTrace(self._device)
        self._no_loss = torch.zeros((), device=self._device)
        self.monitor: GradScalerMonitor | None = None
        self._outcomes: StepOutcomes | FusedSkips | None = None
        self._resets: deque[int] = deque()  # asked for by a dashboard, from another thread
        self._hooking = threading.Lock()
        self._hooked = self._started = self._closed = False
        self._inside = self._tried = self._done = False
        name = name or Path(sys.argv[0]).name or "python"
        us = weakref.ref(self)
        self._reporter = EngineReporter(
            name[:LONGEST_NAME], self._ready(), engine=engine, on_found=lambda: _hook(us), on_reset=lambda id: _ask_reset(us, id)
        )
        self._progress = Progress(self, clock, holds_scale=self._policy is not None)
        self._progress.state = TrainingState.TRAINING
        self._progress.detail = f"a script of yours, {'steered' if self._policy else 'watched'}: {name} (pid {os.getpid()})"
        if self._policy is not None:
            self._hook()
            self._begin()
        self._finalizer = weakref.finalize(self, _take_leave, self._reporter)
        rank = os.environ.get("RANK", "0")
        if rank == "0":
            self._reporter.start()
        else:
            self._reporter.note = f"rank {rank} does not report: rank 0 does"

    def _check_arguments(self, name: str, steer: bool | DynamicGradScalerConfig, batch_size: int | None) -> None:
        if not self._optimizers or not _tensors(self._optimizers):
            raise ValueError("watch needs the optimizers that the scaler steps, with parameters in them")
        if "update" in vars(self._scaler):
            raise ValueError("this scaler's update() is replaced already, by another watch or by you: close that one first")
        if len(self._optimizers) > 1 and any(is_fused(one) and _on_cuda(one) for one in self._optimizers):
            raise ValueError("several optimizers, fused ones on CUDA among them, cannot be watched without waiting for the GPU")
        if isinstance(steer, DynamicGradScalerConfig) and steer.policy == "amax":
            raise ValueError('policy "amax" needs the largest gradient of each step, which a watch does not see: use "grow"')
        if len(name) > LONGEST_NAME:
            raise ValueError(f"name must have at most {LONGEST_NAME} characters, got {len(name)}")
        if batch_size is not None:
            check_number("batch_size", batch_size, at_least=1)

    def _policy_of(self, steer: bool | DynamicGradScalerConfig) -> DynamicGradScalerConfig | None:
        if not self._scaler.is_enabled() or steer is False:
            return None
        return DynamicGradScalerConfig(self._parameters) if steer is True else steer

    def _ready(self) -> Ready:
        policy, scales = self._policy, self._scaler.is_enabled()
        return Ready(
            device=str(self._device),
            precision="fp16" if scales else "unscaled",
            reason="a script of yours",
            parameters=self._parameters,
            scale_floor=policy.floor if policy else None,
            scale_cap=policy.cap if policy else None,
            growth_interval=(policy.moves.growth_interval if policy else self._scaler.get_growth_interval()) if scales else None,
            planted="",
        )

    # For the loop

    def loss(self, loss: Tensor | float, *, grad_norm: Tensor | float | None = None) -> None:
        """The loss of this step, unscaled, before `scaler.update()`; a tensor stays on its device and is not waited for.

        `grad_norm` is that of the unscaled gradients. Raises ValueError unless each is one number.
        """
        self.trace.check(loss, grad_norm)
        if self._started:
            self.trace.push(loss, grad_norm)

    def epoch(self, epoch: int, steps: int = 0) -> None:
        """A new epoch begins, counted from 1; of `steps` steps, where that is known. Raises ValueError."""
        check_number("epoch (they count from 1)", epoch, at_least=1)
        check_number("steps", steps, at_least=0)
        self._progress.epoch, self._progress.epoch_step, self._progress.steps_per_epoch = epoch, 0, steps

    @property
    def note(self) -> str:
        """In words: which engine hears of this loop, or why none does."""
        return self._reporter.note

    def get_statistics(self) -> dict[str, Any] | None:
        """As `GradScalerMonitor.get_statistics`, since the first step seen; None before it, and where nothing is scaled."""
        return None if self.monitor is None else self.monitor.get_statistics()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(Finished("it has ended") if error is None else _failed(error))

    def close(self) -> None:
        """Give scaler and optimizers back as they were, and take leave of the engine. Idempotent."""
        self._end(Finished("it has ended"))

    def _end(self, farewell: Finished | Failed) -> None:
        if self._started and not self._closed and self._reporter.connected:
            try:
                if self.monitor is not None:
                    self.monitor.settle()
                self._progress.flush(self, period_s=0.0)
            except Exception:
                log.exception(_FAULT)
                self._give_up()
        self._unhook()
        self._finalizer.detach()
        self._reporter.close(farewell)

    # As a reporter of Progress

    def metrics(self, metrics: Metrics) -> bool:
        return self._reporter.metrics(metrics if self._batch_size else msgspec.structs.replace(metrics, samples_per_s=None))

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved) -> None:
        self._reporter.send(message)

    @property
    def learning_rate(self) -> float | None:
        rate = self._optimizers[0].param_groups[0]["lr"]
        return float(rate) if not isinstance(rate, Tensor) or rate.device.type == "cpu" else None

    # Hooks

    @property
    def _ours(self) -> dict[str, Callable[..., Any]]:
        """What stands in the place of the scaler's methods."""
        return {"update": self._update, "load_state_dict": self._load_state_dict, "__getstate__": self._getstate}

    def _hook(self) -> None:
        """From any thread: only a name is set. The rest is done by the training thread, in its next `update`."""
        with self._hooking:
            if not self._hooked and not self._closed:
                self._hooked = True
                vars(self._scaler).update(self._ours)

    def _unhook(self) -> None:
        with self._hooking:
            self._closed = True
            for method, ours in self._ours.items():
                if vars(self._scaler).get(method) == ours:
                    delattr(self._scaler, method)
        if isinstance(self._outcomes, StepOutcomes):
            self._outcomes.close()
        self._outcomes = None

    def _begin(self) -> None:
        self._started = True
        if not self._scaler.is_enabled():
            return
        if self._policy is None:
            self.monitor = ObservingMonitor(self._scaler, self._parameters, clock=self._clock)
        else:
            self.monitor = GradScalerMonitor(self._scaler, self._policy, clock=self._clock, on_event=self._on_event)
        if is_fused(self._optimizers[0]) and _on_cuda(self._optimizers[0]):
            self._outcomes = FusedSkips(self._scaler, self._optimizers[0])
        else:
            self._outcomes = StepOutcomes(self._scaler, self._optimizers)

    def _original(self, new_scale: float | Tensor | None) -> None:
        self._tried = True
        type(self._scaler).update(self._scaler, new_scale)
        self._done = True

    def _update(self, new_scale: float | Tensor | None = None) -> None:
        """In the place of `GradScaler.update`: does that, once, and whatever else goes wrong here stays here."""
        if self._inside or self._closed:
            self._original(new_scale)
            return
        self._inside, self._tried, self._done = True, False, False
        try:
            self._stepped(new_scale)
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
        self._unhook()
        self._reporter.close(Failed("the watch had a fault of its own, see the script's log; the script goes on"))

    def _stepped(self, new_scale: float | Tensor | None) -> None:
        monitor, outcomes, loss = self.monitor, self._outcomes, self.trace.take()
        if not self._started:
            self._original(new_scale)
            self._begin()
            return
        progress = self._progress
        if monitor is None or outcomes is None:
            self._original(new_scale)
            progress.stepped(self._batch_size, 0, None)
        elif new_scale is not None:
            self._original(new_scale)
            if isinstance(outcomes, StepOutcomes):
                outcomes.take()  # it decided nothing
            progress.stepped(self._batch_size, 0, monitor.resync())
        else:
            before = monitor.overflow_count
            if isinstance(outcomes, FusedSkips):
                outcomes.update(monitor, loss if isinstance(loss, Tensor) else self._no_loss, progress.epoch, progress.epoch_step)
            elif isinstance(monitor, ObservingMonitor):
                skipped = outcomes.take()
                self._original(None)
                monitor.follow(skipped, progress.epoch, progress.epoch_step)
            else:
                skipped = outcomes.take()
                finite = not skipped or loss is None or math.isfinite(loss)
                monitor.update(skipped, progress.epoch, progress.epoch_step, loss_finite=finite)
            progress.stepped(self._batch_size, monitor.overflow_count - before, monitor.mirror.scale)
            while self._resets:
                self._reset(monitor, self._resets.popleft())
        progress.flush(self, period_s=_REPORT_EVERY_S)

    def _reset(self, monitor: GradScalerMonitor, control: int) -> None:
        before = monitor.scale
        self._reporter.send(Ack(control, True, f"scale {before:g} -> {monitor.reset_scale():g}"))

    def _load_state_dict(self, state_dict: dict[str, Any]) -> None:
        type(self._scaler).load_state_dict(self._scaler, state_dict)
        if self.monitor is None or self._closed:
            return
        try:
            self.monitor.resync()
        except Exception:
            log.exception(_FAULT)
            self._give_up()

    def _getstate(self) -> dict[str, Any]:
        """Whoever pickles or copies the scaler gets one that is not watched."""
        return {name: value for name, value in type(self._scaler).__getstate__(self._scaler).items() if name not in self._ours}

    def _on_event(self, severity: Severity, text: str) -> None:
        log.log(_LEVELS[severity], text)
        self._reporter.send(Event(severity, text))

    def take_reset(self, control: int) -> Ack | None:
        """From the reporter's thread: a dashboard asks for a manual reset."""
        if self._policy is None:
            return Ack(control, False, "this script's scale is its own: watch(..., steer=True) lets a dashboard reset it")
        self._resets.append(control)
        return None


def _hook(us: Callable[[], Watch | None]) -> None:
    watched = us()
    if watched is not None:
        watched._hook()


def _ask_reset(us: Callable[[], Watch | None], control: int) -> Ack | None:
    watched = us()
    return Ack(control, False, "this script trains no longer") if watched is None else watched.take_reset(control)


def _take_leave(reporter: EngineReporter) -> None:
    """At the end of the program, or when scaler and watch are gone."""
    error = getattr(sys, "last_value", None)
    reporter.close(Finished("it has ended") if error is None else _failed(error))


def _failed(error: BaseException) -> Failed:
    return Failed(f"it ended with {type(error).__name__}: {error}"[:500])


def _tensors(optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    return [tensor for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]]


def _on_cuda(optimizer: torch.optim.Optimizer) -> bool:
    return any(tensor.device.type == "cuda" for tensor in _tensors([optimizer]))
