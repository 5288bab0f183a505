"""Pictures of every screen, compared with those that were looked at and found right (pytest --snapshot-update makes new ones)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot
from ui_stories import banned_snapshot
from ui_support import FakeLink, FrozenClock, alert, backoff_snapshot, engine_snapshot, screen_text, until

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import Mode, Severity
from quantai_tui.ui.app import DashboardApp

Compare = Callable[..., bool]
FAILED = "reading settings\nlistening on 127.0.0.1:9443\nerror: [Errno 98] address already in use\nexit code 1"


def _name(value: object) -> str:
    return "x".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def dashboard(link: FakeLink, theme: str = "harbor") -> DashboardApp:
    return DashboardApp(link, clock=FrozenClock(), theme=theme)


def shows(
    *words: str, keys: tuple[str, ...] = (), then: tuple[str, ...] = (), until_then: Callable[[str], bool] = bool
) -> Callable[[Pilot[object]], object]:
    """Press keys, then wait until all the words are on the screen; `then` press others, and wait for what they do to its text."""

    async def run(pilot: Pilot[object]) -> None:
        await until(pilot, lambda: bool(screen_text(pilot.app).strip()))
        await pilot.press(*keys)
        await until(pilot, lambda: all(word in screen_text(pilot.app) for word in words))
        await pilot.press(*then)
        await until(pilot, lambda: until_then(screen_text(pilot.app)))
        await pilot.pause()

    return run


@pytest.mark.parametrize(
    ("size", "theme"), [((80, 24), "harbor"), ((120, 40), "harbor"), ((200, 50), "beacon"), ((50, 15), "chalk")], ids=_name
)
def test_a_live_market_and_a_healthy_training(snap_compare: Compare, size: tuple[int, int], theme: str) -> None:
    assert snap_compare(dashboard(FakeLink(engine_snapshot()), theme), terminal_size=size, run_before=shows("LIVE", "TRAINING"))


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "harbor"), ((120, 40), "chalk")], ids=_name)
def test_a_backoff_with_cause_and_advice(snap_compare: Compare, size: tuple[int, int], theme: str) -> None:
    app = dashboard(FakeLink(backoff_snapshot()), theme)
    assert snap_compare(app, terminal_size=size, run_before=shows("attempt 3 of 10", "refused"))


def test_a_lost_link_over_old_numbers(snap_compare: Compare) -> None:
    link = FakeLink(engine_snapshot(), LinkState.LOST, "the engine closed the connection", snapshot_age_s=12.3)
    assert snap_compare(dashboard(link), terminal_size=(120, 40), run_before=shows("STALE 12 s"))


def test_an_engine_that_did_not_start(snap_compare: Compare) -> None:
    link = FakeLink(None, LinkState.FAILED, FAILED, snapshot_age_s=None)
    assert snap_compare(dashboard(link), terminal_size=(80, 24), run_before=shows("address already in use", "Press q"))


def test_all_alerts_zoomed(snap_compare: Compare) -> None:
    alerts = (alert(), alert("Inf in the loss", Severity.CRITICAL), alert("a new version", Severity.INFO))
    app = dashboard(FakeLink(engine_snapshot(alerts=alerts)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("INFO", "WARNING", keys=("tab", "z")))


def test_the_faults_to_choose_from(snap_compare: Compare) -> None:
    link = FakeLink(engine_snapshot(mode=Mode.DEMO, note="demo: synthetic market, seed 7"))
    offers = [{"kind": f"kind-{i}", "text": f"what happens in case {i}, and for how long"} for i in range(40)]
    link.answers[CommandName.FAULT_LIST] = Ack(1, True, data=offers)
    # The text of the chosen one stands below the list, too.
    run = shows(
        *("what happens in case 9", "type to filter"),
        keys=("f",),
        then=("down", "down"),
        until_then=lambda text: text.count("what happens in case 2,") == 2,
    )
    assert snap_compare(dashboard(link), terminal_size=(80, 24), run_before=run)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_a_ban_with_its_countdown(snap_compare: Compare, size: tuple[int, int]) -> None:
    link = FakeLink(banned_snapshot())
    assert snap_compare(dashboard(link), terminal_size=size, run_before=shows("BANNED  for 4m 05s"))


def test_the_connection_zoomed(snap_compare: Compare) -> None:
    link = FakeLink(banned_snapshot())
    app = dashboard(link)
    assert snap_compare(
        app, terminal_size=(80, 24), run_before=shows("state changes", "not understood", keys=("tab", "tab", "z"))
    )


def test_the_settings_editor(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    run = shows(
        "WS_PING_INTERVAL",
        keys=("c",),
        then=("down", "down"),
        until_then=lambda text: "What reconnect max retries is for" in text,
    )
    assert snap_compare(app, terminal_size=(80, 24), run_before=run)


def test_the_question_before_leaving(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("leave it running", keys=("q",)))


def test_the_help_page(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("Reconnect now", keys=("question_mark",)))
