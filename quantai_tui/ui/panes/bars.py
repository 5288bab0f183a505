"""The lines above and below the panes, and what stands in their place when there is no engine or no room."""

from __future__ import annotations

import msgspec

from ...link.base import LinkState
from ...telemetry import Mode
from ..cells import Row, Span, fitted, spread, width_of
from ..format import (
    age,
    clean,
    count,
    decimal,
    duration,
    lasting,
    milliseconds,
    per_second,
    percent,
    quantity,
    wall_clock,
    zone,
)
from ..trial import trial_spans
from ..view import View
from .states import link_trouble, stream_sign, training_sign


def draw_header(view: View, width: int, height: int) -> list[Row]:
    snapshot = view.snapshot
    groups: list[list[Span]] = [[("QuantAI", "title")], [(clean(view.name) or "no engine yet", "text")]]
    if snapshot is not None:
        groups += [_mode(snapshot.mode, snapshot.replay_progress, snapshot.finished)]
        groups += [[("up ", "muted"), (lasting(snapshot.uptime_s), "text")], [("pid ", "muted"), (str(snapshot.pid), "text")]]
    clock: list[Span] = [(f"{wall_clock(view.clock, seconds=False)} {zone(view.clock)}", "muted")]
    if view.stale:
        clock = [(f"STALE {age(view.age_s)}", "alert-critical"), ("  ", "text"), *clock]
    for words in reversed(when_shown(view)):
        clock = [*words, ("  ", "text"), *clock]
    return [spread(width, fitted(width - width_of(clock) - 2, *groups), clock)]


def when_shown(view: View) -> list[list[Span]]:
    """In words, that something else than the present is shown, and which stretch of time the charts show."""
    past = view.past
    if past is None:
        return []
    said: list[list[Span]] = []
    if past.cursor is not None:
        told = past.moment is not None and past.cursor - past.moment >= 1.5
        as_of = f" as of {wall_clock(past.moment)}" if told and past.moment is not None else ""
        ago = " …" if past.waiting else f" {duration(past.ago_s)} ago"
        said.append([(f"PAST {wall_clock(past.cursor)}", "past"), (f"{as_of}{ago}", "text")])
    if past.frozen_s is not None:
        changes = f", {past.changes} change{'s' if past.changes != 1 else ''} since" if past.changes else ""
        said.append([(f"FROZEN {duration(past.frozen_s)}", "frozen"), (changes, "text")])
    if past.span:
        said.append([("charts ", "muted"), (past.span, "text")])
    return said


def _mode(mode: Mode, progress: float | None, finished: bool) -> list[Span]:
    if mode is Mode.LIVE:
        return [("live market", "text")]
    if mode is Mode.DEMO:
        return [("DEMO", "state-pending"), (" synthetic market", "muted")]
    if finished:
        return [("REPLAY", "state-pending"), (" finished", "muted")]
    return [("REPLAY", "state-pending"), (f" {percent(progress, 0)}" if progress is not None else "", "muted")]


def draw_status(view: View, width: int, height: int) -> list[Row]:
    """What the last key did and whether the line is slow; else the engine's own note, and in the demo the key to play with.

    Settings on trial come first: they will not wait.
    """
    said: list[Span] = [(clean(view.status.text), view.status.token)] if view.status.text else []
    slow: list[Span] = [(f"◆ {view.line}", "state-backoff")] if view.line else []
    trial = view.snapshot.trial if view.snapshot is not None else None
    if trial is not None:
        left = msgspec.structs.replace(trial, left_s=max(0.0, trial.left_s - (view.age_s or 0.0)))
        return [fitted(width, trial_spans(left, width, stale=view.stale), said, slow)]
    if said or slow:
        return [fitted(width, said, slow) if said else fitted(width, slow)]
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
    trouble = link_trouble(view, width)
    if view.snapshot is None or view.broken:
        return [trouble or Row()]
    stream, training = view.snapshot.stream, view.snapshot.training
    line = fitted(
        width,
        [stream_sign(stream.state)],
        [(f"STALE {age(view.age_s)}", "alert-critical")] if view.stale else [],
        *when_shown(view),
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
