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
        self._losses: deque[float] = deque(maxlen=_CAPACITY)
        self._norms: deque[float] = deque(maxlen=_CAPACITY)
        self._ring = None if device.type == "cpu" else StepTrace(device)
        self._unknown = torch.full((), math.nan, device=device)
        self.fresh: list[Tensor | float] = []  # of the present step: several where batches are accumulated

    def check(self, loss: Tensor | float, grad_norm: Tensor | float | None) -> None:
        """Raises ValueError unless each is one number."""
        for name, value in (("loss", loss), ("grad_norm", grad_norm)):
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"{name} must be one number, got a tensor of shape {list(value.shape)}: take its mean or sum")

    def push(self, loss: Tensor | float, grad_norm: Tensor | float | None) -> None:
        """Raises as `check`."""
        if grad_norm is None and self._ring is None and isinstance(loss, Tensor) and loss.numel() == 1:
            loss = loss.item()  # as below, in as few calls as can be: once a step each is slow
            self._losses.append(loss)
            self.fresh.append(loss)
            return
        self.check(loss, grad_norm)
        if self._ring is None:
            loss = _read(loss)
            self._losses.append(loss)
            if grad_norm is not None:
                self._norms.append(_read(grad_norm))
        else:
            loss = self._there(loss)
            self._ring.push(loss, self._unknown if grad_norm is None else self._there(grad_norm))
        self.fresh.append(loss)

    def take(self) -> list[Tensor | float]:
        """The losses of the present step, which is over."""
        fresh, self.fresh[:] = self.fresh[:], []
        return fresh

    def drain(self) -> NDArray[np.float32]:
        """[steps, 2] since the last call."""
        if self._ring is not None:
            return self._ring.drain()
        rows = np.full((len(self._losses), 2), math.nan, np.float32)
        with np.errstate(over="ignore"):
            rows[:, 0] = self._losses
            rows[len(rows) - len(self._norms) :, 1] = self._norms
        self._losses.clear()
        self._norms.clear()
        return rows

    def _there(self, value: Tensor | float) -> Tensor:
        if not isinstance(value, Tensor):
            return torch.full((), value, dtype=torch.float32, device=self._device)
        return value.detach().reshape(()).to(self._device, torch.float32, non_blocking=True)


def _read(value: Tensor | float) -> float:
    return float(value.detach().item() if isinstance(value, Tensor) else value)
