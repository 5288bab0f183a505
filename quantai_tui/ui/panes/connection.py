"""The stream's connection: what state it is in, for how long, with whom, and how much comes through."""

from __future__ import annotations

from ...telemetry import BadFrame, RecordingSnapshot, StateChangeSnapshot, StreamSnapshot, StreamState
from ..cells import LABEL_WIDTH, Row, Span, clip, field, fitted, flow, heading, row, table, wrap
from ..format import UNKNOWN, age, clean, count, lasting, per_second, price, rough, size, wall_clock, whole_days, words
from ..view import View
from .states import NOT_KNOWN, STREAM_SIGNS, stream_sign

_CERTIFICATE_ALERT_DAYS = 14
_ROOMY = 36  # cells from which on numbers may keep their places
_UP = (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING)
_LINES_OF_A_BAD_FRAME = 6


def draw_connection(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    symbols: list[Span] = [(clean(", ".join(stream.symbols)) or UNKNOWN, "text")]
    if height < 4:
        rate = fitted(width, _rate(stream, width), _last(stream), _bad(stream), symbols)
        return [_head(stream, width), rate, _peer_in_brief(stream, width)][:height]
    rows = [
        _head(stream, width),
        field("messages", width, _rate(stream, width), _last(stream), _bad(stream), _total(stream)),
        field("endpoint", width, [(clean(stream.endpoint) or UNKNOWN, "text")]),
        field("tls", width, _tls(stream), _certificate(stream), [(clean(stream.tls_cipher or ""), "text")]),
        field("transport", width, _successor(stream) or [(clean(stream.transport) or UNKNOWN, "text")], *_rotation(stream)),
        field("symbols", width, symbols),
    ]
    if stream.cause and stream.state is not StreamState.LIVE:
        rows[1:1] = _cause(stream, width, max(1, height - len(rows)))
    return rows[:height]


def connection_page(view: View, width: int, height: int) -> list[Row]:
    """All that is known of the connection, its symbols, what state there was when and why, what was not understood."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    dials: list[Span] = [(count(stream.dials_left), "text"), (" left for these 5 minutes", "muted")]
    rows = [
        _head(stream, width),
        *(_cause(stream, width, 4) if stream.cause else []),
        *flow(width, _rate(stream, width), _last(stream), _bad(stream), _total(stream), label="messages"),
        *_written("endpoint", stream.endpoint, width),
        *flow(width, _tls(stream), _certificate(stream), [(clean(stream.tls_cipher or ""), "text")], label="tls"),
        *_written("issuer", stream.tls_issuer or "", width),
        *flow(width, [(clean(stream.transport) or UNKNOWN, "text")], _successor(stream), *_rotation(stream), label="transport"),
        *flow(width, dials, label="dials"),
    ]
    if stream.rest_weight is not None:
        rows += flow(width, [("weight used this minute ", "muted"), (count(stream.rest_weight), "text")], label="rest")
    if stream.suspends:
        rows += flow(width, [(f"{count(stream.suspends)} jumps (suspended, or set)", "text")], label="clock")
    if stream.recording is not None:
        rows += _recorded(stream.recording, width)
    return [*rows, Row(), *_symbols(stream, view.now, width), *_changes(stream, width), *_not_understood(stream, width)]


def _head(stream: StreamSnapshot, width: int) -> Row:
    repairing: list[Span] = [("repairing", "state-pending")] if stream.repairing else []
    if stream.repairing and stream.repair_pending:
        repairing = [(f"repairing {count(stream.repair_pending)} ids", "state-pending")]
    return fitted(width, [stream_sign(stream.state)], _how_long(stream), repairing, _recording(stream, brief=width < 50))


def _rate(stream: StreamSnapshot, width: int) -> list[Span]:
    said = per_second(stream.messages_per_s).replace("/s", "msg/s")
    return [(f"{said:>12}" if width >= _ROOMY else said, "value")]


def _total(stream: StreamSnapshot) -> list[Span]:
    return [(count(stream.messages), "text"), (" in all", "muted")]


def _how_long(stream: StreamSnapshot) -> list[Span]:
    if stream.state in _UP:
        return [("up ", "muted"), (lasting(stream.uptime_s), "text")]
    return [("for ", "muted"), (lasting(stream.state_since_s), "text")]


def _last(stream: StreamSnapshot) -> list[Span]:
    known: list[Span] = [(" ago", "muted")] if stream.last_message_age_s is not None else []
    return [("last ", "muted"), (f"{age(stream.last_message_age_s):>4}", "text"), *known]


def _bad(stream: StreamSnapshot) -> list[Span]:
    """Messages that were not understood, and trades that were refused."""
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


def _written(label: str, text: str, width: int) -> list[Row]:
    """Outside text to its end."""
    lines = wrap(clean(text), width - LABEL_WIDTH, 3) or [UNKNOWN]
    return [field("" if i else label, width, [(line, "text")]) for i, line in enumerate(lines)]


def _recorded(recording: RecordingSnapshot, width: int) -> list[Row]:
    limit: list[Span] = [(f"{size(recording.size_bytes)} of {size(recording.limit_bytes)}", "text")]
    return [
        *_written("recording", recording.path, width),
        *flow(
            width,
            limit,
            [(count(recording.frames), "text"), (" frames", "muted")],
            [(clean(recording.ended), "muted")],
            label=" ",
        ),
    ]


def _symbols(stream: StreamSnapshot, now: float, width: int) -> list[Row]:
    lines: list[list[Span]] = []
    for name, symbol in stream.symbols.items():
        since = None if symbol.last_trade_time is None else now - symbol.last_trade_time
        lines.append(
            [
                (clean(name), "text"),
                (price(symbol.price), "value"),
                (per_second(symbol.trades_per_s), "text"),
                (age(since if since is not None else symbol.silent_s), "text"),
                (clean(symbol.subscription) or UNKNOWN, "alert-warning" if symbol.subscription_note else "text"),
                (clean(symbol.subscription_note), "muted"),
            ]
        )
    if not lines:
        return [row(("no symbol subscribed", "muted"))]
    return [heading("symbols"), *table(width, ["symbol", ">price", ">trades", ">last", "subscription", ""], lines)]


def _changes(stream: StreamSnapshot, width: int) -> list[Row]:
    if not stream.changes:
        return []
    return [Row(), heading("state changes"), *[_change(one, width) for one in reversed(stream.changes)]]


def _not_understood(stream: StreamSnapshot, width: int) -> list[Row]:
    if not stream.quarantine:
        return []
    refused = any(symbol.wrong_times or symbol.conflicts or symbol.implausible for symbol in stream.symbols.values())
    title = f"not understood{' or refused' if refused else ''}: {count(stream.bad_frames)}, the last of them"
    return [Row(), heading(clip(title, width)), *(line for one in reversed(stream.quarantine) for line in _bad_frame(one, width))]


def _change(change: StateChangeSnapshot, width: int) -> Row:
    glyph, token = STREAM_SIGNS[change.state]
    cause = clip(clean(change.cause), max(0, width - 26))
    return row((f"{wall_clock(change.time)}  ", "muted"), (f"{glyph} {words(change.state.value):<13} ", token), (cause, "text"))


def _bad_frame(frame: BadFrame, width: int) -> list[Row]:
    """Over several lines: of a trade with two contents both must be seen."""
    said = wrap(clean(f"{frame.reason}: {frame.excerpt}"), max(1, width - 10), _LINES_OF_A_BAD_FRAME)
    times = [f"{wall_clock(frame.time)}  ", *[" " * 10] * (len(said) - 1)]
    return [row((time, "muted"), (line, "text")) for time, line in zip(times, said, strict=True)]
