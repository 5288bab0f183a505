"""The time cursor: one moment for all panes, asked of the engine, never taken for the present."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from ui_support import NOW, FakeLink, FrozenClock, dashboard, engine_snapshot, live, screen_text, stream_snapshot, until

from quantai_tui.engine.chronicle import Chronicle
from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import StreamState, TrialSnapshot
from quantai_tui.ui.app import DashboardApp
from quantai_tui.ui.timeline import SPANS_S
from quantai_tui.ui.when import parse_moment

OUTAGE = NOW - 1_800.0


def remembering() -> tuple[FakeLink, Chronicle]:
    """An hour of the engine's real memory behind a link: live but for ten seconds half an hour ago."""
    chronicle = Chronicle(lambda when: (f"a line of {time.strftime('%H:%M', time.localtime(when))}",))
    healthy = engine_snapshot(alerts=())
    broken = stream_snapshot(state=StreamState.BACKOFF, cause="connection reset", attempt=2)
    for second in range(-3_600, 1):
        out = OUTAGE <= NOW + second < OUTAGE + 10
        snapshot = msgspec.structs.replace(healthy, time=NOW + second, **({"stream": broken} if out else {}))
        chronicle.record(snapshot, {"rtt_ms": None if out else 20.0, "overflows": 0.0})
    link = live()

    def moment(args: dict[str, Any]) -> Ack:
        found = chronicle.moment(args["at"])
        return Ack(1, True, data=msgspec.to_builtins(found)) if found else Ack(1, False, "the engine remembers nothing so old")

    def history(args: dict[str, Any]) -> Ack:
        until = NOW if args["until"] is None else args["until"]
        window = chronicle.window(args["names"], args["span_s"], args["points"], until)
        return Ack(1, True, data=msgspec.to_builtins(window))

    link.answers = {CommandName.MOMENT: moment, CommandName.HISTORY: history}
    return link, chronicle


@dataclass
class Looking:
    app: DashboardApp
    pilot: Pilot[Any]
    link: FakeLink
    clock: FrozenClock


@asynccontextmanager
async def looking_back(size: tuple[int, int] = (120, 40)) -> AsyncIterator[Looking]:
    link, _ = remembering()
    async with dashboard(link, size) as (app, pilot, clock):
        yield Looking(app, pilot, link, clock)


async def shows(pilot: Pilot[Any], *wanted: str) -> str:
    await until(pilot, lambda: all(text in screen_text(pilot.app) for text in wanted))
    return screen_text(pilot.app)


def clock_of(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))


async def test_every_pane_shows_the_moment_under_the_cursor_and_the_header_says_it_is_past() -> None:
    async with looking_back() as look:
        await look.pilot.press("g")
        await shows(look.pilot, "go to a time")
        await look.pilot.press(*f"{clock_of(OUTAGE + 5)}", "enter")
        text = await shows(look.pilot, f"PAST {clock_of(OUTAGE + 5)}", "◆ BACKOFF", f"as of {clock_of(OUTAGE)} 30m 00s ago")
        assert f"{clock_of(OUTAGE)} stream: backoff" in text  # what happened near the cursor
        assert f"a line of {clock_of(OUTAGE)[:5]}" in text
        assert "● LIVE" not in text
        await look.pilot.press("home")
        text = await shows(look.pilot, "● LIVE")
        assert "PAST" not in text


async def test_the_arrows_move_the_cursor_and_esc_leads_back() -> None:
    async with looking_back() as look:
        await look.pilot.press("left")
        await shows(look.pilot, f"PAST {clock_of(NOW)}")
        await look.pilot.press("left")
        await shows(look.pilot, f"PAST {clock_of(NOW - 1)}")
        await look.pilot.press("shift+left")
        await shows(look.pilot, f"PAST {clock_of(NOW - 13)}")
        await look.pilot.press("right")
        await shows(look.pilot, f"PAST {clock_of(NOW - 12)}")
        await look.pilot.press("escape")
        await until(look.pilot, lambda: "PAST" not in screen_text(look.app))
        await look.pilot.press("right")
        await shows(look.pilot, "this is the present")


async def test_a_held_key_asks_for_where_it_came_to_and_not_for_each_step() -> None:
    async with looking_back() as look:
        look.link.hold = asyncio.Event()
        await look.pilot.press(*["left"] * 30)
        await shows(look.pilot, "…")
        asked = [name for name in look.link.sent if name is CommandName.MOMENT]
        assert len(asked) == 1
        look.link.hold.set()
        await shows(look.pilot, f"PAST {clock_of(NOW - 29)}")
        assert len([name for name in look.link.sent if name is CommandName.MOMENT]) <= 3


async def test_longer_charts_follow_the_present_and_say_their_span() -> None:
    async with looking_back() as look:
        await look.pilot.press("minus", "minus")
        text = await shows(look.pilot, "charts 1 h")
        assert "● LIVE" in text
        assert look.link.commands[-1][1]["span_s"] == 3_600.0
        asked = len(look.link.commands)
        look.clock.advance(1)
        look.app.tick()
        await look.pilot.pause()
        assert len(look.link.commands) == asked  # no new point can have come yet
        look.clock.advance(30)
        look.app.tick()
        await until(look.pilot, lambda: len(look.link.commands) > asked)
        await look.pilot.press(*["minus"] * len(SPANS_S))
        await shows(look.pilot, "72 h is the longest span")
        await look.pilot.press(*["plus"] * len(SPANS_S))
        await until(look.pilot, lambda: "charts 1 h" not in screen_text(look.app) and "shortest span" in screen_text(look.app))


