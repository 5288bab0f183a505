"""Our own pings: round-trip time now and lately, and how many went unanswered."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...telemetry import StreamSnapshot
from ..cells import Pace, Row, Span, bar, fitted, flow, heading, row, table
from ..format import UNKNOWN, count, duration, milliseconds, percent
from ..view import View
from .charts import RTT, chart_page, spark
from .states import NOT_KNOWN

_ROWS_WITH_LAGS = 5
_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
_SHARES = (0.5, 0.9, 0.95, 0.99)


def draw_heartbeat(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    rows = [_head(stream, width)]
    if height >= _ROWS_WITH_LAGS:
        rows.append(_slow(fitted(width, *_lags(stream))))
    return [*rows, *spark(view, RTT, width, max(1, height - len(rows)))][:height]


def heartbeat_page(view: View, width: int, height: int) -> list[Row]:
    """The round trips as a chart, how they are spread, and what else makes data late."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    known = [value for value in view.chart(RTT.series).values if value is not None and math.isfinite(value)]
    rows = [
        *flow(width, *_groups(stream)),
        *map(_slow, flow(width, *_lags(stream))),
        Row(),
        *chart_page(view, RTT, width, max(7, min(16, height // 2))),
    ]
    if not known:
        return [*rows, Row(), row(("no ping answered yet", "muted"))]
    return [*rows, Row(), *_percentiles(known, width), Row(), *_histogram(known, width)]


def _groups(stream: StreamSnapshot) -> list[list[Span]]:
    rtt = stream.rtt_ms
    missed: list[Span] = [("missed ", "muted"), (count(rtt.missed), "alert-warning" if rtt.missed else "text")]
    return [
        _figures(("rtt", rtt.last), ("p50", rtt.p50), ("p95", rtt.p95)),
        missed,
        _figures(("min", rtt.min), ("mean", rtt.ewma)),
    ]


def _head(stream: StreamSnapshot, width: int) -> Row:
    return fitted(width, *_groups(stream))


def _figures(*named: tuple[str, float | None]) -> list[Span]:
    """Several times with one unit."""
    spans: list[Span] = []
    for name, value in named:
        token = "value" if name == "rtt" else "text"
        spans += [(f"{name} " if not spans else f" {name} ", "muted"), (f"{milliseconds(value):>3}", token)]
    return [*spans, (" ms", "muted")]


def _slow(line: Row) -> Row:
    """Peaks of the last seconds: no need to follow each of them."""
    return Row(line.spans, Pace.CHART)


def _lags(stream: StreamSnapshot) -> list[list[Span]]:
    """How far this machine is behind, which is not the line's fault: the two are never taken for one another."""
    lag: list[Span] = [("store lag ", "muted"), (f"{_whole(stream.consumer_lag_ms):>3}", "text"), (" ms", "muted")]
    if stream.paused_s > 0:
        lag = [(f"reading paused {duration(stream.paused_s)}", "alert-warning")]
    loop: list[Span] = [("loop lag ", "muted"), (f"{_whole(stream.loop_lag_ms):>3}", "text"), (" ms", "muted")]
    weight: list[Span] = []
    if stream.rest_weight is not None:
        weight = [("rest weight ", "muted"), (count(stream.rest_weight), "text"), ("/min", "muted")]
    return [lag, loop, weight]


def _whole(milliseconds: float | None) -> str:
    """Without tenths: of a lag they tell nothing, and would change with every second."""
    return UNKNOWN if milliseconds is None else f"{milliseconds:,.0f}"


def _percentiles(known: Sequence[float], width: int) -> list[Row]:
    """Of the samples of the chart: each stands for as much time, whether or not a ping was sent in it."""
    ordered = sorted(known)
    cells = [[(milliseconds(ordered[0]), "text")]]
    cells += [[(milliseconds(ordered[math.ceil(share * len(ordered)) - 1]), "text")] for share in _SHARES]
    cells.append([(milliseconds(ordered[-1]), "text")])
    heads = ["min", *(f"p{share * 100:.0f}" for share in _SHARES), "max"]
    named = [(f"{head} ", "muted") for head in heads]
    groups = [[name, *cell, (" ms", "muted")] for name, cell in zip(named, cells, strict=True)]
    return [heading("of the time shown"), *flow(width, *groups)]


def _histogram(known: Sequence[float], width: int) -> list[Row]:
    inside = [
        sum(low <= value < high for value in known) for low, high in zip((0, *_BOUNDS_MS), (*_BOUNDS_MS, math.inf), strict=True)
    ]
    seen = [index for index, number in enumerate(inside) if number]
    most = max(inside)
    lines: list[list[Span]] = []
    room = max(8, min(60, width - 34))
    for index in range(seen[0], seen[-1] + 1):
        low = (0, *_BOUNDS_MS)[index]
        above = f"{low} to {_BOUNDS_MS[index]} ms" if index < len(_BOUNDS_MS) else f"{low} ms and more"
        filled = "".join(text for text, _ in bar(inside[index] / most, room, "spark-rtt")[:1])
        lines.append([(above, "text"), (percent(inside[index] / len(known)), "text"), (filled, "spark-rtt")])
    return table(width, ["round trip", ">of the time", ""], lines)
