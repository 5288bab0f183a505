"""Settings on trial: a countdown wherever one looks, two keys that decide, and a word on what became of them."""

from __future__ import annotations

from editor_support import editor, focused, go_to, link_to, save, type_into
from textual.binding import Binding
from ui_support import dashboard, screen_text, settings_form, until

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import TrialSnapshot
from quantai_tui.ui.cells import width_of
from quantai_tui.ui.editor import EditorScreen
from quantai_tui.ui.editor_keys import EDITOR_KEYS, Place, help_lines, key_line, markdown_table
from quantai_tui.ui.help import EditorHelp, help_text
from quantai_tui.ui.trial import trial_spans


async def test_a_save_that_touches_the_stream_is_counted_down_at_once_and_kept_by_a_key() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 3, "15.0")
        await pilot.press("enter")
        await pilot.press("w")
        await until(pilot, lambda: "+ WS_PING_INTERVAL" in screen_text(app))
        assert "30.0 → 15.0" in screen_text(app)
        assert "stream reconnects" in screen_text(app)
        assert "undone by itself unless you keep it" in screen_text(app)
        assert CommandName.SETTINGS_SAVE not in link.sent
        await pilot.press("enter")
        await until(pilot, lambda: "on trial: WS_PING_INTERVAL  y keeps  n undoes  30 s left" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: "settings kept" in screen_text(app) and "s left" not in screen_text(app))
        assert (CommandName.SETTINGS_CONFIRM, {"save": 7}) in link.commands


async def test_going_back_from_the_preview_saves_nothing_and_keeps_the_edits() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "15.0")
        await pilot.press("f2")
        await until(pilot, lambda: "Save?" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "not saved; your edits are kept" in screen_text(app))
        assert "1 unsaved" in screen_text(app)
        assert CommandName.SETTINGS_SAVE not in link.sent


async def test_whoever_attaches_sees_the_trial_and_decides_from_the_dashboard() -> None:
    link = link_to()
    link.stand_trial(21.3, "WS_PING_INTERVAL")
    async with dashboard(link) as (app, pilot, _):
        await until(pilot, lambda: "on trial: WS_PING_INTERVAL  y keeps  n undoes  22 s left" in screen_text(app))
        await pilot.press("n")
        await until(pilot, lambda: (CommandName.SETTINGS_ROLLBACK, {"save": 7}) in link.commands)
        link.stand_trial(0.0)
        await until(pilot, lambda: "settings undone" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: "nothing is on trial" in screen_text(app))


async def test_settings_that_nobody_kept_are_named_with_the_values_that_are_back() -> None:
    link = link_to()
    link.form = settings_form("r2", WS_PING_INTERVAL="15.0")
    link.stand_trial(0.5, "WS_PING_INTERVAL")
    async with dashboard(link, size=(120, 40)) as (app, pilot, _):
        await until(pilot, lambda: app._trials._watched is not None and app._trials._watched.values != {})
        link.form = settings_form("r3")
        link.stand_trial(0.0)
        await until(pilot, lambda: "nobody kept them in time: WS_PING_INTERVAL is 30.0 again" in screen_text(app))


def test_the_line_of_a_trial_fits_and_says_when_the_link_is_down() -> None:
    trial = TrialSnapshot(3, 12.2, ("WS_MESSAGE_WARNING_TIMEOUT", "WS_PONG_TIMEOUT", "WS_PING_INTERVAL"))
    for width in (58, 78, 118):
        spans = trial_spans(trial, width)
        assert width_of(spans) <= width
        assert "13 s left" in "".join(text for text, _ in spans)
    assert "no link" in "".join(text for text, _ in trial_spans(trial, 78, stale=True))


async def test_the_last_save_is_undone_by_a_key_and_edits_stay() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await pilot.press("enter", "U")
        await until(pilot, lambda: "settings undone: WS_PING_INTERVAL live now" in screen_text(app))
        assert "1 unsaved" in screen_text(app)
        await pilot.press("U")
        await until(pilot, lambda: "nothing undone: there is no save to undo" in screen_text(app))


