"""The stream's connection: what state it is in, for how long, with whom, and how much comes through."""

from __future__ import annotations

from ...telemetry import BadFrame, StateChangeSnapshot, StreamSnapshot, StreamState
from ..cells import Row, Span, clip, field, fitted, row, wrap
from ..format import UNKNOWN, age, clean, count, duration, per_second, rough, size, wall_clock, whole_days, words
from ..view import View
from .states import NOT_KNOWN, STREAM_SIGNS, stream_sign

_CERTIFICATE_ALERT_DAYS = 14
_ALL_ROWS = 12  # only a pane that has the whole screen is so high
_UP = (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING)


def draw_connection(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    repairing: list[Span] = [("repairing", "state-pending")] if stream.repairing else []
    head = fitted(width, [stream_sign(stream.state)], _how_long(stream), repairing, _recording(stream, brief=width < 50))
    rate: list[Span] = [(per_second(stream.messages_per_s).replace("/s", "msg/s"), "value")]
    symbols: list[Span] = [(clean(", ".join(stream.symbols)) or UNKNOWN, "text")]
    if height < 4:
        return [head, fitted(width, rate, _last(stream), _bad(stream), symbols), _peer_in_brief(stream, width)][:height]
    total: list[Span] = [(count(stream.messages), "text"), (" in all", "muted")]
    rows = [
        head,
        field("messages", width, rate, _last(stream), _bad(stream), total),
        field("endpoint", width, [(clean(stream.endpoint) or UNKNOWN, "text")]),
        field("tls", width, _tls(stream), _certificate(stream), [(clean(stream.tls_cipher or ""), "text")]),
        field("transport", width, _successor(stream) or [(clean(stream.transport) or UNKNOWN, "text")], *_rotation(stream)),
        field("symbols", width, symbols),
    ]
    if stream.cause and stream.state is not StreamState.LIVE:
        rows[1:1] = _cause(stream, width, max(1, height - len(rows)))
    if height >= _ALL_ROWS:
        rows += _in_full(stream, width, height - len(rows))
    return rows[:height]


def _how_long(stream: StreamSnapshot) -> list[Span]:
    if stream.state in _UP:
        return [("up ", "muted"), (duration(stream.uptime_s), "text")]
    return [("for ", "muted"), (duration(stream.state_since_s), "text")]


def _last(stream: StreamSnapshot) -> list[Span]:
    known: list[Span] = [(" ago", "muted")] if stream.last_message_age_s is not None else []
    return [("last ", "muted"), (age(stream.last_message_age_s), "text"), *known]


def _bad(stream: StreamSnapshot) -> list[Span]:
    """Messages that were not understood."""
    return [(f"{count(stream.bad_frames)} bad", "alert-warning")] if stream.bad_frames else []


def _recording(stream: StreamSnapshot, *, brief: bool) -> list[Span]:
    recording = stream.recording
    if recording is None or recording.ended:
        return []
    return [("● rec" if brief else f"● recording {size(recording.size_bytes)}", "alert-info")]


def _peer_in_brief(stream: StreamSnapshot, width: int) -> Row:
    """One row for whom we talk to; what asks for attention comes before the address."""
    certificate = _certificate(stream)
    second: list[Span] = [(clean(stream.successor), "state-pending")] if stream.successor else []
    urgent = second or (certificate if certificate and certificate[0][1] != "text" else [])
    endpoint: list[Span] = [(clean(stream.endpoint) or UNKNOWN, "text")]
    transport: list[Span] = [(clean(stream.transport), "text")]
    return fitted(width, *([urgent] if urgent else []), endpoint, _tls(stream), transport)


def _tls(stream: StreamSnapshot) -> list[Span]:
    return [(clean(stream.tls_version), "text") if stream.tls_version else ("no TLS yet", "muted")]


def _certificate(stream: StreamSnapshot) -> list[Span]:
    left = stream.certificate_days
    if left is None:
        return []
    if left < 0:
        return [("certificate expired", "alert-critical")]
    return [(f"certificate {whole_days(left)}", "alert-warning" if left < _CERTIFICATE_ALERT_DAYS else "text")]


def _successor(stream: StreamSnapshot) -> list[Span]:
    """The second connection, while there is one."""
    if not stream.successor:
        return []
    why = "rotating" if stream.state is StreamState.ROTATING else "asking"
    return [(f"{why}: {clean(stream.successor)}", "state-pending")]


def _rotation(stream: StreamSnapshot) -> list[list[Span]]:
    if stream.successor:
        return []
    planned: list[Span] = []
    if stream.rotates_in_s is not None:
        planned = [("rotates in ", "muted"), (rough(stream.rotates_in_s), "text")]
    done: list[Span] = [(count(stream.rotations), "text"), (" rotated", "muted")] if stream.rotations else []
    asked: list[Span] = [(count(stream.probes), "text"), (" second opinions", "muted")] if stream.probes else []
    return [planned, done, asked]


def _cause(stream: StreamSnapshot, width: int, room: int) -> list[Row]:
    lines = wrap(clean(stream.cause), width - 10, room)
    return [field("cause" if not i else "", width, [(line, "text")]) for i, line in enumerate(lines)]


def _in_full(stream: StreamSnapshot, width: int, room: int) -> list[Row]:
    """For the pane alone on the screen: issuer, what state there was when and why, and what was not understood."""
    rows = [field("issuer", width, [(clean(stream.tls_issuer or UNKNOWN), "text")])]
    if stream.rest_weight is not None:
        rows.append(field("rest", width, [("weight used this minute ", "muted"), (count(stream.rest_weight), "text")]))
    if stream.suspends:
        rows.append(field("clock", width, [(f"{count(stream.suspends)} jumps (suspended, or set)", "text")]))
    if stream.recording is not None:
        ended = stream.recording.ended
        rows.append(field("recording", width, [(clean(stream.recording.path), "text")], [(clean(ended), "muted")]))
    room -= len(rows)
    bad = min(len(stream.quarantine), max(1, room // 3)) if stream.quarantine else 0
    changes = min(len(stream.changes), room - 1 - (bad + 1 if bad else 0))
    if changes > 0:
        rows.append(row(("state changes", "title")))
        rows += [_change(one, width) for one in stream.changes[: -changes - 1 : -1]]
    if bad:
        rows.append(row((clip(f"not understood: {count(stream.bad_frames)}, the last of them", width), "title")))
        rows += [_bad_frame(one, width) for one in stream.quarantine[: -bad - 1 : -1]]
    return rows


def _change(change: StateChangeSnapshot, width: int) -> Row:
    glyph, token = STREAM_SIGNS[change.state]
    cause = clip(clean(change.cause), max(0, width - 26))
    return row((f"{wall_clock(change.time)}  ", "muted"), (f"{glyph} {words(change.state.value):<13} ", token), (cause, "text"))


def _bad_frame(frame: BadFrame, width: int) -> Row:
    said = clip(clean(f"{frame.reason}: {frame.excerpt}"), max(0, width - 10))
    return row((f"{wall_clock(frame.time)}  ", "muted"), (said, "text"))
