"""More snapshots that tell a story."""

from __future__ import annotations

from collections.abc import Callable

from ui_support import NOW, backoff_snapshot, engine_snapshot, series, stream_snapshot, training_snapshot
from ui_training_stories import explained, explained_snapshot, many_ranks_snapshot, paused_snapshot

from quantai_tui.telemetry import (
    Alert,
    BadFrame,
    EngineSnapshot,
    ErrorSnapshot,
    GapSnapshot,
    ReconnectSnapshot,
    RttSnapshot,
    Severity,
    StateChangeSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingState,
)


def banned_snapshot() -> EngineSnapshot:
    """The venue has had enough of us; a symbol is not served, and a frame was not understood."""
    stream = stream_snapshot(
        state=StreamState.BACKOFF,
        state_since_s=56.0,
        cause="websocket upgrade: HTTP 418",
        uptime_s=0.0,
        tls_version=None,
        rtt_ms=RttSnapshot(),
        transport="websockets",
        backoff_remaining_s=244.0,
        backoff_total_s=300.0,
        banned_for_s=244.2,
        ban_reason="websocket upgrade: HTTP 418",
        dials_left=31,
        bad_frames=2,
        quarantine=(
            BadFrame(NOW - 70, "not JSON", '{"e":"aggTrade" (15 bytes)'),
            BadFrame(NOW - 60, "no such event", "{} (2 bytes)"),
        ),
        changes=(
            StateChangeSnapshot(NOW - 8_100, StreamState.LIVE, "subscribed"),
            StateChangeSnapshot(NOW - 90, StreamState.ROTATING, "asked for by the operator"),
            StateChangeSnapshot(NOW - 89, StreamState.LIVE, "moved to a fresh connection: asked for by the operator"),
            StateChangeSnapshot(NOW - 57, StreamState.CONNECTING, "dialling wss://data-stream.binance.vision:443"),
            StateChangeSnapshot(NOW - 56, StreamState.BACKOFF, "websocket upgrade: HTTP 418"),
        ),
        messages_per_s=0.0,
        last_message_age_s=58.0,
        symbols={
            "ETHUSDT": SymbolSnapshot(
                last_id=1_823_123_112, complete_through_id=1_823_122_980, missing=132, gaps=1, price="3512.31", trades_per_s=0.0
            ),
            "BTCUSDT": SymbolSnapshot(subscription="silent", subscription_note="acknowledged and silent", price="96512.31"),
        },
    )
    ban = Alert(
        "banned", Severity.CRITICAL, "banned by the venue for about 5 min: HTTP 418", "nothing is sent until it is over", NOW - 56
    )
    return engine_snapshot(stream=stream, alerts=(ban,))


def failed_snapshot() -> EngineSnapshot:
    """The retries are used up, and nothing is dialled any more."""
    error = ErrorSnapshot(
        "SSL_ERROR",
        "certificate verify failed: self-signed certificate in certificate chain",
        "A proxy or a middlebox in between presents its own certificate: name it in CA_FILE, or go round it.",
        "certificate",
        NOW - 64,
    )
    history = tuple(
        ReconnectSnapshot(NOW - 300 + 24 * i, i + 1, False, "SSL_ERROR", error.message, min(60.0, 2.0**i), None)
        for i in range(10)
    )
    stream = stream_snapshot(
        state=StreamState.FAILED,
        state_since_s=64.0,
        cause="10 attempts in a row have failed",
        uptime_s=0.0,
        tls_version=None,
        certificate_days=None,
        rtt_ms=RttSnapshot(),
        attempt=10,
        backoff_schedule_s=(),
        messages_per_s=0.0,
        last_message_age_s=364.0,
        success_rate=0.0,
        attempts_total=11,
        error_counts={"SSL_ERROR": 10},
        ssl_errors=10,
        failed_last_5min=10,
        last_error=error,
        history=history,
    )
    gave_up = Alert(
        "stream-failed", Severity.CRITICAL, "the stream has given up", "read the cause in the connection pane", NOW - 64
    )
    return engine_snapshot(stream=stream, alerts=(gave_up,))


def repairing_snapshot() -> EngineSnapshot:
    """Live again after an outage; what was missed meanwhile is being fetched."""
    gaps = (
        GapSnapshot(1_823_121_412, 1_823_122_731, "connection reset by peer", NOW - 14),
        GapSnapshot(1_823_122_990, 1_823_122_994, "late subscription", NOW - 4),
    )
    symbols = {
        "ETHUSDT": SymbolSnapshot(
            last_id=1_823_123_112,
            complete_through_id=1_823_121_411,
            stored=1_201_780,
            missing=1_325,
            repaired=212,
            gaps=2,
            gap_note="212 of 1,537 ids fetched after a reset",
            price="3512.31",
            trades_per_s=18.2,
            open_gaps=gaps,
            subscription="acknowledged",
        ),
        "BTCUSDT": SymbolSnapshot(
            last_id=3_201_998_001,
            complete_through_id=3_201_998_001,
            stored=4_201_780,
            price="96512.31",
            trades_per_s=41.7,
            subscription="acknowledged",
        ),
    }
    stream = stream_snapshot(
        state_since_s=3.0,
        uptime_s=3.0,
        repairing=True,
        repair_pending=1_325,
        symbols=symbols,
        rest_weight=412,
        consumer_lag_ms=84.0,
        loop_lag_ms=3.2,
    )
    return engine_snapshot(stream=stream)


def operator_paused_snapshot() -> EngineSnapshot:
    """Training paused by the operator while the market goes on."""
    training = training_snapshot(
        state=TrainingState.PAUSED, detail="paused by the operator", samples_per_s=None, epoch_eta_s=None
    )
    return engine_snapshot(training=training)


def overflow_storm_snapshot() -> EngineSnapshot:
    """A third of the steps overflow, the scale falls to its floor, the chart is full."""
    training = explained(
        scale=1.0,
        headroom_octaves=-1.2,
        overflow_rate=0.34,
        consecutive_overflow=9,
        overflow_count=1_204,
        resets=7,
        nonfinite_loss=3,
        growth_tracker=0,
        scale_growth_rate=-12.0,
    )
    counts = tuple(float((i * 7) % 13) if i > 60 else 0.0 for i in range(120))
    scale = tuple(max(1.0, 65_536.0 / 2 ** max(0, (i - 60) // 3)) for i in range(120))
    normal = engine_snapshot()
    many = {**normal.series, "overflows": series(1.0, *counts), "scale": series(1.0, *scale)}
    storm = (
        Alert("overflow-rate", Severity.CRITICAL, "34 % of the steps overflow", "lower the learning rate; R resets", NOW - 41),
        Alert("overflow-row", Severity.CRITICAL, "9 overflows in a row", "look at the first guilty layer", NOW - 9),
    )
    return engine_snapshot(training=training, series=many, alerts=storm)


def nothing_yet_snapshot() -> EngineSnapshot:
    """The engine has just begun: almost nothing is known."""
    return EngineSnapshot(time=NOW, name="live-spot", pid=4242)


STORIES: dict[str, Callable[[], EngineSnapshot]] = {
    "live": engine_snapshot,
    "backoff": backoff_snapshot,
    "banned": banned_snapshot,
    "failed": failed_snapshot,
    "repairing": repairing_snapshot,
    "training explained": explained_snapshot,
    "training paused by itself": paused_snapshot,
    "training paused": operator_paused_snapshot,
    "many ranks": many_ranks_snapshot,
    "overflow storm": overflow_storm_snapshot,
    "nothing yet": nothing_yet_snapshot,
}
"""The main states. Stale is any of them behind a link that is lost."""
