"""Which device and which number format a run uses, and why: the why is shown to the operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Tensor cores, which is what makes fp16 fast, came with Volta.
_FIRST_FP16_CAPABILITY = (7, 0)


@dataclass(frozen=True, slots=True)
class Precision:
    """`name` is fp16, bf16 or fp32; `reason` is one line for the operator."""

    device: torch.device
    name: str
    reason: str

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of matrix products; None runs without autocast."""
        return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.name)

    @property
    def scales(self) -> bool:
        """Only fp16 needs loss scaling: bf16 and fp32 have the same range of exponents."""
        return self.name == "fp16"


def choose(device: str, precision: str, model_size: str) -> Precision:
    """Resolve `auto`. Raises ValueError when a device is asked for that is not there.

    fp16 where tensor cores make it fast, and not bf16, which from Ampere on is as fast: it has three bits less of precision, and
    the one thing it saves is the loss scale, which is watched here. What is configured is never overridden, but the reason says
    where the hardware only emulates it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} asked for, but torch finds no usable CUDA device; choose cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device} asked for, but there are {torch.cuda.device_count()} CUDA devices, counted from cuda:0"
        )
    if precision != "auto":
        name, reason = precision, "as configured" + _emulated(chosen, precision, model_size)
    elif chosen.type == "cuda":
        fast = torch.cuda.get_device_capability(chosen) >= _FIRST_FP16_CAPABILITY
        name = "fp16" if fast else "fp32"
        reason = "tensor cores" if fast else "this GPU has no tensor cores"
    elif model_size == "tiny":
        name, reason = "fp16", "true fp16 on the CPU: slow, and small enough for it"
    else:
        name, reason = "fp32", "fp16 on a CPU is emulated, 10 to 20 times slower at this size"
    if name != "fp16":
        reason += "; no loss scaling needed, the scaler is off"
    return Precision(chosen, name, reason)


def _emulated(device: torch.device, precision: str, model_size: str) -> str:
    if device.type == "cuda":
        slow = precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return ", though this GPU only emulates bf16" if slow else ""
    slow = precision == "fp16" and model_size != "tiny"
    return ", though fp16 on a CPU is emulated, 10 to 20 times slower at this size" if slow else ""
