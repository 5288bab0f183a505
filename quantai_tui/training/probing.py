"""Looking at gradients without leaving a trace: what measurement, calibration and diagnosis have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FP16_FLUSHED = 2.0**-25  # at and below which fp16 rounds to zero: half of its smallest number, and a tie goes to even
# Up to so many elements one copy into one tensor is cheaper on a CPU than a call for each tensor.
_FLATTENED_UP_TO = 1 << 17


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run passes of `model` inside as if they had never been: torch's random states and the model's buffers are put back.

    Gradients are up to the caller: `torch.autograd.grad` leaves `.grad` alone.
    """
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def gradients_at(loss: Tensor, parameters: Sequence[Tensor], scale: float, *, retain_graph: bool = False) -> list[Tensor]:
    """The gradients of `loss * scale`, still scaled; parameters that the loss does not depend on have none. `.grad` stays."""
    found = torch.autograd.grad(loss * scale, parameters, retain_graph=retain_graph, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def largest_magnitude(gradients: Sequence[Tensor]) -> Tensor:
    """The largest |element| of all as a scalar on their device, NaN if one is NaN. `gradients` must not be empty; no sync."""
    if gradients[0].device.type == "cpu" and sum(gradient.numel() for gradient in gradients) <= _FLATTENED_UP_TO:
        return torch._C._nn.flatten_dense_tensors(list(gradients)).abs().max()
    return torch.stack(torch._foreach_norm(list(gradients), math.inf)).max()


def flushed_share(gradients: Sequence[Tensor], scale: float) -> Tensor:
    """Of all elements, the share that is not zero but would be in fp16 at this scale: 0 < |gradient| * scale <= 2^-25."""
    bound = FP16_FLUSHED / scale
    flushed = torch.stack([((gradient != 0) & (gradient.abs() <= bound)).sum() for gradient in gradients]).sum()
    return flushed / sum(gradient.numel() for gradient in gradients)


class HostCell:
    """One number on its way from the device to the host, without a wait of its own.

    On CUDA `put` queues a copy into pinned memory. It has arrived once anybody has waited for the stream, and an unfused
    `GradScaler.step` does so in every step, for its found_inf: read the cell after it. That also makes the moment of reading
    the same on all ranks, which a poll of an event would not.
    """

    def __init__(self, device: torch.device) -> None:
        self._host: Tensor = torch.zeros(())
        self._pinned = device.type == "cuda"
        if self._pinned:
            self._host = torch.zeros((), pin_memory=True)

    def put(self, value: Tensor) -> None:
        if self._pinned:
            self._host.copy_(value, non_blocking=True)
        else:
            self._host = value

    def read(self) -> float:
        return float(self._host)
