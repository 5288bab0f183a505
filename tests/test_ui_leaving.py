"""Leaving the dashboard: who is asked, who is stopped, and what a hang-up may do."""

from __future__ import annotations

import pytest
from ui_support import FakeLink, dashboard, engine_snapshot, live, screen_text, until

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import Mode


async def test_quitting_asks_and_cancel_stays() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("q")
        await until(pilot, lambda: "leave it running" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert app.return_value is None
        assert link.sent == []


@pytest.mark.parametrize(("key", "outcome", "sent"), [("l", "detach", []), ("s", "stop", [CommandName.STOP])])
async def test_quitting_leaves_the_engine_running_or_stops_it(key: str, outcome: str, sent: list[CommandName]) -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("q")
        await until(pilot, lambda: "leave it running" in screen_text(app))
        await pilot.press(key)
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value == outcome
    assert link.sent == sent
    assert link.closed


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_in_demo_and_replay_plain_quit_stops_the_engine(key: str) -> None:
    link = live()
    async with dashboard(link, stop_on_quit=True) as (app, pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value == "stop"
    assert link.sent == [CommandName.STOP]


async def test_ctrl_c_detaches_without_asking_from_any_screen() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("c")
        await until(pilot, lambda: "WS_PING_INTERVAL" in screen_text(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value == "detach"
    assert CommandName.STOP not in link.sent


async def test_a_hang_up_is_a_detach_even_where_quitting_would_stop() -> None:
    link = live()
    async with dashboard(link, stop_on_quit=True) as (app, pilot, _):
        app.hang_up("hang-up")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value == "detach"
    assert link.sent == []


@pytest.mark.parametrize("mode", [Mode.DEMO, Mode.REPLAY])
async def test_the_engines_own_mode_says_whether_quitting_stops_it(mode: Mode) -> None:
    link = FakeLink(engine_snapshot(mode=mode))
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("q")
        await until(pilot, lambda: app.return_value == "stop")


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_an_engine_that_is_still_starting_is_stopped_once_it_is_there(key: str) -> None:
    link = FakeLink(None, LinkState.STARTING, snapshot_age_s=None)
    async with dashboard(link, stop_on_quit=True) as (app, pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: "stopping the engine" in screen_text(app))
        assert link.sent == []
        link.state = LinkState.ATTACHED
        await until(pilot, lambda: app.return_value == "stop")
    assert link.sent == [CommandName.STOP]


async def test_a_second_ctrl_c_does_not_wait_for_the_engine() -> None:
    link = FakeLink(None, LinkState.STARTING, snapshot_age_s=None)
    async with dashboard(link, stop_on_quit=True) as (app, pilot, _):
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: app.return_value == "detach")


async def test_an_engine_with_nothing_to_look_at_ends_the_dashboard_by_itself() -> None:
    link = FakeLink(None, LinkState.STARTING, snapshot_age_s=None)
    async with dashboard(link) as (app, pilot, _):
        link.state, link.exit_code, link.detail = LinkState.FAILED, 2, "WS_PING_INTERVAL must be > 0"
        app.tick()
        await until(pilot, lambda: app.return_value == "detach")


async def test_an_engine_that_does_not_stop_keeps_the_dashboard_and_says_why() -> None:
    link = live()
    link.answers[CommandName.STOP] = Ack(1, False, "the store is still being written")
    async with dashboard(link, stop_on_quit=True) as (app, pilot, _):
        await pilot.press("q")
        await until(pilot, lambda: "stop: not done — the store is still being written" in screen_text(app))
        assert app.return_value is None
