"""The gradient scale against its floor and its cap."""

from __future__ import annotations

from ...telemetry import TrainingSnapshot
from ..cells import Row, Span, bar, fitted, row
from ..format import UNKNOWN, count, percent, quantity, short
from ..sparkline import Range, nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN

_ALL_ROWS = 6
_OCTAVES_SHOWN = 8  # one eighth-block per octave in the one-row sparkline


def draw_scale(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    if height < _ALL_ROWS:
        foot = [_growth(training, width, _headroom(training)), _resets(training, width, _underflow(training))]
    else:
        foot = [_growth(training, width), _room(training, width), _resets(training, width)]
    spark = max(1, height - 1 - len(foot))
    chart = view.chart("scale")
    span, labels = _range(training, chart.values)
    rows = spark_rows(chart, width, spark, span, "spark-scale", labels=labels, marked="scale-cap", shaded=True)
    return [_value(training, width), *rows, *foot][:height]


def _value(training: TrainingSnapshot, width: int) -> Row:
    scale, cap = training.scale, training.scale_cap
    against: list[Span] = [("cap ", "muted"), (quantity(cap), "text")]
    at_cap: list[Span] = []
    if scale is not None and cap:
        against = [
            (percent(scale / cap, 0), "scale-cap" if scale >= cap else "text"),
            (" of cap ", "muted"),
            (quantity(cap), "text"),
        ]
        at_cap = [("AT THE CAP", "scale-cap")] if scale >= cap else []
    seen: list[Span] = [("highest ", "muted"), (quantity(training.scale_max_seen), "text")]
    return fitted(width, [(quantity(scale), "value")], against, at_cap, seen)


def _range(training: TrainingSnapshot, values: tuple[float | None, ...]) -> tuple[Range, tuple[str, str]]:
    """Logarithmic, its top the cap: the line runs into the cap where the scale does."""
    if not training.scale_cap:
        span = nice_range(values, least=2.0)
        return span, (short(span.high), "")
    low = max(training.scale_floor or 0.0, training.scale_cap / 2**_OCTAVES_SHOWN)
    return Range(low, training.scale_cap, log=True), ("┄ cap", short(low))


def _growth(training: TrainingSnapshot, width: int, *more: list[Span]) -> Row:
    done, interval = training.growth_tracker, training.growth_interval
    left = fitted(width, [("growth ", "muted"), (f"{count(done)}/{count(interval)}", "text")], *more)
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
    rate = training.scale_growth_rate
    pace: list[Span] = [(f"{rate:+.2f}", "text"), (" octaves/1k steps", "muted")] if rate is not None else []
    return fitted(
        width,
        [("resets ", "muted"), (count(training.resets), "text")],
        [("floor ", "muted"), (quantity(training.scale_floor), "text")],
        *more,
        pace,
    )
