"""The stream's connection: what state it is in, for how long, with whom, and how much comes through."""

from __future__ import annotations

from ...telemetry import StreamSnapshot, StreamState
from ..cells import Row, Span, field, fitted, row, wrap
from ..format import UNKNOWN, age, clean, count, duration, per_second
from ..view import View
from .states import NOT_KNOWN, stream_sign


def draw_connection(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    stream = view.snapshot.stream
    head = fitted(
        width, [stream_sign(stream.state)], _how_long(stream), [("repairing", "state-pending")] if stream.repairing else []
    )
    symbols = clean(", ".join(stream.symbols)) or UNKNOWN
    endpoint = clean(stream.endpoint) or UNKNOWN
    flow: list[Span] = [(per_second(stream.messages_per_s).replace("/s", "msg/s"), "value")]
    last: list[Span] = [("last ", "muted"), (age(stream.last_message_age_s), "text")]
    if stream.last_message_age_s is not None:
        last.append((" ago", "muted"))
    tls: list[Span] = [(stream.tls_version or "no TLS yet", "text" if stream.tls_version else "muted")]
    if height < 4:
        return [head, fitted(width, flow, last, [(symbols, "text")]), fitted(width, [(endpoint, "text")], tls)][:height]
    rows = [
        head,
        field("messages", width, flow, last, [(count(stream.messages), "text"), (" in all", "muted")]),
        field("endpoint", width, [(endpoint, "text")]),
        field("tls", width, tls),
        field("symbols", width, [(symbols, "text")]),
    ]
    if stream.cause and stream.state is not StreamState.LIVE:
        room = max(1, height - len(rows))
        cause = [
            field("cause" if not i else "", width, [(line, "text")])
            for i, line in enumerate(wrap(clean(stream.cause), width - 10, room))
        ]
        rows[1:1] = cause
    return rows[:height]


def _how_long(stream: StreamSnapshot) -> list[Span]:
    if stream.state in (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING):
        return [("up ", "muted"), (duration(stream.uptime_s), "text")]
    return [("for ", "muted"), (duration(stream.state_since_s), "text")]
