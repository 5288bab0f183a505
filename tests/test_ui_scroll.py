"""Panes that hold more than they can show: their pages are scrolled, zoomed or in place."""

from __future__ import annotations

from msgspec.structs import replace
from textual.events import Click, MouseScrollDown, MouseScrollUp
from ui_stories import failed_snapshot, repairing_snapshot
from ui_support import FakeLink, dashboard, engine_snapshot, screen_text, until

from quantai_tui.link.messages import CommandName
from quantai_tui.ui.board import Board
from quantai_tui.ui.cells import Row
from quantai_tui.ui.view import View


async def test_a_zoomed_page_is_scrolled_by_rows_and_pages_and_says_where_it_stands() -> None:
    async with dashboard(FakeLink(failed_snapshot())) as (app, pilot, _):
        app.dashboard.go_to("backoff")
        await pilot.press("z")
        await until(pilot, lambda: "backoff 1-18 of " in screen_text(app))
        first = app.dashboard.pane("backoff").rows[0].text
        await pilot.press("down")
        await until(pilot, lambda: "backoff 2-19 of " in screen_text(app))
        assert first not in screen_text(app)
        await pilot.press("pagedown", "pagedown")  # no further than to the end
        await until(pilot, lambda: "the last 10" in screen_text(app) and "link lasted" in screen_text(app))
        await pilot.press("pageup", "pageup")
        await until(pilot, lambda: "backoff 1-18 of " in screen_text(app) and first in screen_text(app))


async def test_resizing_keeps_the_place_in_a_page_and_leaving_the_zoom_gives_the_essentials_back() -> None:
    async with dashboard(FakeLink(failed_snapshot())) as (app, pilot, _):
        app.dashboard.go_to("backoff")
        await pilot.press("z", "down", "down")
        await until(pilot, lambda: "backoff 3-20 of " in screen_text(app))
        await pilot.resize_terminal(120, 50)
        await until(pilot, lambda: "backoff" in screen_text(app) and " of " not in screen_text(app).splitlines()[2])
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "backoff 3-20 of " in screen_text(app))
        await pilot.press("z")
        await until(pilot, lambda: "heartbeat" in screen_text(app) and "backoff 3" not in screen_text(app))
        assert app.dashboard.pane("backoff").rows[0].text.startswith("retries used up")


async def test_a_small_pane_is_scrolled_in_place_and_shows_the_essentials_again_when_it_is_left() -> None:
    async with dashboard(FakeLink(repairing_snapshot())) as (app, pilot, _):
        pane = app.dashboard.pane("market")
        app.dashboard.go_to("market")
        essentials = [line.text for line in pane.rows]
        await pilot.press("down", "down", "down")
        await until(pilot, lambda: "market 4-" in screen_text(app))
        assert [line.text for line in pane.rows] != essentials
        await pilot.press("tab")
        await until(pilot, lambda: "market 4-" not in screen_text(app))
        assert [line.text for line in pane.rows] == essentials


async def test_a_log_rests_at_its_end_and_is_scrolled_back_into_the_past() -> None:
    lines = tuple(f"12:00:{i:02d} line {i}" for i in range(40))
    async with dashboard(FakeLink(engine_snapshot(log=lines))) as (app, pilot, _):
        app.dashboard.go_to("log")
        await until(pilot, lambda: "line 39" in screen_text(app))
        await pilot.press("up")
        await until(pilot, lambda: "line 39" not in screen_text(app) and "line 38" in screen_text(app))
        assert "of 40" in screen_text(app)
        await pilot.press("down")
        await until(pilot, lambda: "line 39" in screen_text(app) and "of 40" not in screen_text(app))


async def test_without_a_pane_to_scroll_the_keys_say_so() -> None:
    async with dashboard(FakeLink(engine_snapshot())) as (app, pilot, _):
        await pilot.press("down")
        await until(pilot, lambda: "scroll: choose a pane first" in screen_text(app))


async def test_with_a_mouse_a_click_focuses_a_pane_and_the_wheel_scrolls_the_one_under_it() -> None:
    lines = tuple(f"12:00:{i:02d} line {i}" for i in range(40))
    async with dashboard(FakeLink(engine_snapshot(log=lines))) as (app, pilot, _):
        await until(pilot, lambda: "line 39" in screen_text(app))
        market, log = (app.dashboard.pane(name).region for name in ("market", "log"))
        await pilot.click(offset=(market.x + 3, market.y + 1))
        await until(pilot, lambda: app.dashboard.focused_pane == "market")
        wheel = {"widget": None, "x": log.x + 3, "y": log.y + 1, "delta_x": 0, "delta_y": 0, "button": 0}
        modifiers = {"shift": False, "meta": False, "ctrl": False}
        app.dashboard._board.post_message(MouseScrollUp(**wheel, **modifiers))
        await until(pilot, lambda: app.dashboard.focused_pane == "log" and "line 39" not in screen_text(app))
        app.dashboard._board.post_message(MouseScrollDown(**wheel, **modifiers))
        await until(pilot, lambda: "line 39" in screen_text(app))
        await pilot.click(offset=(3, 0))  # the header is nothing that could be focused
        await pilot.pause()
        assert app.dashboard.focused_pane == "log"


async def test_a_click_counts_only_where_it_was_pressed() -> None:
    link = FakeLink(engine_snapshot())
    async with dashboard(link) as (app, pilot, _):
        await until(pilot, lambda: "connection" in screen_text(app))
        released = Click(None, 5, 23, 0, 0, 1, shift=False, meta=False, ctrl=False)  # Textual tells the widget, here the screen
        await pilot.mouse_down(offset=(5, 4))
        app.dashboard._board.post_message(released)
        await pilot.pause()
        assert (link.sent, app.dashboard.focused_pane) == ([], "")
        await pilot.mouse_down(offset=(5, 23))
        app.dashboard._board.post_message(released)
        await until(pilot, lambda: link.sent == [CommandName.RECONNECT])


async def test_a_pane_that_lost_its_room_gets_no_keys_until_it_has_room_again() -> None:
    async with dashboard(FakeLink(failed_snapshot()), size=(120, 40)) as (app, pilot, _):
        app.dashboard.go_to("reconnects")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.dashboard.focused_pane == "")
        await pilot.press("down")
        await until(pilot, lambda: "scroll: choose a pane first" in screen_text(app))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: app.dashboard.focused_pane == "reconnects")


async def test_a_page_that_fails_under_the_wheel_is_told_and_takes_nothing_with_it() -> None:
    def broken(view: View, width: int, height: int) -> list[Row]:
        raise ZeroDivisionError("no way")

    async with dashboard(FakeLink(engine_snapshot())) as (app, pilot, _):
        log = app.dashboard.pane("log")
        log.spec = replace(log.spec, page=broken)
        app.dashboard._board.post_message(Board.PanePressed("log", -1))
        await until(pilot, lambda: "An error: drawing the pane 'log' failed" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard)
