"""The theme is chosen while the whole screen wears it, is kept or taken back, and saved where the engine lets it be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ui_support import FakeLink, dashboard, engine_snapshot, live, screen_text, settings_form, until

from quantai_tui.link.messages import Ack, CommandName, SaveResult, SettingProblem
from quantai_tui.ui.theme_picker import ThemePicker


async def test_the_screen_wears_the_theme_under_the_cursor_and_escape_brings_the_former_back() -> None:
    async with dashboard(live(), (60, 20)) as (app, pilot, _):
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker) and "amber" in screen_text(app))
        assert app.theme == "harbor"
        await pilot.press("down")
        await until(pilot, lambda: app.theme == "amber")
        assert app.screen.get_style_at(1, 19).color == app._wardrobe.palette["key"].color
        assert "saves it as the setting THEME" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.theme == "harbor" and app.screen is app.dashboard)

        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker))
        await pilot.press(*"white")
        await until(pilot, lambda: app.theme == "chalk")
        await pilot.press("enter")
        await until(pilot, lambda: "theme: chalk, until you leave; THEME" in screen_text(app))
        assert app.theme == "chalk"


async def test_while_one_looks_at_themes_the_settings_may_name_another_which_escape_goes_to() -> None:
    link = live()
    async with dashboard(link) as (app, pilot, _):
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker))
        await pilot.press("down")
        await until(pilot, lambda: app.theme == "amber")
        link.snapshot = engine_snapshot(theme="reef")
        await until(pilot, lambda: app._wardrobe._chosen == "reef")
        assert app.theme == "amber"
        await pilot.press("escape")
        await until(pilot, lambda: app.theme == "reef")


@pytest.mark.parametrize("size", [(60, 20), (80, 24)])
async def test_the_list_can_be_used_without_colours(size: tuple[int, int]) -> None:
    async with dashboard(live(), size, theme="plain") as (app, pilot, _):
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker) and "sixteen" in screen_text(app))
        line = next(strip for strip in app.screen._compositor.render_strips() if "plain" in strip.text)
        assert any(segment.style is not None and segment.style.reverse for segment in line if "plain" in segment.text)
        for part in ("harbor", "enter keeps it here", "esc takes it back", "the numbers stand still"):
            assert part in screen_text(app)


def _form(locked: str = "") -> Ack:
    form = settings_form()
    theme = msgspec.structs.replace(form.fields[0], name="THEME", kind="text", value="", locked=locked)
    return Ack(1, True, data=msgspec.to_builtins(msgspec.structs.replace(form, fields=(*form.fields, theme))))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "theme: amber, saved as THEME in the settings"),
        (
            {CommandName.SETTINGS_DESCRIBE: _form("QUANTAI_THEME, the environment")},
            "not saved: THEME is fixed by QUANTAI_THEME",
        ),
        ({CommandName.SETTINGS_DESCRIBE: Ack(1, False, "the engine is stopping")}, "not saved: the engine is stopping"),
        ({CommandName.SETTINGS_DESCRIBE: Ack(1, True, data=["odd"])}, "not saved: the engine's answer cannot be read"),
        (
            {
                CommandName.SETTINGS_SAVE: Ack(
                    1, True, data=msgspec.to_builtins(SaveResult(False, (SettingProblem("THEME", "the disk is full"),)))
                )
            },
            "not saved: the disk is full",
        ),
    ],
    ids=["saved", "locked", "refused", "odd", "problem"],
)
async def test_f2_keeps_the_theme_and_writes_it_into_the_settings_or_says_why_not(
    answers: dict[CommandName, Any], said: str
) -> None:
    done = Ack(1, True, data=msgspec.to_builtins(SaveResult(True, applied={"THEME": "live now"})))
    link = live()
    link.answers = {CommandName.SETTINGS_DESCRIBE: _form(), CommandName.SETTINGS_SAVE: done, **answers}
    async with dashboard(link, (120, 40)) as (app, pilot, _):
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker))
        await pilot.press("down", "f2")
        await until(pilot, lambda: said in screen_text(app))
        assert app.theme == "amber"
    written = [args for name, args in link.commands if name is CommandName.SETTINGS_SAVE]
    assert written in ([], [{"values": {"THEME": "amber"}, "revision": "r1"}])
    assert bool(written) == (said.endswith("settings") or "disk" in said)


async def test_a_theme_of_the_operators_own_stands_in_the_list(own_home: Path) -> None:
    folder = own_home / "config" / "quantai-tui" / "themes"
    folder.mkdir(parents=True)
    text = (Path(__file__).parents[1] / "themes" / "dusk.toml").read_text()
    (folder / "mine.toml").write_text(text.replace('name = "dusk"', 'name = "mine"'))
    async with dashboard(FakeLink(engine_snapshot(theme="mine"))) as (app, pilot, _):
        await until(pilot, lambda: app.theme == "mine")
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ThemePicker) and "mine" in screen_text(app))
