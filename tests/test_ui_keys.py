"""Keys: one registry says what there is, the operator may move them, each does something, and what destroys asks first."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Static
from ui_support import (
    FakeLink,
    FrozenClock,
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
from quantai_tui.telemetry import EngineSnapshot, Mode, StreamState, TrainingState
from quantai_tui.ui.actions import ACTIONS, PANE_KEYS, action, bindings, key_lines, markdown_table
from quantai_tui.ui.app import DashboardApp
from quantai_tui.ui.dialogs import Question
from quantai_tui.ui.help import help_text
from quantai_tui.ui.keymap import resolve
from quantai_tui.ui.palette import palette
from quantai_tui.ui.panes import PANES

MOVED = ("reconnect=ctrl+r", "toggle-stream=r", "help=f1", "quit=x", "pane-log=L", "palette=comma")


def keyed(*pairs: str, **changes: object) -> FakeLink:
    """A live engine whose settings say KEYS."""
    return FakeLink(engine_snapshot(keys=pairs, **changes))


def asked(app: DashboardApp) -> str:
    """The text of the question on the screen."""
    return " ".join(str(app.screen.query_one(Static).content).split()) if isinstance(app.screen, Question) else ""


async def settled(app: DashboardApp, pilot: Pilot[object], clock: FrozenClock) -> str:
    """What is on the dashboard once nothing is said about the last key any more."""
    clock.advance(60)
    app.tick()
    await until(pilot, lambda: app.view().status.text == "")
    await pilot.pause()
    return screen_text(app)


# -- one registry ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [(), MOVED], ids=["default keys", "moved keys"])
def test_bindings_help_palette_and_readme_say_the_same(pairs: tuple[str, ...]) -> None:
    keymap = resolve(pairs)
    assert keymap.problems == ()
    assert [binding.id for binding in bindings()] == [item.id for item in ACTIONS]
    view = DashboardApp(live()).view()
    lines = {does: keys for group in key_lines(keymap.shown).values() for keys, does in group}
    choices = {choice.id: choice for choice in palette(view, keymap, ["harbor"]).choices}
    for item in ACTIONS:
        if not item.family:
            assert lines[item.help] == keymap.shown(item)
            assert len(item.help) <= 63, f"{item.id} would wrap at 80 columns"
        if item.id != "palette":
            assert choices[item.id].key == keymap.shown(item)
            assert item.id in choices[item.id].about
    page = help_text(keymap).plain
    for does, keys in lines.items():
        assert f"{keys:<10} {does}" in page
    for does, keys in {does: keys for group in key_lines().values() for keys, does in group}.items():
        assert f"| `{keys}` | {does} |" in markdown_table()


def test_every_pane_that_can_be_focused_has_a_number_and_an_action_that_goes_there() -> None:
    assert sorted(PANE_KEYS.values()) == sorted(spec.id for spec in PANES if spec.focusable)
    assert all(action(f"pane-{name}").key == key for key, name in PANE_KEYS.items())
    assert "`1-9, 0`" in markdown_table()


@pytest.mark.parametrize("pairs", [(), MOVED], ids=["default keys", "moved keys"])
async def test_every_action_is_in_reach_from_every_pane_and_nothing_else_is(pairs: tuple[str, ...]) -> None:
    async with dashboard(keyed(*pairs)) as (app, pilot, _):
        keymap = resolve(pairs)
        assert app.actions_handled == {item.id for item in ACTIONS}
        for name in ("", *PANE_KEYS.values()):
            if name:
                app.dashboard.go_to(name)
                await until(pilot, lambda: app.dashboard.focused_pane == name)  # noqa: B023
            active = {key: found.binding.id for key, found in app.screen.active_bindings.items() if found.enabled}
            assert active == {key: item.id for item in ACTIONS for key in keymap.keys(item)}


# -- moved keys on the dashboard -------------------------------------------------------------------------------------------


async def test_moved_keys_work_are_shown_everywhere_and_the_old_ones_are_free() -> None:
    link = keyed(*MOVED)
    async with dashboard(link, size=(120, 40)) as (app, pilot, clock):
        foot = screen_text(app).splitlines()[-1]
        assert foot.startswith(" ctrl+r reconnect  r disconnect")
        assert "f1 help  x quit" in foot
        assert "L log" in screen_text(app)
        await pilot.press("r", "ctrl+r")
        await until(pilot, lambda: link.sent == [CommandName.DISCONNECT, CommandName.RECONNECT])
        await pilot.press("question_mark")  # nobody's any more
        assert app.screen is app.dashboard
        await pilot.press("f1")
        await until(pilot, lambda: "ctrl+r" in screen_text(app) and "pane: log" in screen_text(app))
        await pilot.press("f1")
        await until(pilot, lambda: app.screen is app.dashboard)
        link.snapshot = engine_snapshot(keys=())
        clock.advance(1)
        app.tick()
        await until(pilot, lambda: screen_text(app).splitlines()[-1].startswith(" r reconnect  d disconnect"))
        await pilot.press("question_mark")
        await until(pilot, lambda: "searches" in screen_text(app))


async def test_what_cannot_be_followed_is_said_in_a_toast_and_the_rest_is_followed() -> None:
    link = keyed("reconnect=ctrl+s", "rotate=x", "nosuch[/b]=y")
    async with dashboard(link, size=(120, 40)) as (app, pilot, _):
        await until(pilot, lambda: "flow control" in screen_text(app) and "nosuch[/b]" in screen_text(app))
        await pilot.press("x", "r")
        await until(pilot, lambda: link.sent == [CommandName.ROTATE, CommandName.RECONNECT])


# -- no key is dead --------------------------------------------------------------------------------------------------------

_LIVE = engine_snapshot()
_STOPPED = engine_snapshot(
    stream=stream_snapshot(state=StreamState.STOPPED), training=training_snapshot(state=TrainingState.STOPPED, scale=None)
)


@pytest.mark.parametrize(
    ("snapshot", "state", "size"),
    [
        (_LIVE, LinkState.ATTACHED, (80, 24)),
        (_STOPPED, LinkState.ATTACHED, (120, 40)),
        (None, LinkState.STARTING, (80, 24)),
        (_LIVE, LinkState.LOST, (80, 24)),
        (_LIVE, LinkState.ATTACHED, (59, 19)),
    ],
    ids=["live", "all stopped", "starting", "link lost", "too small for panes"],
)
async def test_every_key_is_seen_to_do_something_or_says_why_not(
    snapshot: EngineSnapshot | None, state: LinkState, size: tuple[int, int]
) -> None:
    link = FakeLink(snapshot, state, snapshot_age_s=0.1 if snapshot else None)
    if state is not LinkState.ATTACHED:
        link.answers = dict.fromkeys(CommandName, Ack(1, False, f"no engine attached ({state.value})"))
    async with dashboard(link, size=size) as (app, pilot, clock):
        for item in ACTIONS:
            if item.id in ("quit", "interrupt"):  # they leave: test_ui_leaving
                continue
            before = await settled(app, pilot, clock)
            sent = len(link.sent)
            await pilot.press(item.keys[0])
            await until(pilot, lambda: screen_text(app) != before)  # noqa: B023
            assert set(link.sent[sent:]) <= set(item.commands), item.id
            while app.screen is not app.dashboard:
                await pilot.press("escape")
                await pilot.pause()
            if app.dashboard.filtering:
                await pilot.press("escape")
                await until(pilot, lambda: not app.dashboard.filtering)


def test_each_command_that_a_key_may_send_is_named_by_its_action() -> None:
    """Those that the config editor, the time cursor and the recorder send are on pages and commands of their own."""
    named_ones = {name for item in ACTIONS for name in item.commands}
    assert {
        CommandName.RECONNECT,
        CommandName.DISCONNECT,
        CommandName.CONNECT,
        CommandName.ROTATE,
        CommandName.RESET_BACKOFF,
        CommandName.TRAIN_START,
        CommandName.TRAIN_PAUSE,
        CommandName.SCALER_RESET,
        CommandName.CHECKPOINT,
        CommandName.STOP,
    } <= named_ones


# -- numbers go to panes ---------------------------------------------------------------------------------------------------


async def test_numbers_go_to_panes_and_one_without_room_takes_the_screen_until_esc() -> None:
    async with dashboard(live()) as (app, pilot, _):
        await pilot.press("5")
        await until(pilot, lambda: app.dashboard.focused_pane == "training")
        assert app.dashboard.zoomed == ""
        assert "5 training" in screen_text(app)
        await pilot.press("8")  # has no room at 80x24
        await until(pilot, lambda: app.dashboard.zoomed == "reconnects" and "8 reconnects" in screen_text(app))
        await pilot.press("2")  # the zoom moves along
        await until(pilot, lambda: app.dashboard.zoomed == "heartbeat" and "8 reconnects" not in screen_text(app))
        await pilot.press("escape", "0")
        await until(pilot, lambda: app.dashboard.zoomed == "alerts")
        await pilot.press("escape")
        await until(pilot, lambda: app.dashboard.zoomed == "" and "5 training" in screen_text(app))


async def test_with_room_for_all_panes_numbers_only_focus() -> None:
    async with dashboard(live(), size=(200, 50)) as (app, pilot, _):
        for key, name in list(PANE_KEYS.items())[:9]:
            await pilot.press(key)
            await until(pilot, lambda: app.dashboard.focused_pane == name)  # noqa: B023
            assert app.dashboard.zoomed == ""


# -- the palette -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "theme"), [("colon", "harbor"), ("ctrl+p", "plain")])
async def test_the_palette_finds_an_action_by_its_words_and_does_it(key: str, theme: str) -> None:
    link = live()
    async with dashboard(link, size=(60, 20), theme=theme) as (app, pilot, _):
        await pilot.press(key)
        await until(pilot, lambda: "palette" in screen_text(app) and "disconnect" in screen_text(app))
        assert all(len(line) <= 60 for line in screen_text(app).splitlines())
        await pilot.press(*"fresh conn")
        await until(pilot, lambda: "reset backoff" not in screen_text(app) and "fresh link" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: link.sent == [CommandName.ROTATE] and "fresh connection: done" in screen_text(app))
        await pilot.press(key, *"zzz")
        await until(pilot, lambda: "no action has all these words" in screen_text(app))
        await pilot.press("enter", "escape")
        await until(pilot, lambda: app.screen is app.dashboard)


async def test_the_palette_wears_themes_and_goes_to_panes_by_name() -> None:
    async with dashboard(live()) as (app, pilot, _):
        await pilot.press("colon", *"theme: chalk", "enter")
        await until(pilot, lambda: app.theme == "chalk" and "theme: chalk" in screen_text(app))
        await pilot.press("colon", *"pane: log", "enter")
        await until(pilot, lambda: app.dashboard.focused_pane == "log")


async def test_the_palette_says_what_is_not_possible_now_and_why() -> None:
    async with dashboard(FakeLink(_STOPPED), size=(120, 40)) as (app, pilot, _):
        await pilot.press("colon")
        await until(pilot, lambda: "palette" in screen_text(app))
        text = screen_text(app)
        assert "not now: the stream is not connected" in text
        assert "not now: there is nothing to break in a live market" in text
        assert "not now: there is no scale yet" in text
        assert "not now: no training worker is up" in text
        assert "connect  " in text  # what the key would do now


async def test_the_option_under_the_cursor_is_seen_without_colours() -> None:
    async with dashboard(live(), theme="plain") as (app, pilot, _):
        for key in ("colon", "q"):
            await pilot.press(key)
            await until(pilot, lambda: app.screen is not app.dashboard)
            await until(
                pilot,
                lambda: any(
                    segment.style is not None and segment.style.reverse and len(segment.text.strip()) > 3
                    for strip in app.screen._compositor.render_strips()
                    for segment in strip
                ),
            )
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.dashboard)


# -- asking before something ends ------------------------------------------------------------------------------------------


async def test_stopping_the_engine_says_what_will_happen_and_asks_once() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("Q")
        await until(pilot, lambda: "Stop the engine" in screen_text(app))
        words = asked(app)
        for said in ("live-spot", "step 11,340", "a checkpoint is written", "The stream stops", "on the next start"):
            assert said in words, words
        await pilot.press("enter")  # the preferred answer changes nothing
        await until(pilot, lambda: app.screen is app.dashboard)
        assert link.sent == []
        await pilot.press("Q")
        await until(pilot, lambda: "Stop the engine" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: app.return_value == "stop")
    assert link.sent == [CommandName.STOP]


async def test_the_question_at_quitting_prefers_what_loses_nothing_and_says_what_stopping_does() -> None:
    link = live()
    async with dashboard(link, size=(60, 20)) as (app, pilot, _):
        await pilot.press("q")
        await until(pilot, lambda: "leave it running" in screen_text(app) and "esc  cancel" in screen_text(app))
        assert "step 11,340: a checkpoint is written" in asked(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.return_value == "detach")
    assert link.sent == []


async def test_a_demo_is_stopped_by_its_key_after_asking_too() -> None:
    link = FakeLink(engine_snapshot(mode=Mode.DEMO, training=training_snapshot(state=TrainingState.IDLE)))
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("Q")
        await until(pilot, lambda: "the embedded exchange with it" in asked(app))
        assert "No training is under way" in asked(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        link.state = LinkState.FAILED
        await pilot.press("Q")
        await until(pilot, lambda: "stop engine: there is none to stop (failed)" in screen_text(app))


# -- the help --------------------------------------------------------------------------------------------------------------


async def test_the_help_scrolls_and_is_searched() -> None:
    async with dashboard(live()) as (app, pilot, _):
        await pilot.press("question_mark")
        await until(pilot, lambda: "Reconnect now" in screen_text(app))
        await pilot.press("pagedown", "j", "down")
        await until(pilot, lambda: "Reconnect now" not in screen_text(app))
        await pilot.press("home", "k")
        await until(pilot, lambda: "Reconnect now" in screen_text(app))
        await pilot.press("slash", *"quit")
        await until(pilot, lambda: "Leave; asks" in screen_text(app) or "nothing in the help" in screen_text(app))
        await pilot.press(*"[/b]")
        await until(pilot, lambda: "nothing in the help has 'quit[/b]'" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Reconnect now" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
