"""The loss scale: where it starts, the bounds it keeps, its mirror on the host, and how a skipped step is noticed.

The scale lives on the device and reading it costs a sync. Since its state machine is four lines of fp32 arithmetic, the host runs
the same four lines beside it (`ScaleMirror`) and needs to be told one bit per step: skipped or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import check_choice, check_number, normalise_fields
from .config import SCALER_POLICIES, check_scale_range, power_of_two_at_least, power_of_two_at_most

if TYPE_CHECKING:
    import torch

# Initial scale by parameter count: the bound of each row is exclusive. Larger models meet larger gradient sums.
_INIT_SCALE_BY_COUNT: tuple[tuple[int, float], ...] = ((1_000_000, 2.0**16), (10_000_001, 2.0**14))
_INIT_SCALE_LARGEST = 2.0**12
_NEVER = 2**31 - 1  # steps: the tracker is an int32


def _fp32_within(value: float, low: float, high: float) -> float:
    """`value` as the nearest fp32 number in [low, high]: a plain cast of 100000.1 would land above it."""
    cast = np.float32(min(max(value, low), high))
    if float(cast) > high:
        cast = np.nextafter(cast, np.float32(0.0))
    elif float(cast) < low:
        cast = np.nextafter(cast, np.float32(np.inf))
    return float(cast)


class Moves(NamedTuple):
    """What a GradScaler is given: the factors, and the clean steps in a row between two growths."""

    growth_factor: float
    backoff_factor: float
    growth_interval: int


@dataclass(frozen=True)
class DynamicGradScalerConfig:
    """How the loss scale of a model with `model_param_count` parameters starts and moves.

    After an overflow the scale is multiplied by `backoff_factor`, after `growth_interval` clean steps in a row by
    `growth_factor`, and it never leaves [`min_scale`, `max_scale`]. Without a floor, 166 overflows bring a scale to 0.

    `power_of_two` keeps every scale a power of two, at which scaling is exact: of the gradient elements 99.99 % are bit-identical
    at two such scales, and 6 % at 1228.8. The cap is rounded down and the floor up to one, the backoff is 0.5, and the growth a
    doubling after as many whole intervals as `growth_factor` needs to double at least: 1.2 every 2000 steps becomes 2.0 every
    8000, which on recorded traces skipped 0.15 of 1,000 steps instead of 0.18.

    `policy` "amax" sets the scale from the largest gradients of the recent past (`headroom.AmaxHistory`) and grows it in no other
    way. `calibrate` asks for the first scale to be measured; whoever builds the training does it. Raises ValueError or TypeError.
    """

    model_param_count: int
    growth_factor: float = field(default=1.2, kw_only=True)
    growth_interval: int = field(default=2000, kw_only=True)
    max_scale: float = field(default=100_000.0, kw_only=True)
    min_scale: float = field(default=1.0, kw_only=True)
    backoff_factor: float = field(default=0.5, kw_only=True)
    power_of_two: bool = field(default=False, kw_only=True)
    policy: str = field(default="grow", kw_only=True)
    calibrate: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        normalise_fields(self)
        check_number("model_param_count", self.model_param_count, at_least=0)
        check_choice("policy", self.policy, SCALER_POLICIES)
        check_scale_range(
            self.growth_factor, self.growth_interval, self.max_scale, self.min_scale, self.backoff_factor, self.power_of_two
        )
        if self.floor > self.cap:
            raise ValueError(f"no fp32 number lies between min_scale {self.min_scale!r} and max_scale {self.max_scale!r}")

    @property
    def floor(self) -> float:
        """`min_scale`, rounded up to fp32, or to a power of two, where it is not one."""
        if self.power_of_two:
            return power_of_two_at_least(self.min_scale)
        return _fp32_within(self.min_scale, self.min_scale, math.inf)

    @property
    def cap(self) -> float:
        """`max_scale`, rounded down to fp32, or to a power of two, where it is not one."""
        return power_of_two_at_most(self.max_scale) if self.power_of_two else _fp32_within(self.max_scale, 0.0, self.max_scale)

    @property
    def moves(self) -> Moves:
        """The factors and the interval in force, as `power_of_two` and `policy` turn them."""
        factor, backoff, interval = self.growth_factor, self.backoff_factor, self.growth_interval
        if self.power_of_two:
            # log(2) / log(2 ** (1 / n)) may come out a hair above n.
            intervals = max(1, math.ceil(math.log(2.0) / math.log(factor) - 1e-9))
            factor, backoff, interval = 2.0, 0.5, min(interval * intervals, _NEVER)
        return Moves(factor, backoff, _NEVER if self.policy == "amax" else interval)

    @property
    def init_scale(self) -> float:
        return self.calculate_init_scale(self.model_param_count)

    def clamp(self, scale: float) -> float:
        """The scale within the bounds next to `scale`; with `power_of_two` the power of two below it."""
        within = min(max(scale, self.floor), self.cap)
        return power_of_two_at_most(within) if self.power_of_two else within

    def calculate_init_scale(self, n: int) -> float:
        """Initial scale for `n` parameters: under 1M 2^16, 1M to 10M 2^14, over 10M 2^12; clamped to [floor, cap]."""
        check_number("parameter count", n, at_least=0)
        for bound, scale in _INIT_SCALE_BY_COUNT:
            if n < bound:
                return self.clamp(scale)
        return self.clamp(_INIT_SCALE_LARGEST)

    def create_scaler(self, device: str | torch.device) -> torch.amp.GradScaler:
        """A GradScaler for `device`. Raises ValueError for CUDA where there is none: torch would only warn and disable it."""
        import torch

        kind = torch.device(device).type
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("cannot scale gradients on cuda: no usable CUDA device; choose the device cpu or auto")
        return torch.amp.GradScaler(
            kind,
            init_scale=self.init_scale,
            **self.moves._asdict(),
        )


class ScaleMirror:
    """GradScaler's scale and growth tracker, followed on the host, bit for bit.

    Mirrors `_amp_update_scale_`: the product is taken in double and rounded to fp32 once; a growth to inf is not taken.
    """

    __slots__ = ("scale", "tracker")

    def __init__(self, scale: float, tracker: int = 0) -> None:
        self.scale = float(np.float32(scale))
        self.tracker = tracker

    def advance(self, skipped: bool, growth_factor: float, backoff_factor: float, growth_interval: int) -> None:
        """One `GradScaler.update()`."""
        if skipped:
            self.scale = float(np.float32(self.scale * backoff_factor))
            self.tracker = 0
            return
        self.tracker += 1
        if self.tracker == growth_interval:
            self.tracker = 0
            with np.errstate(over="ignore"):
                grown = float(np.float32(self.scale * growth_factor))
            if math.isfinite(grown):
                self.scale = grown


class SkipDetector:
    """Tells whether GradScaler skipped the last optimizer step, without asking the device.

    For unfused optimizers: `GradScaler.step` does not call `optimizer.step` at all on an overflow, so a post-hook that stayed
    silent means a skipped step. Fused optimizers are always called and decide on the device: they are refused with ValueError;
    `fused.FusedSkips` is for them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                "a fused optimizer skips on the device, unseen by the host; build it with fused=False or use FusedSkips"
            )
        self._stepped = False
        self._handle = optimizer.register_step_post_hook(self._on_step)

    def _on_step(self, *_: Any) -> None:
        self._stepped = True

    def take(self) -> bool:
        """True when no step was taken since the last call."""
        skipped = not self._stepped
        self._stepped = False
        return skipped

    def close(self) -> None:
        self._handle.remove()
