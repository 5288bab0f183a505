"""Loss and gradient norm of every step, kept on the device and read in batches, so that telemetry adds no host sync to a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CAPACITY = 1024


class StepTrace:
    """A ring of (loss, gradient norm) on the device.

    On CUDA `drain` starts a copy to pinned memory and hands out the one before when its event has passed: rows arrive one flush
    late and nothing waits. On the CPU they are read at once. When nobody drains, the oldest rows give way.
    """

    def __init__(self, device: torch.device) -> None:
        self._ring = torch.zeros(_CAPACITY, 2, device=device)
        self._filled = 0
        self._pinned: Tensor | None = None
        self._copied: tuple[Any, int] | None = None
        if device.type == "cuda":
            self._pinned = torch.zeros(_CAPACITY, 2, pin_memory=True)

    def push(self, loss: Tensor, grad_norm: Tensor) -> None:
        torch.stack((loss, grad_norm), out=self._ring[self._filled % _CAPACITY])
        self._filled += 1

    def drain(self) -> NDArray[np.float32]:
        """[steps, 2], in no particular order when the ring has run over."""
        rows: NDArray[np.float32]
        if self._pinned is None:
            rows = self._ring[: min(self._filled, _CAPACITY)].numpy().copy()
            self._filled = 0
            return rows
        rows = np.empty((0, 2), np.float32)
        if self._copied is not None:
            event, count = self._copied
            if not event.query():
                return rows
            rows = self._pinned[:count].numpy().copy()
            self._copied = None
        count = min(self._filled, _CAPACITY)
        if count:
            # Later steps overwrite the ring on the same stream, so behind this copy.
            self._pinned[:count].copy_(self._ring[:count], non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied = (event, count)
            self._filled = 0
        return rows
