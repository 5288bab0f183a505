"""Skipped steps of fused optimizers: decided on the device, learned by the host without waiting for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .monitor import GradScalerMonitor

_CAPACITY = 256
Outcome = tuple[bool, bool]  # skipped; the loss was finite


class Copies(Protocol):
    """One copy of rows from the device at a time."""

    def start(self, rows: Tensor) -> None: ...

    def arrived(self) -> bool:
        """Whether the last copy started is complete; asks the device nothing that it would have to work for."""

    def wait(self) -> None: ...

    def rows(self) -> Tensor:
        """What has arrived, on the host."""


class PinnedCopies:
    """Into pinned memory, on the current CUDA stream, with an event behind."""

    def __init__(self, capacity: int) -> None:
        self._pinned = torch.zeros(capacity, 2, pin_memory=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._count = 0

    def start(self, rows: Tensor) -> None:
        self._count = len(rows)
        self._pinned[: self._count].copy_(rows, non_blocking=True)
        self._event.record()

    def arrived(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._event.synchronize()

    def rows(self) -> Tensor:
        return self._pinned[: self._count]


class FusedSkips:
    """Updates a monitored scaler after the step of a fused optimizer. The counterpart of `SkipDetector`.

    Call `update` in the place of `monitor.update`. A fused optimizer is always called, and steps or not by a flag on the device.
    On the CPU that flag is read: there is nobody to wait for. On CUDA it is put beside the loss into a ring (one small launch),
    and the ring is copied to pinned memory (another), one copy at a time: the monitor learns of a step when its copy has arrived,
    a few steps later. It waits for the device only when something it has learned means that the device's scale is not
    what it should be (a non-finite loss, a reset), for the operator's and a checkpoint's sake, and when 256 steps are unknown.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        optimizer: torch.optim.Optimizer,
        *,
        copies: Copies | None = None,
        capacity: int = _CAPACITY,
    ) -> None:
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError("this optimizer is not fused: its skipped steps are seen by SkipDetector")
        device = optimizer.param_groups[0]["params"][0].device
        if copies is None and device.type == "cuda":
            copies = PinnedCopies(capacity)
        self._scaler, self._optimizer, self._copies = scaler, optimizer, copies
        self._capacity = capacity
        self._ring = torch.zeros(capacity if copies else 0, 2, device=device)
        self._pushed = self._handed_out = self._copying = 0

    def update(self, monitor: GradScalerMonitor, loss: Tensor, epoch: int, batch: int) -> bool | None:
        """After `GradScaler.step()`: whether the step was skipped; None when that is not known yet."""
        found = self._found_inf()
        if self._copies is None:
            skipped = bool(found)
            monitor.update(skipped, epoch, batch, loss_finite=not skipped or bool(torch.isfinite(loss)))
            return skipped
        if self._pushed - self._handed_out == self._capacity:
            monitor.settle()
        torch.stack((found, loss.detach().float()), out=self._ring[self._pushed % self._capacity])
        self._pushed += 1
        monitor.update_late(self, epoch, batch)
        return None

    def _found_inf(self) -> Tensor:
        """Before `GradScaler.update`, which adds to it in place, and forgets it."""
        flags = list(self._scaler._per_optimizer_states[id(self._optimizer)]["found_inf_per_device"].values())
        if not flags:
            raise RuntimeError("no step to update after: call GradScaler.step() with the same optimizer before")
        found: Tensor = flags[0]
        for flag in flags[1:]:
            found = found + flag.to(found.device, non_blocking=True)
        return found

    def arrived(self) -> list[Outcome]:
        """The outcomes that have come in since the last call, in order; starts the next copy."""
        assert self._copies is not None
        outcomes = self._take() if self._copying and self._copies.arrived() else []
        if not self._copying:
            self._start()
        return outcomes

    def wait(self) -> list[Outcome]:
        """All the outcomes still out, in order; waits for the device."""
        assert self._copies is not None
        outcomes: list[Outcome] = []
        while self._handed_out < self._pushed:
            if not self._copying:
                self._start()
            self._copies.wait()
            outcomes += self._take()
        return outcomes

    def _start(self) -> None:
        assert self._copies is not None
        first = self._handed_out % self._capacity
        self._copying = min(self._pushed - self._handed_out, self._capacity - first)
        if self._copying:
            # Later steps overwrite the ring on the same stream, so behind this copy.
            self._copies.start(self._ring[first : first + self._copying])

    def _take(self) -> list[Outcome]:
        assert self._copies is not None
        rows = self._copies.rows().tolist()
        self._handed_out += self._copying
        self._copying = 0
        return [(found != 0.0, math.isfinite(loss)) for found, loss in rows]
