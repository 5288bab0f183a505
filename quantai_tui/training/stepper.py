"""One optimizer step, in fp16 with a watched gradient scaler, or in bf16 or fp32 without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..telemetry import Severity
from .calibration import find_scale
from .config import WorkerConfig
from .diagnosis import Diagnostician, Evidence
from .messages import Overflowed
from .model import BarEncoder, count_parameters
from .monitor import EventSink, GradScalerMonitor
from .precision import Precision
from .probing import HostCell, flushed_share, gradients_at, largest_magnitude, undisturbed
from .ranks import Ranks, Solo
from .saved_state import tensors_like, whole
from .scaler import DynamicGradScalerConfig, SkipDetector
from .schedule import learning_rate_at
from .trace import StepTrace

_AMAX_EVERY = 16  # steps; every step where the scale follows it
_UNDERFLOW_EVERY = 2000  # steps; it costs a forward and a backward pass
_MOST_CALIBRATIONS = 5  # batches with a loss that is not finite before the table has to do

_Micro = tuple[Tensor, Tensor]


def scaler_config(config: WorkerConfig, parameters: int) -> DynamicGradScalerConfig:
    return DynamicGradScalerConfig(
        parameters,
        growth_factor=config.growth_factor,
        growth_interval=config.growth_interval,
        max_scale=config.max_scale,
        min_scale=config.min_scale,
        backoff_factor=config.backoff_factor,
        power_of_two=config.power_of_two,
        policy=config.policy,
        calibrate=config.calibrate,
    )


def _share(micro: list[_Micro], labels: Tensor) -> float:
    """What a micro-batch with these labels contributes to the mean over all samples."""
    return len(labels) / sum(len(of_one) for _, of_one in micro) if len(micro) > 1 else 1.0


class Stepper:
    """Model, optimizer, scaler and monitor, moved together one step at a time.

    `monitor` is None where nothing is scaled (bf16, fp32). With several `ranks` each steps on its own part of the batch, and all
    take or skip the step together; another rank's overflow is not explained from this rank's batch. Not thread-safe.
    """

    def __init__(
        self, config: WorkerConfig, features: int, precision: Precision, on_event: EventSink, ranks: Ranks | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.precision = precision
        self._config = config
        self._on_event = on_event
        self._bare = BarEncoder(features, config.window, config.model_size).to(precision.device)
        self._ranks: Ranks = ranks or Solo()
        self._weight = self._ranks.weight(config.batch_size)  # where the ranks' parts of a batch are not equal
        self.model: nn.Module = self._ranks.wrap(self._bare, precision.device)
        self._weights = list(self._bare.parameters())
        self.parameters = count_parameters(self._bare)
        # Unfused on purpose: a fused step is taken or skipped on the device, where the host cannot see it without asking.
        self.optimizer = torch.optim.AdamW(self._weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=False)
        self.trace = StepTrace(precision.device)
        self.attempts = 0
        self.steps_taken = 0
        self.total_steps: int | None = None
        self.learning_rate = 0.0
        self.underflow_share: float | None = None  # of the gradient elements, those that fp16 flushes to zero at this scale
        self._underflow = HostCell(precision.device)
        self._underflow_due = False
        self._diagnostician = Diagnostician()
        self._overflow: Overflowed | None = None
        self._calibrations_left = 0
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
            self._amax = HostCell(precision.device)
            self._calibrations_left = _MOST_CALIBRATIONS if policy.calibrate else 0
        self._amax_every = 1 if config.policy == "amax" else _AMAX_EVERY

    @property
    def bare(self) -> nn.Module:
        """The model itself, not wrapped for several ranks."""
        return self._bare

    def apply(self, config: WorkerConfig) -> None:
        """Take over the live fields of a new config."""
        self._config = config
        self._amax_every = 1 if config.policy == "amax" else _AMAX_EVERY
        if self.monitor is not None:
            self.monitor.apply(
                scaler_config(config, self.parameters),
                config.auto_reset,
                config.max_consecutive_overflow,
                config.reset_threshold_epochs,
            )

    # One step

    def step(
        self,
        windows: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        epoch: int,
        batch: int,
        loss_factor: float = 1.0,
    ) -> bool:
        """One step; True when it was skipped.

        Sequences of windows and labels are micro-batches: their gradients add up to those of all their samples in one batch, and
        an overflow in any of them skips the step. `loss_factor` multiplies what is scaled and differentiated (planted overflows).
        """
        micro: list[_Micro]
        if isinstance(windows, Tensor):
            assert isinstance(labels, Tensor)
            micro = [(windows, labels)]
        else:
            micro = list(zip(windows, labels, strict=True))
        if self._calibrations_left:
            self._calibrate(micro)
        self.attempts += 1
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss, outputs = self._differentiate(micro, loss_factor * self._weight)
        if self.monitor is None:
            scale, skipped = None, self._plain()
        else:
            scale = self.monitor.scale
            skipped = self._scaled(loss, epoch, batch)
        self.trace.push(loss, self._norm)
        if skipped:
            self._explain(micro, outputs, loss, scale, loss_factor)
        else:
            if scale is not None and self.steps_taken % _UNDERFLOW_EVERY == 0:
                self._sample_underflow(micro[0], scale)
            self.steps_taken += 1
        return skipped

    def _set_learning_rate(self) -> None:
        self.learning_rate = learning_rate_at(self.steps_taken, self._config, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def _forward(self, windows: Tensor) -> Tensor:
        return self._logits(self.model, windows)

    def _logits(self, model: nn.Module, windows: Tensor) -> Tensor:
        dtype = self.precision.autocast_dtype
        with torch.autocast(self.precision.device.type, dtype, enabled=dtype is not None):
            logits: Tensor = model(windows)
        return logits.float()

    def _differentiate(self, micro: list[_Micro], loss_factor: float) -> tuple[Tensor, list[Tensor]]:
        """The mean loss over all samples, without the factor, and the outputs; gradients are in place, scaled."""
        total: Tensor | None = None
        outputs = []
        for number, (windows, labels) in enumerate(micro, 1):
            share = _share(micro, labels)
            with self._alone() if number < len(micro) else nullcontext():
                logits = self._forward(windows)
                loss = F.cross_entropy(logits, labels)
                part = loss if share == 1.0 else loss * share
                weighted = part if loss_factor == 1.0 else part * loss_factor
                torch.autograd.backward(weighted if self.monitor is None else self._scaler.scale(weighted))
            outputs.append(logits.detach())
            total = part.detach() if total is None else total + part.detach()
        assert total is not None
        return total, outputs

    def _alone(self) -> Any:
        """Ranks need not exchange the gradients of a micro-batch that is not the last."""
        no_sync = getattr(self.model, "no_sync", None)
        return nullcontext() if no_sync is None else no_sync()

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights if weight.grad is not None]

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        norm = nn.utils.get_total_norm(gradients)
        # By a norm of NaN clipping would make every gradient NaN, and nobody could tell any more where the first one was.
        nn.utils.clip_grads_with_norm_(self._weights, self._config.clip_norm, norm.nan_to_num(math.inf, math.inf))
        return norm

    def _scaled(self, loss: Tensor, epoch: int, batch: int) -> bool:
        assert self.monitor is not None
        self._scaler.unscale_(self.optimizer)
        gradients = self._gradients()
        measured = self.steps_taken % self._amax_every == 0
        if measured:
            self._amax.put(largest_magnitude(gradients))
        self._norm = self._clip(gradients)
        self._scaler.step(self.optimizer)
        skipped = self._skips.take()
        # Asking the device is allowed on a skipped step only: GradScaler itself has just waited for it.
        loss_finite = not self._ranks.any(not bool(torch.isfinite(loss))) if skipped else True
        self.monitor.update(skipped, epoch, batch, loss_finite=loss_finite)
        if measured and not skipped:
            self.monitor.observe_amax(self._amax.read())
        if self._underflow_due:
            self._underflow_due = False
            self.underflow_share = self._underflow.read()
        return skipped

    def _plain(self) -> bool:
        self._norm = self._clip(self._gradients())
        # The one sync of this path, as GradScaler has one: without it a single NaN would stay in the weights for ever.
        if not bool(torch.isfinite(self._norm)):
            return True
        self.optimizer.step()
        return False

    # What is found out beside the steps

    def take_overflow(self) -> Overflowed | None:
        """The explanation of the overflow since the last call, if there was one and it was looked into."""
        found, self._overflow = self._overflow, None
        return found

    def _explain(self, micro: list[_Micro], outputs: list[Tensor], loss: Tensor, scale: float | None, loss_factor: float) -> None:
        def gather() -> Evidence:
            number = self._guilty(micro, outputs, scale, loss_factor)
            windows, labels = micro[number]
            weight = _share(micro, labels) * loss_factor
            return Evidence(
                self._bare,
                scale=scale,
                inputs=windows,
                outputs=outputs[number],
                targets=labels,
                loss=F.cross_entropy(outputs[number], labels),
                in_a_row=self.monitor.consecutive_overflow if self.monitor else 1,
                replay=lambda: self._replay(windows, labels) * weight,
                shared=self._ranks.world > 1,
            )

        found = self._diagnostician.explain(self.attempts, gather)
        if found is not None:
            planted = loss_factor >= 2.0  # below that it is a rank's share of an uneven batch
            self._overflow = msgspec.structs.replace(found, text=f"planted: {found.text}") if planted else found

    def _replay(self, windows: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(self._bare, windows), labels)

    def _guilty(self, micro: list[_Micro], outputs: list[Tensor], scale: float | None, loss_factor: float) -> int:
        """Which micro-batch it was."""
        for number, (_, labels) in enumerate(micro[:-1]):
            if not bool(torch.isfinite(F.cross_entropy(outputs[number], labels))):
                return number
        for number, (windows, labels) in enumerate(micro[:-1]):
            with undisturbed(self._bare):
                loss = self._replay(windows, labels) * (_share(micro, labels) * loss_factor)
                if not math.isfinite(float(largest_magnitude(gradients_at(loss, self._weights, scale or 1.0)))):
                    return number
        return len(micro) - 1

    def _calibrate(self, micro: list[_Micro]) -> None:
        """Before the first step: one backward pass or a few, of which nothing remains but the scale."""
        monitor = self.monitor
        assert monitor is not None
        self._calibrations_left -= 1
        windows, labels = micro[0]
        with undisturbed(self._bare):
            loss = self._replay(windows, labels) * _share(micro, labels)
            if self._ranks.any(not bool(torch.isfinite(loss))):
                return
            found = find_scale(
                lambda scale: float(largest_magnitude(gradients_at(loss, self._weights, scale, retain_graph=True))),
                monitor.config.floor,
                monitor.config.cap,
            )
        self._calibrations_left = 0
        agreed = self._ranks.least(math.inf if found is None else found.scale)  # each has looked at its own part of the batch
        if math.isfinite(agreed):
            before = monitor.scale
            monitor.set_scale(agreed)
            how = found.describe() if found is not None and found.scale == agreed else "as another process has found"
            self._on_event(Severity.INFO, f"calibrated, scale {before:g} -> {agreed:g}: {how}")

    def _sample_underflow(self, micro: _Micro, scale: float) -> None:
        """Once more in a format with fp32's exponents, where nothing is flushed: what would fp16 have lost?"""
        windows, labels = micro
        on_gpu = self.precision.device.type == "cuda"  # there bf16, which takes no more memory than the step itself
        with undisturbed(self._bare):
            with torch.autocast(self.precision.device.type, torch.bfloat16, enabled=on_gpu):
                logits = self._bare(windows)
            loss = F.cross_entropy(logits.float(), labels)
            self._underflow.put(flushed_share(gradients_at(loss, self._weights, 1.0), scale))
        self._underflow_due = True

    @torch.no_grad()
    def probabilities(self, windows: Tensor) -> Tensor:
        """[batch, 3] in fp32, on the device: how likely the model takes each class to be."""
        self.model.eval()
        try:
            return self._logits(self._bare, windows).softmax(dim=1)
        finally:
            self.model.train()

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on except data and torch's random state: plain numbers, lists, dicts and tensors.

        The tensors are the living ones: write or copy them before the next step.
        """
        state: dict[str, Any] = {
            "model": self._bare.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "precision": self.precision.name,
            "attempts": self.attempts,
            "steps_taken": self.steps_taken,
            "total_steps": self.total_steps,
            "calibrations_left": self._calibrations_left,
        }
        if self.monitor is not None:
            state["scaler"] = self._scaler.state_dict()
            state["monitor"] = self.monitor.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken, bit for bit on the same device. Bounds, factors and policy are those of the config.

        Also accepts a state of another precision: if it has no scaler, this one starts anew. Raises ValueError and
        KeyError for an invalid state, and then changes nothing.
        """
        tensors_like(state["model"], "model", self._bare.state_dict())
        self._check_optimizer(state["optimizer"])
        attempts, steps_taken = whole(state, "attempts"), whole(state, "steps_taken")
        total_steps = None if state["total_steps"] is None else whole(state, "total_steps", at_least=1)
        calibrations_left = whole(state, "calibrations_left")
        if self.monitor is not None and "monitor" in state:
            self.monitor.load_state_dict(state["monitor"])  # sets the scaler's scale; its factors are those of the config
            self._calibrations_left = calibrations_left
        self._bare.load_state_dict(state["model"])
        groups = self.optimizer.state_dict()["param_groups"]  # weight decay and the like stay as configured
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.attempts, self.steps_taken, self.total_steps = attempts, steps_taken, total_steps

    def _check_optimizer(self, state: Any) -> None:
        """Check AdamW's state for each weight or for none: torch accepts anything here, and fails at the next step."""
        if not isinstance(state, dict) or (state and state.keys() != set(range(len(self._weights)))):
            raise ValueError(f"optimizer must hold a state for each of {len(self._weights)} weights, or for none")
        for index, of_weight in state.items():
            weight = self._weights[index]
            moments = {"step": torch.tensor(0.0), "exp_avg": weight, "exp_avg_sq": weight}
            tensors_like(of_weight, f"optimizer of weight {index}", moments)
