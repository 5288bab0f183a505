"""A monitored GradScaler on one weight, whose gradient is set by hand."""

from __future__ import annotations

import math
from typing import Any

import torch

from quantai_tui.telemetry import Severity
from quantai_tui.training import DynamicGradScalerConfig, GradScalerMonitor
from quantai_tui.training.scaler import SkipDetector

torch.set_num_threads(1)


class StoppedClock:
    def monotonic(self) -> float:
        return 1000.0

    def time(self) -> float:
        return 1.7e9

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


class Rig:
    """A real scaler, optimizer and monitor on one weight whose gradient is set by hand."""

    def __init__(self, config: DynamicGradScalerConfig, **options: Any) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.0)
        self.scaler = config.create_scaler("cpu")
        self.events: list[tuple[Severity, str]] = []
        options.setdefault("on_event", lambda severity, text: self.events.append((severity, text)))
        self.monitor = GradScalerMonitor(self.scaler, config, **options)
        self.skips = SkipDetector(self.optimizer)
        self.batch = 0

    def backward(self, overflows: bool) -> None:
        """Up to and with `GradScaler.step`."""
        self.scaler.scale(torch.ones(()))
        self.weight.grad = torch.full((1,), math.inf if overflows else 1.0)
        self.scaler.step(self.optimizer)

    def step(self, overflows: bool = False, epoch: int = 1, loss_finite: bool = True) -> bool:
        self.backward(overflows)
        skipped = self.skips.take()
        self.monitor.update(skipped, epoch, self.batch, loss_finite=loss_finite)
        self.batch += 1
        return skipped

    def epoch(self, number: int, steps: str) -> None:
        """One step for each letter: `.` clean, `x` overflow, `n` a loss that is not finite."""
        for letter in steps:
            self.step(letter != ".", number, letter != "n")

    @property
    def device_state(self) -> tuple[float, int]:
        return self.scaler.get_scale(), self.scaler._get_growth_tracker()

    @property
    def mirror_state(self) -> tuple[float, int]:
        return self.monitor.mirror.scale, self.monitor.mirror.tracker


class BareRig:
    """A real scaler and monitor without gradients: the flag that `GradScaler.step` would leave is put there by hand. Ten times
    as fast as `Rig`."""

    def __init__(self, config: DynamicGradScalerConfig, **options: Any) -> None:
        self.scaler = config.create_scaler("cpu")
        self.monitor = GradScalerMonitor(self.scaler, config, **options)
        self.scaler.scale(torch.ones(()))
        self.batch = 0

    def step(self, overflows: bool = False, epoch: int = 1, loss_finite: bool = True) -> None:
        flag = {torch.device("cpu"): torch.full((), float(overflows))}
        self.scaler._per_optimizer_states[0]["found_inf_per_device"] = flag
        self.monitor.update(overflows, epoch, self.batch, loss_finite=loss_finite)
        self.batch += 1

    @property
    def device_state(self) -> tuple[float, int]:
        return self.scaler.get_scale(), self.scaler._get_growth_tracker()

    @property
    def mirror_state(self) -> tuple[float, int]:
        return self.monitor.mirror.scale, self.monitor.mirror.tracker
