"""Breaking something from the dashboard: the list, the filter, the answer; and the keys that steer the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from ui_support import FakeLink, dashboard, engine_snapshot, live, screen_text, until

from quantai_tui.link.messages import Ack, CommandName, FaultOffer
from quantai_tui.telemetry import Mode
from quantai_tui.ui.app import DashboardApp

OFFERS = (
    FaultOffer("close", "connections are closed with a close frame"),
    FaultOffer("reset", "half of a TLS record, then RST"),
    FaultOffer("latency", "everything arrives late [/oops] \x1b[31m"),
    *(FaultOffer(f"kind-{i}", f"text number {i} " + "that is rather long " * 8) for i in range(60)),
)


def demo() -> FakeLink:
    link = FakeLink(engine_snapshot(mode=Mode.DEMO, note="demo: synthetic market, seed 7"))
    link.answers[CommandName.FAULT_LIST] = Ack(1, True, data=msgspec.to_builtins(OFFERS))
    return link


def injected(link: FakeLink) -> list[dict[str, Any]]:
    return [args for name, args in link.commands if name is CommandName.FAULT]


async def opened(app: DashboardApp, pilot: Any) -> None:
    await pilot.press("f")
    await until(pilot, lambda: "break something" in screen_text(app) and "type to filter" in screen_text(app))


async def test_the_faults_are_listed_with_what_they_do_and_enter_plays_the_chosen_one() -> None:
    link = demo()
    link.answers[CommandName.FAULT] = Ack(1, True, "reset on 1 open connection")
    async with dashboard(link) as (app, pilot, _):
        await opened(app, pilot)
        text = screen_text(app)
        assert "connections are closed with a close frame" in text
        assert all(len(line) <= 80 for line in text.splitlines())
        await pilot.press("down", "enter")
        await until(pilot, lambda: "reset: done — reset on 1 open connection" in screen_text(app))
        assert injected(link) == [{"kind": "reset"}]
        assert app.screen is app.dashboard


async def test_it_is_said_at_once_that_a_fault_was_sent() -> None:
    link = demo()
    async with dashboard(link) as (app, pilot, _):
        await opened(app, pilot)
        link.hold = asyncio.Event()
        await pilot.press("enter")
        await until(pilot, lambda: "close: sent" in screen_text(app))
        link.hold.set()
        await until(pilot, lambda: "close: done" in screen_text(app))


async def test_typing_filters_by_name_and_by_what_happens() -> None:
    link = demo()
    async with dashboard(link) as (app, pilot, _):
        await opened(app, pilot)
        await pilot.press(*"rst tls")
        await until(pilot, lambda: "kind-1" not in screen_text(app) and "half of a TLS record" in screen_text(app))
        await pilot.press(*"zzz")
        await until(pilot, lambda: "no fault has all these words" in screen_text(app))
        await pilot.press("enter")  # there is nothing to play
        await pilot.press("backspace", "backspace", "backspace", "enter")
        await until(pilot, lambda: injected(link) == [{"kind": "reset"}])


async def test_a_fault_that_is_named_so_comes_before_those_that_only_mention_it() -> None:
    link = demo()
    link.answers[CommandName.FAULT_LIST] = Ack(
        1, True, data=[{"kind": "rest-limit", "text": "429, then a ban"}, {"kind": "ban", "text": "418 at once"}]
    )
    async with dashboard(link) as (app, pilot, _):
        await opened(app, pilot)
        await pilot.press(*"ban", "enter")
        await until(pilot, lambda: injected(link) == [{"kind": "ban"}])


async def test_the_list_scrolls_to_its_end_at_80x24() -> None:
    async with dashboard(demo()) as (app, pilot, _):
        await opened(app, pilot)
        await pilot.press("up")  # from the first to the last
        await until(pilot, lambda: "kind-59" in screen_text(app))
        await pilot.press("pageup")
        await until(pilot, lambda: "kind-59" not in screen_text(app))


async def test_escape_plays_nothing() -> None:
    link = demo()
    async with dashboard(link) as (app, pilot, _):
        await opened(app, pilot)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert injected(link) == []


async def test_text_of_a_fault_cannot_break_the_screen() -> None:
    async with dashboard(demo()) as (app, pilot, _):
        await opened(app, pilot)
        await pilot.press("down", "down")
        await until(pilot, lambda: screen_text(app).count("[/oops]") == 2)
        assert "\x1b" not in screen_text(app)


@pytest.mark.parametrize(
    "answer", [Ack(1, False, "faults are played by the embedded exchange only"), Ack(1, True, data="nonsense")]
)
async def test_where_nothing_can_be_broken_it_is_said_why(answer: Ack) -> None:
    link = live()
    link.answers[CommandName.FAULT_LIST] = answer
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("f")
        words = answer.message or "answer cannot be read"
        await until(pilot, lambda: f"break something: {words[:20]}" in screen_text(app) or words in screen_text(app))
        assert app.screen is app.dashboard


async def test_the_demo_tells_of_its_key_and_a_live_market_does_not() -> None:
    async with dashboard(demo(), size=(120, 40)) as (app, pilot, _):
        await until(pilot, lambda: "f breaks something" in screen_text(app))
        assert "f break it" in screen_text(app).splitlines()[-1]
    async with dashboard(live(), size=(120, 40)) as (app, _, _clock):
        assert "f break" not in screen_text(app)


@pytest.mark.parametrize(
    ("key", "command", "word"),
    [("o", CommandName.ROTATE, "fresh connection"), ("b", CommandName.RESET_BACKOFF, "reset backoff")],
)
async def test_a_key_for_the_connection_sends_its_command_and_shows_the_answer(key: str, command: CommandName, word: str) -> None:
    link = live()
    link.answers[command] = Ack(1, True, "as you wish")
    async with dashboard(link) as (app, pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: f"{word}: done — as you wish" in screen_text(app))
        assert link.sent == [command]
