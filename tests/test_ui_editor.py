"""The settings editor: the engine describes, judges and saves; what was typed stays until it is saved or thrown away."""

from __future__ import annotations

import msgspec
from editor_support import editor, focused, go_to, link_to, save, type_into
from textual.widgets import Input
from ui_support import screen_text, settings_form, until

from quantai_tui.link.messages import Ack, CommandName, SaveResult
from quantai_tui.ui.draft import Draft


async def test_a_setting_is_shown_with_all_that_is_known_of_it() -> None:
    async with editor(link_to()) as (app, pilot):
        text = screen_text(app)
        assert "/home/op/.config/quantai-tui/config.toml" in text
        for known in (
            "Reconnect initial delay",
            "rule > 0",
            "unit s",
            "default 1.0",
            "effect live now",
            "What reconnect initial",
        ):
            assert known in text
        assert text.index("Reconnect") < text.index("Heartbeat") < text.index("Scaler") < text.index("Program")
        await pilot.press("end")
        await until(pilot, lambda: "fixed by --symbols, the command line: change it there" in screen_text(app))
        assert app.screen.query_one("#value", Input).disabled


async def test_typing_is_judged_by_the_engine_and_the_reason_stands_beside_it() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 1, "-5")
        await until(pilot, lambda: "! '-5' breaks the rule >= initial delay" in screen_text(app))
        assert "1 unsaved" in screen_text(app)
        assert " ! WS_RECONNECT_MAX_DELAY" in screen_text(app)
        await pilot.press("ctrl+u", "9", "0")
        await until(pilot, lambda: "breaks the rule" not in screen_text(app))
        asked = (CommandName.SETTINGS_VALIDATE, {"values": {"WS_RECONNECT_MAX_DELAY": "90"}})
        await until(pilot, lambda: link.commands[-1] == asked)


async def test_saving_says_what_applies_when() -> None:
    link = link_to()
    async with editor(link, size=(120, 40)) as (app, pilot):
        await type_into(pilot, 3, "15.0")
        await pilot.press("enter")
        await until(pilot, lambda: focused(pilot) == "fields")
        await type_into(pilot, 0, "2")
        await save(pilot)
        await until(pilot, lambda: "settings saved: WS_PING_INTERVAL stream" in screen_text(app))
        assert "reconnects, WS_RECONNECT_INITIAL_DELAY live now" in screen_text(app)
        sent = next(arguments for name, arguments in link.commands if name is CommandName.SETTINGS_SAVE)
        assert sent == {"values": {"WS_PING_INTERVAL": "15.0", "WS_RECONNECT_INITIAL_DELAY": "2"}, "revision": "r1"}
        assert "nothing edited" in screen_text(app)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is app.dashboard and "settings saved" in screen_text(app))


async def test_a_save_with_problems_keeps_every_edit() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "abc")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "! 'abc' breaks the rule > 0" in screen_text(app))
        assert app.screen.query_one("#value", Input).value == "abc"
        assert "1 unsaved" in screen_text(app)


async def test_a_file_changed_on_disk_shows_both_texts_and_keeps_the_edits() -> None:
    conflict = SaveResult(
        False, conflict_text="# [mine]\nWS_PING_INTERVAL = 20\n", proposed_text="# [mine]\nWS_PING_INTERVAL = 30\n"
    )
    link = link_to(SETTINGS_SAVE=Ack(1, False, "the file has changed", data=msgspec.to_builtins(conflict)))
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await save(pilot)
        await until(pilot, lambda: "± WS_PING_INTERVAL = 20" in screen_text(app))
        assert "± WS_PING_INTERVAL = 30" in screen_text(app)
        assert "  # [mine]" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "your edits are kept" in screen_text(app))
        await save(pilot)
        await until(pilot, lambda: "on disk now" in screen_text(app))
        link.form = settings_form("r9", WS_PING_INTERVAL="20.0")
        await pilot.press("r")
        await until(pilot, lambda: "1 of your edits are kept on top" in screen_text(app))
        del link.answers[CommandName.SETTINGS_SAVE]
        await save(pilot)
        await until(pilot, lambda: "settings saved" in screen_text(app))
        saves = [arguments for name, arguments in link.commands if name is CommandName.SETTINGS_SAVE]
        assert saves[-1] == {"values": {"WS_RECONNECT_INITIAL_DELAY": "3.0"}, "revision": "r9"}


async def test_leaving_with_unsaved_edits_asks_once() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: "1 edit is not saved" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "1 unsaved" in screen_text(app) and "1 edit is not saved" not in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "1 edit is not saved" in screen_text(app))
        await pilot.press("d")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert CommandName.SETTINGS_SAVE not in link.sent


async def test_saving_from_the_question_leaves_only_when_it_was_saved() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await type_into(pilot, 0, "3.0")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: "save and leave" in screen_text(app))
        await pilot.press("s")
        await until(pilot, lambda: "Save?" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard and "WS_RECONNECT_INITIAL_DELAY live now" in screen_text(app))


async def test_the_filter_narrows_the_list_and_escape_brings_it_back() -> None:
    async with editor(link_to()) as (app, pilot):
        await pilot.press("slash")
        await until(pilot, lambda: focused(pilot) == "search")
        await pilot.press(*"scaler max", "enter")
        await until(pilot, lambda: "WS_PING_INTERVAL" not in screen_text(app))
        assert "GRAD_SCALER_MAX_SCALE" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "WS_PING_INTERVAL" in screen_text(app))


async def test_booleans_and_choices_are_cycled_and_undone() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        await go_to(pilot, "GRAD_SCALER_AUTO_RESET")
        await pilot.press("space")
        await until(pilot, lambda: "GRAD_SCALER_AUTO_RESET               False" in screen_text(app))
        await go_to(pilot, "LOG_LEVEL")
        await pilot.press("space")
        await until(pilot, lambda: "2 unsaved" in screen_text(app))
        assert "WARNING" in screen_text(app)
        await pilot.press("u")
        await until(pilot, lambda: "1 unsaved" in screen_text(app))


async def test_a_link_that_is_down_is_said_and_nothing_typed_is_lost() -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        link.answers[CommandName.SETTINGS_VALIDATE] = Ack(1, False, "no engine attached (lost)")
        link.answers[CommandName.SETTINGS_SAVE] = Ack(1, False, "no engine attached (lost)")
        await type_into(pilot, 0, "3.0")
        await until(pilot, lambda: "not checked: no engine attached" in screen_text(app))
        await save(pilot)
        await until(pilot, lambda: "not saved: no engine attached" in screen_text(app))
        assert "1 unsaved" in screen_text(app)


async def test_an_engine_that_cannot_describe_its_settings_is_no_dead_end() -> None:
    async with editor(link_to(SETTINGS_DESCRIBE=Ack(1, False, "no engine attached"))) as (app, pilot):
        assert "The engine did not describe its settings: no engine attached" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)


def test_a_draft_drops_only_the_edits_that_a_new_form_makes_void() -> None:
    draft = Draft(settings_form())
    assert draft.type("WS_PING_INTERVAL", "20.0")
    assert draft.type("WS_RECONNECT_MAX_DELAY", "90")
    assert not draft.type("APP_SYMBOLS", "BTCUSDT"), "it is locked"
    draft.rebase(settings_form("r2", WS_PING_INTERVAL="20.0"))
    assert draft.edits == {"WS_RECONNECT_MAX_DELAY": "90"}
    assert draft.undo("WS_RECONNECT_MAX_DELAY")
    assert draft.edits == {}
