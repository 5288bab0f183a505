"""A fault that is asked for, and what there is to say about a kind of fault.

A fault is written as a table, in a script (TOML) or in a line of JSON: `kind`, `at`, `for`, and the parameters of its kind. A
parameter that is left out, or is 0, empty or false, has its default; so no parameter has a 0 that means something else.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from .markets import ExchangeError

Layer = Literal["connection", "stream", "frames", "rest", "line", "tls", "all"]
Value = bool | int | float | str

LONGEST_S = 7 * 86400.0
UNTIL_CLEARED = math.inf

_LONGEST_TEXT = 100  # the reason of a close frame has room for 123 bytes


class FaultError(ExchangeError):
    """A fault that cannot be had: what is wrong with it, and what to write instead."""


class Fault(msgspec.Struct, frozen=True, rename={"for_s": "for"}, omit_defaults=True):
    """One fault. `at` counts seconds from the first subscription, `for_s` (key `for`) how long it lasts.

    The other fields are the parameters of all kinds together; which of them a kind reads, in what unit and range, is said in
    `catalogue.FAULTS`. `for_s` None is the kind's own duration.
    """

    kind: str
    at: float = 0.0
    for_s: float | None = None
    symbol: str = ""
    connections: str = ""
    port: str = ""
    code: int = 0
    reason: str = ""
    retry_after: float = 0.0
    after: float = 0.0
    lead: float = 0.0
    lifetime: float = 0.0
    listed: bool = False
    count: int = 0
    every: int = 0
    replace: bool = False
    size: int = 0
    pieces: int = 0
    span: int = 0
    rate: float = 0.0
    rows: int = 0
    how: str = ""
    behind: float = 0.0
    refusals: int = 0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0
    freeze_ms: float = 0.0
    every_ms: float = 0.0
    days: float = 0.0


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a kind. `default` decides the type; numbers lie in [low, high], texts in `choices` if there are any."""

    name: str
    text: str
    default: Value
    unit: str = ""
    low: float = 0.0
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def range_text(self) -> str:
        if self.choices:
            return " or ".join(self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return f"text of at most {_LONGEST_TEXT} bytes"
        return f"{self.low:.10g} to {self.high:.10g}"

    def check(self, value: object) -> Value:
        """The value in its type. Raises ValueError, whose text says what it must be."""
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ValueError(self.range_text())
            return value
        if isinstance(self.default, str):
            fits = isinstance(value, str) and len(value.encode(errors="replace")) <= _LONGEST_TEXT and value.isprintable()
            if not fits or (self.choices and value not in self.choices):
                raise ValueError(self.range_text())
            return str(value)
        # Compared before it is converted, since a whole number may be too large for a float; nan is in no range.
        whole = isinstance(self.default, int)
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return value if whole else float(value)
        if isinstance(value, float) and not whole and self.low <= value <= self.high:
            return value
        raise ValueError(f"a {'whole ' if whole else ''}number, {self.range_text()}")


class FaultKind(msgspec.Struct, frozen=True):
    """A kind of fault. `lasts_s` is its duration unless `for` says another; 0: it is over at once.

    None: it is over at once or after `count`, and takes no `for`.
    """

    name: str
    text: str
    layer: Layer
    lasts_s: float | None = None
    parameters: tuple[Parameter, ...] = ()

    def parameter(self, name: str) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    @property
    def by_count(self) -> bool:
        """Over after so many frames, however long that takes."""
        return self.lasts_s is None and self.parameter("count") is not None
