"""The series as they are drawn, in a pane or over a whole screen: colour, unit, axis, what a column says of several samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..cells import Pace, Row, Span, flow
from ..format import brief, decimal, delay, duration, wall_clock
from ..sparkline import (
    AXIS_WIDTH,
    HIGHEST,
    Fold,
    Look,
    Plot,
    Range,
    nice_range,
    pace_of,
    per_column,
    plot_rows,
    plotted,
    spark_rows,
)
from ..view import View

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_TICK_WIDTH = 12  # cells between two labels of the time axis
_VALUE_WIDTH = 11  # of the value axis of a chart that has the screen
_SCALE_OCTAVES = 8  # one eighth-block per octave in the one-row sparkline of the scale

Values = Sequence[float | None]


class Kind(Struct, frozen=True):
    """One series: its name in a snapshot, its title, its look, and the range that holds its values."""

    series: str
    title: str
    look: Look
    fold: Fold
    span: Callable[[Values], Range]


def _milliseconds(value: float) -> str:
    return f"{brief(value)} ms" if value < 999.5 else f"{brief(value / 1000)} s"


RTT = Kind("rtt_ms", "round trip", Look("spark-rtt", _milliseconds), Fold.MAX, lambda values: nice_range(values, least=10.0))
TRADES = Kind(
    "trades_per_s",
    "trades",
    Look("spark-trades", lambda value: f"{brief(value)}/s"),
    Fold.MEAN,
    lambda values: nice_range(values, least=5.0),
)
LOSS = Kind(
    "loss",
    "loss",
    Look("spark-loss", lambda value: decimal(value, 4 if 0.1 <= abs(value) < 10 else 3 if abs(value) >= 1e-3 else 1)),
    Fold.MEAN,
    lambda values: nice_range(values, from_zero=False),
)
OVERFLOWS = Kind(
    "overflows",
    "overflowed steps in a column",
    Look("overflow", brief, shaded=True, marks=HIGHEST),
    Fold.SUM,
    lambda values: nice_range(values, least=4.0),
)
SCALE = Kind("scale", "scale", Look("spark-scale", brief, shaded=True), Fold.MAX, lambda values: nice_range(values, least=2.0))


def scale_kind(cap: float | None, floor: float | None, height: int) -> Kind:
    """The scale on a logarithmic axis that ends at the cap; one with several rows goes down to the floor, too."""
    if not cap:
        return SCALE
    low = max(floor or 0.0, cap / 2**_SCALE_OCTAVES)
    if height > 1 and floor and floor < cap:
        low = floor
    at_floor = height > 1 and low == floor
    look = replace(
        SCALE.look,
        labels=("┄ cap", "┄ floor" if at_floor else brief(low)),
        cap="scale-cap",
        floor="scale-cap" if at_floor else "",
    )
    return replace(SCALE, look=look, span=lambda _: Range(low, cap, log=True))


def spark(view: View, kind: Kind, width: int, height: int) -> list[Row]:
    """A sparkline of `height` rows with the ends of its axis at the right; drawn only where its time has come."""
    if pace_of(height) not in view.due:
        return [Row(pace=pace_of(height))] * height
    plot = plotted(view.chart(kind.series), width - AXIS_WIDTH, kind.fold)
    span = kind.span(plot.values)
    look = kind.look
    if not any(look.labels) and any(value is not None for value in plot.values):
        look = replace(look, labels=(look.say(span.high), look.say(span.low)))
    return spark_rows(plot, height, span, look)


def inline(view: View, kind: Kind, width: int) -> list[Span]:
    """A sparkline of one row within a row of text: no axis, and nothing where there is nothing yet."""
    plot = plotted(view.chart(kind.series), width, kind.fold)
    if not plot.values:
        return []
    return plot_rows(plot, 1, kind.span(plot.values), replace(kind.look, cap="", floor=""))[0]


def column_time(view: View, kind: Kind, width: int) -> str:
    """How long a column of the sparkline is: `4 s`."""
    chart = view.chart(kind.series)
    shared, among = per_column(len(chart.values), width - AXIS_WIDTH, kind.fold)
    return _each(shared / among * chart.period_s)


def _each(column_s: float) -> str:
    return delay(column_s).replace(".0 s", " s")


def chart_page(view: View, kind: Kind, width: int, height: int) -> list[Row]:
    """A chart that has the screen: time range and extremes in words, a value axis of 3 to 5 labels, a time axis with ticks."""
    plot = plotted(view.chart(kind.series), width - _VALUE_WIDTH, kind.fold)
    span = kind.span(plot.values)
    tall = max(3, height - 2)
    rows = []
    labels = _value_labels(plot, tall, span, kind.look)
    for body, (text, token) in zip(plot_rows(plot, tall, span, kind.look), labels, strict=True):
        rows.append(Row(((f"{text:>{_VALUE_WIDTH - 1}}", token), ("┤" if text else "│", "edge"), *body), Pace.CHART))
    return [*_in_words(plot, kind, width, view.chart(kind.series).until), *rows, _time_axis(plot)]


def _in_words(plot: Plot, kind: Kind, width: int, until: float) -> list[Row]:
    title: list[Span] = [(kind.title, "title")]
    if not plot.values:
        return flow(width, title, [("nothing yet", "muted")])
    begin, end = plot.time_at(plot.pad), min(until, plot.time_at(plot.width))
    column = _each(plot.column_s)
    stretch: list[Span] = [
        (f"{duration(end - begin)}", "text"),
        (f" from {wall_clock(begin)} to {wall_clock(end)}, a column is {column}", "muted"),
    ]
    under: list[Span] = []
    if plot.cursor is not None:
        value = plot.value_at(plot.cursor)
        said = "not known" if value is None else kind.look.say(value)
        under = [(f"│ {wall_clock(plot.time_at(plot.cursor))}  {said}", "cursor")]
    seen: list[list[Span]] = []
    extremes = plot.extremes()
    if extremes is not None:
        for word, column_at in (("lowest", extremes[0]), ("highest", extremes[1])):
            value = plot.value_at(column_at)
            if value is not None and (word == "highest" or "▴" in kind.look.marks):
                seen.append(
                    [
                        (f"{word} ", "muted"),
                        (kind.look.say(value), "text"),
                        (f" at {wall_clock(plot.time_at(column_at))}", "muted"),
                    ]
                )
    return [Row(line.spans, Pace.CHART) for line in flow(width, title, under, stretch, *seen)]


def _value_labels(plot: Plot, height: int, span: Range, look: Look) -> list[Span]:
    """From the top down, evenly spread. A limit is named beside its value, the value under the cursor stands at the top."""
    labels: list[Span] = [("", "muted")] * height
    parts = 4 if height >= 9 else 2
    if math.isfinite(span.high) and any(value is not None for value in plot.values):
        for part in range(parts + 1):
            labels[round((height - 1) * part / parts)] = (look.say(span.at(1 - part / parts)), "muted")
        if look.cap:
            labels[0] = (f"cap {look.say(span.high)}", look.cap)
        if look.floor:
            labels[-1] = (f"floor {look.say(span.low)}", look.floor)
    return labels


def _time_axis(plot: Plot) -> Row:
    """Ticks at round local times, those left out that the cursor's time covers."""
    begin, end = plot.time_at(0), plot.time_at(plot.width)
    step = next((step for step in _STEPS_S if step >= _TICK_WIDTH * plot.column_s), _STEPS_S[-1])
    offset = time.localtime(end).tm_gmtoff
    tick = -(-(begin + offset) // step) * step - offset
    marks: list[tuple[int, Span]] = []
    while tick < end and plot.values:
        at = int((tick - begin) / plot.column_s + 1e-6)
        marks.append((at, (f"╵{wall_clock(tick, seconds=step < 60)}", "muted")))
        tick += step
    if plot.cursor is not None:
        said = f"│{wall_clock(plot.time_at(plot.cursor))}"
        at = max(0, min(plot.cursor, plot.width - len(said)))
        marks = [(x, mark) for x, mark in marks if x + len(mark[0]) < at or x > at + len(said)]
        marks = sorted([*marks, (at, (said, "cursor"))])
    spans: list[Span] = [(" " * (_VALUE_WIDTH - 1) + "└", "edge")]
    used = 0
    for at, (text, token) in marks:
        if used <= at <= plot.width - len(text):
            spans += [(" " * (at - used), "text"), (text, token)]
            used = at + len(text)
    return Row(tuple(spans), Pace.CHART)
