"""A monitor for a scaler that is somebody else's, and how it learns which of their steps were skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.amp.grad_scaler import OptState

from .fused import Outcome
from .monitor import GradScalerMonitor, LateOutcomes
from .scaler import DynamicGradScalerConfig


class ObservingMonitor(GradScalerMonitor):
    """All the numbers of a `GradScalerMonitor` and not a write to the scaler: no bounds, no resets, its own factors.

    The scaler backs off on every overflow, by a loss that is not finite too, and so does what is followed here. Changes of the
    scaler's factors and interval are seen at the next step.
    """

    def __init__(self, scaler: torch.amp.GradScaler, parameters: int, **options: Any) -> None:
        super().__init__(scaler, DynamicGradScalerConfig(parameters), auto_reset=False, **options)

    def _enforce(self) -> None:
        self._interval = self._scaler.get_growth_interval()

    def _set(self, scale: float, tracker: int) -> None:
        raise RuntimeError("this scaler is watched, not steered: move it yourself, or use watch(..., steer=True)")

    def _follow(self, has_overflow: bool) -> float:
        scaler = self._scaler
        # Not the scaler's present interval: steps may be entered late, and it may have been changed since.
        self.mirror.advance(has_overflow, scaler.get_growth_factor(), scaler.get_backoff_factor(), self._interval)
        return 0.0

    def update(self, has_overflow: bool, epoch: int, batch: int, *, loss_finite: bool = True) -> None:
        self._scaler.update()
        self._note(has_overflow, epoch, batch)

    def update_late(self, outcomes: LateOutcomes, epoch: int, batch: int) -> None:
        self._late = outcomes
        self._scaler.update()
        self._in_flight.append((epoch, batch))
        self._learn(outcomes.arrived())

    def _learn(self, outcomes: list[Outcome]) -> None:
        for skipped, _ in outcomes:
            self._note(skipped, *self._in_flight.popleft())

    def _note(self, skipped: bool, epoch: int, batch: int) -> None:
        self._check(skipped, epoch, batch, True)
        self.record_scale(epoch, batch)

    def follow_interval(self) -> None:
        """From the next step on the scaler's own interval counts, should it have been changed."""
        self._interval = self._scaler.get_growth_interval()


class StepOutcomes:
    """Whether GradScaler skipped the step of any optimizer since its last update: what its backing off follows from.

    For unfused optimizers a step post-hook tells, as in `SkipDetector`. The flag of any other (fused, unknown here, or unscaled
    and then not stepped) is read from its device: free on the CPU, a sync on CUDA.
    """

    def __init__(self, scaler: torch.amp.GradScaler, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._scaler = scaler
        self.stepped: set[int] = set()  # ids of the unfused ones that have stepped since the last `take`
        unfused = [one for one in optimizers if not is_fused(one)]
        self._unfused = frozenset(map(id, unfused))
        self._handles = [one.register_step_post_hook(self._on_step) for one in unfused]

    def _on_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.stepped.add(id(optimizer))

    def take(self) -> bool:
        """Before `GradScaler.update`, which forgets the flags."""
        stepped, skipped = self.stepped, False
        for key, state in self._scaler._per_optimizer_states.items():
            if key not in stepped:
                skipped = skipped or self._was_skipped(key, state)
        stepped.clear()
        return skipped

    def _was_skipped(self, key: int, state: dict[str, Any]) -> bool:
        if key in self._unfused and state["stage"] is OptState.STEPPED:
            return True
        return any(bool(found) for found in state["found_inf_per_device"].values())

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
