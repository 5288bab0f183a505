"""Our own pings: round-trip time now and lately, and how many went unanswered."""

from __future__ import annotations

from ..cells import Row, Span, fitted, row
from ..format import milliseconds, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN


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
    values = view.series("rtt_ms")
    span = nice_range(values, least=10.0)
    labels = (f"{short(span.high)} ms", "0")
    return [head, *spark_rows(values, width, max(1, height - 1), span, "spark-rtt", labels=labels)][:height]
