"""Real fp16 training on the CPU with a model of 19 thousand parameters: what tests of diagnosis and calibration run on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantai_tui.training import DynamicGradScalerConfig, GradScalerMonitor
from quantai_tui.training.calibration import Calibration, find_scale
from quantai_tui.training.diagnosis import Evidence
from quantai_tui.training.probing import gradients_at, largest_magnitude, undisturbed
from quantai_tui.training.scaler import SkipDetector

Loss = Callable[[Tensor, Tensor], Tensor]
INPUTS = 16


class Mlp(nn.Module):
    """18,817 parameters; `between` works on what the first layer puts out."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, 128)
        self.middle = nn.Linear(128, 128)
        self.last = nn.Linear(128, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.gelu(self.middle(self.between(self.first(x)))))
        return out


class Fp16Run:
    """Somebody's own loop: their model, their loss, a GradScaler with our monitor, and no Stepper."""

    def __init__(
        self,
        *,
        model: Callable[[], nn.Module] | None = None,
        loss: Loss = F.mse_loss,
        scale: float = 2.0**16,
        clip: bool = False,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.model = Mlp() if model is None else model()
        self.loss = loss
        self.clip = clip
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=False)
        config = DynamicGradScalerConfig(18_817, max_scale=2.0**127, min_scale=2.0**-100)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.monitor = GradScalerMonitor(self.scaler, config)
        self.skips = SkipDetector(self.optimizer)
        self.batch = 0

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            outputs: Tensor = self.model(inputs)
        return outputs.float()

    def step(self, inputs: Tensor, targets: Tensor) -> Evidence | None:
        """None when the step was taken."""
        outputs = self.forward(inputs)
        loss = self.loss(outputs, targets)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        skipped, scale = self.skips.take(), self.monitor.scale
        self.monitor.update(skipped, 1, self.batch, loss_finite=bool(torch.isfinite(loss)))
        self.batch += 1
        if not skipped:
            return None
        return Evidence(
            self.model,
            scale=scale,
            inputs=inputs,
            outputs=outputs,
            targets=targets,
            loss=loss,
            in_a_row=self.monitor.consecutive_overflow,
            replay=lambda: self.loss(self.forward(inputs), targets),
        )

    def calibration(self, inputs: Tensor, targets: Tensor) -> Calibration | None:
        with undisturbed(self.model):
            loss = self.loss(self.forward(inputs), targets)
            weights = list(self.model.parameters())
            return find_scale(
                lambda scale: float(largest_magnitude(gradients_at(loss, weights, scale, retain_graph=True))), 1.0, 100_000.0
            )


def batch(seed: int = 0, size: int = 64, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inputs, and targets of this spread that can be learnt."""
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, INPUTS, generator=random)
    noise = torch.randn(size, 1, generator=random)
    return inputs, std * (inputs[:, :1] + noise) / math.sqrt(2)
