"""The wait before the next dial: which attempt, how long still, why, and what the operator can do."""

from __future__ import annotations

from ...telemetry import ErrorSnapshot, StreamSnapshot, StreamState
from ..cells import Row, Span, bar, fitted, row, width_of, wrap
from ..format import clean, countdown, delay, duration, percent, words
from ..view import View
from .states import NOT_KNOWN

_DIALLING = (StreamState.CONNECTING, StreamState.HANDSHAKING, StreamState.SUBSCRIBING)


def draw_backoff(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    waiting = stream.state in (StreamState.BACKOFF, StreamState.COOLING_DOWN)
    rows = _waiting(stream, width, height) if waiting else [_quiet(stream, width)]
    room = height - len(rows)
    error = stream.last_error
    if error is not None and room > 0 and stream.state is not StreamState.LIVE:
        rows += _trouble(error, width, room)
    else:
        rows.append(_totals(stream, width))
        if error is not None:
            rows.append(_last_error(error, view.now, width))
    return rows[:height]


def _attempt(stream: StreamSnapshot) -> list[Span]:
    most = str(stream.max_attempts) if stream.max_attempts else "any number"
    return [("attempt ", "muted"), (str(stream.attempt), "value"), (f" of {most}", "muted")]


def _waiting(stream: StreamSnapshot, width: int, height: int) -> list[Row]:
    left: list[Span] = [("next in ", "muted"), (countdown(stream.backoff_remaining_s), "state-backoff")]
    fraction = stream.backoff_remaining_s / stream.backoff_total_s if stream.backoff_total_s > 0 else 0.0
    if height > 3:
        total: list[Span] = [("of ", "muted"), (delay(stream.backoff_total_s), "text")]
        return [fitted(width, _attempt(stream), left, total), Row(bar(fraction, width, "state-backoff"))]
    head = fitted(width, _attempt(stream), left)
    room = width - width_of(head.spans) - 2
    return [Row((*head.spans, ("  ", "text"), *bar(fraction, room, "state-backoff"))) if room >= 4 else head]


def _quiet(stream: StreamSnapshot, width: int) -> Row:
    if stream.state in _DIALLING:
        return fitted(width, _attempt(stream) if stream.attempt else [("first dial", "muted")], [("dialling", "state-pending")])
    if stream.state is StreamState.FAILED:
        return row(("retries used up", "state-failed"))
    return row(("no wait", "muted"))


def _totals(stream: StreamSnapshot, width: int) -> Row:
    recent: list[Span] = []
    if stream.failed_last_5min:
        recent = [(str(stream.failed_last_5min), "alert-warning"), (" failed in 5 min", "muted")]
    return fitted(
        width,
        [(str(stream.reconnects), "text"), (" reconnects", "muted")],
        [(percent(stream.success_rate, 0), "text"), (" ok", "muted")],
        [("avg ", "muted"), (delay(stream.avg_delay_s), "text")],
        recent,
        [("ssl errors ", "muted"), (str(stream.ssl_errors), "alert-warning" if stream.ssl_errors else "text")],
    )


def _trouble(error: ErrorSnapshot, width: int, room: int) -> list[Row]:
    """The cause and the advice, each over as many lines as there are."""
    kind = words(clean(error.kind or error.type))
    said = clean(error.message)
    advice = clean(error.advice)
    for_advice = min(2, room // 2) if room > 1 and advice else 0
    causes = wrap(f"{kind}: {said}" if said else kind, width, room - for_advice)
    rows = [row((line, "text")) for line in causes]
    return rows + [row((line, "alert-info")) for line in wrap(advice, width, room - len(rows))] if advice else rows


def _last_error(error: ErrorSnapshot, now: float, width: int) -> Row:
    ago: list[Span] = [("last trouble ", "muted")]
    if error.time:
        ago = [("last trouble ", "muted"), (duration(now - error.time), "text"), (" ago", "muted")]
    return fitted(width, ago, [(words(clean(error.kind or error.type)), "text")])
