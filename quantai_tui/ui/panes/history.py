"""What happened: the reconnects of late, and the end of the engine's log."""

from __future__ import annotations

from ...telemetry import ReconnectSnapshot
from ..cells import Row, Span, clip, fitted, row, width_of
from ..format import UNKNOWN, clean, delay, duration, wall_clock, words
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


def draw_log(view: View, width: int, height: int) -> list[Row]:
    """The last lines, newest at the bottom."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    return [row((clip(clean(line), width), "text")) for line in view.snapshot.log[-height:]]
