"""How much is painted on a terminal that takes it slowly: fewer frames first, then fewer panes, then none.

The measure is the lag: how long the oldest byte that was handed over has waited for the terminal. A level is entered at
once, and left again only after the line has kept up for a while; a line that fails soon after is trusted later the next time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Protocol, runtime_checkable

from ..telemetry import Clock

KEEPS_UP_S = 0.1
"""A lag below this is no lag: the writer's thread had no turn yet."""


class Level(IntEnum):
    """How far the line is behind."""

    FULL = 0
    SLOW = 1
    SPARSE = 2
    STALLED = 3


class Part(Enum):
    """What of the dashboard is to be painted: the rows of states and alerts, or everything."""

    STATES = 0
    PANES = 1


_ENTERED_AT_S = {Level.SLOW: 0.7, Level.SPARSE: 3.0, Level.STALLED: 10.0}
_PERIOD_S = {  # of each part, per level; a slow line shows its states sooner than its numbers
    Level.FULL: {Part.STATES: 0.0, Part.PANES: 0.0},
    Level.SLOW: {Part.STATES: 1.0, Part.PANES: 4.0},
    Level.SPARSE: {Part.STATES: 4.0, Part.PANES: math.inf},
    Level.STALLED: {Part.STATES: math.inf, Part.PANES: math.inf},
}
_WORDS = {
    Level.FULL: "",
    Level.SLOW: f"slow line: panes every {_PERIOD_S[Level.SLOW][Part.PANES]:g} s",
    Level.SPARSE: "very slow line: only states and alerts are repainted, the panes stand still",
    Level.STALLED: "the terminal takes nothing: nothing is painted",
}
_CALM_S = 12.0
_CALM_LIMIT_S = 192.0


@runtime_checkable
class Line(Protocol):
    """The way to the terminal, as far as painting must know it."""

    @property
    def lag_s(self) -> float:
        """How long the oldest byte that was handed over has waited; 0 when all was taken."""

    def when_free(self, call: Callable[[], None]) -> None:
        """`call` once, as soon as all was taken."""

    def ask_again(self) -> None:
        """Called now and then: whatever may be known only by asking anew."""


class FreeLine:
    """A terminal that takes everything at once, like that of a test."""

    lag_s = 0.0

    def when_free(self, call: Callable[[], None]) -> None:
        call()

    def ask_again(self) -> None: ...


class Governor:
    """Decides what may be painted now. `floor_s`: the least time between two paintings of the panes, whatever the line."""

    def __init__(self, clock: Clock, *, floor_s: float = 0.0) -> None:
        self._clock = clock
        self._floor_s = floor_s
        self._level = Level.FULL
        self._lag_s = 0.0
        self._behind_at = -math.inf  # the last moment at which the line did not keep up
        self._eased_at = -math.inf
        self._calm_s = _CALM_S
        self._painted: dict[Part, int] = {}

    @property
    def level(self) -> Level:
        return self._level

    @property
    def words(self) -> str:
        """What the operator is told; empty for a line that keeps up."""
        return _WORDS[self._level]

    def observe(self, lag_s: float) -> bool:
        """Take in the lag of this moment. True when a terminal that took nothing takes again: paint all of it anew."""
        now = self._clock.monotonic()
        self._lag_s = lag_s
        if lag_s >= KEEPS_UP_S:
            self._behind_at = now
        reached = max((level for level, entered_at in _ENTERED_AT_S.items() if lag_s >= entered_at), default=Level.FULL)
        if reached > self._level:
            if now - self._eased_at < self._calm_s:
                self._calm_s = min(2 * self._calm_s, _CALM_LIMIT_S)
            self._level = reached
        elif self._level is Level.STALLED and lag_s < KEEPS_UP_S:
            self._ease(now)
            return True
        elif self._level is not Level.FULL and now - max(self._behind_at, self._eased_at) >= self._calm_s:
            self._ease(now)
        elif self._level is Level.FULL and now - self._eased_at > _CALM_LIMIT_S:
            self._calm_s = _CALM_S
        return False

    def may_paint(self, part: Part) -> bool:
        """Whether this part is due; being asked counts as painting it."""
        period_s = _PERIOD_S[self._level][part]
        if part is Part.PANES:
            period_s = max(period_s, self._floor_s)
        if math.isinf(period_s) or (self._level is not Level.FULL and self._lag_s >= KEEPS_UP_S):
            return False
        if not period_s:
            return True
        # By slots of the clock rather than by the time since: a timer that is late once must not make the next one early.
        slot = math.floor(self._clock.monotonic() / period_s)
        if self._painted.get(part) == slot:
            return False
        self._painted[part] = slot
        return True

    def _ease(self, now: float) -> None:
        self._level = Level(self._level - 1)
        self._eased_at = now
        self._painted.clear()
