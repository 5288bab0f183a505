"""States as a shape, a word and a colour, so that none of the three is needed alone."""

from __future__ import annotations

from ...link.base import LinkState
from ...telemetry import Severity, StreamState, TrainingState
from ..cells import Row, Span, fitted, row
from ..format import UNKNOWN, age, clean, duration, words
from ..view import View

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


def link_trouble(view: View, width: int) -> Row | None:
    """Why what is shown may be old, or is not there: one line, None where all is well."""
    detail: list[Span] = [(clean(view.detail.splitlines()[-1]), "muted")] if view.detail.strip() else []
    waited = duration(view.waited_s)
    if view.link is LinkState.STARTING:
        return fitted(width, [("◌ starting engine … ", "state-pending"), (waited, "text")], detail)
    if view.link is LinkState.LOST:
        return fitted(width, [("◆ engine link lost, trying again", "state-backoff")], detail)
    if view.link is LinkState.REFUSED:
        return fitted(width, [("✗ the engine refused this dashboard", "state-failed")], detail)
    if view.link is LinkState.FAILED:
        return fitted(width, [("✗ no engine", "state-failed")], detail)
    if view.link is LinkState.CLOSED:
        return row(("■ detached", "state-idle"))
    if view.snapshot is None:
        return fitted(width, [("◌ attached, waiting for the first snapshot … ", "state-pending"), (waited, "text")])
    if view.stale:
        return fitted(
            width,
            [(f"◆ the engine has sent nothing for {age(view.age_s)}", "state-backoff")],
            [("old numbers are greyed", "muted")],
        )
    return None
