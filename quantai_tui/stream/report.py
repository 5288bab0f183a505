"""Snapshots and statistics of a stream, put together when asked for: nothing here runs on the receive path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..telemetry import Clock, ErrorSnapshot, ReconnectSnapshot, RttSnapshot, StreamSnapshot
from .advice import WebSocketErrorType
from .backoff import ExponentialBackoffReconnector, ReconnectRecord
from .failures import Failure
from .feed import Feeds
from .intake import Intake
from .repair import Repairer
from .session import Session
from .states import StateMachine

_RECENT_S = 300.0  # the alert on failed reconnects looks back five minutes


@dataclass(slots=True)
class Parts:
    """What a stream consists of, and the few facts that only its supervisor knows: the present session, wait and failure."""

    clock: Clock
    machine: StateMachine
    reconnector: ExponentialBackoffReconnector
    feeds: Feeds
    intake: Intake
    repairer: Repairer
    endpoint: str
    session: Session | None = None
    wait: tuple[float, float] | None = None  # monotonic end and whole length of the present backoff, in seconds
    last_failure: tuple[Failure, float] | None = None  # and its Unix time


def stream_snapshot(parts: Parts, *, max_attempts: int) -> StreamSnapshot:
    """The stream as the dashboards see it."""
    now = parts.clock.monotonic()
    reconnector, intake, session = parts.reconnector, parts.intake, parts.session
    statistics = reconnector.get_statistics()
    link = session.link if session else None
    heartbeat = session.heartbeat if session else None
    live_since = session.live_since if session else None
    return StreamSnapshot(
        state=parts.machine.state,
        state_since_s=now - parts.machine.since,
        cause=_cause(parts),
        uptime_s=0.0 if live_since is None else now - live_since,
        endpoint=parts.endpoint,
        tls_version=link.tls.version if link and link.tls else None,
        rtt_ms=heartbeat.round_trips.snapshot() if heartbeat else RttSnapshot(),
        attempt=reconnector.attempt,
        max_attempts=max_attempts,
        backoff_remaining_s=max(0.0, parts.wait[0] - now) if parts.wait else 0.0,
        backoff_total_s=parts.wait[1] if parts.wait else 0.0,
        messages=intake.frames,
        messages_per_s=intake.meter.per_second(),
        last_message_age_s=None if intake.last_data_at is None else now - intake.last_data_at,
        reconnects=reconnector.successes,
        success_rate=statistics["success_rate"],
        avg_delay_s=statistics["avg_delay"],
        attempts_total=reconnector.dials,
        error_counts=statistics["error_types"],
        ssl_errors=reconnector.error_counts.get(WebSocketErrorType.SSL_ERROR.value, 0),
        failed_last_5min=reconnector.failed_within(_RECENT_S),
        last_error=_last_error(parts),
        history=tuple(_history_entry(record) for record in reconnector.history),
        repairing=parts.repairer.busy,
        symbols={feed.symbol: feed.snapshot() for feed in parts.feeds},
    )


def connection_stats(parts: Parts) -> dict[str, Any]:
    """Counters of the whole run, as plain values."""
    now = parts.clock.monotonic()
    live_since = parts.session.live_since if parts.session else None
    return {
        "state": parts.machine.state.value,
        "uptime_s": 0.0 if live_since is None else now - live_since,
        "messages": parts.intake.frames,
        "bad_frames": parts.intake.bad_frames,
        "unasked_trades": parts.intake.strangers,
        "waiting_trades": parts.intake.waiting,
        "reconnect_statistics": parts.reconnector.get_statistics(),
    }


def _cause(parts: Parts) -> str:
    notes = [parts.machine.cause]
    if parts.feeds.sink_error:
        notes.append(f"the store refuses: {parts.feeds.sink_error}")
    elif parts.intake.paused_since is not None:
        notes.append("reading is paused: the store is behind")
    if parts.repairer.last_failure is not None:
        notes.append(f"repair waits: {parts.repairer.last_failure.message}")
    notes += [feed.refused[0].message for feed in parts.feeds if feed.refused is not None]
    return "; ".join(note for note in notes if note)


def _last_error(parts: Parts) -> ErrorSnapshot | None:
    known = [parts.last_failure, *(feed.refused for feed in parts.feeds)]
    newest = max((one for one in known if one is not None), key=lambda one: one[1], default=None)
    if newest is None:
        return None
    failure, at = newest
    return ErrorSnapshot(
        type=failure.type.value, message=failure.message, advice=failure.advice, kind=failure.kind.value, time=at
    )


def _history_entry(record: ReconnectRecord) -> ReconnectSnapshot:
    return ReconnectSnapshot(
        time=record.timestamp,
        attempt=record.attempt_number,
        success=record.success,
        error_type=record.error_type,
        error_message=record.error_message,
        delay_s=record.delay_seconds,
        connection_duration_s=record.connection_duration_before_failure,
    )
