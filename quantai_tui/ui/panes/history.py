"""The reconnects of late."""

from __future__ import annotations

from ...telemetry import ReconnectSnapshot, StreamSnapshot
from ..cells import Row, Span, clip, fitted, flow, heading, row, table, width_of
from ..format import UNKNOWN, clean, count, date_and_time, delay, duration, percent, wall_clock, words
from ..view import View
from .states import NOT_KNOWN


def draw_reconnects(view: View, width: int, height: int) -> list[Row]:
    """Newest first: time, outcome, type, the delay before it, how long the connection before it had lasted."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    history = view.snapshot.stream.history
    if not history:
        return [row(("no reconnect yet", "muted"))]
    head = row((_columns("time", "outcome", "cause", "waited", "lasted"), "muted"))
    newest = [_entry(entry, width) for entry in reversed(history)]
    return [Row(((clip(head.text, width), "muted"),)), *newest][:height]


def reconnects_page(view: View, width: int, height: int) -> list[Row]:
    """How many, how well and why, then every reconnect that is remembered."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    return [*reconnect_statistics(stream, width), Row(), *reconnect_table(stream, width)]


def reconnect_statistics(stream: StreamSnapshot, width: int) -> list[Row]:
    failed = stream.failed_last_5min
    tls = stream.ssl_errors / stream.attempts_total if stream.attempts_total else None
    kinds: list[list[Span]] = [
        [(f"{words(clean(kind))} ", "muted"), (count(number), "text")] for kind, number in stream.error_counts.items()
    ]
    return [
        *flow(
            width,
            [(count(stream.reconnects), "value"), (" reconnects", "muted")],
            [(percent(stream.success_rate, 0), "text"), (" of attempts ok", "muted")],
            [("average wait ", "muted"), (delay(stream.avg_delay_s), "text")],
            [(count(stream.attempts_total), "text"), (" dials in all", "muted")],
            [(count(failed), "alert-warning" if failed else "text"), (" failed in 5 min", "muted")],
            [("ssl errors ", "muted"), (count(stream.ssl_errors), "alert-warning" if stream.ssl_errors else "text")],
            [("of dials ", "muted"), (percent(tls, 0), "text")] if stream.ssl_errors else [],
        ),
        *(flow(width, *kinds, label="errors") if kinds else [row(("no error yet", "muted"))]),
    ]


def reconnect_table(stream: StreamSnapshot, width: int) -> list[Row]:
    if not stream.history:
        return [row(("no reconnect yet", "muted"))]
    lines: list[list[Span]] = []
    for entry in reversed(stream.history):
        outcome: Span = ("✓ ok", "state-live") if entry.success else ("✗ failed", "state-failed")
        when = date_and_time(entry.time) if width >= 90 else wall_clock(entry.time)
        cause = words(clean(entry.error_type or UNKNOWN)).removesuffix(" error")
        lines.append(
            [
                (when, "text"),
                outcome,
                (count(entry.attempt), "text"),
                (delay(entry.delay_s), "text"),
                (duration(entry.connection_duration_s), "text"),
                (clip(cause, 16), "text"),
                (clean(entry.error_message or ""), "muted"),
            ]
        )
    heads = ["time", "outcome", ">attempt", ">waited", ">link lasted", "cause", "what was said"]
    return [heading(f"the last {count(len(lines))}"), *table(width, heads, lines)]


def _columns(when: str, outcome: str, cause: str, waited: str, lasted: str) -> str:
    return f"{when:<9} {outcome:<8} {cause:<15} {waited:<8} {lasted}"


def _entry(entry: ReconnectSnapshot, width: int) -> Row:
    outcome: Span = ("✓ ok    ", "state-live") if entry.success else ("✗ failed", "state-failed")
    cause = clip(words(clean(entry.error_type or UNKNOWN)).removesuffix(" error"), 15)
    lasted = duration(entry.connection_duration_s)
    base: list[Span] = [
        (f"{wall_clock(entry.time):<9} ", "text"),
        outcome,
        (f" {cause:<15} {delay(entry.delay_s):<8} {lasted:<9}", "text"),
    ]
    room = width - width_of(base) - 2
    return fitted(width, base, [(clip(clean(entry.error_message or ""), room), "muted")] if room >= 16 else [])
