"""The settings file in the operator's own editor: the terminal is lent and taken back, and no text is lost on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from e2e_terminal import Terminal, wait_until
from editor_support import editor, link_to
from textual.app import App
from ui_support import screen_text, until

from quantai_tui.link.messages import Ack, SaveResult
from quantai_tui.ui.editor import EditorScreen
from quantai_tui.ui.external import Edited, edit_text

CHILD = Path(__file__).with_name("editor_child.py")


def script(folder: Path, *lines: str) -> str:
    path = folder / "my editor.sh"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o700)
    return f"'{path}'"


@contextmanager
def dashboard(tmp_path: Path, editor_command: str) -> Iterator[Terminal]:
    """The settings editor on a terminal, with temporary files in a folder of the test's own."""
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "EDITOR": editor_command,
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(CHILD.parent), str(CHILD.parent.parent)]),
    }
    environment.pop("VISUAL", None)
    terminal = Terminal((sys.executable, str(CHILD), str(tmp_path / "written.toml")), 80, 24, environment)
    try:
        terminal.wait_for("disconnect")
        terminal.press("c")
        terminal.wait_for("WS_PING_INTERVAL")
        yield terminal
    finally:
        terminal.close()


def left_behind(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").iterdir())


def test_the_terminal_is_lent_to_the_editor_and_taken_back_with_the_text(tmp_path: Path) -> None:
    modes = tmp_path / "modes"
    command = script(
        tmp_path,
        f'stat -c %a "$1" "$(dirname "$1")" > {modes}',
        'echo "EDITING $(head -1 "$1")"; read answer',
        'sed -i "s/30.0/$answer/" "$1"',
    )
    with dashboard(tmp_path, command) as terminal:
        terminal.press("e")
        terminal.wait_for("EDITING # mine")
        assert not terminal.alternate
        assert terminal.settings_restored
        terminal.press("\x03")  # ctrl+c: a shell would end by it, were it not for the trap of a real editor
        terminal.wait_for("ended with")
        assert "your text" not in terminal.text, "it was not changed"
        terminal.press("e")
        terminal.wait_for("EDITING # mine")
        terminal.press("15.5\n")
        terminal.wait_for("settings saved")
        assert terminal.alternate
        assert (tmp_path / "written.toml").read_text() == "# mine\nWS_PING_INTERVAL = 15.5\n"
        assert modes.read_text().split() == ["600", "700"]
        assert left_behind(tmp_path) == []
        terminal.press("q")
        terminal.wait_for("disconnect")


def test_pipe_left_by_the_editor_does_not_block(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        f'test -e {tmp_path}/twice || {{ touch {tmp_path}/twice; rm "$1"; mkfifo "$1"; exit; }}',
        r"""printf '\357\273\277WS_PING_INTERVAL = 15.5\n' > "$1" """,
    )
    with dashboard(tmp_path, command) as terminal:
        terminal.press("e")
        terminal.wait_for("is a pipe, not a file")
        assert left_behind(tmp_path) == []
        terminal.press("e")
        terminal.wait_for("settings saved")
        assert (tmp_path / "written.toml").read_bytes() == b"WS_PING_INTERVAL = 15.5\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, None], ids=["terminated", "hung up"])
def test_a_dashboard_that_is_closed_under_the_editor_keeps_what_was_typed(tmp_path: Path, number: signal.Signals | None) -> None:
    typed = tmp_path / "typed"
    command = script(tmp_path, 'echo "# typed" >> "$1"', "echo EDITING", f"touch {typed}", "exec sleep 60")
    with dashboard(tmp_path, command) as terminal:
        terminal.press("e")
        wait_until(typed.exists, 20, "the editor has written")
        if number is not None:
            terminal.signal(number)
        else:
            terminal.hang_up()
        assert terminal._process.wait(20) == 0
        if number is not None:
            terminal.wait_exit()
            terminal.assert_restored()
        (folder,) = left_behind(tmp_path)
        assert (folder / "config.toml").read_text().endswith("# typed\n")


class Scripted:
    """An editor that makes of each text what the test says."""

    def __init__(self, *results: Edited) -> None:
        self.results = list(results)
        self.opened: list[str] = []

    async def __call__(self, app: App[Any], text: str, name: str) -> Edited:
        assert name == "config.toml"
        self.opened.append(text)
        return self.results.pop(0)


async def test_what_is_wrong_is_shown_with_its_line_and_the_text_is_kept_until_it_is_right_or_dropped() -> None:
    link, wrong = link_to(), "# mine\nWS_PING_INTERVAL = wrong\n"
    mine = Scripted(Edited(wrong), Edited(wrong), Edited("# mine\nWS_PING_INTERVAL = 20.0\n"))
    async with editor(link) as (app, pilot):
        assert isinstance(app.screen, EditorScreen)
        app.screen._raw._open_editor = mine
        await pilot.press("e")
        await until(pilot, lambda: "breaks the rule > 0 (line 2)" in screen_text(app))
        assert "!    2  WS_PING_INTERVAL = wrong" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "your text is kept, e goes on with it" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "the edited file (e goes on with it)" in screen_text(app))
        await pilot.press("escape")
        await pilot.press("e")
        await until(pilot, lambda: "Not written" in screen_text(app))
        await pilot.press("e")
        await until(pilot, lambda: "settings saved" in screen_text(app))
        assert mine.opened == ["# mine\nWS_PING_INTERVAL = 30.0\n", wrong, wrong]
        assert link.writes[-1] == "# mine\nWS_PING_INTERVAL = 20.0\n"


async def test_a_file_changed_meanwhile_shows_both_texts() -> None:
    conflict = SaveResult(False, conflict_text="THEME = 'a'\n", proposed_text="THEME = 'b'\n")
    link = link_to(SETTINGS_WRITE=Ack(1, False, "changed", data=msgspec.to_builtins(conflict)))
    async with editor(link) as (app, pilot):
        app.screen._raw._open_editor = Scripted(Edited("THEME = 'b'\n"))
        await pilot.press("e")
        await until(pilot, lambda: "± THEME = 'a'" in screen_text(app) and "edit your text again" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "your text is kept" in screen_text(app))


async def test_an_unchanged_text_and_a_terminal_that_cannot_be_lent_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_to()
    async with editor(link) as (app, pilot):
        app.screen._raw._open_editor = Scripted(Edited(link.text))
        await pilot.press("e")
        await until(pilot, lambda: "the file is as it was: nothing to write" in screen_text(app))
        monkeypatch.setenv("EDITOR", "true")
        assert (await edit_text(app, "x", "config.toml")).problem == "this terminal cannot be lent to an editor"
        monkeypatch.setenv("EDITOR", "no-such-editor --wait")
        assert "no-such-editor" in (await edit_text(app, "x", "config.toml")).problem
        assert link.writes == []
