"""What the actions would do now: what those with two meanings are called, and why others have nothing to act on.

The engine has the last word: a key that is pressed all the same is sent, and its answer is shown.
"""

from __future__ import annotations

from ..link.base import LinkState
from ..telemetry import Mode, StreamState, TrainingState
from .actions import Action
from .view import View

_CONNECTED = (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING)
_WORKER_UP = (TrainingState.WAITING, TrainingState.TRAINING, TrainingState.PAUSED)
_WITHOUT_ENGINE = ("quit", "interrupt")


def hindrance(item: Action, view: View) -> str:
    """Why an action would come to nothing now; empty when it would not, or when only the engine can tell."""
    if item.commands and view.link is not LinkState.ATTACHED and item.id not in _WITHOUT_ENGINE:
        return f"no engine attached ({view.link.value})"
    snapshot = view.snapshot
    if snapshot is None:
        return ""
    if item.id == "break" and snapshot.mode is Mode.LIVE:
        return "there is nothing to break in a live market: demo and replay only"
    if item.id == "rotate" and snapshot.stream.state not in _CONNECTED:
        return "the stream is not connected"
    if item.id == "reset-scaler" and snapshot.training.scale is None:
        return "there is no scale yet"
    if item.id == "checkpoint" and snapshot.training.state not in _WORKER_UP:
        return "no training worker is up"
    return ""


def labels_now(view: View) -> dict[str, str]:
    """What the keys with two meanings would do now; empty for one that would do nothing."""
    if view.snapshot is None:
        return {"keep-settings": "", "undo-trial": ""}
    return {
        **({"break": ""} if view.snapshot.mode is Mode.LIVE else {}),
        **({"keep-settings": "", "undo-trial": ""} if view.snapshot.trial is None else {}),
        "toggle-stream": "connect" if view.stream_is_off else "disconnect",
        "toggle-training": "pause" if view.training_is_on else "train",
    }
