"""When the loss scale is reset by itself, and when resets have been shown not to help. Counts and rules, no tensors, no torch.

The inputs are the same on all ranks of a distributed run (overflows after the reduction), so every rank decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ..arguments import check_type, check_whole
from ..telemetry import Severity
from .saved_state import one_of_type, whole

STEPS_BETWEEN_RESETS = 200
ABNORMAL_OVERFLOW_RATE = 0.2
NONFINITE_LOSSES = 100
FRUITLESS_RESETS = 3
# Overflows in a row that the floor cut off, before they mean that the scale cannot help. The demo plants bursts of 6, at every
# scale, and a burst is to pass.
AT_FLOOR = 10

EventSink = Callable[[Severity, str], None]


class Abnormality(StrEnum):
    NONE = ""
    OVERFLOWS = "overflows"  # over 20 % of the steps
    FLOOR = "floor"  # pressed against it: it stood there after every step, and a backoff was cut off
    CAP = "cap"  # the same with growth


@dataclass(slots=True)
class EpochRecord:
    """What the scale did in one epoch. `min_scale` and `max_scale` are taken after each step.

    An overflow is blamed on the scale when the loss was finite. `cut_at_floor` counts the backoffs that the floor cut off,
    `cut_at_cap` the growths that the cap did.
    """

    epoch: int
    steps: int = 0
    overflow_count: int = 0
    nonfinite_losses: int = 0  # of the overflows, those that say nothing about the scale
    cut_at_floor: int = 0
    cut_at_cap: int = 0
    min_scale: float = math.inf
    max_scale: float = 0.0
    abnormal: bool = False

    def judge(self, floor: float, cap: float) -> Abnormality:
        if self.overflow_count - self.nonfinite_losses > ABNORMAL_OVERFLOW_RATE * self.steps:
            return Abnormality.OVERFLOWS
        if self.cut_at_floor and self.max_scale <= floor:
            return Abnormality.FLOOR
        if self.cut_at_cap and self.min_scale >= cap:
            return Abnormality.CAP
        return Abnormality.NONE

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ResetPolicy:
    """Says when a reset is due: after `max_consecutive` blamed overflows in a row, or after `threshold_epochs` abnormal epochs.

    At most one in 200 steps, none without `auto_reset`, none because of a loss that was not finite. What a reset does to the
    scale is not decided here.

    `stuck` says, once it is so, that resets do not help, what was seen and what to try; training is to pause then. It is so after
    10 overflows in a row at the floor (`max_consecutive`, if that is more), at the third reset by epochs of over 20 % overflows
    with no better epoch between, and after 100 losses in a row that were not finite. While the scale still has somewhere to go it
    is not: from 2^16 down to a threshold of 1 are 16 overflows in a row. Without `auto_reset` it stays empty and is only told.
    """

    def __init__(self, on_event: EventSink) -> None:
        self._on_event = on_event
        self._auto_reset = True
        self._max_consecutive = self._threshold_epochs = 1
        self._blamed = 0  # of the overflows in a row, those that the scale may be blamed for
        self._at_floor = 0  # of those, the last in a row that the floor cut off
        self._nonfinite = 0  # losses in a row
        self._onsets = 0  # blamed overflows of this epoch that did not follow another
        self._abnormal_epochs = 0  # in a row
        self._fruitless = 0  # resets because of overflow rates, without a better epoch since
        self._last_reset: int | None = None
        self._told = False  # of the trouble that still lasts
        self.stuck = ""

    def apply(self, auto_reset: bool, max_consecutive: int, threshold_epochs: int) -> None:
        check_type("auto_reset", auto_reset, bool, "True or False")
        check_whole("max_consecutive_overflow", max_consecutive, at_least=1)
        check_whole("reset_threshold_epochs", threshold_epochs, at_least=1)
        self._auto_reset = auto_reset
        self._max_consecutive, self._threshold_epochs = max_consecutive, threshold_epochs

    def clean(self) -> None:
        """A step without overflow. Need not be told after another such step."""
        self._blamed = self._at_floor = self._nonfinite = 0
        self._told = False

    def overflowed(self, step: int, *, loss_finite: bool, cut_at_floor: bool) -> str:
        """Step number `step` overflowed; the reason for a reset that is due now, or nothing."""
        if not loss_finite:
            self._nonfinite += 1
            if self._nonfinite >= NONFINITE_LOSSES:
                seen = f"{self._nonfinite} losses in a row were not finite"
                self._give_up(
                    f"{seen}: no scale cures that. Look for NaN or Inf in data and weights, then go back to a checkpoint"
                )
            return ""
        self._nonfinite = 0
        self._onsets += not self._blamed
        self._blamed += 1
        self._at_floor = self._at_floor + 1 if cut_at_floor else 0
        if self._at_floor >= max(AT_FLOOR, self._max_consecutive):
            seen = f"{self._at_floor} overflows in a row with the scale at its floor and finite losses"
            what = "suspect the gradient itself (a square root or a logarithm at 0), or lower the floor or the learning rate"
            self._give_up(f"{seen}: resets do not help; {what}")
        due = self._blamed % self._max_consecutive == 0 and self._may_reset(step)
        return f"{self._blamed} overflows in a row" if due else ""

    def epoch_ended(self, step: int, kind: Abnormality) -> str:
        """To be told before the first step of the next epoch. The reason for a reset that is due now, or nothing."""
        onsets, self._onsets = self._onsets, 0
        if kind in (Abnormality.NONE, Abnormality.CAP):
            self._fruitless = 0
        if kind is Abnormality.NONE:
            self._abnormal_epochs = 0
            return ""
        self._abnormal_epochs += 1
        if self._abnormal_epochs % self._threshold_epochs or not self._may_reset(step):
            return ""
        # Without an onset the scale was on its way down, however slowly.
        self._fruitless += kind is Abnormality.OVERFLOWS and onsets > 0
        if self._fruitless >= FRUITLESS_RESETS:
            seen = f"{self._abnormal_epochs} abnormal epochs in a row and {self._fruitless} resets, overflows still over 20 %"
            self._give_up(f"{seen}: resets do not help; try a lower learning rate, a longer warm-up, or bf16")
        return f"{self._abnormal_epochs} abnormal epochs in a row ({_SAID[kind]})"

    def _may_reset(self, step: int) -> bool:
        long_ago = self._last_reset is None or step - self._last_reset >= STEPS_BETWEEN_RESETS
        return self._auto_reset and long_ago

    def has_reset(self, step: int) -> None:
        self._last_reset = step

    def _give_up(self, text: str) -> None:
        if self._told or self.stuck:
            return
        self._told = True
        if self._auto_reset:
            self.stuck = text
        self._on_event(Severity.CRITICAL, text)

    def forgive(self) -> None:
        """The operator has acted: count from here, and call nothing stuck any more."""
        self._blamed = self._at_floor = self._nonfinite = self._onsets = self._abnormal_epochs = self._fruitless = 0
        self._told = False
        self.stuck = ""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, "_" + name) for name in _COUNTS} | {
            "last_reset": self._last_reset,
            "told": self._told,
            "stuck": self.stuck,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, TypeError and KeyError, and then changes nothing."""
        counts = {name: whole(state, name) for name in _COUNTS}
        last_reset = None if state["last_reset"] is None else whole(state, "last_reset")
        told, stuck = one_of_type(state, "told", bool), one_of_type(state, "stuck", str)
        for name, count in counts.items():
            setattr(self, "_" + name, count)
        self._last_reset, self._told, self.stuck = last_reset, told, stuck


_COUNTS = ("blamed", "at_floor", "nonfinite", "onsets", "abnormal_epochs", "fruitless")
_SAID = {
    Abnormality.OVERFLOWS: "over 20 % of the steps overflowed",
    Abnormality.FLOOR: "the scale is pressed against its floor",
    Abnormality.CAP: "the scale is pressed against its cap",
}
