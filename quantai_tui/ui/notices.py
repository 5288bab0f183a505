"""Alerts reach the operator: a toast for each that is new, a bell where nobody looks, a key that says they were seen."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Literal

from ..link.messages import CommandName
from ..telemetry import Alert, Clock, EngineSnapshot, Severity
from .actions import Handler
from .bell import Bell
from .cells import clip
from .commands import Commands
from .format import clean
from .panes.alerts import by_weight
from .view import OverAlert

if TYPE_CHECKING:
    from .app import DashboardApp

_MOST_OVER = 50
_MOST_TOASTS = 2  # more at once are told in one
_RING_EVERY_S = 30.0
_TOAST_S = 8.0
_LOUD = frozenset({Severity.WARNING, Severity.CRITICAL})
_STYLES: dict[Severity, Literal["warning", "error"]] = {Severity.WARNING: "warning", Severity.CRITICAL: "error"}


class Notices:
    """What one dashboard has told of alerts. Information alone is never loud: it stands in the list."""

    def __init__(self, app: DashboardApp, commands: Commands, clock: Clock) -> None:
        self._app = app
        self._commands = commands
        self._bell = Bell(app.write_aside, clock, os.environ, least_s=_RING_EVERY_S)
        self._standing: dict[str, Alert] | None = None
        self._over: deque[OverAlert] = deque(maxlen=_MOST_OVER)
        self._looked_at: bool | None = None  # None: this terminal has not said whether anybody looks

    def handlers(self) -> dict[str, Handler]:
        return {"ack-alerts": self._acknowledge}

    @property
    def over(self) -> tuple[OverAlert, ...]:
        """The alerts that ended while this dashboard was there, the newest first."""
        return tuple(self._over)

    def focus(self, *, here: bool) -> None:
        """The terminal says that somebody looks at it, or at something else."""
        self._looked_at = here

    def hear(self, snapshot: EngineSnapshot) -> None:
        """Take in the present. What stood when this dashboard came is in the bar; it is no news."""
        now = {alert.key: alert for alert in snapshot.alerts}
        before, self._standing = self._standing, now
        if before is None:
            return
        self._over.extendleft(OverAlert(alert, snapshot.time) for key, alert in before.items() if key not in now)
        fresh = [alert for key, alert in now.items() if key not in before and alert.severity in _LOUD and not alert.acknowledged]
        if fresh:
            self._tell(by_weight(tuple(fresh)))
            self._ring(fresh)

    def _tell(self, fresh: list[Alert]) -> None:
        if len(fresh) > _MOST_TOASTS:
            self._toast(fresh[0], f"{len(fresh)} alerts at once; the worst: {clean(fresh[0].text)}")
            return
        for alert in fresh:
            self._toast(alert, f"{clean(alert.text)}\n{clean(alert.remedy)}")

    def _toast(self, alert: Alert, text: str) -> None:
        title = alert.severity.value
        self._app.notify(clip(text, 300), title=title, severity=_STYLES[alert.severity], timeout=_TOAST_S, markup=False)

    def _ring(self, fresh: list[Alert]) -> None:
        critical = any(alert.severity is Severity.CRITICAL for alert in fresh)
        wanted = self._looked_at is False or (self._looked_at is None and critical)
        if wanted:
            worst = by_weight(tuple(fresh))[0]
            self._bell.ring(f"QuantAI {worst.severity.value}", worst.text)

    def _acknowledge(self) -> None:
        if not any(not alert.acknowledged for alert in (self._standing or {}).values()):
            self._app.say("alerts: none stands that was not seen")
            return
        self._app.run_worker(self._commands.send(CommandName.ALERT_ACK, "acknowledge alerts", key=""), group="commands")