async def test_a_setting_goes_back_to_its_default_by_leaving_the_file() -> None:
    link = link_to()
    link.form = settings_form("r1", WS_PING_INTERVAL="15.0")
    async with editor(link) as (app, pilot):
        await go_to(pilot, "WS_PING_INTERVAL")
        await pilot.press("D")
        await until(pilot, lambda: "edited: default" in screen_text(app))
        await pilot.press("w")
        await until(pilot, lambda: "- WS_PING_INTERVAL" in screen_text(app) and "15.0 → 30.0" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "settings saved" in screen_text(app))
        sent = next(arguments for name, arguments in link.commands if name is CommandName.SETTINGS_SAVE)
        assert sent["values"] == {"WS_PING_INTERVAL": None}
        await pilot.press("D")
        await until(pilot, lambda: "stands at its default" in screen_text(app))


async def test_what_is_typed_while_the_link_is_down_is_kept_and_checked_when_it_is_back() -> None:
    link = link_to(SETTINGS_VALIDATE=Ack(1, False, "no engine attached"))
    async with editor(link) as (app, pilot):
        link.state = LinkState.LOST
        await type_into(pilot, 0, "-3")
        await until(pilot, lambda: "no link: edits are kept" in screen_text(app))
        await until(pilot, lambda: "not checked: no engine attached" in screen_text(app))
        del link.answers[CommandName.SETTINGS_VALIDATE]
        link.state = LinkState.ATTACHED
        await until(pilot, lambda: "breaks the rule > 0" in screen_text(app) and "no link" not in screen_text(app))
        assert "1 unsaved, 1 wrong" in screen_text(app)
        await pilot.press("escape", "end", "tab")
        await until(pilot, lambda: app.screen._current == "WS_RECONNECT_INITIAL_DELAY")


async def test_a_window_that_is_too_small_says_so_and_loses_nothing() -> None:
    async with editor(link_to()) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: "needs 60x20" in screen_text(app) and "1 unsaved" in screen_text(app))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "1 unsaved" in screen_text(app) and "* WS_RECONNECT_INITIAL_DELAY" in screen_text(app))
        assert focused(pilot) in ("fields", "value")


async def test_an_edit_typed_while_a_save_is_under_way_is_not_lost_by_it() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await save(pilot)
        await until(pilot, lambda: "settings saved" in screen_text(app))
        draft = app.screen.draft
        draft.type("WS_RECONNECT_MAX_DELAY", "70")
        sent = draft.edits
        draft.type("WS_RECONNECT_MAX_DELAY", "71")
        draft.saved(link.save(sent), sent)
        assert draft.edits == {"WS_RECONNECT_MAX_DELAY": "71"}


def test_every_key_of_the_editor_is_in_its_help_the_table_and_a_binding() -> None:
    for shown, meaning in help_lines():
        assert len(meaning) <= 63, f"{shown} would wrap at 80 columns"
        assert meaning in help_text().plain
        assert any(meaning in line.plain for lines in EditorHelp().sections().values() for line in lines)
        assert f"| `{shown}` | {meaning} |" in markdown_table()
    bound = {binding.action for binding in EditorScreen.BINDINGS if isinstance(binding, Binding)}
    assert bound == {key.call for key in EDITOR_KEYS if key.call}
    for call in bound:
        assert hasattr(EditorScreen, f"action_{call.partition('(')[0]}")
    for width in (58, 78, 118, 198):
        for place in Place:
            assert 0 < width_of(key_line(place, width, trial=True).spans) <= width
    assert "w save" in key_line(Place.LIST, 58).text


async def test_the_editor_explains_its_keys() -> None:
    async with editor(link_to()) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: "help: settings editor" in screen_text(app) and "Next value of a setting" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "nothing edited" in screen_text(app))
