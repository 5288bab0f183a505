"""The lines above and below the panes, and what stands in their place when there is no engine or no room."""

from __future__ import annotations

import msgspec

from ...link.base import LinkState
from ...telemetry import Alert, Mode, Severity
from ..cells import Row, Span, fitted, row, spread, width_of, wrap
from ..format import (
    age,
    clean,
    count,
    date_and_time,
    decimal,
    duration,
    milliseconds,
    per_second,
    percent,
    quantity,
    wall_clock,
    zone,
)
from ..trial import trial_spans
from ..view import View
from .states import ALERT_SIGNS, stream_sign, training_sign

_SEVERITIES = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def draw_header(view: View, width: int, height: int) -> list[Row]:
    snapshot = view.snapshot
    groups: list[list[Span]] = [[("QuantAI", "title")], [(clean(view.name) or "no engine yet", "text")]]
    if snapshot is not None:
        groups += [_mode(snapshot.mode, snapshot.replay_progress, snapshot.finished)]
        groups += [[("up ", "muted"), (duration(snapshot.uptime_s), "text")], [("pid ", "muted"), (str(snapshot.pid), "text")]]
    clock: list[Span] = [(f"{wall_clock(view.now, seconds=False)} {zone(view.now)}", "muted")]
    if view.stale:
        clock = [(f"STALE {age(view.age_s)}", "alert-critical"), ("  ", "text"), *clock]
    return [spread(width, fitted(width - 20, *groups), clock)]


def _mode(mode: Mode, progress: float | None, finished: bool) -> list[Span]:
    if mode is Mode.LIVE:
        return [("live market", "text")]
    if mode is Mode.DEMO:
        return [("DEMO", "state-pending"), (" synthetic market", "muted")]
    if finished:
        return [("REPLAY", "state-pending"), (" finished", "muted")]
    return [("REPLAY", "state-pending"), (f" {percent(progress, 0)}" if progress is not None else "", "muted")]


def draw_alerts(view: View, width: int, height: int) -> list[Row]:
    """One line: trouble with the link first, else the worst alert and how many more. With room, all of them."""
    trouble = _link_trouble(view, width)
    alerts = [] if view.snapshot is None else sorted(view.snapshot.alerts, key=lambda alert: _SEVERITIES.index(alert.severity))
    if height > 1:
        rows = [trouble] if trouble else []
        for alert in alerts:
            rows += _full_alert(alert, width)
        if not rows:
            rows = [row((line, "muted")) for line in wrap("✓ no alerts; what stands is listed here, with its remedy", width, 2)]
        return rows[:height]
    if trouble is not None:
        return [trouble]
    if not alerts:
        return [row(("✓ no alerts", "muted"))]
    more: list[Span] = [(f"and {len(alerts) - 1} more", "muted")] if len(alerts) > 1 else []
    left = fitted(width - (12 if more else 0), _sign(alerts[0]), [(clean(alerts[0].remedy), "text")])
    return [spread(width, left, more)]


def _sign(alert: Alert) -> list[Span]:
    glyph, token = ALERT_SIGNS[alert.severity]
    return [(f"{glyph} {alert.severity.value.upper()}", token), ("  ", "text"), (clean(alert.text), "text")]


def _full_alert(alert: Alert, width: int) -> list[Row]:
    since: list[Span] = [("since ", "muted"), (date_and_time(alert.since), "text")]
    sign = _sign(alert)
    lines = wrap(clean(alert.text), width - width_of(sign[:-1]), 4)
    head = fitted(width, [*sign[:-1], (lines[0], "text")] if len(lines) > 1 else sign, since)
    return [
        head,
        *[row((f"  {line}", "text")) for line in lines[1:]],
        *[row((f"  {line}", "muted")) for line in wrap(clean(alert.remedy), width - 2, 2)],
    ]


def _link_trouble(view: View, width: int) -> Row | None:
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


def draw_status(view: View, width: int, height: int) -> list[Row]:
    """What the last key did; when no key has been pressed, the engine's own note, and in the demo the key to play with.

    Settings on trial come first: they will not wait.
    """
    trial = view.snapshot.trial if view.snapshot is not None else None
    if trial is not None:
        left = msgspec.structs.replace(trial, left_s=max(0.0, trial.left_s - (view.age_s or 0.0)))
        return [fitted(width, trial_spans(left, width, stale=view.stale), [(clean(view.status.text), view.status.token)])]
    if view.status.text:
        return [fitted(width, [(clean(view.status.text), view.status.token)])]
    note = view.snapshot.note if view.snapshot is not None else ""
    if view.snapshot is not None and view.snapshot.mode is Mode.DEMO:
        breaks: list[Span] = [("f", "key"), (" breaks something", "muted")]
        return [fitted(width, [(clean(note), "muted")], breaks)]
    return [fitted(width, [(clean(note), "muted")])] if note else [Row()]


def draw_notice(view: View, width: int, height: int) -> list[Row]:
    """Shown instead of the panes when the engine is not there: what happened, its last words, what to do."""
    refused = view.link is LinkState.REFUSED
    title = "The engine refused this dashboard" if refused else "The engine did not start, or has ended"
    remedy = [
        "Press q to leave. Then:",
        "  start it again with the same command; what it had stored is kept"
        if not refused
        else "  use the dashboard of the engine's own version, or stop the engine and start it with this one",
        "  or run it without a screen (--headless) to see its whole output",
    ]
    lines = [line for line in view.detail.splitlines() if line.strip()]
    room = max(1, height - len(remedy) - 4)
    rows = [fitted(width, [("✗ ", "state-failed"), (title, "value")]), Row()]
    rows += [fitted(width, [(clean(line), "text")]) for line in lines[-room:]] or [
        fitted(width, [("It gave no reason.", "muted")])
    ]
    return [*rows, Row(), *[fitted(width, [(line, "text")]) for line in remedy]][:height]


def draw_summary(view: View, width: int, height: int) -> list[Row]:
    """For a terminal too small for panes: the one line that matters."""
    trouble = _link_trouble(view, width)
    if view.snapshot is None or view.broken:
        return [trouble or Row()]
    stream, training = view.snapshot.stream, view.snapshot.training
    line = fitted(
        width,
        [stream_sign(stream.state)],
        [(f"STALE {age(view.age_s)}", "alert-critical")] if view.stale else [],
        [training_sign(training.state)],
        [(f"{len(view.snapshot.alerts)} alerts", "alert-warning")] if view.snapshot.alerts else [],
        [(milliseconds(stream.rtt_ms.last), "text"), (" ms", "muted")],
        [("loss ", "muted"), (decimal(training.loss, 3), "text")],
        [("scale ", "muted"), (quantity(training.scale), "text")],
        [(per_second(stream.messages_per_s), "text")],
        [("overflow ", "muted"), (percent(training.overflow_rate), "text")],
        [("missing ", "muted"), (count(sum(symbol.missing for symbol in stream.symbols.values())), "text")],
    )
    return [line, fitted(width, [("a larger window (60x20) shows the panes", "muted")])][:height]
