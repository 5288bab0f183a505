"""What a training worker is told: one frozen, serialisable value, checked before anything is started. Free of torch."""

from __future__ import annotations

import math

import msgspec

from ..arguments import check_choice, check_number, normalise_fields

# 1 / scale must stay a finite fp32 number: below 2**-126 the reciprocal overflows and a clean step writes inf into the weights.
SMALLEST_SCALE = 2.0**-126
# The largest power of two that fp32 holds; scale * loss must stay finite in fp32.
LARGEST_SCALE = 2.0**127

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp16", "bf16", "fp32")
MODEL_SIZES = ("tiny", "small", "medium", "large")
SCALER_POLICIES = ("grow", "amax")
SCHEDULES = ("auto", "constant", "cosine")


def power_of_two_at_most(value: float) -> float:
    """The largest power of two that does not exceed `value`, which is above 0 and finite."""
    return math.ldexp(1.0, math.frexp(value)[1] - 1)


def power_of_two_at_least(value: float) -> float:
    below = power_of_two_at_most(value)
    return below if below == value else 2 * below


def check_scale_range(
    growth_factor: float,
    growth_interval: int,
    max_scale: float,
    min_scale: float,
    backoff_factor: float,
    power_of_two: bool = False,
) -> None:
    """Raise ValueError unless these numbers describe a loss scale that can move and can never leave fp32."""
    check_number("growth_factor", growth_factor, above=1.0)
    check_number("growth_interval", growth_interval, at_least=1, at_most=2**31 - 1)
    check_number("max_scale", max_scale, at_least=SMALLEST_SCALE, at_most=LARGEST_SCALE)
    check_number("min_scale", min_scale, at_least=SMALLEST_SCALE, at_most=LARGEST_SCALE)
    check_number("backoff_factor", backoff_factor, above=0.0, below=1.0)
    if min_scale > max_scale:
        raise ValueError(f"min_scale must not exceed max_scale, got {min_scale:g} > {max_scale:g}")
    if power_of_two and power_of_two_at_least(min_scale) > power_of_two_at_most(max_scale):
        remedy = "widen the bounds or switch power_of_two off"
        raise ValueError(f"no power of two lies between min_scale {min_scale:g} and max_scale {max_scale:g}; {remedy}")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training worker needs to know.

    Lengths (`window`, `horizon`, `max_bars`, `min_bars`) count bars of `interval_s` seconds. `__post_init__` raises ValueError
    with the name, the value and the rule, also when a config arrives over a socket; TypeError for what is of another type.
    """

    store_path: str
    symbol: str
    interval_s: int = 60
    window: int = 24
    horizon: int = 5  # the label is the direction of the return over this many bars
    max_bars: int = 20_000  # an epoch reads at most so many of the newest bars
    min_bars: int = 500  # the worker waits until the store has so many whole bars, and never for fewer than it can split
    batch_size: int = 32
    learning_rate: float = 1e-3
    lr_warmup_steps: int = 200  # without warm-up AdamW drove an encoder's loss to 1,170 at step 2, and the scale down with it
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    device: str = "auto"
    precision: str = "auto"
    model_size: str = "tiny"
    seed: int = 0
    max_epochs: int = 0  # 0: for ever
    steps_per_s: float = 0.0  # 0: as fast as the machine allows
    plant_overflow_every_s: float = 0.0  # demo only; 0: never
    growth_factor: float = 1.2
    growth_interval: int = 2000
    max_scale: float = 100_000.0
    min_scale: float = 1.0
    backoff_factor: float = 0.5
    power_of_two: bool = False
    policy: str = "grow"
    calibrate: bool = False
    auto_reset: bool = True
    reset_threshold_epochs: int = 3
    max_consecutive_overflow: int = 5
    accumulation: int = 1  # batches per optimizer step
    schedule: str = "auto"  # of the learning rate, after warm-up
    checkpoint_dir: str = ""  # empty: no checkpoints
    checkpoint_every_s: float = 300.0  # 0: only those asked for, and at a stop
    checkpoints_kept: int = 3
    nproc: int = 1  # processes on this machine
    nnodes: int = 1  # machines
    rdzv_endpoint: str = ""  # host:port where the machines meet

    def __post_init__(self) -> None:
        normalise_fields(self)
        for name, known in (
            ("device", DEVICES),
            ("precision", PRECISIONS),
            ("model_size", MODEL_SIZES),
            ("policy", SCALER_POLICIES),
            ("schedule", SCHEDULES),
        ):
            value = getattr(self, name)
            if not (name == "device" and value.startswith("cuda:")):
                check_choice(name, value, known)
        if not self.symbol or not self.store_path:
            raise ValueError("symbol and store_path must not be empty")
        for name in (
            "interval_s", "horizon", "batch_size", "reset_threshold_epochs", "max_consecutive_overflow", "accumulation",
            "checkpoints_kept", "nproc", "nnodes",
        ):  # fmt: skip
            check_number(name, getattr(self, name), at_least=1)
        check_number("window", self.window, at_least=2, at_most=1024)
        for name in (
            "seed", "max_epochs", "steps_per_s", "plant_overflow_every_s", "lr_warmup_steps", "weight_decay",
            "checkpoint_every_s",
        ):  # fmt: skip
            check_number(name, getattr(self, name), at_least=0)
        if self.schedule == "cosine" and not self.max_epochs:
            raise ValueError("a cosine schedule needs an end: set max_epochs above 0")
        if self.nnodes > 1 and not self.rdzv_endpoint:
            raise ValueError(f"rdzv_endpoint must say where {self.nnodes} machines meet")
        check_number("learning_rate", self.learning_rate, above=0.0, at_most=1.0)
        check_number("clip_norm", self.clip_norm, above=0.0)
        check_number("min_bars", self.min_bars, at_least=0)
        check_number("max_bars", self.max_bars, at_least=1)
        if self.max_bars < self.bars_needed:
            why = f"a window of {self.window}, a horizon of {self.horizon} and min_bars of {self.min_bars}"
            raise ValueError(f"max_bars must be at least {self.bars_needed} with {why}, got {self.max_bars}")
        check_scale_range(
            self.growth_factor, self.growth_interval, self.max_scale, self.min_scale, self.backoff_factor, self.power_of_two
        )

    @property
    def bars_needed(self) -> int:
        """With which training begins. Of 8 (window + horizon) bars 4.6 (window + horizon) are trained on, after the embargo."""
        return max(self.min_bars, 8 * (self.window + self.horizon))


# What a running worker takes over between two steps; any other change needs a new worker.
LIVE_FIELDS = frozenset(
    {
        "learning_rate", "lr_warmup_steps", "clip_norm", "max_bars", "min_bars", "max_epochs", "steps_per_s",
        "plant_overflow_every_s", "growth_factor", "growth_interval", "max_scale", "min_scale", "backoff_factor", "auto_reset",
        "reset_threshold_epochs", "max_consecutive_overflow", "power_of_two", "policy", "schedule", "checkpoint_every_s",
        "checkpoints_kept",
    }
)  # fmt: skip

# What the weights are shaped by, or mean something for: with another value a checkpoint is one of another training.
SHAPING_FIELDS = frozenset({"symbol", "interval_s", "window", "horizon", "model_size", "seed"})


def changed_fields(old: WorkerConfig, new: WorkerConfig) -> frozenset[str]:
    """The names of the fields in which two configs differ."""
    return frozenset(name for name in WorkerConfig.__struct_fields__ if getattr(old, name) != getattr(new, name))
