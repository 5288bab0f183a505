"""The losses that a watched loop tells, kept where they are until somebody asks."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .trace import StepTrace

_CAPACITY = 1024


class LossTrace:
    """Loss and gradient norm of the last 1024 steps, for `Progress`.

    On a device they stay there, in a `StepTrace`. On the CPU they are read: nothing has to be waited for, and a ring of tensors
    costs ten times more.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: deque[tuple[float, float]] = deque(maxlen=_CAPACITY)
        self._ring = None if device.type == "cpu" else StepTrace(device)
        self._unknown = torch.full((), math.nan, device=device)
        self._pending: Tensor | float | None = None

    def check(self, loss: Tensor | float, grad_norm: Tensor | float | None) -> None:
        """Raises ValueError unless each is one number."""
        for name, value in (("loss", loss), ("grad_norm", grad_norm)):
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"{name} must be one number, got a tensor of shape {list(value.shape)}: take its mean or sum")

    def push(self, loss: Tensor | float, grad_norm: Tensor | float | None) -> None:
        if self._ring is None:
            loss = _read(loss)
            self._rows.append((loss, math.nan if grad_norm is None else _read(grad_norm)))
        else:
            loss = self._there(loss)
            self._ring.push(loss, self._unknown if grad_norm is None else self._there(grad_norm))
        # Of accumulated batches the sum: it is finite if all are.
        self._pending = loss if self._pending is None else self._pending + loss

    def take(self) -> Tensor | float | None:
        """The loss since the last call, None for none; only whether it is finite is of use."""
        pending, self._pending = self._pending, None
        return pending

    def drain(self) -> NDArray[np.float32]:
        """[steps, 2] since the last call."""
        if self._ring is not None:
            return self._ring.drain()
        rows, self._rows = self._rows, deque(maxlen=_CAPACITY)
        with np.errstate(over="ignore"):
            return np.array(rows, np.float32).reshape(-1, 2)

    def _there(self, value: Tensor | float) -> Tensor:
        if not isinstance(value, Tensor):
            return torch.full((), value, dtype=torch.float32, device=self._device)
        return value.detach().reshape(()).to(self._device, torch.float32, non_blocking=True)


def _read(value: Tensor | float) -> float:
    return float(value.detach().item() if isinstance(value, Tensor) else value)
