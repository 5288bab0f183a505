"""Rules between two settings, which no range of one alone can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Settings


@dataclass(frozen=True, slots=True)
class CrossRule:
    """A rule between two settings: `key` must be `relation` the `other`."""

    key: str
    relation: str
    other: str
    holds: Callable[[Settings], bool]

    @property
    def text(self) -> str:
        return f"{self.relation} {self.other}"


CROSS_RULES: tuple[CrossRule, ...] = (
    CrossRule(
        "WS_RECONNECT_MAX_DELAY",
        "at least",
        "WS_RECONNECT_INITIAL_DELAY",
        lambda s: s.WS_RECONNECT_MAX_DELAY >= s.WS_RECONNECT_INITIAL_DELAY,
    ),
    CrossRule(
        "WS_MESSAGE_TIMEOUT",
        "above",
        "WS_MESSAGE_WARNING_TIMEOUT",
        lambda s: s.WS_MESSAGE_TIMEOUT > s.WS_MESSAGE_WARNING_TIMEOUT,
    ),
    CrossRule(
        "GRAD_SCALER_MIN_SCALE",
        "at most",
        "GRAD_SCALER_MAX_SCALE",
        lambda s: s.GRAD_SCALER_MIN_SCALE <= s.GRAD_SCALER_MAX_SCALE,
    ),
    CrossRule(
        "TRAIN_EPOCHS",
        "above 0 with a cosine",
        "TRAIN_SCHEDULE",
        lambda s: s.TRAIN_SCHEDULE != "cosine" or s.TRAIN_EPOCHS > 0,
    ),
    CrossRule(
        "TRAIN_RDZV_ENDPOINT",
        "set, for more than one of",
        "TRAIN_NNODES",
        lambda s: s.TRAIN_NNODES == 1 or bool(s.TRAIN_RDZV_ENDPOINT),
    ),
    CrossRule("TRAIN_SYMBOL", "one of", "SYMBOLS", lambda s: not s.TRAIN_SYMBOL or s.TRAIN_SYMBOL in s.SYMBOLS),
)
