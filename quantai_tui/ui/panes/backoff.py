"""The wait before the next dial: which attempt, how long still, why, and what the operator can do."""

from __future__ import annotations

from ...telemetry import ErrorSnapshot, StreamSnapshot, StreamState
from ..cells import Row, Span, bar, clip, fitted, flow, heading, row, steady, width_of, wrap
from ..format import clean, count, countdown, delay, duration, lasting, percent, words
from ..view import View
from .history import reconnect_statistics, reconnect_table
from .states import NOT_KNOWN

_SCARCE_DIALS = 50
_COUNTDOWN_WIDTH = 12
_ROOMY = 36  # cells from which on numbers may keep their places
_NOW_ROWS = 12  # of a page: enough for any cause and its advice
_UP = (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING)
_DIALLING = (StreamState.CONNECTING, StreamState.HANDSHAKING, StreamState.SUBSCRIBING)


def draw_backoff(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    return _now(view.snapshot.stream, view.now, width, height)


def backoff_page(view: View, width: int, height: int) -> list[Row]:
    """The wait and its reasons to the end, the waits to come, the budget of dials, and the last reconnects."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    dials: list[Span] = [(count(stream.dials_left), "text"), (" dials left for these 5 minutes", "muted")]
    return [
        *_now(stream, view.now, width, _NOW_ROWS),
        Row(),
        *flow(width, dials),
        *_to_come(stream, width),
        Row(),
        *reconnect_statistics(stream, width),
        Row(),
        *reconnect_table(stream, width),
    ]


def _to_come(stream: StreamSnapshot, width: int) -> list[Row]:
    """The waits if every dial failed, and how long all of them take."""
    waits = stream.backoff_schedule_s
    if not waits:
        return []
    first = stream.attempt + 1
    groups: list[list[Span]] = [
        [(f"{first + i}: ", "muted"), (delay(wait).replace(".0 s", " s"), "text")] for i, wait in enumerate(waits)
    ]
    whole = f"together {duration(sum(waits))}, then {'single probes' if stream.max_attempts else 'on like the last'}"
    return [
        heading(clip("waits before the next attempts, if each of them fails", width)),
        *flow(width, *groups),
        row((clip(whole, width), "muted")),
    ]


def _now(stream: StreamSnapshot, now: float, width: int, height: int) -> list[Row]:
    """What is waited for and why; else how it went so far."""
    if stream.banned_for_s > 0:
        return _banned(stream, width, height)
    waiting = stream.state in (StreamState.BACKOFF, StreamState.COOLING_DOWN)
    rows = _waiting(stream, width, height) if waiting else [_quiet(stream, width)]
    room = height - len(rows)
    error = stream.last_error
    if error is not None and room > 0 and stream.state not in _UP:
        rows += _trouble(error, width, room)
    else:
        rows.append(_totals(stream, width))
        if error is not None:
            rows.append(_last_error(error, now, width))
    return rows[:height]


def _banned(stream: StreamSnapshot, width: int, height: int) -> list[Row]:
    """The venue has said that nothing may leave: for how long, in its words, and that asking would make it longer."""
    left: list[Span] = [("for ", "muted"), (countdown(stream.banned_for_s), "state-backoff")]
    rows = [fitted(width, [("✗ BANNED", "state-failed")], left, _dials(stream, always=True))]
    reasons = wrap(clean(stream.ban_reason), width, max(1, min(2, height - 2)))
    rows += [row((line, "text")) for line in reasons]
    advice = "Asking before would make it longer."
    if stream.state in _UP:
        advice = "Data goes on; dials and repair wait."
    return (rows + [row((line, "alert-info")) for line in wrap(advice, width, max(0, height - len(rows)))])[:height]


def _dials(stream: StreamSnapshot, *, always: bool = False) -> list[Span]:
    """What is left of the venue's budget of new connections, when it has become scarce."""
    left = stream.dials_left
    if left is None or (left >= _SCARCE_DIALS and not always):
        return []
    return [(count(left), "alert-warning" if left < _SCARCE_DIALS else "text"), (" dials left", "muted")]


def _attempt(stream: StreamSnapshot) -> list[Span]:
    """Which attempt is under way, or waited for."""
    if stream.state is StreamState.COOLING_DOWN:
        return [("single probes", "muted")]
    most = str(stream.max_attempts) if stream.max_attempts else "any"
    number = stream.attempt + (stream.state is StreamState.BACKOFF)
    return [("attempt ", "muted"), (str(number), "value"), (f" of {most}", "muted")]


def _waiting(stream: StreamSnapshot, width: int, height: int) -> list[Row]:
    left: list[Span] = [("next in ", "muted"), (countdown(stream.backoff_remaining_s), "state-backoff")]
    left = steady(left, _COUNTDOWN_WIDTH if width >= _ROOMY else 0)
    fraction = stream.backoff_remaining_s / stream.backoff_total_s if stream.backoff_total_s > 0 else 0.0
    if height > 3:
        total: list[Span] = [("of ", "muted"), (delay(stream.backoff_total_s), "text")]
        return [fitted(width, _attempt(stream), left, _dials(stream), total), Row(bar(fraction, width, "state-backoff"))]
    head = fitted(width, _attempt(stream), left)
    room = width - width_of(head.spans) - 2
    return [Row((*head.spans, ("  ", "text"), *bar(fraction, room, "state-backoff"))) if room >= 4 else head]


def _quiet(stream: StreamSnapshot, width: int) -> Row:
    if stream.state in _DIALLING:
        attempt: list[Span] = _attempt(stream) if stream.attempt else [("first dial", "muted")]
        return fitted(width, attempt, [("dialling", "state-pending")], _dials(stream))
    if stream.state is StreamState.FAILED:
        return fitted(width, [("retries used up", "state-failed")], _dials(stream))
    return fitted(width, [("no wait", "muted")], _dials(stream))


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
    for_advice = min(max(2, room // 3), room // 2) if room > 1 and advice else 0
    causes = wrap(f"{kind}: {said}" if said else kind, width, room - for_advice)
    rows = [row((line, "text")) for line in causes]
    return rows + [row((line, "alert-info")) for line in wrap(advice, width, room - len(rows))] if advice else rows


def _last_error(error: ErrorSnapshot, now: float, width: int) -> Row:
    ago: list[Span] = [("last trouble ", "muted")]
    if error.time:
        ago = [("last trouble ", "muted"), (lasting(now - error.time), "text"), (" ago", "muted")]
    return fitted(width, ago, [(words(clean(error.kind or error.type)), "text")])
