"""Overflows: steps that were skipped because a gradient was not finite."""

from __future__ import annotations

from ..cells import Row, Span, fitted, row
from ..format import clean, count, percent, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN

_RATE_ALERT = 0.20
_ROW_ALERT = 5


def draw_overflow(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    rate, running = training.overflow_rate, training.consecutive_overflow
    rate_token = "overflow" if rate is not None and rate > _RATE_ALERT else "value"
    run_token = "overflow" if running is not None and running >= _ROW_ALERT else "text"
    head = fitted(
        width, [(percent(rate), rate_token), (" of steps", "muted")], [(count(running), run_token), (" in a row", "muted")]
    )
    foot: list[Row] = [
        fitted(width, [("total ", "muted"), (count(training.overflow_count), "text")], _event(training.last_event))
    ]
    if training.planted:
        foot.append(fitted(width, [(clean(training.planted), "state-pending")]))
    values = view.series("overflows")
    span = nice_range(values, least=4.0)
    spark = max(1, height - 1 - len(foot))
    rows = spark_rows(values, width, spark, span, "overflow", labels=(short(span.high), "0"), shaded=True)
    return [head, *rows, *foot][:height]


def _event(text: str) -> list[Span]:
    return [(clean(text), "text")] if text else []
