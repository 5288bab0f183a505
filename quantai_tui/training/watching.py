"""`watch`: a user's own PyTorch loop, observed where it is and shown by a running engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..arguments import check_type, check_whole
from ..telemetry import SYSTEM_CLOCK, Clock
from .guest_protocol import LONGEST_NAME
from .messages import Finished, Ready
from .monitor import GradScalerMonitor
from .observing import is_fused
from .scaler import DynamicGradScalerConfig
from .watched_steps import WatchedSteps, failed, on_cuda, tensors_of


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
    Raises ValueError or TypeError for arguments that cannot be watched; later only what torch itself raises.
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
        check_type("scaler", scaler, torch.amp.GradScaler, "a torch.amp.GradScaler")
        self._optimizers = _optimizers_of(optimizer)
        if model is not None:
            check_type("model", model, nn.Module, "a torch.nn.Module or None")
        self._check_arguments(name, engine, steer, batch_size)
        tensors = list(model.parameters()) if model is not None else tensors_of(self._optimizers)
        self._parameters = sum(tensor.numel() for tensor in tensors)
        policy = self._policy_of(steer)
        name = (name or Path(sys.argv[0]).name or "python")[:LONGEST_NAME]
        self._steps = WatchedSteps(
            scaler,
            self._optimizers,
            model,
            self._parameters,
            policy,
            name=name,
            engine=engine,
            batch_size=int(batch_size or 0),
            ready=self._ready(policy),
            clock=clock,
        )
        self._steps.progress.detail = f"a script of yours, {'steered' if policy else 'watched'}: {name} (pid {os.getpid()})"
        self._trace = self._steps.trace
        rank = os.environ.get("RANK", "0")
        if rank == "0":
            self._steps.reporter.start()
        else:
            self._steps.reporter.note = f"rank {rank} does not report: rank 0 does"

    def _check_arguments(self, name: str, engine: str, steer: bool | DynamicGradScalerConfig, batch_size: int | None) -> None:
        check_type("name", name, str, "text")
        check_type("engine", engine, str, "text, the name of a running engine")
        check_type("steer", steer, (bool, DynamicGradScalerConfig), "True, False or a DynamicGradScalerConfig")
        if not self._optimizers or not tensors_of(self._optimizers):
            raise ValueError("watch needs the optimizers that the scaler steps, with parameters in them")
        if "update" in vars(self._scaler):
            raise ValueError("this scaler's update() is replaced already, by another watch or by you: close that one first")
        if len(self._optimizers) > 1 and any(is_fused(one) and on_cuda(one) for one in self._optimizers):
            raise ValueError("several optimizers, fused ones on CUDA among them, cannot be watched without waiting for the GPU")
        if isinstance(steer, DynamicGradScalerConfig) and steer.policy == "amax":
            raise ValueError('policy "amax" needs the largest gradient of each step, which a watch does not see: use "grow"')
        if len(name) > LONGEST_NAME:
            raise ValueError(f"name must have at most {LONGEST_NAME} characters, got {len(name)}")
        if batch_size is not None:
            check_whole("batch_size", batch_size, at_least=1)

    def _policy_of(self, steer: bool | DynamicGradScalerConfig) -> DynamicGradScalerConfig | None:
        if not self._scaler.is_enabled() or steer is False:
            return None
        return DynamicGradScalerConfig(self._parameters) if steer is True else steer

    def _ready(self, policy: DynamicGradScalerConfig | None) -> Ready:
        scales = self._scaler.is_enabled()
        return Ready(
            device=str(tensors_of(self._optimizers)[0].device),
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
        if self._steps.started:
            self._trace.push(loss, grad_norm)
        else:
            self._trace.check(loss, grad_norm)

    def epoch(self, epoch: int, steps: int = 0) -> None:
        """A new epoch begins, counted from 1; of `steps` steps, where that is known. Raises ValueError."""
        check_whole("epoch (they count from 1)", epoch, at_least=1)
        check_whole("steps", steps, at_least=0)
        self._steps.enter_clean()
        progress = self._steps.progress
        progress.epoch, progress.epoch_step, progress.steps_per_epoch = int(epoch), 0, int(steps)

    @property
    def note(self) -> str:
        """In words: which engine hears of this loop, or why none does."""
        return self._steps.reporter.note

    def get_statistics(self) -> dict[str, Any] | None:
        """As `GradScalerMonitor.get_statistics`, since the first step seen; None before it, and where nothing is scaled."""
        return None if self.monitor is None else self.monitor.get_statistics()

    @property
    def monitor(self) -> GradScalerMonitor | None:
        """What follows the scaler, up to the last step; None before the first step seen, and where nothing is scaled."""
        return self._steps.monitor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._steps.end(Finished("it has ended") if error is None else failed(error))

    def close(self) -> None:
        """Give scaler and optimizers back as they were, and take leave of the engine. Idempotent."""
        self._steps.end(Finished("it has ended"))


def _optimizers_of(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    found = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    try:
        found = tuple(found)
    except TypeError:
        found = (optimizer,)
    for one in found:
        check_type("optimizer", one, torch.optim.Optimizer, "a torch.optim.Optimizer, or a list of them")
    return found
