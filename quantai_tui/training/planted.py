"""The demo's planted overflows: for a few steps the loss is multiplied until fp16 really overflows, and the screen says so."""

from __future__ import annotations

from ..telemetry import Clock

BURST_STEPS = 6  # one more than the default of overflows in a row that resets the scaler
# A logit's gradient is about 1 / (3 * batch): times 2^40 it exceeds 65,504, fp16's largest, at every scale from 1 up and every
# batch up to a million; and loss * 2^40 * 2^17 stays far within fp32.
FACTOR = 2.0**40
_FIRST_AFTER_S = 8.0


class OverflowPlan:
    """When to plant. Every `every_s` seconds (0: never), the first time after 8 s at most; a pause is not made up for."""

    def __init__(self, every_s: float, clock: Clock) -> None:
        self._every_s = every_s
        self._clock = clock
        self._left = 0
        self._due: float | None = None
        self.just_begun = False

    def describe(self) -> str:
        return f"planted: {BURST_STEPS} overflows every {self._every_s:g} s (demo)" if self._every_s else ""

    def factor(self) -> float:
        """What to multiply this step's loss by; call it once per step."""
        self.just_begun = False
        if not self._every_s:
            return 1.0
        if not self._left:
            now = self._clock.monotonic()
            if self._due is None:
                self._due = now + min(_FIRST_AFTER_S, self._every_s)
            if now < self._due:
                return 1.0
            self._due = now + self._every_s
            self._left = BURST_STEPS
            self.just_begun = True
        self._left -= 1
        return FACTOR
