"""The panes: functions from a view and a size to rows. None of them holds state or computes anything but words.

Each has two faces: `draw` gives the essentials in exactly the room there is, `page` everything, in as many rows as that takes.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ..cells import Row
from ..view import View
from .alerts import alerts_page, draw_alerts
from .backoff import backoff_page, draw_backoff
from .bars import draw_header, draw_notice, draw_status, draw_summary
from .connection import connection_page, draw_connection
from .heartbeat import draw_heartbeat, heartbeat_page
from .history import draw_reconnects, reconnects_page
from .log import draw_log, log_mark, log_page
from .market import draw_market, market_page
from .overflow import draw_overflow, overflow_page
from .scale import draw_scale, scale_page
from .training import draw_training, training_page

Draw = Callable[[View, int, int], list[Row]]


def _no_mark(view: View) -> str:
    return ""


class PaneSpec(Struct, frozen=True):
    """A pane's id, its title (none: a bare line without frame or focus) and how it is drawn.

    `page` is shown zoomed or scrolled, through a window of `height` rows; without one there is nothing more to show. `tail`: its
    newest rows are the last, and it rests at its end. `mark` is what the title adds about the view.
    """

    id: str
    title: str
    draw: Draw
    page: Draw | None = None
    tail: bool = False
    focusable: bool = True
    mark: Callable[[View], str] = _no_mark


PANES: tuple[PaneSpec, ...] = (
    PaneSpec("header", "", draw_header, focusable=False),
    PaneSpec("alerts", "", draw_alerts, alerts_page),
    PaneSpec("connection", "connection", draw_connection, connection_page),
    PaneSpec("heartbeat", "heartbeat", draw_heartbeat, heartbeat_page),
    PaneSpec("backoff", "backoff", draw_backoff, backoff_page),
    PaneSpec("market", "market", draw_market, market_page),
    PaneSpec("training", "training", draw_training, training_page),
    PaneSpec("scale", "gradient scale", draw_scale, scale_page),
    PaneSpec("overflow", "overflow", draw_overflow, overflow_page),
    PaneSpec("reconnects", "reconnects", draw_reconnects, reconnects_page),
    PaneSpec("log", "log", draw_log, log_page, tail=True, mark=log_mark),
    PaneSpec("notice", "engine", draw_notice, focusable=False),
    PaneSpec("summary", "", draw_summary, focusable=False),
    PaneSpec("status", "", draw_status, focusable=False),
)

__all__ = ["PANES", "Draw", "PaneSpec"]
