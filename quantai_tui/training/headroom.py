"""How far the loss scale may rise before fp16 overflows, from the largest gradients of the recent past. Free of torch."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from ..arguments import check_number
from .config import LARGEST_SCALE, power_of_two_at_most
from .saved_state import structured

FP16_LARGEST = 65504.0
HISTORY = 64
_MARGIN = 4.0  # 2 bits


class AmaxHistory:
    """The largest |unscaled gradient| of the last 64 steps that told it, and the scales that follow from it.

    The threshold is the scale at which the largest of them would have reached fp16's 65,504. It knows the gradients of
    parameters only: one inside the network may overflow earlier, and shows by overflowing.

    As a policy (`target`): the largest power of two that leaves 2 bits between scale * amax and 65,504. Why this and not
    patience: on two recorded fp16 traces it skipped no step at all, where growing and backing off skips 0.18 of 1,000 at
    1.2/2000, 0.40 at 2.0/2000 and 0.53 at 1.5/1000, and waiting for a second overflow before backing off skips 58 % more. The
    two bits cost nothing: from 2^8 up to the threshold at most 0.12 % of the gradient elements flush to zero at any scale.
    """

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=HISTORY)

    def observe(self, amax: float) -> None:
        """The largest |unscaled gradient| of one clean step. Raises ValueError unless it is finite and not negative."""
        check_number("amax (the largest unscaled gradient of a clean step)", amax, at_least=0.0)
        self._values.append(float(amax))

    def overflowed(self, scale: float) -> None:
        """An overflow at `scale` has met a gradient of 65,504 / scale or more: with that in it the history is honest again."""
        self._values.append(FP16_LARGEST / scale)

    @property
    def threshold(self) -> float | None:
        """The scale at which the largest gradient remembered reaches 65,504; None without one that is above 0."""
        largest = max(self._values, default=0.0)
        return FP16_LARGEST / largest if largest > 0.0 and math.isfinite(FP16_LARGEST / largest) else None

    def octaves(self, scale: float) -> float | None:
        """log2(threshold / scale): below 0 the next gradient as large as the largest overflows."""
        threshold = self.threshold
        return None if threshold is None else math.log2(threshold / scale)

    def target(self, floor: float, cap: float) -> float | None:
        """The largest power of two with scale * amax * 4 <= 65,504, within the bounds; None before the first gradient."""
        if not self._values:
            return None
        threshold = self.threshold
        wanted = LARGEST_SCALE if threshold is None else min(threshold / _MARGIN, LARGEST_SCALE)
        return max(floor, power_of_two_at_most(min(wanted, cap)))

    def state_dict(self) -> dict[str, Any]:
        return {"amax": list(self._values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, TypeError and KeyError, and then changes nothing."""
        values = structured(state["amax"], "amax of the checkpoint", list[float])
        for amax in values:
            check_number("amax of the checkpoint", amax, at_least=0.0)
        self._values = deque(values, HISTORY)
