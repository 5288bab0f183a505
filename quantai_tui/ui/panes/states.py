"""States as a shape, a word and a colour, so that none of the three is needed alone."""

from __future__ import annotations

from ...telemetry import Severity, StreamState, TrainingState
from ..cells import Span
from ..format import UNKNOWN, words

STREAM_SIGNS: dict[StreamState, tuple[str, str]] = {
    StreamState.IDLE: ("○", "state-idle"),
    StreamState.CONNECTING: ("◌", "state-pending"),
    StreamState.HANDSHAKING: ("◔", "state-pending"),
    StreamState.SUBSCRIBING: ("◑", "state-pending"),
    StreamState.LIVE: ("●", "state-live"),
    StreamState.STALLED: ("◍", "state-backoff"),
    StreamState.ROTATING: ("◕", "state-pending"),
    StreamState.BACKOFF: ("◆", "state-backoff"),
    StreamState.COOLING_DOWN: ("◇", "state-backoff"),
    StreamState.FAILED: ("✗", "state-failed"),
    StreamState.STOPPED: ("■", "state-idle"),
}

TRAINING_SIGNS: dict[TrainingState, tuple[str, str]] = {
    TrainingState.IDLE: ("○", "state-idle"),
    TrainingState.STARTING: ("◌", "state-pending"),
    TrainingState.WAITING: ("◔", "state-pending"),
    TrainingState.TRAINING: ("▶", "state-live"),
    TrainingState.PAUSED: ("‖", "state-idle"),
    TrainingState.RESTARTING: ("◆", "state-backoff"),
    TrainingState.FAILED: ("✗", "state-failed"),
    TrainingState.STOPPED: ("■", "state-idle"),
}

ALERT_SIGNS: dict[Severity, tuple[str, str]] = {
    Severity.INFO: ("○", "alert-info"),
    Severity.WARNING: ("▲", "alert-warning"),
    Severity.CRITICAL: ("■", "alert-critical"),
}

NOT_KNOWN: Span = (UNKNOWN, "muted")


def stream_sign(state: StreamState) -> Span:
    glyph, token = STREAM_SIGNS[state]
    return f"{glyph} {words(state.value).upper()}", token


def training_sign(state: TrainingState) -> Span:
    glyph, token = TRAINING_SIGNS[state]
    return f"{glyph} {words(state.value).upper()}", token
