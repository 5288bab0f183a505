"""Sparklines as rows of one styled run each: a segment per cell is what makes the stock widget expensive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .cells import Pace, Row, Span, clip
from .view import Chart

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_GAP = "·"
_LINE = "┄"
AXIS_WIDTH = 7


@dataclass(frozen=True, slots=True)
class Range:
    """The fixed span of values that a sparkline's height stands for, logarithmic where ratios matter."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        if self.high <= self.low:
            return 0.0
        if self.log:
            if value <= self.low:
                return 0.0
            return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))
        return max(0.0, min(1.0, (value - self.low) / (self.high - self.low)))


def nice_ceiling(value: float, least: float = 1.0) -> float:
    """The next 1, 2 or 5 times a power of ten: an axis that changes seldom, and to numbers that can be read."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if value <= step * power * (1 + 1e-9))


def nice_range(values: Sequence[float | None], *, least: float = 1.0, from_zero: bool = True) -> Range:
    """A range that holds all known values, from zero or hugging them."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return Range(0.0, least)
    if from_zero:
        return Range(0.0, nice_ceiling(max(known), least))
    step = nice_ceiling(max(max(known) - min(known), abs(max(known)) * 1e-3, 1e-9) / 2, 1e-12)
    return Range(math.floor(min(known) / step) * step, math.ceil(max(known) / step) * step)


def columns(values: Sequence[float | None], width: int, height: int, span: Range) -> list[int | None]:
    """Heights in eighths of a row, right-aligned newest last; a value that was not known stays None.

    A known value shows at least one eighth, and one above the low end at least two: 'small' never looks like 'none'.
    """
    shown: list[int | None] = []
    for value in list(values)[-width:] if width > 0 else ():
        if value is None or math.isnan(value):
            shown.append(None)
            continue
        level = round(span.fraction(value) * 8 * height)
        shown.append(max(2 if value > span.low else 1, level))
    return shown


def spark_rows(
    chart: Chart,
    width: int,
    height: int,
    span: Range,
    token: str,
    *,
    labels: tuple[str, str] = ("", ""),
    marked: str = "",
    shaded: bool = False,
) -> list[Row]:
    """`height` rows, the axis labels (top, bottom) in a column at the right.

    With `marked` (a token) the top of the range is a limit: it is drawn as a dotted line and its label in that colour. `shaded`
    draws what lies below the line in the quiet `-area` colour: for series that change seldom, since each run costs bytes.
    """
    plot = max(1, width - AXIS_WIDTH)
    levels = columns(chart.values, plot, height, span)
    pad = " " * (plot - len(levels))
    rows = []
    for y in range(height):
        limit = marked if marked and y == 0 and height > 1 else ""
        body = _runs(levels, (height - 1 - y) * 8, pad, (token, f"{token}-area" if shaded else token), limit)
        label = labels[0] if y == 0 else labels[1] if y == height - 1 else ""
        axis: Span = (f" {clip(label, AXIS_WIDTH - 1):<{AXIS_WIDTH - 1}}", marked if marked and y == 0 else "muted")
        rows.append(Row((*body, axis), Pace.LINE if height <= 2 else Pace.CHART))
    return rows


def _runs(levels: Sequence[int | None], below: int, pad: str, tokens: tuple[str, str], limit: str) -> list[Span]:
    """One row's cells, joined where the style is the same. `below` is how many eighths lie under this row."""
    edge, body = tokens
    blank = (_LINE, limit) if limit else (" ", edge)
    spans: list[Span] = [(blank[0] * len(pad), blank[1])]
    for level in levels:
        if level is None:
            cell = (_GAP, "muted") if below == 0 else blank
        elif level <= below:
            cell = blank
        elif level > below + 8:  # under the line: the body of the area
            cell = ("█", body)
        else:
            cell = (_EIGHTHS[min(8, level - below)], edge)
        if spans[-1][1] == cell[1]:
            spans[-1] = (spans[-1][0] + cell[0], cell[1])
        else:
            spans.append(cell)
    return [span for span in spans if span[0]]
