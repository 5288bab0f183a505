"""Frozen snapshot types, fixed-size series, alert rules, clocks: what any room may know. Imports nothing of ours."""

from .alerts import AlertBook, Thresholds
from .clock import SYSTEM_CLOCK, Clock, SystemClock
from .series import Series, SeriesSnapshot
from .snapshots import (
    SNAPSHOT_VERSION,
    Alert,
    BadFrame,
    EngineSnapshot,
    ErrorSnapshot,
    GapSnapshot,
    Mode,
    ReconnectSnapshot,
    RecordingSnapshot,
    RttSnapshot,
    Severity,
    StateChangeSnapshot,
    StoreSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingSnapshot,
    TrainingState,
)

__all__ = [
    "SNAPSHOT_VERSION",
    "SYSTEM_CLOCK",
    "Alert",
    "AlertBook",
    "BadFrame",
    "Clock",
    "EngineSnapshot",
    "ErrorSnapshot",
    "GapSnapshot",
    "Mode",
    "ReconnectSnapshot",
    "RecordingSnapshot",
    "RttSnapshot",
    "Series",
    "SeriesSnapshot",
    "Severity",
    "StateChangeSnapshot",
    "StoreSnapshot",
    "StreamSnapshot",
    "StreamState",
    "SymbolSnapshot",
    "SystemClock",
    "Thresholds",
    "TrainingSnapshot",
    "TrainingState",
]