async def test_the_memory_begins_somewhere_and_that_is_said() -> None:
    async with looking_back() as look:
        await look.pilot.press("left")
        await shows(look.pilot, "PAST")
        await look.pilot.press("g")
        await shows(look.pilot, "the engine's memory begins at")
        await look.pilot.press(*"-3h", "enter")
        await shows(look.pilot, "memory begins at", f"PAST {clock_of(NOW - 3_600)}")


async def test_a_moment_that_cannot_be_had_leaves_the_screen_as_it_was_and_says_why() -> None:
    async with looking_back() as look:
        look.link.answers[CommandName.MOMENT] = Ack(1, False, "no engine attached (lost)")
        await look.pilot.press("left")
        text = await shows(look.pilot, "time: no engine attached (lost)")
        assert "PAST" not in text


async def test_a_key_that_acts_leads_back_to_the_present_first() -> None:
    async with looking_back() as look:
        await look.pilot.press("shift+left")
        await shows(look.pilot, "PAST")
        await look.pilot.press("r")
        await until(look.pilot, lambda: CommandName.RECONNECT in look.link.sent and "PAST" not in screen_text(look.app))


async def test_a_frozen_screen_stands_still_says_so_and_counts_what_it_does_not_show() -> None:
    async with looking_back() as look:
        await look.pilot.press("p")
        await shows(look.pilot, "FROZEN 0 s")
        look.link.snapshot = engine_snapshot(stream=stream_snapshot(state=StreamState.BACKOFF))
        look.clock.advance(7)
        look.app.tick()
        text = await shows(look.pilot, "FROZEN 7 s", "1 change since")
        assert "● LIVE" in text
        await look.pilot.press("r")  # keys go on acting
        await shows(look.pilot, "reconnect: done")
        await look.pilot.press("p")
        text = await shows(look.pilot, "◆ BACKOFF")
        assert "FROZEN" not in text


async def test_settings_on_trial_are_of_the_present_whatever_is_looked_at() -> None:
    async with looking_back() as look:
        await look.pilot.press("left")
        await shows(look.pilot, "PAST")
        assert look.link.snapshot is not None
        look.link.snapshot = msgspec.structs.replace(look.link.snapshot, trial=TrialSnapshot(3, 21.0, ("WS_PING_INTERVAL",)))
        look.app.tick()
        await shows(look.pilot, "PAST", "settings on trial", "21 s left")
        await look.pilot.press("home", "p")
        await shows(look.pilot, "FROZEN", "21 s left")
        look.link.snapshot = msgspec.structs.replace(look.link.snapshot, trial=None)
        look.app.tick()
        await until(look.pilot, lambda: "settings on trial" not in screen_text(look.app))


async def test_a_small_terminal_says_past_and_frozen_too() -> None:
    async with looking_back((50, 12)) as look:
        await look.pilot.press("left")
        await shows(look.pilot, "PAST")
        await look.pilot.press("home", "p")
        await shows(look.pilot, "FROZEN")


async def test_a_lost_engine_is_said_over_the_past() -> None:
    async with looking_back() as look:
        await look.pilot.press("left")
        await shows(look.pilot, "PAST")
        look.link.state = LinkState.LOST
        look.app.tick()
        await shows(look.pilot, "PAST", "engine link lost")


def local(*parts: int) -> float:
    return time.mktime((*parts, *(0,) * (6 - len(parts)), 0, 0, -1))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("03:12", local(2025, 6, 15, 3, 12)),
        ("3:12:30", local(2025, 6, 15, 3, 12, 30)),
        ("23:50", local(2025, 6, 14, 23, 50)),  # not over yet today
        ("yesterday 3:12", local(2025, 6, 14, 3, 12)),
        ("2025-06-01 12:00", local(2025, 6, 1, 12, 0)),
        ("2025-06-01T12:00:01", local(2025, 6, 1, 12, 0, 1)),
        ("-90m", local(2025, 6, 15, 10, 30)),
        (" -1h 30m ", local(2025, 6, 15, 10, 30)),
        ("-1.5h", local(2025, 6, 15, 10, 30)),
    ],
)
def test_a_time_is_taken_as_people_type_it(typed: str, meant: float) -> None:
    assert parse_moment(typed, local(2025, 6, 15, 12, 0)) == meant


@pytest.mark.parametrize(
    ("typed", "word"),
    [("3", "write"), ("25:00", "hours go to 23"), ("2099-01-01 00:00", "still to come"), ("2025-02-30 03:12", "no such day")],
)
def test_a_time_that_is_none_is_refused_in_words(typed: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_moment(typed, local(2025, 6, 15, 12, 0))


@given(st.text(max_size=30))
def test_whatever_is_typed_is_a_moment_of_the_past_or_words(typed: str) -> None:
    try:
        meant = parse_moment(typed, NOW)
    except ValueError as error:
        meant, said = NOW, str(error)
    else:
        said = "a moment"
    assert meant <= NOW
    assert said
