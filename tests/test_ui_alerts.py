"""Alerts and the log as the operator meets them: told once, seen by a key, filtered without a part being taken for the whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ui_support import NOW, FakeLink, alert, dashboard, engine_snapshot, screen_text, until

from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import Alert, EngineSnapshot, Severity
from quantai_tui.ui.app import DashboardApp
from quantai_tui.ui.log_filter import MISSED, LogFilter, LogMemory, level_of


def with_alerts(*alerts: Alert, **changes: Any) -> EngineSnapshot:
    return engine_snapshot(alerts=alerts, **changes)


def toasts(app: DashboardApp) -> list[str]:
    return [toast.message for toast in app._notifications]


CALM, BAD = alert("the scale stands at its cap", Severity.INFO), alert("3 failed reconnects in 5 minutes", Severity.CRITICAL)


async def test_a_new_alert_is_told_once_in_a_toast_and_what_stood_before_is_no_news() -> None:
    link = FakeLink(with_alerts(alert("it stood already")))
    async with dashboard(link) as (app, pilot, _):
        app.tick()
        assert toasts(app) == []
        link.snapshot = with_alerts(alert("it stood already"), BAD, CALM)
        app.tick()
        app.tick()
        await until(pilot, lambda: len(toasts(app)) == 1)
        assert toasts(app)[0].startswith("3 failed reconnects")
        assert "■ CRITICAL  3 failed reconnects" in screen_text(app)  # and its bar is not covered


async def test_a_storm_of_alerts_is_one_toast() -> None:
    link = FakeLink(with_alerts())
    async with dashboard(link) as (app, pilot, _):
        app.tick()
        link.snapshot = with_alerts(*(alert(f"trouble {i}") for i in range(6)), BAD)
        app.tick()
        await until(pilot, lambda: bool(toasts(app)))
        assert toasts(app) == ["7 alerts at once; the worst: 3 failed reconnects in 5 minutes"]


@pytest.mark.parametrize(
    ("looks", "severity", "rings"),
    [
        (True, Severity.CRITICAL, 0),
        (False, Severity.WARNING, 1),
        (None, Severity.WARNING, 0),  # a terminal that has never told whether anybody looks
        (None, Severity.CRITICAL, 1),
    ],
)
async def test_the_bell_rings_where_nobody_looks(looks: bool | None, severity: Severity, rings: int) -> None:
    link = FakeLink(with_alerts())
    rung: list[str] = []
    async with dashboard(link) as (app, _, clock):
        app._notices._bell._write = rung.append
        app.tick()
        if looks is not None:
            app._notices.focus(here=looks)
        link.snapshot = with_alerts(alert("one", severity))
        app.tick()
        link.snapshot = with_alerts(alert("one", severity), alert("two", severity))
        app.tick()
        assert len(rung) == rings  # not twice within half a minute
        clock.advance(31)
        link.snapshot = with_alerts(alert("one", severity), alert("two", severity), alert("three", severity))
        app.tick()
        assert len(rung) == 2 * rings
        assert all(text.startswith("\a") for text in rung)


async def test_a_key_acknowledges_all_and_the_bar_becomes_quiet() -> None:
    link = FakeLink(with_alerts(BAD, CALM))

    def acknowledge(args: dict[str, Any]) -> Ack:
        assert args == {"key": ""}
        assert link.snapshot is not None
        seen = tuple(msgspec.structs.replace(item, acknowledged=True) for item in link.snapshot.alerts)
        link.snapshot = with_alerts(*seen)
        return Ack(1, True, "2 alerts acknowledged")

    link.answers[CommandName.ALERT_ACK] = acknowledge
    async with dashboard(link) as (app, pilot, _):
        assert "and 1 more  a seen" in screen_text(app)
        await pilot.press("a")
        await until(pilot, lambda: "✓ 2 alerts acknowledged" in screen_text(app))
        await pilot.press("a")
        await until(pilot, lambda: "none stands that was not seen" in screen_text(app))
        assert link.sent == [CommandName.ALERT_ACK]


async def test_the_list_has_time_cause_and_remedy_and_keeps_what_is_over() -> None:
    link = FakeLink(with_alerts(BAD, alert("the store is behind")))
    async with dashboard(link, (120, 40)) as (app, pilot, clock):
        app.tick()
        clock.advance(5)
        link.snapshot = with_alerts(BAD, time=NOW + 5)
        app.tick()
        app.dashboard.zoom("alerts")
        await until(pilot, lambda: "1 alert standing" in screen_text(app))
        text = screen_text(app)
        assert "■ CRITICAL" in text
        assert "since" in text
        assert "Raise GRAD_SCALER_MAX_SCALE" in text
        assert "over at" in text
        assert "the store is behind" in text


LINES = (
    "23:57:41 INFO stream: live",
    "23:57:43 WARN stream: pong timeout after 10 s",
    "23:57:44 FAIL alert: 3 failed reconnects",
    "23:59:02 INFO training: epoch 11 done",
)


@pytest.mark.parametrize(
    ("typed", "passes"),
    [
        ("stream", [0, 1]),
        ("STREAM timeout", [1]),
        ("!stream", [2, 3]),
        ("stream !timeout", [0]),
        ("/pong|epoch/", [1, 3]),
        ("!/pong|epoch/", [0, 2]),
        ("/[0-9]+ s$", [1]),
        (">=warning", [1, 2]),
        ("level:info training", [3]),
        ("", [0, 1, 2, 3]),
    ],
)
def test_a_filter_is_words_their_absence_a_pattern_or_a_level(typed: str, passes: list[int]) -> None:
    chosen = LogFilter.parse(typed)
    assert [i for i, line in enumerate(LINES) if chosen is None or chosen.matches(line)] == passes


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("/(/", "not a regular"),
        (">=loud", "no level"),
        ("!", "wants a word"),
        ("x" * 201, "at most"),
        ("/(a+)+$/", "repetition"),
    ],
)
def test_what_is_no_filter_is_refused_in_words(typed: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        LogFilter.parse(typed)


@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=10))
def test_any_text_is_a_filter_or_words_and_its_inverse_is_the_rest(typed: str, lines: list[str]) -> None:
    try:
        plain = LogFilter.parse(f"/{typed}/")
    except ValueError:
        return
    inverse = LogFilter.parse(f"!/{typed}/")
    assert plain is not None
    assert inverse is not None
    assert all(plain.matches(line) != inverse.matches(line) for line in lines)
    assert all(0 <= level_of(line) <= 4 for line in lines)


@given(st.lists(st.integers(0, 3).map(str), max_size=80), st.lists(st.integers(1, 6), max_size=30))
def test_lines_that_come_in_overlapping_ends_are_kept_once(lines: list[str], steps: list[int]) -> None:
    numbered = [f"{i} {line}" for i, line in enumerate(lines)]
    memory, end = LogMemory(), 0
    for step in steps:
        end += step
        memory.take(tuple(numbered[max(0, min(end, len(numbered)) - 8) : min(end, len(numbered))]))
    assert list(memory.lines) == numbered[: min(end, len(numbered))]


def test_lines_that_were_too_fast_leave_a_mark() -> None:
    memory = LogMemory()
    memory.take(("1", "2"))
    memory.take(("7", "8"))
    assert memory.lines == ("1", "2", MISSED, "7", "8")


async def test_the_log_is_filtered_while_one_types_and_says_so() -> None:
    link = FakeLink(engine_snapshot(log=LINES))
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("slash")
        await pilot.press(*"epoch")
        await until(pilot, lambda: "[epoch] 1 of 4" in screen_text(app))
        assert "pong timeout after" not in screen_text(app)
        assert link.sent == []  # its letters are no keys of the dashboard
        await pilot.press("enter")
        await until(pilot, lambda: not app.dashboard.filtering)
        app.dashboard.zoom("log")
        await until(pilot, lambda: "[epoch] 1 of 4" in screen_text(app))
        await pilot.press("slash", "escape")
        await until(pilot, lambda: "pong timeout after" in screen_text(app))
        assert "of 4" not in screen_text(app)


async def test_a_broken_pattern_leaves_the_last_good_one_and_says_why() -> None:
    async with dashboard(FakeLink(engine_snapshot(log=LINES))) as (app, pilot, _):
        await pilot.press("slash", *"/epoch", "left_parenthesis", "enter")
        await until(pilot, lambda: "filter: not a regular expression" in screen_text(app))
        assert "[/epoch] 1 of 4" in screen_text(app)
