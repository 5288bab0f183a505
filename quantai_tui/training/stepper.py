"""One optimizer step, in fp16 with a watched gradient scaler, or in bf16 or fp32 without one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import WorkerConfig
from .model import BarEncoder, count_parameters
from .monitor import EventSink, GradScalerMonitor
from .precision import Precision
from .scaler import DynamicGradScalerConfig, SkipDetector
from .trace import StepTrace

_FINAL_RATE = 0.1  # where the cosine ends, as a part of the peak rate


def learning_rate_at(step: int, config: WorkerConfig, total_steps: int | None) -> float:
    """Linear warm-up, then cosine down to a tenth of the peak at `total_steps`, or constant when training has no end.

    `step` counts steps that were taken: a skipped step must not use up warm-up.
    """
    peak = config.learning_rate
    if step < config.lr_warmup_steps:
        return peak * (step + 1) / config.lr_warmup_steps
    if total_steps is None or total_steps <= config.lr_warmup_steps:
        return peak
    progress = min((step - config.lr_warmup_steps) / (total_steps - config.lr_warmup_steps), 1.0)
    return peak * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


def scaler_config(config: WorkerConfig, parameters: int) -> DynamicGradScalerConfig:
    return DynamicGradScalerConfig(
        parameters,
        growth_factor=config.growth_factor,
        growth_interval=config.growth_interval,
        max_scale=config.max_scale,
        min_scale=config.min_scale,
        backoff_factor=config.backoff_factor,
    )


class Stepper:
    """Model, optimizer, scaler and monitor, moved together one step at a time.

    `monitor` is None where nothing is scaled (bf16, fp32). Not thread-safe.
    """

    def __init__(self, config: WorkerConfig, features: int, precision: Precision, on_event: EventSink) -> None:
        torch.manual_seed(config.seed)
        self.precision = precision
        self._config = config
        self.model: nn.Module = BarEncoder(features, config.window, config.model_size).to(precision.device)
        self.parameters = count_parameters(self.model)
        # Unfused on purpose: a fused step is taken or skipped on the device, where the host cannot see it without asking.
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
        )
        self.trace = StepTrace(precision.device)
        self.steps_taken = 0
        self.total_steps: int | None = None
        self.learning_rate = 0.0
        self.monitor: GradScalerMonitor | None = None
        if precision.scales:
            policy = scaler_config(config, self.parameters)
            self._scaler = policy.create_scaler(precision.device)
            self.monitor = GradScalerMonitor(
                self._scaler,
                policy,
                auto_reset=config.auto_reset,
                max_consecutive_overflow=config.max_consecutive_overflow,
                reset_threshold_epochs=config.reset_threshold_epochs,
                on_event=on_event,
            )
            self._skips = SkipDetector(self.optimizer)

    def apply(self, config: WorkerConfig) -> None:
        """Take over the live fields of a new config."""
        self._config = config
        if self.monitor is not None:
            self.monitor.apply(
                scaler_config(config, self.parameters),
                config.auto_reset,
                config.max_consecutive_overflow,
                config.reset_threshold_epochs,
            )

    def _forward(self, windows: Tensor) -> Tensor:
        dtype = self.precision.autocast_dtype
        with torch.autocast(self.precision.device.type, dtype, enabled=dtype is not None):
            logits: Tensor = self.model(windows)
        return logits.float()

    def step(self, windows: Tensor, labels: Tensor, epoch: int, batch: int, loss_factor: float = 1.0) -> bool:
        """One step; True when it was skipped. `loss_factor` multiplies what is scaled and differentiated (planted overflows)."""
        self._set_learning_rate()
        loss = F.cross_entropy(self._forward(windows), labels)
        self.optimizer.zero_grad(set_to_none=True)
        skipped = self._scaled(loss, epoch, batch, loss_factor) if self.monitor else self._plain(loss)
        self.trace.push(loss.detach(), self._norm)
        self.steps_taken += not skipped
        return skipped

    def _set_learning_rate(self) -> None:
        self.learning_rate = learning_rate_at(self.steps_taken, self._config, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def _clip(self) -> Tensor:
        return nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip_norm)

    def _scaled(self, loss: Tensor, epoch: int, batch: int, loss_factor: float) -> bool:
        assert self.monitor is not None
        torch.autograd.backward(self._scaler.scale(loss * loss_factor))
        self._scaler.unscale_(self.optimizer)
        self._norm = self._clip()
        self._scaler.step(self.optimizer)
        skipped = self._skips.take()
        # Asking the device is allowed on a skipped step only: GradScaler itself has just waited for it.
        loss_finite = bool(torch.isfinite(loss)) if skipped else True
        self.monitor.update(skipped, epoch, batch, loss_finite=loss_finite)
        return skipped

    def _plain(self, loss: Tensor) -> bool:
        torch.autograd.backward(loss)
        self._norm = self._clip()
        # The one sync of this path, as GradScaler has one: without it a single NaN would stay in the weights for ever.
        if not bool(torch.isfinite(self._norm)):
            return True
        self.optimizer.step()
        return False

    @torch.no_grad()
    def probabilities(self, windows: Tensor) -> Tensor:
        """[batch, 3] in fp32, on the device: how likely the model takes each class to be."""
        self.model.eval()
        try:
            return self._forward(windows).softmax(dim=1)
        finally:
            self.model.train()
