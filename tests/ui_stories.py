"""More snapshots that tell a story."""

from __future__ import annotations

from ui_support import NOW, engine_snapshot, stream_snapshot

from quantai_tui.telemetry import (
    Alert,
    BadFrame,
    EngineSnapshot,
    RttSnapshot,
    Severity,
    StateChangeSnapshot,
    StreamState,
    SymbolSnapshot,
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
