"""The learning rate of a step: linear warm-up, then a cosine or a constant."""

from __future__ import annotations

import math

from .config import WorkerConfig

_FINAL_RATE = 0.1  # where the cosine ends, as a part of the peak rate


def learning_rate_at(step: int, config: WorkerConfig, total_steps: int | None) -> float:
    """Linear warm-up over `lr_warmup_steps`, then what `schedule` says: constant, or a cosine down to a tenth of the peak.

    `step` counts steps that were taken: a skipped step must not use up warm-up. The cosine ends at `total_steps`; while that is
    not known the rate stays at its peak, which is all that "auto" adds to "cosine": it does not ask for an end beforehand.
    """
    peak = config.learning_rate
    if step < config.lr_warmup_steps:
        return peak * (step + 1) / config.lr_warmup_steps
    if config.schedule == "constant" or total_steps is None or total_steps <= config.lr_warmup_steps:
        return peak
    progress = min((step - config.lr_warmup_steps) / (total_steps - config.lr_warmup_steps), 1.0)
    return peak * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))
