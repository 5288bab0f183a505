"""Sparklines as rows of one styled run each: a segment per cell is what makes the stock widget expensive."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from enum import Enum

from msgspec import Struct

from .cells import Pace, Row, Span, clip
from .view import Chart

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_GAP = "·"
_LINE = "┄"
_CURSOR = "│"
HIGHEST, LOWEST = "▾", "▴"
AXIS_WIDTH = 8

Say = Callable[[float], str]
"""A value as an axis label: with its unit, six cells at most."""


class Fold(Enum):
    """What one column says of several samples. None of them hides what it is there to show: a peak, a count, a level."""

    MAX = "max"
    SUM = "sum"
    MEAN = "mean"


class Range(Struct, frozen=True):
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

    def at(self, fraction: float) -> float:
        """The value that stands so high; the inverse of `fraction`."""
        if self.log:
            return float(self.low * (self.high / self.low) ** fraction)
        return self.low + (self.high - self.low) * fraction


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


class Plot(Struct, frozen=True):
    """A chart in columns. `values` are those of the columns that are filled, newest last and at the right edge.

    `per_column` samples (1 or more, on average) make one column, `first` is the first column's number on a grid that stands still
    in time: a column keeps its samples while it moves to the left. `cursor` is the column of the time cursor, counted from the
    left edge of the plot.
    """

    values: tuple[float | None, ...]
    width: int
    per_column: float = 1.0
    first: int = 0
    period_s: float = 1.0
    cursor: int | None = None

    @property
    def pad(self) -> int:
        """Columns at the left for which there is no sample."""
        return self.width - len(self.values)

    @property
    def column_s(self) -> float:
        return self.per_column * self.period_s

    def time_at(self, column: int) -> float:
        """Unix time at which a column of the plot begins."""
        return (self.first + column - self.pad) * self.column_s

    def value_at(self, column: int | None) -> float | None:
        index = -1 if column is None else column - self.pad
        return self.values[index] if 0 <= index < len(self.values) else None

    def extremes(self) -> tuple[int, int] | None:
        """The columns of the lowest and of the highest value, the newest of equals; None where nothing stands out."""
        known = [(value, self.pad + i) for i, value in enumerate(self.values) if value is not None and math.isfinite(value)]
        if len(known) < 2 or min(known)[0] == max(known)[0]:
            return None
        return min(known, key=lambda item: (item[0], -item[1]))[1], max(known)[1]


def plotted(chart: Chart, width: int, fold: Fold = Fold.MAX) -> Plot:
    """All samples of a chart in at most `width` columns, right-aligned at `chart.until`.

    Samples too many for a column each are folded; those that are counted into columns of equal length. A column of which anything
    is known shows it; one without is a gap.
    """
    width, period = max(1, width), chart.period_s
    shared, among = per_column(len(chart.values), width, fold)  # so many samples among so many columns: exact, unlike a quotient
    newest = math.floor(chart.until / period + 1e-6)  # the samples' numbers on the grid of time
    oldest = newest - len(chart.values) + 1
    last = newest * among // shared
    filled = min(width, max(1, len(chart.values) * among // shared))  # always as many, or the left edge would flicker
    first = last - filled + 1
    edges = [max(0, -(-number * shared // among) - oldest) for number in range(first, last + 2)]
    values = tuple(_folded(chart.values[begin:end], fold) for begin, end in itertools.pairwise(edges))
    cursor = None
    if chart.cursor is not None:
        at = newest - math.floor((chart.until - chart.cursor) / period + 0.5)
        column = width - 1 - (last - at * among // shared)
        if at >= oldest:  # what is left of the first column stands in it
            column = max(column, width - filled)
        cursor = column if 0 <= column < width else None
    return Plot(values if chart.values else (), width, shared / among, first if chart.values else last + 1, period, cursor)


def per_column(samples: int, width: int, fold: Fold) -> tuple[int, int]:
    """How many samples are shared among how many columns, so that `width` columns take all of them.

    What is counted gets equal times. For the rest there are eight steps to an octave: the picture of a series that still grows is
    rearranged now and then, not with each sample.
    """
    if samples <= width:
        return 1, 1
    among = 1 if fold is Fold.SUM else max(1, 16 >> (samples // width).bit_length())
    return -(-samples * among // width), among


def _folded(samples: Sequence[float | None], fold: Fold) -> float | None:
    known = [value for value in samples if value is not None and not math.isnan(value)]
    if not known:
        return None
    if fold is Fold.MAX:
        return max(known)
    return sum(known) if fold is Fold.SUM else sum(known) / len(known)


def columns(values: Sequence[float | None], height: int, span: Range) -> list[int | None]:
    """Heights in eighths of a row; a value that was not known stays None.

    A known value shows at least one eighth, and one above the low end at least two: 'small' never looks like 'none'.
    """
    shown: list[int | None] = []
    for value in values:
        if value is None or math.isnan(value):
            shown.append(None)
            continue
        level = round(span.fraction(value) * 8 * height)
        shown.append(max(2 if value > span.low else 1, level))
    return shown


class Look(Struct, frozen=True):
    """How a sparkline looks. `say` words its values, for the one under the time cursor and for the extremes.

    With `cap` or `floor` (tokens) the top or the bottom of the range is a limit: a dotted line, its label in that colour.
    `shaded` draws what lies below the line in the quiet `-area` colour: for series that change seldom, as each run costs bytes.
    `marks`: which of the highest and the lowest column are marked in charts of three rows and more.
    """

    token: str
    say: Say
    labels: tuple[str, str] = ("", "")
    cap: str = ""
    floor: str = ""
    shaded: bool = False
    marks: str = HIGHEST + LOWEST


def spark_rows(plot: Plot, height: int, span: Range, look: Look) -> list[Row]:
    """`height` rows of `plot.width + AXIS_WIDTH` cells, the axis labels (top, bottom) in a column at the right."""
    labels = _labels(plot, height, look)
    rows = plot_rows(plot, height, span, look)
    return [
        Row((*body, (f" {clip(text, AXIS_WIDTH - 1):<{AXIS_WIDTH - 1}}", token)), pace_of(height))
        for body, (text, token) in zip(rows, labels, strict=True)
    ]


def pace_of(height: int) -> Pace:
    """How often a sparkline of so many rows moves."""
    return Pace.TEXT if height <= 2 else Pace.CHART


def _labels(plot: Plot, height: int, look: Look) -> list[Span]:
    """The axis from the top down. The value under the cursor comes before the range, and the extremes stand in between."""
    labels: list[Span] = [("", "muted")] * height
    labels[-1] = (look.labels[1] if height > 1 else "", look.floor or "muted")
    labels[0] = (look.labels[0], look.cap or "muted")
    if height >= 4 and look.marks and (extremes := plot.extremes()) is not None:
        low, high = (plot.value_at(column) for column in extremes)
        labels[1] = (_mark(HIGHEST, high, look.say), "muted")
        if height >= 5 and LOWEST in look.marks:
            labels[-2] = (_mark(LOWEST, low, look.say), "muted")
    if plot.cursor is not None:
        value = plot.value_at(plot.cursor)
        labels[height // 2 if height >= 3 else 0] = (_GAP if value is None else look.say(value), "cursor")
    return labels


def _mark(glyph: str, value: float | None, say: Say) -> str:
    return "" if value is None else glyph + say(value).replace(" ", "")


def plot_rows(plot: Plot, height: int, span: Range, look: Look) -> list[list[Span]]:
    """The columns as `height` rows, without an axis."""
    levels: list[int | None] = columns(plot.values, height, span)
    marked = _marked(plot, levels, height, look.marks) if look.marks and height >= 3 else {}
    rows = []
    for y in range(height):
        limit = look.cap if y == 0 and height > 1 else look.floor if y == height - 1 and height > 1 else ""
        below = (height - 1 - y) * 8
        blank = (_LINE, limit) if limit else (" ", look.token)
        cells = [blank] * plot.pad + [_cell(level, below, look, blank) for level in levels]
        for column, glyph in marked.get(y, {}).items():
            cells[column] = (glyph, "muted")
        if plot.cursor is not None:
            cells[plot.cursor] = (_CURSOR, "cursor")
        rows.append(_joined(cells))
    return rows


def _marked(plot: Plot, levels: Sequence[int | None], height: int, marks: str) -> dict[int, dict[int, str]]:
    """Row and column of the marks: above the highest column where there is room, at the foot of the lowest."""
    extremes = plot.extremes()
    if extremes is None:
        return {}
    low, high = extremes
    level = levels[high - plot.pad] or 0
    at: dict[int, dict[int, str]] = {max(0, height - 1 - (level + 7) // 8): {high: HIGHEST}}
    if LOWEST in marks:
        at.setdefault(height - 1, {})[low] = LOWEST
    return at


def _cell(level: int | None, below: int, look: Look, blank: Span) -> Span:
    """`below` is how many eighths lie under this row."""
    if level is None:
        return (_GAP, "muted") if below == 0 else blank
    if level <= below:
        return blank
    if level > below + 8:  # under the line: the body of the area
        return "█", f"{look.token}-area" if look.shaded else look.token
    return _EIGHTHS[level - below], look.token


def _joined(cells: Sequence[Span]) -> list[Span]:
    """Neighbours of one style as one run."""
    spans: list[Span] = []
    for text, token in cells:
        if spans and spans[-1][1] == token:
            spans[-1] = (spans[-1][0] + text, token)
        else:
            spans.append((text, token))
    return spans
