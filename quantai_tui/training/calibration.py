"""One-step calibration: finds a loss scale that fits this model on this data before the first step is lost to overflows.

The overflow threshold follows the loss more than the parameter count: encoders of 201k, 1.8M and 12.4M parameters settled at
4096, 512 and 64, where a table by parameter count starts at 65536, 16384 and 4096 and pays for the difference in skipped steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..arguments import check_number
from .config import power_of_two_at_most
from .headroom import FP16_LARGEST

_FIRST_SCALE = 2.0**10
_STEP_DOWN = 2.0**-4
_MARGIN = 4.0  # two octaves: gradients inside the network exceed those of its parameters, and grow while the rate warms up
_MOST_TRIALS = 64  # from 2^127 down to 2^-126 in steps of 2^4: no more can be needed


@dataclass(frozen=True, slots=True)
class Calibration:
    """`scale` to train with; `threshold` is the one at which the largest gradient seen would overflow, None if none was found."""

    scale: float
    threshold: float | None
    trials: int

    def describe(self) -> str:
        passes = f"{self.trials} backward pass{'es' if self.trials > 1 else ''}"
        if self.threshold is None:
            return f"gradients overflow at every scale down to the floor; starts at {self.scale:g} ({passes})"
        return f"gradients overflow above {self.threshold:.3g}; starts at {self.scale:g} ({passes})"


def find_scale(largest: Callable[[float], float], floor: float, cap: float) -> Calibration | None:
    """The power of two at most a quarter of the overflow threshold and at most the cap; the floor where that is higher.

    `largest(scale)` runs one backward pass at this scale and returns the largest |gradient|, still scaled; NaN or inf when
    one was not finite. It is called at 2^10 first (brought within the bounds), and at a 16th each time it overflows.
    None when every gradient is zero: that says nothing about the scale. Raises ValueError unless 0 < floor <= cap.
    """
    check_number("floor", floor, above=0.0)
    check_number("cap", cap, at_least=floor)
    scale = min(max(_FIRST_SCALE, floor), cap)
    for trial in range(1, _MOST_TRIALS + 1):
        found = largest(scale)
        if math.isfinite(found):
            break
        if scale <= floor:
            return Calibration(floor, None, trial)
        scale = max(scale * _STEP_DOWN, floor)
    else:
        return Calibration(floor, None, _MOST_TRIALS)
    if found == 0.0:
        return None
    threshold = scale * FP16_LARGEST / found
    return Calibration(max(power_of_two_at_most(min(threshold / _MARGIN, cap)), floor), threshold, trial)
