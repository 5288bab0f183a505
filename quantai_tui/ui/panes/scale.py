"""The gradient scale against its floor and its cap."""

from __future__ import annotations

import math
import statistics

from ...telemetry import TrainingSnapshot
from ..cells import Row, Span, bar, fitted, flow, heading, row, table
from ..format import UNKNOWN, count, percent, quantity, wall_clock
from ..view import Chart, View
from .charts import chart_page, scale_kind, spark
from .states import NOT_KNOWN

_ALL_ROWS = 6


def draw_scale(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    if height < _ALL_ROWS:
        foot = [_growth(training, width, _headroom(training)), _resets(training, width, _underflow(training))]
    else:
        foot = [_growth(training, width), _room(training, width), _resets(training, width)]
    room = max(1, height - 1 - len(foot))
    kind = scale_kind(training.scale_cap, training.scale_floor, room)
    return [fitted(width, *_value(training)), *spark(view, kind, width, room), *foot][:height]


def scale_page(view: View, width: int, height: int) -> list[Row]:
    """The scale between its floor and its cap as a chart, what moves it, and each fall in the time shown."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    room = max(7, min(18, height // 2))
    kind = scale_kind(training.scale_cap, training.scale_floor, room)
    return [
        *flow(width, *_value(training)),
        Row(),
        *chart_page(view, kind, width, room),
        Row(),
        _growth(training, width),
        _room(training, width),
        *flow(width, *_reset_groups(training)),
        Row(),
        *_falls(view.chart(kind.series), width),
    ]


def _falls(chart: Chart, width: int) -> list[Row]:
    """Each sample that is lower than the one before: an overflow halves the scale, a reset sets it back."""
    lines: list[list[Span]] = []
    known: list[float] = []
    for index, value in enumerate(chart.values):
        if value is None or not math.isfinite(value):
            continue
        if known and value < known[-1]:
            at = chart.until - (len(chart.values) - 1 - index) * chart.period_s
            times = known[-1] / value if value else math.inf
            lines.append(
                [(wall_clock(at), "text"), (quantity(known[-1]), "text"), (quantity(value), "text"), (f"1/{times:.3g}", "text")]
            )
        known.append(value)
    if not known:
        return [row(("no scale in the time shown", "muted"))]
    mean = math.exp(statistics.fmean(math.log(value) for value in known)) if min(known) > 0 else statistics.fmean(known)
    said = [("lowest ", min(known)), ("mean of logs ", mean), ("highest ", max(known))]
    groups: list[list[Span]] = [[(name, "muted"), (quantity(value), "text")] for name, value in said]
    rows = [heading("in the time shown"), *flow(width, *groups)]
    if not lines:
        return [*rows, row(("the scale has not fallen", "muted"))]
    return [*rows, *table(width, ["fell at", ">from", ">to", ">times", ""], [[*line, ("", "text")] for line in reversed(lines)])]


def _value(training: TrainingSnapshot) -> list[list[Span]]:
    """Where the scale stands; at a limit in words, too."""
    scale, cap, floor = training.scale, training.scale_cap, training.scale_floor
    against: list[Span] = [("cap ", "muted"), (quantity(cap), "text")]
    at_limit: list[Span] = []
    if scale is not None and cap:
        against = [
            (percent(scale / cap, 0), "scale-cap" if scale >= cap else "text"),
            (" of cap ", "muted"),
            (quantity(cap), "text"),
        ]
        at_limit = [("AT THE CAP", "scale-cap")] if scale >= cap else []
    if scale is not None and floor is not None and scale <= floor and not at_limit:
        at_limit = [("AT THE FLOOR", "scale-cap")]
    seen: list[Span] = [("highest ", "muted"), (quantity(training.scale_max_seen), "text")]
    return [[(quantity(scale), "value")], against, at_limit, seen]


def _growth(training: TrainingSnapshot, width: int, *more: list[Span]) -> Row:
    done, interval = training.growth_tracker, training.growth_interval
    left = fitted(width, [("growth ", "muted"), (f"{count(done):>{len(count(interval))}}/{count(interval)}", "text")], *more)
    room = min(24, width - len(left.text) - 2)
    if done is None or not interval or room < 6:
        return left
    return Row((*left.spans, ("  ", "text"), *bar(done / interval, room, "spark-scale")))


def _room(training: TrainingSnapshot, width: int) -> Row:
    """How far the scale may still go up, and how much it loses at the lower end."""
    return fitted(width, _headroom(training, " octaves"), _underflow(training))


def _headroom(training: TrainingSnapshot, unit: str = "") -> list[Span]:
    octaves = training.headroom_octaves
    # A hair below zero is not minus zero.
    said = UNKNOWN if octaves is None else f"{round(octaves, 1) + 0.0:.1f}"
    return [("headroom ", "muted"), (said, "text"), (unit, "muted")]


def _underflow(training: TrainingSnapshot) -> list[Span]:
    share = training.underflow_share
    return [("underflow ", "muted"), (percent(share, 0 if not share else 3 if share < 0.01 else 1), "text")]


def _resets(training: TrainingSnapshot, width: int, *more: list[Span]) -> Row:
    resets, floor, pace = _reset_groups(training)
    return fitted(width, resets, floor, *more, pace)


def _reset_groups(training: TrainingSnapshot) -> list[list[Span]]:
    rate = training.scale_growth_rate
    return [
        [("resets ", "muted"), (count(training.resets), "text")],
        [("floor ", "muted"), (quantity(training.scale_floor), "text")],
        [(f"{rate:+.2f}", "text"), (" octaves/1k steps", "muted")] if rate is not None else [],
    ]
