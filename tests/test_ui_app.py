"""The operator's story under Pilot: keys send commands, the answer is seen, stale is said, leaving asks."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from rich.cells import cell_len
from ui_support import (
    FakeLink,
    alert,
    backoff_snapshot,
    dashboard,
    engine_snapshot,
    live,
    screen_text,
    stream_snapshot,
    training_snapshot,
    until,
)

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import Severity, StreamState, TrainingState


async def test_the_essentials_of_every_pane_are_on_an_80x24_screen() -> None:
    async with dashboard(FakeLink(backoff_snapshot())) as (app, _, _clock):
        text = screen_text(app)
        for essential in (
            "◆ BACKOFF",
            "attempt 3 of 10",
            "next in 2 s",
            "Check the network",
            "missing 132",
            "▶ TRAINING",
            "loss 0.6812",
            "65,536",
            "66 % of cap 100,000",
            "0.4 % of steps",
            "■ CRITICAL  3 failed reconnects in 5 minutes",
            "and 1 more",
            "? help",
            "q quit",
            "scaler: overflow",
        ):
            assert essential in text, f"{essential!r} is not in\n{text}"
        assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("key", "command", "word"),
    [
        ("r", CommandName.RECONNECT, "reconnect"),
        ("d", CommandName.DISCONNECT, "disconnect"),
        ("space", CommandName.TRAIN_PAUSE, "pause training"),
    ],
)
async def test_a_key_sends_its_command_and_shows_sent_then_done(key: str, command: CommandName, word: str) -> None:
    link = live()
    link.hold = asyncio.Event()
    link.answers[command] = Ack(1, True, "as you wish")
    async with dashboard(link) as (app, pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: f"{word}: sent" in screen_text(app))
        link.hold.set()
        await until(pilot, lambda: f"{word}: done — as you wish" in screen_text(app))
        assert link.sent == [command]


async def test_what_was_done_a_while_ago_is_not_said_for_ever() -> None:
    async with dashboard(live()) as (app, pilot, clock):
        await pilot.press("r")
        await until(pilot, lambda: "reconnect: done" in screen_text(app))
        clock.advance(11)
        app.tick()
        await until(pilot, lambda: "reconnect: done" not in screen_text(app))


async def test_a_command_the_engine_refuses_says_why() -> None:
    link = live()
    link.answers[CommandName.RECONNECT] = Ack(1, False, "banned until 12:40, no dial before")
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("r")
        await until(pilot, lambda: "reconnect: not done — banned until 12:40" in screen_text(app))


async def test_the_same_command_is_not_sent_again_while_its_answer_is_awaited() -> None:
    link = live()
    link.hold = asyncio.Event()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("r", "r", "r")
        await until(pilot, lambda: "still waiting" in screen_text(app))
        assert link.sent == [CommandName.RECONNECT]
        link.hold.set()


async def test_keys_with_two_meanings_do_what_the_key_line_says() -> None:
    link = FakeLink(
        engine_snapshot(stream=stream_snapshot(state=StreamState.STOPPED), training=training_snapshot(state=TrainingState.PAUSED))
    )
    async with dashboard(link) as (app, pilot, _):
        assert "d connect" in screen_text(app)
        assert "space train" in screen_text(app)
        await pilot.press("d", "space")
        await until(pilot, lambda: len(link.commands) == 2)
        assert link.sent == [CommandName.CONNECT, CommandName.TRAIN_START]


async def test_resetting_the_scale_names_what_will_happen_and_asks() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("R")
        await until(pilot, lambda: "clamp(init/2, floor, cap)" in screen_text(app))
        assert "scale now 65,536" in screen_text(app)
        await pilot.press("enter")  # the preferred answer changes nothing
        await until(pilot, lambda: app.screen is app.dashboard)
        assert link.sent == []
        await pilot.press("R")
        await until(pilot, lambda: "clamp(init/2" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: link.sent == [CommandName.SCALER_RESET])
        await until(pilot, lambda: "reset scale: done" in screen_text(app))


async def test_a_checkpoint_is_asked_for_by_its_key() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("s")
        await until(pilot, lambda: link.sent == [CommandName.CHECKPOINT])
        await until(pilot, lambda: "save checkpoint: done" in screen_text(app))


async def test_old_numbers_are_said_to_be_stale_and_greyed() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, clock):
        assert "STALE" not in screen_text(app)
        link.snapshot_age_s = 12.3
        clock.advance(1)
        app.tick()
        await until(pilot, lambda: "STALE 12 s" in screen_text(app))
        assert "the engine has sent nothing for 12 s" in screen_text(app)
        tokens = {token for row in app.dashboard.pane("connection").rows for text, token in row.spans if text.strip()}
        assert tokens <= {"stale", "muted"}


async def test_a_lost_link_is_said_and_ends_when_the_engine_is_back() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, clock):
        link.state, link.snapshot_age_s, link.detail = LinkState.LOST, 4.0, "the engine closed the connection"
        app.tick()
        await until(pilot, lambda: "engine link lost, trying again" in screen_text(app))
        assert "the engine closed the connection" in screen_text(app)
        link.state, link.snapshot_age_s = LinkState.ATTACHED, 0.1
        clock.advance(1)
        app.tick()
        await until(pilot, lambda: "no alerts" in screen_text(app))
        assert "STALE" not in screen_text(app)


async def test_while_the_engine_starts_the_seconds_are_counted_and_nothing_is_zero() -> None:
    link = FakeLink(None, LinkState.STARTING, engine_name="", snapshot_age_s=None)
    async with dashboard(link) as (app, pilot, clock):
        clock.advance(3)
        app.tick()
        await until(pilot, lambda: "starting engine … 3 s" in screen_text(app))
        for pane in ("connection", "heartbeat", "training", "scale", "overflow"):
            assert app.dashboard.pane(pane).rows[0].text == "–"  # noqa: RUF001
        link.snapshot, link.state, link.snapshot_age_s = engine_snapshot(), LinkState.ATTACHED, 0.1
        app.tick()
        await until(pilot, lambda: "● LIVE" in screen_text(app))


async def test_an_engine_that_failed_shows_its_last_words_and_what_to_do() -> None:
    detail = "reading settings\nerror: port 9443 is in use [/bold]\nexit code 2"
    link = FakeLink(None, LinkState.FAILED, detail, snapshot_age_s=None)
    async with dashboard(link) as (app, pilot, _):
        await until(pilot, lambda: "port 9443 is in use [/bold]" in screen_text(app))
        await until(pilot, lambda: "start it again with the same command" in screen_text(app))
        await pilot.press("q")
        await until(pilot, lambda: app.return_value == "detach")


async def test_an_engine_of_another_version_is_named_as_such() -> None:
    link = FakeLink(None, LinkState.REFUSED, "engine speaks version 2, this dashboard 1", snapshot_age_s=None)
    async with dashboard(link) as (app, pilot, _):
        await until(pilot, lambda: "engine speaks version 2" in screen_text(app))
        await until(pilot, lambda: "The engine refused this dashboard" in screen_text(app))


async def test_a_change_of_state_reaches_the_screen_before_the_next_second() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        link.snapshot = backoff_snapshot()
        app.tick()  # the clock has not moved
        await until(pilot, lambda: "◆ BACKOFF" in screen_text(app))


async def test_numbers_alone_wait_for_the_next_second() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, clock):
        link.snapshot = engine_snapshot(training=training_snapshot(loss=0.1234))
        app.tick()
        await pilot.pause()
        assert "0.6812" in screen_text(app)
        clock.advance(1)
        app.tick()
        await until(pilot, lambda: "0.1234" in screen_text(app))


async def test_text_from_outside_cannot_break_the_screen() -> None:
    nasty = "BTC [/oops] \x1b[31mred\x07 \u202egnp\u200b 币安"
    link = FakeLink(engine_snapshot(note=nasty, log=(nasty,), alerts=(alert(nasty),)))
    async with dashboard(link) as (app, pilot, _):
        text = screen_text(app)
        assert "[/oops]" in text
        assert "币安" in text
        assert not set("\x1b\x07\u202e\u200b") & set(text)
        link.answers[CommandName.RECONNECT] = Ack(1, False, nasty)
        await pilot.press("r")
        await until(pilot, lambda: "not done — BTC [/oops]" in screen_text(app))


async def test_a_focused_pane_takes_the_whole_screen_and_gives_it_back() -> None:
    async with dashboard(live()) as (app, pilot, _):
        await pilot.press("z")
        await until(pilot, lambda: "choose a pane first" in screen_text(app))
        await pilot.press("tab", "tab", "z")
        await until(pilot, lambda: "connection" in screen_text(app) and "heartbeat" not in screen_text(app))
        assert "TLS_AES_256_GCM_SHA384" in screen_text(app)
        await pilot.press("tab")  # the zoom moves along
        await until(pilot, lambda: "heartbeat" in screen_text(app) and "connection" not in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "connection" in screen_text(app) and "heartbeat" in screen_text(app))


async def test_all_alerts_are_read_with_their_remedies_by_zooming_their_line() -> None:
    link = FakeLink(engine_snapshot(alerts=(alert(), alert("loss is NaN", Severity.CRITICAL))))
    async with dashboard(link) as (app, pilot, _):
        assert "■ CRITICAL  loss is NaN" in screen_text(app)
        await pilot.press("tab", "z")
        await until(pilot, lambda: "2 alerts standing" in screen_text(app))
        assert "the scale stands at its cap" in screen_text(app)
        assert "Raise GRAD_SCALER_MAX_SCALE" in screen_text(app)


async def test_below_60x20_one_line_says_the_most_important() -> None:
    async with dashboard(live(), size=(50, 15)) as (app, pilot, _):
        await until(pilot, lambda: "● LIVE" in screen_text(app))
        assert screen_text(app).splitlines()[0].startswith(" ● LIVE  ▶ TRAINING  24 ms")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "connection" in screen_text(app))


@pytest.mark.parametrize("size", [(60, 20), (79, 23), (80, 24), (116, 36), (120, 40), (176, 44), (200, 50), (300, 90)])
async def test_at_every_size_all_panes_are_there_and_no_row_is_wider_than_its_pane(size: tuple[int, int]) -> None:
    async with dashboard(FakeLink(backoff_snapshot()), size=size) as (app, pilot, _):
        await until(pilot, lambda: "attempt" in screen_text(app))
        for name in ("connection", "heartbeat", "backoff", "market", "training", "scale", "overflow", "log"):
            pane = app.dashboard.pane(name)
            assert pane.size.height >= 2, name
            assert all(len(row.text) <= pane.size.width for row in pane.rows), name
        assert "missing 132" in screen_text(app)


async def test_the_dashboards_keys_do_nothing_on_other_screens() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("question_mark")
        await until(pilot, lambda: "Reconnect now" in screen_text(app))
        await pilot.press("r", "d", "space", "c")
        assert link.sent == []
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)


async def test_the_key_line_can_be_clicked() -> None:
    link = live()
    async with dashboard(link) as (_, pilot, _clock):
        await pilot.click(offset=(4, 23))
        await until(pilot, lambda: link.sent == [CommandName.RECONNECT])


async def test_themes_follow_one_another_and_no_color_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(live()) as (app, pilot, _):
        seen = [app.theme]
        for _ in range(9):
            await pilot.press("T")
            await pilot.pause()
            seen.append(app.theme)
        assert seen == ["harbor", "amber", "beacon", "chalk", "dusk", "heron", "reef", "sixteen", "plain", "harbor"]
        assert "theme: harbor" in screen_text(app)
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(live(), theme="chalk") as (app, pilot, _):
        assert app.theme == "plain"
        await pilot.press("t")
        await until(pilot, lambda: "NO_COLOR is set" in screen_text(app))
        app.say("")
        await pilot.press("T")
        await until(pilot, lambda: "NO_COLOR is set" in screen_text(app))


async def test_the_engines_theme_setting_is_followed_unless_a_theme_was_asked_for() -> None:
    link = FakeLink(engine_snapshot(theme="chalk"))
    async with dashboard(link) as (app, pilot, clock):
        await until(pilot, lambda: app.theme == "chalk")
        link.snapshot = engine_snapshot(theme="nosuch")
        clock.advance(1)
        app.tick()
        await until(pilot, lambda: "theme: there is no 'nosuch'" in screen_text(app))
        assert app.theme == "chalk"
    async with dashboard(link, theme="beacon") as (app, _, _clock):
        assert app.theme == "beacon"


async def test_a_key_answers_at_once_while_snapshots_arrive() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, clock):
        for step in range(50):
            link.snapshot = msgspec.structs.replace(engine_snapshot(), uptime_s=float(step))
            clock.advance(0.25)
            app.tick()
        await pilot.press("r")
        await until(pilot, lambda: "reconnect: done" in screen_text(app))


async def test_in_a_window_of_any_size_every_row_is_as_wide_as_the_window() -> None:
    async with dashboard(FakeLink(backoff_snapshot())) as (app, pilot, _):
        for zoomed in ("", "market"):
            for size in [(1, 1), (2, 2), (3, 1), (5, 3), (59, 19), (60, 4), (60, 20), (61, 21), (20, 60), (116, 36), (180, 46)]:
                await pilot.resize_terminal(*size)
                app.dashboard.zoom(zoomed)
                await until(pilot, lambda: app.dashboard.size == size)  # noqa: B023
                board = app.dashboard._board
                rows = ["".join(segment.text for segment in board.render_line(y)) for y in range(size[1])]
                assert [cell_len(text) for text in rows] == [size[0]] * size[1], (zoomed, size)


async def test_what_is_said_of_a_focused_pane_without_a_frame_goes_with_the_focus() -> None:
    async with dashboard(live()) as (app, pilot, _):
        await pilot.press("tab")
        await until(pilot, lambda: "alerts: z shows them all" in screen_text(app))
        await pilot.press("tab")
        await until(pilot, lambda: app.dashboard.focused_pane == "connection" and "z shows them all" not in screen_text(app))
