"""Frozen snapshot types, fixed-size series, alert rules, clocks: what any room may know. Imports nothing of ours."""

from .alerts import AlertBook, Thresholds
from .clock import SYSTEM_CLOCK, Clock, SystemClock
from .series import Series, SeriesSnapshot
from .snapshots import (
    SNAPSHOT_VERSION,
    Alert,
    EngineSnapshot,
    ErrorSnapshot,
    Mode,
    ReconnectSnapshot,
    RttSnapshot,
    Severity,
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
    "Clock",
    "EngineSnapshot",
    "ErrorSnapshot",
    "Mode",
    "ReconnectSnapshot",
    "RttSnapshot",
    "Series",
    "SeriesSnapshot",
    "Severity",
    "StoreSnapshot",
    "StreamSnapshot",
    "StreamState",
    "SymbolSnapshot",
    "SystemClock",
    "Thresholds",
    "TrainingSnapshot",
    "TrainingState",
]
