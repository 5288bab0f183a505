"""The dashboard's own errors: told with what to do, kept without secrets, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from ui_support import dashboard, live, screen_text, until

from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.ui.cells import Row
from quantai_tui.ui.view import View


def broken(view: View, width: int, height: int) -> list[Row]:
    password = "hunter2"
    raise ZeroDivisionError(f"no [/way] {len(password)}")


async def test_a_pane_that_cannot_be_drawn_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    report = tmp_path / "reports" / "dashboard.log"
    async with dashboard(live(), crash_log=report) as (app, pilot, clock):
        market = app.dashboard.pane("market")
        market.spec = replace(market.spec, draw=broken)
        clock.advance(2)
        app.tick()
        await until(pilot, lambda: "An error: drawing the pane 'market' failed" in screen_text(app))
        text = screen_text(app)
        assert "ZeroDivisionError: no [/way] 7" in text
        assert "The engine was not touched" in text
        await pilot.press("enter")
        await until(pilot, lambda: "✗ cannot be drawn: ZeroDivisionError" in screen_text(app))
        assert "● LIVE" in screen_text(app)
        for _ in range(3):  # it fails with every paint, and is told once
            clock.advance(2)
            app.tick()
            await pilot.pause()
        assert app.screen is app.dashboard
        kept = report.read_text()
        assert kept.count("ZeroDivisionError: no [/way] 7") == 1
        assert "hunter2'" not in kept.replace('password = "hunter2"', "")
        assert report.stat().st_mode & 0o777 == 0o600


async def test_a_key_that_fails_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    link = live()
    async with dashboard(link, crash_log=tmp_path / "log") as (app, pilot, _):

        def fail() -> None:
            raise LookupError("nothing there")

        app._handlers["rotate"] = fail
        await pilot.press("o")
        await until(pilot, lambda: "LookupError: nothing there" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.press("r")
        await until(pilot, lambda: link.sent == [CommandName.RECONNECT])


async def test_a_command_whose_answer_breaks_the_dashboard_does_not_end_it(tmp_path: Path) -> None:
    link = live()

    def explode(args: dict[str, object]) -> Ack:
        raise OSError("the sky fell")

    link.answers[CommandName.RECONNECT] = explode
    async with dashboard(link, crash_log=tmp_path / "log") as (app, pilot, _):
        await pilot.press("r")
        await until(pilot, lambda: "OSError: the sky fell" in screen_text(app))
        assert "quantai-tui attach" in screen_text(app)
        await pilot.press("l")
        await until(pilot, lambda: app.return_value == "detach")


def test_reports_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantai_tui.ui import crash

    report = tmp_path / "reports" / "log"
    monkeypatch.setattr(crash, "_LARGEST_BYTES", 500)
    for _ in range(20):
        crash.keep_report(ValueError("x" * 200), report)
    sizes = [path.stat().st_size for path in report.parent.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 1_000
