"""The settings file itself, in the operator's own editor: read from the engine's machine, checked and written by the engine.

A text that was not written is kept, and opened again the next time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from ..link.messages import Ack, CommandName, SaveResult, SettingProblem, SettingsText
from .cells import Row, row
from .commands import answered
from .conflict import ConflictScreen
from .external import Edited, edit_text
from .fields import content
from .format import clean

_LINE = re.compile(r"\bline (\d+)\b")

Command = Callable[..., Awaitable[Ack]]
OpenEditor = Callable[[App[Any], str, str], Awaitable[Edited]]


class RawFile:
    """One settings file and the text that was made of it. `say` puts a line before the operator."""

    def __init__(self, command: Command, say: Callable[[str, str], None], open_editor: OpenEditor = edit_text) -> None:
        self._command = command
        self._say = say
        self._open_editor = open_editor
        self._kept: str | None = None

    @property
    def kept(self) -> bool:
        """Whether there is a text that was not written."""
        return self._kept is not None

    def drop(self) -> None:
        self._kept = None

    async def edit(self, app: App[Any]) -> SaveResult | None:
        """Editor, check, and again for as long as the operator wants; the result once the engine has written the text."""
        while True:
            file, why = answered(await self._command(CommandName.SETTINGS_TEXT), SettingsText)
            if file is None:
                self._say(f"the file cannot be edited: {why}", "state-failed")
                return None
            before = file.text if self._kept is None else self._kept
            edited = await self._open_editor(app, before, PurePath(file.path).name or "config.toml")
            self._kept = edited.text if edited.text != file.text else None
            if edited.problem:
                self._say(f"nothing written: {edited.problem}{self._kept_words()}", "state-failed")
                return None
            if self._kept is None:
                self._say("the file is as it was: nothing to write", "muted")
                return None
            answer = await self._write(app, edited.text, file)
            if isinstance(answer, SaveResult):
                self._kept = None
                return answer
            if answer == "drop":
                self._kept = None
                self._say("the edited text was thrown away; the file is as it was", "muted")
            elif answer != "again":
                self._say(f"nothing written{self._kept_words()}", "state-backoff")
            if answer != "again":
                return None

    async def _write(self, app: App[Any], text: str, file: SettingsText) -> SaveResult | str:
        """The result of a write that succeeded; else "again", "drop" or "later"."""
        ack = await self._command(CommandName.SETTINGS_WRITE, text=text, revision=file.revision)
        result, why = answered(ack, SaveResult)
        if result is not None and result.saved:
            return result
        if result is not None and (result.conflict_text or result.proposed_text):
            screen: Screen[str] = ConflictScreen(result.conflict_text, result.proposed_text, _CONFLICT_ANSWERS)
        elif result is not None and result.problems:
            screen = RawProblems(text, result.problems)
        else:
            screen = RawProblems(text, (SettingProblem("", why),))
        return await app.push_screen_wait(screen)

    def _kept_words(self) -> str:
        return "; your text is kept, e goes on with it" if self.kept else ""


_CONFLICT_ANSWERS = (
    ("e", "again", "edit your text again"),
    ("d", "drop", "throw it away, keep the file"),
    ("esc", "later", "cancel, text kept"),
)


class RawProblems(Screen[str]):
    """What is wrong with an edited file, with its lines. Dismisses with "again", "drop" or "later"."""

    DEFAULT_CSS = """
    RawProblems { background: $background; layout: vertical; }
    RawProblems Static { padding: 0 1; color: $foreground; background: $background; }
    RawProblems .line { height: 1; }
    RawProblems VerticalScroll {
        height: 1fr; border: round $edge; background: $background; scrollbar-size-vertical: 1;
    }
    RawProblems VerticalScroll:focus { border: round $edge-focus; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e,enter", "answer('again')", "edit again", show=False),
        Binding("d", "answer('drop')", "drop", show=False),
        Binding("escape,q", "answer('later')", "later", show=False),
    ]

    def __init__(self, text: str, problems: tuple[SettingProblem, ...]) -> None:
        super().__init__()
        self._text = text
        self._problems = problems

    def compose(self) -> ComposeResult:
        noun = "problem" if len(self._problems) == 1 else "problems"
        head = row(("Not written: ", "state-failed"), (f"{len(self._problems)} {noun}; the file is as it was", "text"))
        yield Static(content([head]), classes="line", markup=False)
        yield VerticalScroll(Static(content(problem_rows(self._text, self._problems)), markup=False))
        ways = (("e", " edit again   "), ("d", " throw the text away   "), ("esc", " back, text kept"))
        keys = row(*(span for key, words in ways for span in ((key, "key"), (words, "text"))))
        yield Static(content([keys]), classes="line", markup=False)

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)


def problem_rows(text: str, problems: tuple[SettingProblem, ...]) -> list[Row]:
    """Each problem, then the text with line numbers; lines that a problem names, or that set what it is about, have a sign."""
    said = [f"{one.name}: {one.message}" if one.name else one.message for one in problems]
    rows = [row(("! ", "state-failed"), (clean(line), "text")) for line in said]
    names = {problem.name for problem in problems if problem.name}
    named = {int(number) for problem in problems for number in _LINE.findall(problem.message)}
    rows.append(Row())
    for number, line in enumerate(text.splitlines(), 1):
        wrong = number in named or line.partition("=")[0].strip(" \t\"'") in names
        sign, token = ("!", "state-failed") if wrong else (" ", "text")
        rows.append(row((f"{sign} {number:>4}  ", token if wrong else "muted"), (clean(line), token)))
    return rows
