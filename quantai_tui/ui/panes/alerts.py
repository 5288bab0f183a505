"""What is wrong: in one line the worst that nobody has seen yet, zoomed all of it with time, cause and remedy."""

from __future__ import annotations

from ...telemetry import Alert, Severity
from ..cells import Row, Span, fitted, heading, row, spread, width_of, wrap
from ..format import clean, date_and_time, duration, lasting, wall_clock
from ..view import OverAlert, View
from .states import ALERT_SIGNS, link_trouble

_SEVERITIES = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def by_weight(alerts: tuple[Alert, ...]) -> list[Alert]:
    """Those that nobody has seen first, the most severe of them at the top."""
    return sorted(alerts, key=lambda alert: (alert.acknowledged, _SEVERITIES.index(alert.severity), alert.since))


def draw_alerts(view: View, width: int, height: int) -> list[Row]:
    trouble = link_trouble(view, width)
    if trouble is not None:
        return [trouble]
    alerts = by_weight(view.snapshot.alerts) if view.snapshot is not None else []
    if not alerts:
        return [row(("✓ no alerts", "muted"))]
    unseen = [alert for alert in alerts if not alert.acknowledged]
    if not unseen:
        return [fitted(width, [(f"✓ {_many(len(alerts))} acknowledged", "muted")], [(clean(alerts[0].text), "muted")])]
    keys: list[Span] = [("a", "key"), (" seen", "muted")]
    more: list[Span] = [(f"and {len(unseen) - 1} more  ", "muted"), *keys] if len(unseen) > 1 else keys
    left = fitted(width - width_of(more) - 2, _sign(unseen[0]), [(clean(unseen[0].remedy), "text")])
    return [spread(width, left, more)]


def alerts_page(view: View, width: int, height: int) -> list[Row]:
    """All that stand, and those that are over."""
    trouble = link_trouble(view, width)
    rows = [trouble, Row()] if trouble is not None else []
    standing = by_weight(view.snapshot.alerts) if view.snapshot is not None else []
    rows.append(heading(f"{_many(len(standing))} standing" if standing else "no alerts"))
    for alert in standing:
        rows += _full(alert, view.now, width)
    if view.over:
        rows += [Row(), heading("over, as far as this dashboard has seen them")]
        rows += [_ended(item, width) for item in view.over]
    return rows


def _many(alerts: int) -> str:
    return "1 alert" if alerts == 1 else f"{alerts} alerts"


def _sign(alert: Alert) -> list[Span]:
    glyph, token = ALERT_SIGNS[alert.severity]
    return [(f"{glyph} {alert.severity.value.upper()}", token), ("  ", "text"), (clean(alert.text), "text")]


def _full(alert: Alert, now: float, width: int) -> list[Row]:
    glyph, token = ALERT_SIGNS[alert.severity]
    seen: list[Span] = [("✓ seen", "muted")] if alert.acknowledged else []
    return [
        fitted(
            width,
            [(f"{glyph} {alert.severity.value.upper()}", "muted" if alert.acknowledged else token)],
            [("since ", "muted"), (date_and_time(alert.since), "text")],
            [(lasting(max(0.0, now - alert.since)), "text"), (" ago", "muted")],
            seen,
        ),
        *[row((f"  {line}", "text")) for line in wrap(clean(alert.text), width - 2, 4)],
        *[row((f"  {line}", "muted")) for line in wrap(clean(alert.remedy), width - 2, 3)],
    ]


def _ended(item: OverAlert, width: int) -> Row:
    glyph, _ = ALERT_SIGNS[item.alert.severity]
    return fitted(
        width,
        [(f"{glyph} over at {wall_clock(item.ended)}", "muted")],
        [(f"after {duration(max(0.0, item.ended - item.alert.since))}", "muted")],
        [(clean(item.alert.text), "text")],
    )
