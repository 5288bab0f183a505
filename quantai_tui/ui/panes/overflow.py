"""Overflows: steps that were skipped because a gradient was not finite, and why the last one was."""

from __future__ import annotations

from ...telemetry import OVERFLOW_CAUSES, OverflowSnapshot, TrainingSnapshot, cause_name
from ..cells import Row, Span, fitted, flow, heading, row, width_of, wrap
from ..format import clean, count, percent, rough
from ..view import View
from .charts import OVERFLOWS, chart_page, column_time, spark
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
    foot = _explained(training, view.now, width, height - bool(training.planted))
    if training.planted:
        foot.append(fitted(width, [(clean(training.planted), "state-pending")]))
    column: list[Span] = [("a column is ", "muted"), (column_time(view, OVERFLOWS, width), "text")]
    rate, running, storm = _rates(training)
    short = storm and sum(width_of(group) + 2 for group in (rate, running, storm)) - 2 > width  # the word is the state: it stays
    head = fitted(width, rate, *([storm] if short else [running, storm]), column)
    return [head, *spark(view, OVERFLOWS, width, max(1, height - 1 - len(foot))), *foot][:height]


def overflow_page(view: View, width: int, height: int) -> list[Row]:
    """How often and why: the counts as a chart, the last overflow in full, every cause that was seen."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    planted = [row((line, "state-pending")) for line in wrap(clean(training.planted), width, 3)]
    chart = chart_page(view, OVERFLOWS, width, max(7, min(14, height // 3)))
    return [*flow(width, *_rates(training)), *planted, Row(), *chart, Row(), *_in_full(training, view.now, width)]


def _rates(training: TrainingSnapshot) -> tuple[list[Span], list[Span], list[Span]]:
    rate, running = training.overflow_rate, training.consecutive_overflow
    alarming = running is not None and running >= _ROW_ALERT
    rate_token = "overflow" if rate is not None and rate > _RATE_ALERT else "value"
    storm: list[Span] = [("STORM", "overflow")] if rate_token == "overflow" or alarming else []
    return (
        [(percent(rate), rate_token), (" of steps", "muted")],
        [(count(running), "overflow" if alarming else "text"), (" in a row", "muted")],
        storm,
    )


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
    rows = [fitted(width, total, _cause(last, width), *_when(last, now))]
    if height < _ALL_ROWS:
        return rows + ([_culprits(last, width)] if last.culprits else _text(last, width, 1))
    return [*rows, *_guilty(last, width), *_text(last, width, 3), *_counts(training, width)]


def _in_full(training: TrainingSnapshot, now: float, width: int) -> list[Row]:
    total: list[Span] = [("total ", "muted"), (count(training.overflow_count), "text"), (" steps", "muted")]
    last = training.last_overflow
    if last is None:
        event: list[Span] = [(clean(training.last_event), "text")] if training.last_event else []
        return flow(width, total, event)
    return [
        *flow(width, total, _cause(last, width), *_when(last, now)),
        *_guilty(last, width),
        *_text(last, width, 9),
        *_counts(training, width),
    ]


def _when(last: OverflowSnapshot, now: float) -> list[list[Span]]:
    return [[("step ", "muted"), (count(last.step), "text")], [(rough(now - last.time), "text"), (" ago", "muted")]]


def _guilty(last: OverflowSnapshot, width: int) -> list[Row]:
    return [fitted(width, [("in ", "muted"), (clean(name), "value")]) for name in last.culprits]


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
    rows = [heading("causes")] if seen else []
    for cause in [*known, *sorted(set(seen) - set(OVERFLOW_CAUSES))]:
        number: list[Span] = [(f"{clean(cause_name(cause)):<18}", "muted"), (f"{count(seen[cause]):>6}", "text")]
        brief = OVERFLOW_CAUSES[cause].brief if cause in OVERFLOW_CAUSES else ""
        rows.append(fitted(width, number, [(brief, "muted")]))
    return rows
