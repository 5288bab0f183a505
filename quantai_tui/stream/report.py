"""Snapshots and statistics of a stream, put together when asked for: nothing here runs on the receive path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ..market.wire import agg_trade_stream
from ..telemetry import (
    Clock,
    ErrorSnapshot,
    ReconnectSnapshot,
    RttSnapshot,
    StateChangeSnapshot,
    StreamSnapshot,
    SymbolSnapshot,
)
from .advice import WebSocketErrorType
from .backoff import ReconnectRecord
from .batch_queue import BatchQueue
from .config import StreamConfig, public_address
from .feed import Feeds
from .gate import Gate
from .intake import Intake, Peak
from .quarantine import Quarantine
from .recording import Recorder
from .repair import Repairer
from .rest import History
from .session import Session
from .supervisor import Supervisor
from .symbol_feed import SymbolFeed

_RECENT_S = 300.0  # the alert on failed reconnects looks back five minutes
_DAY_S = 86400.0
_CHANGES = 12


@dataclass(frozen=True, slots=True)
class Parts:
    """What a stream consists of."""

    clock: Clock
    supervisor: Supervisor
    feeds: Feeds
    intake: Intake
    repairer: Repairer
    quarantine: Quarantine
    gate: Gate
    history: History
    recorder: Recorder
    batches: BatchQueue


def stream_snapshot(parts: Parts, config: StreamConfig, transport: str) -> StreamSnapshot:
    """The stream as the dashboards see it."""
    now, wall = parts.clock.monotonic(), parts.clock.time()
    supervisor, intake, session = parts.supervisor, parts.intake, parts.supervisor.links.session
    reconnector, machine = supervisor.reconnector, supervisor.machine
    statistics = reconnector.get_statistics()
    heartbeat = session.heartbeat if session else None
    tls = session.link.tls if session and session.link else None
    symbols = {feed.symbol: _symbol(parts, feed) for feed in parts.feeds}
    return StreamSnapshot(
        state=machine.state,
        state_since_s=now - machine.since,
        cause=_cause(parts),
        uptime_s=_uptime(parts, now),
        endpoint=public_address(config.ws_url),
        rtt_ms=heartbeat.round_trips.snapshot() if heartbeat else RttSnapshot(),
        attempt=reconnector.attempt,
        max_attempts=config.max_retries,
        backoff_remaining_s=max(0.0, supervisor.wait[0] - now) if supervisor.wait else 0.0,
        backoff_total_s=supervisor.wait[1] if supervisor.wait else 0.0,
        backoff_schedule_s=reconnector.schedule(),
        messages=intake.frames,
        messages_per_s=intake.meter.per_second(),
        last_message_age_s=None if intake.last_data_at is None else now - intake.last_data_at,
        reconnects=reconnector.successes,
        success_rate=statistics["success_rate"],
        avg_delay_s=statistics["avg_delay"],
        attempts_total=reconnector.dials + reconnector.second_failures,
        error_counts=statistics["error_types"],
        ssl_errors=reconnector.error_counts.get(WebSocketErrorType.SSL_ERROR.value, 0),
        failed_last_5min=reconnector.failed_within(_RECENT_S),
        last_error=_last_error(parts),
        history=tuple(_history_entry(record) for record in reconnector.history),
        repairing=parts.repairer.busy,
        repair_pending=sum(symbol.missing for symbol in symbols.values()),
        symbols=symbols,
        transport=transport,
        tls_version=tls.version if tls else None,
        tls_cipher=tls.cipher if tls else None,
        tls_issuer=tls.issuer if tls else None,
        certificate_days=(tls.not_after - wall) / _DAY_S if tls and tls.not_after is not None else None,
        banned_for_s=parts.gate.closed_for,
        ban_reason=parts.gate.reason,
        dials_left=parts.gate.dials_left,
        rest_weight=parts.history.used_weight,
        rotations=supervisor.links.rotations,
        rotates_in_s=supervisor.links.rotates_in_s,
        probes=supervisor.links.probes,
        successor=supervisor.links.successor,
        consumer_lag_ms=_milliseconds(intake.consumer_lag_s),
        loop_lag_ms=_milliseconds(intake.loop_lag_s),
        paused_s=0.0 if intake.paused_since is None else now - intake.paused_since,
        suspends=supervisor.suspends,
        bad_frames=parts.quarantine.count,
        quarantine=parts.quarantine.frames,
        recording=parts.recorder.snapshot(),
        changes=tuple(
            StateChangeSnapshot(wall - (now - change.at), change.state, change.cause) for change in machine.changes[-_CHANGES:]
        ),
    )


def connection_stats(parts: Parts) -> dict[str, Any]:
    """Counters of the whole run, as plain values."""
    links = parts.supervisor.links
    return {
        "state": parts.supervisor.machine.state.value,
        "uptime_s": _uptime(parts, parts.clock.monotonic()),
        "messages": parts.intake.frames,
        "bad_frames": parts.quarantine.count,
        "unasked_trades": parts.intake.strangers,
        "waiting_trades": parts.intake.waiting + parts.batches.held,
        "rotations": links.rotations,
        "probes": links.probes,
        "suspends": parts.supervisor.suspends,
        "dials_left": parts.gate.dials_left,
        "banned_for_s": parts.gate.closed_for,
        "symbols": {
            feed.symbol: {
                "last_id": feed.ledger.last_id,
                "complete_through_id": feed.ledger.complete_through_id,
                "missing": feed.ledger.missing,
                "repaired": feed.ledger.repaired,
                "duplicates": feed.ledger.duplicates,
                "late": feed.ledger.late,
                "conflicts": feed.conflicts,
                "wrong_times": feed.wrong_times,
                "venue_holes": feed.ledger.venue_holes,
                "unrecoverable": feed.ledger.unrecoverable,
                "held": parts.batches.held_of(feed.symbol),
                "implausible": parts.intake.jumps.implausible(feed.symbol),
            }
            for feed in parts.feeds
        },
        "reconnect_statistics": parts.supervisor.reconnector.get_statistics(),
    }


def _symbol(parts: Parts, feed: SymbolFeed) -> SymbolSnapshot:
    liveness, session = parts.supervisor.liveness, parts.supervisor.links.session
    known = feed.snapshot()
    subscription = known.subscription
    if not subscription and session is not None:
        subscription = session.subscriptions.state(agg_trade_stream(feed.symbol))
    return msgspec.structs.replace(
        known,
        silent_s=liveness.silent_s(feed.symbol) if session is not None and session.live_since is not None else None,
        silence_limit_s=liveness.limit_s(feed.symbol),
        held=parts.batches.held_of(feed.symbol),
        doubtful=parts.intake.jumps.doubtful(feed.symbol),
        implausible=parts.intake.jumps.implausible(feed.symbol),
        subscription=subscription,
    )


def _uptime(parts: Parts, now: float) -> float:
    session: Session | None = parts.supervisor.links.session
    return 0.0 if session is None or session.live_since is None else now - session.live_since


def _milliseconds(peak: Peak) -> float | None:
    value = peak.value()
    return None if value is None else value * 1000


def _cause(parts: Parts) -> str:
    notes = [parts.supervisor.machine.cause]
    if parts.feeds.sink_error:
        notes.append(f"the store refuses: {parts.feeds.sink_error}")
    elif parts.intake.paused_since is not None:
        notes.append("reading is paused: the store is behind")
    if parts.repairer.last_failure is not None:
        notes.append(f"repair waits: {parts.repairer.last_failure.message}")
    elif parts.repairer.busy and (wait := parts.history.weight_wait_s) > 0:
        notes.append(f"repair waits {wait:.0f} s: the weight of this minute is used up")
    notes += [feed.refused[0].message for feed in parts.feeds if feed.refused is not None]
    return "; ".join(note for note in notes if note)


def _last_error(parts: Parts) -> ErrorSnapshot | None:
    known = [parts.supervisor.last_failure, *(feed.refused for feed in parts.feeds)]
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
