"""The operator's own themes: picked up while the dashboard runs, named once when broken, and never lost from the screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ui_support import FakeLink, dashboard, engine_snapshot, live, screen_text, until

from quantai_tui.ui.theme_files import Found, Shelf, ThemeFiles, user_themes_folder
from quantai_tui.ui.themes import read_theme, themes_folder

DUSK = (themes_folder() / "dusk.toml").read_text()


def write(path: Path, name: str = "mine", **changes: str) -> Path:
    """A theme like dusk, with `changes` of colours; its time is one that no earlier version had."""
    text = DUSK.replace('name = "dusk"', f'name = "{name}"')
    for key, color in changes.items():
        text = text.replace(f'{key} = "', f'{key} = "{color}" # "', 1)
    return write_text(path, text)


def write_text(path: Path, text: str) -> Path:
    later = path.stat().st_mtime_ns + 1_000_000 if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if later is not None:
        os.utime(path, ns=(later, later))
    return path


def settled(files: ThemeFiles) -> Found | None:
    """What is found once a changed file has stood still for a look."""
    first = files.look()
    return files.look() or first


def named(found: Found | None) -> list[str]:
    assert found is not None
    return [theme.name for theme in found.themes]


def test_a_folder_is_read_at_once_and_then_only_what_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    files = ThemeFiles(tmp_path)
    assert named(files.look()) == ["mine"]
    assert files.look() is None
    write(path, primary="#ffffff")
    found = settled(files)
    assert found is not None
    assert found.themes[0].primary == "#ffffff"
    write(tmp_path / "other.toml", "other")
    assert named(settled(files)) == ["mine", "other"]
    path.unlink()
    assert named(files.look()) == ["other"]


def test_a_file_that_is_being_written_is_not_called_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    files = ThemeFiles(tmp_path)
    files.look()
    write_text(path, DUSK[: len(DUSK) // 2])
    assert files.look() is None
    write(path, primary="#fefefe")
    found = settled(files)
    assert found is not None
    assert (found.problems, found.themes[0].primary) == ((), "#fefefe")


def test_a_file_that_was_good_and_is_broken_keeps_its_last_good_theme(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    files = ThemeFiles(tmp_path)
    good = files.look()
    assert good is not None
    write_text(path, "name =")
    broken = settled(files)
    assert broken is not None
    assert broken.themes == good.themes
    assert len(broken.problems) == 1
    assert broken.problems[0].startswith("mine.toml: is not valid TOML")


def test_what_is_no_theme_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "a-folder.toml").mkdir()
    os.mkfifo(tmp_path / "b-pipe.toml")
    (tmp_path / "c-nowhere.toml").symlink_to(tmp_path / "gone")
    write_text(tmp_path / "d-huge.toml", DUSK + "#" * 70_000)
    write(tmp_path / "e-first.toml")
    write(tmp_path / "f-second.toml")
    write_text(tmp_path / "notes.txt", "no theme")
    found = ThemeFiles(tmp_path).look()
    assert named(found) == ["mine"]
    assert found is not None
    assert list(found.problems) == [
        "a-folder.toml: is a folder, not a file",
        "b-pipe.toml: is a pipe, not a file",
        "c-nowhere.toml: there is no such file",
        "d-huge.toml: is larger than 64 KiB",
        "f-second.toml: the name 'mine' is taken by another file",
    ]


def test_more_files_than_anybody_chooses_from_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(103):
        write_text(tmp_path / f"{number:03}.toml", "")
    found = ThemeFiles(tmp_path).look()
    assert found is not None
    assert found.problems[0] == f"3 of 103 files in {tmp_path} are left out: too many"
    assert len(found.problems) == 101


def test_no_folder_is_no_problem_and_one_that_comes_later_is_seen(tmp_path: Path) -> None:
    files = ThemeFiles(tmp_path / "themes")
    assert files.look() == Found()
    write(tmp_path / "themes" / "mine.toml")
    assert named(settled(files)) == ["mine"]


def test_a_folder_that_cannot_be_read_for_a_while_loses_no_theme(tmp_path: Path) -> None:
    folder = tmp_path / "themes"
    write(folder / "mine.toml")
    files = ThemeFiles(folder)
    files.look()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(folder)
    found = files.look()
    assert named(found) == ["mine"]
    assert found is not None
    assert len(found.problems) == 1
    assert "cannot be read" in found.problems[0]


def test_a_theme_of_ones_own_takes_the_place_of_a_shipped_one_of_its_name(tmp_path: Path) -> None:
    own = read_theme(write(tmp_path / "mine.toml", "chalk"))
    shipped = ThemeFiles(themes_folder()).look()
    assert shipped is not None
    shelf = Shelf.of(shipped.themes, [own])
    assert shelf.names.count("chalk") == 1
    assert next(theme for theme in shelf.themes if theme.name == "chalk") is own


async def test_own_themes_are_worn_changed_broken_mended_and_removed_while_the_dashboard_runs() -> None:
    path = user_themes_folder() / "mine.toml"
    link = live()
    async with dashboard(link, (120, 40)) as (app, pilot, _):

        async def seen(met: Callable[[], bool]) -> None:
            """Soon: without waiting for the timer that looks in between."""

            def looked() -> bool:
                app._wardrobe.look_again()
                return met()

            await until(pilot, looked)

        def told(part: str) -> str:
            return next((toast.message for toast in app._notifications if part in toast.message), "")

        link.snapshot = engine_snapshot(theme="mine")
        await seen(lambda: "there is no 'mine'" in screen_text(app))
        write(path)
        await seen(lambda: app.theme == "mine")  # the settings have asked for it all the time
        assert app._wardrobe.palette["spark-rtt"].color.triplet.hex == "#a9a5f5"

        write(path, primary="#ffffff")
        await seen(lambda: app._wardrobe.palette["spark-rtt"].color.triplet.hex == "#ffffff")
        assert app.screen.get_style_at(1, 39).color == app._wardrobe.palette["key"].color

        write_text(path, "name = [/b]")
        write_text(path.with_name("other.toml"), "")
        await seen(lambda: told("other.toml") != "" and told("mine.toml: is not valid TOML") != "")
        assert app.theme == "mine"
        assert app._wardrobe.palette["spark-rtt"].color.triplet.hex == "#ffffff"

        write_text(path.with_name("third.toml"), "")
        await seen(lambda: told("third.toml") != "")
        assert "other.toml" not in told("third.toml")  # it is broken still, and has been named

        write(path, primary="#eeeeee")
        await seen(lambda: app._wardrobe.palette["spark-rtt"].color.triplet.hex == "#eeeeee")
        path.unlink()
        await seen(lambda: "the file of 'mine' is gone; it stays on" in screen_text(app))
        assert app.theme == "mine"
        await pilot.press("T")
        await seen(lambda: app.theme == "harbor")


async def test_a_theme_that_was_asked_for_may_be_one_of_ones_own() -> None:
    write(user_themes_folder() / "mine.toml")
    async with dashboard(FakeLink(engine_snapshot()), theme="mine") as (app, _, _clock):
        assert app.theme == "mine"
