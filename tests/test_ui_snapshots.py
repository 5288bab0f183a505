"""Pictures of every screen, compared with those that were looked at and found right (pytest --snapshot-update makes new ones)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from test_ui_timeline import remembering
from textual.pilot import Pilot
from textual.widgets import Input
from ui_stories import STORIES, banned_snapshot
from ui_support import FakeLink, FrozenClock, alert, engine_snapshot, screen_text, until

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName, SettingChange, SettingsPreview
from quantai_tui.telemetry import Mode, Severity
from quantai_tui.ui.app import DashboardApp

Compare = Callable[..., bool]
FAILED = "reading settings\nlistening on 127.0.0.1:9443\nerror: [Errno 98] address already in use\nexit code 1"


def _name(value: object) -> str:
    return "x".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def dashboard(link: FakeLink, theme: str = "harbor") -> DashboardApp:
    return DashboardApp(link, clock=FrozenClock(), theme=theme)


async def at_rest(pilot: Pilot[object]) -> None:
    """The screen has come to what it will be: an engine that is down gets another layout once it is seen to be."""
    app = pilot.app
    assert isinstance(app, DashboardApp)
    for entry in app.screen.query(Input):
        entry.cursor_blink = False
    same, before = 0, ""
    while same < 3:
        app.tick()
        if app.screen is app.dashboard:
            app.dashboard.show(app._timeline.shown(app.view()))  # the clock stands still: no row's time comes by itself
        await pilot.pause(0.05)
        text = screen_text(app)
        same, before = (same + 1 if text == before else 0), text


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
        await at_rest(pilot)

    return run


_MAIN = ("live", "backoff", "failed", "repairing", "training paused", "overflow storm", "stale")
_SIZES = ((60, 20), (80, 24), (120, 40), (200, 50))
_THEMES = ("harbor", "chalk", "beacon", "amber", "heron")


@pytest.mark.parametrize("size", _SIZES, ids=_name)
@pytest.mark.parametrize("story", _MAIN)
def test_the_main_states_at_every_layout(snap_compare: Compare, story: str, size: tuple[int, int]) -> None:
    """The themes take turns, so that each is seen with several states."""
    if story == "stale":
        link = FakeLink(engine_snapshot(), LinkState.LOST, "the engine closed the connection", snapshot_age_s=12.3)
        told = "STALE 12 s"
    else:
        link, told = FakeLink(STORIES[story]()), {"failed": "✗ FAILED", "backoff": "◆ BACKOFF"}.get(story, "q quit")
    theme = _THEMES[(_MAIN.index(story) + _SIZES.index(size)) % len(_THEMES)]
    assert snap_compare(dashboard(link, theme), terminal_size=size, run_before=shows(told))


def test_a_terminal_too_small_for_panes(snap_compare: Compare) -> None:
    assert snap_compare(dashboard(FakeLink(engine_snapshot())), terminal_size=(50, 15), run_before=shows("LIVE", "TRAINING"))


def test_an_engine_that_did_not_start(snap_compare: Compare) -> None:
    link = FakeLink(None, LinkState.FAILED, FAILED, snapshot_age_s=None)
    assert snap_compare(dashboard(link), terminal_size=(80, 24), run_before=shows("address already in use", "Press q"))


def test_all_alerts_zoomed(snap_compare: Compare) -> None:
    alerts = (alert(), alert("Inf in the loss", Severity.CRITICAL), alert("a new version", Severity.INFO))
    app = dashboard(FakeLink(engine_snapshot(alerts=alerts)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("3 alerts standing", "a new version", keys=("0",)))


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
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("1 connection 1-", keys=("1", "z")))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_the_settings_editor_with_an_error(snap_compare: Compare, size: tuple[int, int]) -> None:
    link = FakeLink(engine_snapshot())
    name = link.form.fields[0].name
    run = shows(name, keys=("c",), then=("enter", "ctrl+u", "minus", "1"), until_then=lambda text: "1 wrong" in text)
    assert snap_compare(dashboard(link), terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_what_a_save_would_change(snap_compare: Compare, size: tuple[int, int]) -> None:
    link = FakeLink(engine_snapshot())
    changes = (
        SettingChange("WS_PING_INTERVAL", "30.0", "25.0", "stream reconnects"),
        SettingChange("LOG_LEVEL", "INFO", "DEBUG", "live now"),
    )
    diff = ("  # ours", "- WS_PING_INTERVAL = 30.0", "+ WS_PING_INTERVAL = 25.0", '+ LOG_LEVEL = "DEBUG"')
    link.answers[CommandName.SETTINGS_PREVIEW] = Ack(1, True, data=msgspec.to_builtins(SettingsPreview((), changes, diff, True)))
    name = link.form.fields[0].name
    run = shows(name, keys=("c",), then=("enter", "1", "enter", "w"), until_then=lambda text: "WS_PING_INTERVAL = 25.0" in text)
    assert snap_compare(dashboard(link), terminal_size=size, run_before=run)


def test_the_question_before_leaving(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("leave it running", keys=("q",)))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_the_help_page(snap_compare: Compare, size: tuple[int, int]) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=size, run_before=shows("Reconnect now", keys=("question_mark",)))


def test_the_palette(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("type to filter", "fresh link", keys=("colon",)))


def test_the_themes_to_choose_from(snap_compare: Compare) -> None:
    app = dashboard(FakeLink(engine_snapshot()))
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("an old phosphor", keys=("t",)))


def test_the_time_cursor_on_an_outage(snap_compare: Compare) -> None:
    link, _ = remembering()
    run = shows("LIVE", keys=("minus", "minus", "g"), then=(*"-29m58s", "enter"), until_then=lambda text: "◆ BACKOFF" in text)
    assert snap_compare(dashboard(link), terminal_size=(120, 40), run_before=run)
