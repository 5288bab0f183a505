"""Our own pings: round-trip time now and lately, and how many went unanswered."""

from __future__ import annotations

from ...telemetry import StreamSnapshot
from ..cells import Pace, Row, Span, fitted, row
from ..format import count, duration, milliseconds, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN

_ROWS_WITH_LAGS = 5


def draw_heartbeat(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    rtt = view.snapshot.stream.rtt_ms
    now: list[Span] = [("rtt ", "muted"), (milliseconds(rtt.last), "value"), (" ms", "muted")]
    missed: list[Span] = [("missed ", "muted"), (str(rtt.missed), "alert-warning" if rtt.missed else "text")]
    middle: list[Span] = [("p50 ", "muted"), (milliseconds(rtt.p50), "text")]
    tail: list[Span] = [("p95 ", "muted"), (milliseconds(rtt.p95), "text")]
    least: list[Span] = [("min ", "muted"), (milliseconds(rtt.min), "text")]
    mean: list[Span] = [("mean ", "muted"), (milliseconds(rtt.ewma), "text")]
    head = fitted(width, now, middle, tail, missed, least, mean)
    rows = [head, _lags(view.snapshot.stream, width)] if height >= _ROWS_WITH_LAGS else [head]
    chart = view.chart("rtt_ms")
    span = nice_range(chart.values, least=10.0)
    labels = (f"{short(span.high)} ms", "0")
    return [*rows, *spark_rows(chart, width, max(1, height - len(rows)), span, "spark-rtt", labels=labels)][:height]


def _lags(stream: StreamSnapshot, width: int) -> Row:
    """How far this machine is behind, which is not the line's fault: the two are never taken for one another."""
    paused: list[Span] = []
    if stream.paused_s > 0:
        paused = [(f"reading paused {duration(stream.paused_s)}", "alert-warning")]
    line = fitted(
        width,
        paused or [("store lag ", "muted"), (milliseconds(stream.consumer_lag_ms), "text"), (" ms", "muted")],
        [("loop lag ", "muted"), (milliseconds(stream.loop_lag_ms), "text"), (" ms", "muted")],
        [("rest weight ", "muted"), (count(stream.rest_weight), "text")] if stream.rest_weight is not None else [],
    )
    return Row(line.spans, Pace.CHART)  # peaks of the last seconds: no need to follow each of them
