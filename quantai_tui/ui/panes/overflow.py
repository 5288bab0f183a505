"""Overflows: steps that were skipped because a gradient was not finite, and why the last one was."""

from __future__ import annotations

from ...telemetry import OVERFLOW_CAUSES, OverflowSnapshot, TrainingSnapshot, cause_name
from ..cells import Row, Span, fitted, row, width_of, wrap
from ..format import clean, count, percent, rough, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN

_RATE_ALERT = 0.20
_ROW_ALERT = 5
_NARROW = 34
_WITH_CULPRITS = 4  # rows from which on the guilty parameter is named
_WITH_TEXT = 6  # rows from which on the last overflow is told in full
_ALL_ROWS = 12  # and all causes are counted


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
    foot = _explained(training, view.now, width, height - bool(training.planted))
    if training.planted:
        foot.append(fitted(width, [(clean(training.planted), "state-pending")]))
    chart = view.chart("overflows")
    span = nice_range(chart.values, least=4.0)
    spark = max(1, height - 1 - len(foot))
    rows = spark_rows(chart, width, spark, span, "overflow", labels=(short(span.high), "0"), shaded=True)
    return [head, *rows, *foot][:height]


def _explained(training: TrainingSnapshot, now: float, width: int, height: int) -> list[Row]:
    """How many in all and what the last one was; with room, all that is known of it, and how often each cause was seen."""
    total: list[Span] = [("total ", "muted"), (count(training.overflow_count), "text")]
    last = training.last_overflow
    if last is None:
        event: list[Span] = [(clean(training.last_event), "text")] if training.last_event else []
        return [fitted(width, total, event)]
    if height < _WITH_TEXT:
        rows = [fitted(width, total, _cause(last, width))]
        return rows if height < _WITH_CULPRITS or not last.culprits else [*rows, _culprits(last, width)]
    when: list[Span] = [(rough(now - last.time), "text"), (" ago", "muted")]
    rows = [fitted(width, total, _cause(last, width), [("step ", "muted"), (count(last.step), "text")], when)]
    if height < _ALL_ROWS:
        return rows + ([_culprits(last, width)] if last.culprits else _text(last, width, 1))
    rows += [fitted(width, [("in ", "muted"), (clean(name), "value")]) for name in last.culprits]
    return [*rows, *_text(last, width, 3), *_counts(training, width)]


def _cause(last: OverflowSnapshot, width: int) -> list[Span]:
    return [("last " if width >= _NARROW else "", "muted"), (clean(cause_name(last.cause)), "text")]


def _culprits(last: OverflowSnapshot, width: int) -> Row:
    """The first guilty parameters: as many names as fit on one row, and how many more are known."""
    names = [clean(name) for name in last.culprits]
    for shown in range(len(names), 0, -1):
        more: list[Span] = [(f" and {len(names) - shown} more", "muted")] if shown < len(names) else []
        spans: list[Span] = [("in ", "muted"), (", ".join(names[:shown]), "value"), *more]
        if width_of(spans) <= width:
            return row(*spans)
    return fitted(width, [("in ", "muted"), (names[0], "value")])


def _text(last: OverflowSnapshot, width: int, most: int) -> list[Row]:
    return [row((line, "text")) for line in wrap(clean(last.text), width, most)]


def _counts(training: TrainingSnapshot, width: int) -> list[Row]:
    """Each cause that was seen, how often, and what it is."""
    seen = training.overflow_causes
    known = [cause for cause in OVERFLOW_CAUSES if seen.get(cause)]
    rows = [row(("causes", "title"))] if seen else []
    for cause in [*known, *sorted(set(seen) - set(OVERFLOW_CAUSES))]:
        number: list[Span] = [(f"{clean(cause_name(cause)):<18}", "muted"), (f"{count(seen[cause]):>6}", "text")]
        brief = OVERFLOW_CAUSES[cause].brief if cause in OVERFLOW_CAUSES else ""
        rows.append(fitted(width, number, [(brief, "muted")]))
    return rows
