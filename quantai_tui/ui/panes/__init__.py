"""The panes: functions from a view and a size to rows. None of them holds state or computes anything but words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..cells import Row
from ..view import View
from .backoff import draw_backoff
from .bars import draw_alerts, draw_header, draw_notice, draw_status, draw_summary
from .connection import draw_connection
from .heartbeat import draw_heartbeat
from .history import draw_log, draw_reconnects
from .market import draw_market
from .overflow import draw_overflow
from .scale import draw_scale
from .training import draw_training

Draw = Callable[[View, int, int], list[Row]]


@dataclass(frozen=True, slots=True)
class PaneSpec:
    """A pane's id, its title (none: a bare line without frame or focus) and how it is drawn."""

    id: str
    title: str
    draw: Draw
    focusable: bool = True


PANES: tuple[PaneSpec, ...] = (
    PaneSpec("header", "", draw_header, focusable=False),
    PaneSpec("alerts", "", draw_alerts),
    PaneSpec("connection", "connection", draw_connection),
    PaneSpec("heartbeat", "heartbeat", draw_heartbeat),
    PaneSpec("backoff", "backoff", draw_backoff),
    PaneSpec("market", "market", draw_market),
    PaneSpec("training", "training", draw_training),
    PaneSpec("scale", "gradient scale", draw_scale),
    PaneSpec("overflow", "overflow", draw_overflow),
    PaneSpec("reconnects", "reconnects", draw_reconnects),
    PaneSpec("log", "log", draw_log),
    PaneSpec("notice", "engine", draw_notice, focusable=False),
    PaneSpec("summary", "", draw_summary, focusable=False),
    PaneSpec("status", "", draw_status, focusable=False),
)

__all__ = ["PANES", "Draw", "PaneSpec"]
