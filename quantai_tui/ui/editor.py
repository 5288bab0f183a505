"""The settings editor: a list of all settings, one line to type in, and the engine's word on what was typed.

The engine alone reads and writes settings files; this screen asks it to describe, to validate and to save. One text field
serves all settings: sixty of them would cost most of a second to mount.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static

from ..link.base import EngineLink, LinkState
from ..link.messages import CommandName, SettingProblem, SettingsForm
from .cells import row, wrap
from .commands import answered
from .dialogs import ask_discard
from .draft import Draft
from .editor_keys import Place, bindings, key_line
from .editor_styles import STYLES
from .external import edit_text
from .field_list import FieldList
from .fields import about, content, head, verdict
from .format import clean
from .raw import Command, OpenEditor, RawFile
from .saving import Saving
from .trial import Trials, trial_spans

_VALIDATE_AFTER_S = 0.25
_LOOK_EVERY_S = 0.5
_NOT_CHECKED = "not checked:"
_LEAST = (60, 20)
_WIDE = 110


class EditorScreen(Screen[str]):
    """Dismisses with one line that says what came of it."""

    DEFAULT_CSS = STYLES
    BINDINGS: ClassVar[list[BindingType]] = list(bindings())

    def __init__(self, command: Command, link: EngineLink, trials: Trials, open_editor: OpenEditor = edit_text) -> None:
        super().__init__()
        self._command = command
        self._link = link
        self._trials = trials
        self._draft: Draft | None = None
        self._current = ""
        self._note: tuple[str, str] = ("", "muted")
        self._validating: Timer | None = None
        self._unchecked = False
        self._attached = True
        self._saving = Saving(self, command, trials)
        self._raw = RawFile(command, self.say, open_editor)
        self._dashboard_says = trials.say

    @property
    def draft(self) -> Draft | None:
        """What is typed so far; None until the engine has described its settings."""
        return self._draft

    # -- the page ------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static("config", id="title", markup=False)
        yield Input(id="search", placeholder="words of a name, title, group or description", compact=True)
        with Container(id="page"):
            yield FieldList()
            with Vertical(id="detail"):
                yield Static("asking the engine …", id="about", markup=False)
                with Horizontal(id="entry"):
                    yield Static("value", id="label", markup=False)
                    yield Input(id="value", compact=True, disabled=True)
                yield Static("", id="verdict", markup=False)
        yield Static("", id="trial", markup=False)
        yield Static("", id="keys", markup=False)
        yield Static("", id="small", markup=False)

    def on_mount(self) -> None:
        self.query_one("#fields").focus()
        self._trials.say = self._say_of_trial
        self._trials.ended = self.action_reread
        self.set_interval(_LOOK_EVERY_S, self._look)
        self.work(self.describe, group="editor")

    def on_unmount(self) -> None:
        self._trials.say = self._dashboard_says
        self._trials.ended = lambda: None

    def work(self, what: Callable[[], Coroutine[Any, Any, Any]], group: str) -> None:
        """Handed over as a function: a coroutine made here would be left over where the screen closes first."""
        self.run_worker(what, group=group, exclusive=group in ("validate", "raw"))

    def _say_of_trial(self, text: str, token: str) -> None:
        self.say(text, token)
        self._dashboard_says(text, token)

    async def describe(self) -> bool:
        """Ask the engine for its settings; edits made so far stay."""
        form, why = answered(await self._command(CommandName.SETTINGS_DESCRIBE), SettingsForm)
        if form is None:
            self.say(f"The engine did not describe its settings: {why}", "state-failed")
            return False
        if self._draft is None:
            self._draft = Draft(form)
        else:
            self.take_typed()
            self._draft.rebase(form)
            self.show_value()
        self._fill()
        self._about()
        return True

    def _look(self) -> None:
        """What goes on by itself: the countdown of a trial, and a link that went or came back."""
        self._show_trial()
        attached = self._link.state is LinkState.ATTACHED
        back, self._attached = attached and not self._attached, attached
        self._head()
        if not attached:
            return
        if back or (self._draft is None and not self._saving.busy):
            self.work(self._reread, group="editor")
        elif self._unchecked:
            self.work(self._validate, group="validate")

    def _show_trial(self) -> None:
        line, trial = self.query_one("#trial", Static), self._trials.standing
        line.set_class(trial is not None, "open")
        if trial is not None:
            spans = trial_spans(trial, self.size.width - 2, stale=self._link.state is not LinkState.ATTACHED)
            line.update(content([row(*spans)]), layout=False)
        self._keys()

    def _fill(self) -> None:
        """The list anew, for another search or form."""
        if self._draft is None:
            return
        if not self._list.fill(self._draft, self._wanted, self._current):
            self.take_typed()
            self._current = ""
            self._about()
        self._head()

    @property
    def _list(self) -> FieldList:
        return self.query_one(FieldList)

    @property
    def _input(self) -> Input:
        return self.query_one("#value", Input)

    @property
    def _wanted(self) -> str:
        return self.query_one("#search", Input).value

    def _head(self) -> None:
        if self._draft is not None:
            trouble = "" if self._attached else "no link: edits are kept, checked when it is back"
            shown = head(self._draft, self.size.width - 2, trouble)
            self.query_one("#title", Static).update(content([shown]), layout=False)

    def _about(self) -> None:
        """What is known of the setting under the cursor, and the engine's word on what was typed."""
        shown, value = self.query_one("#about", Static), self._input
        if self._draft is None or not self._current:
            shown.update("no setting has all these words" if self._draft is not None else "")
            value.disabled = True
            return
        item, width = self._draft.field(self._current), max(20, shown.size.width or self.size.width - 2)
        shown.update(content(about(item, self._draft, width, tall=self.has_class("-wide"))))
        value.disabled = bool(item.locked)
        self._verdict()

    def take_typed(self) -> None:
        """What is in the field goes into the draft, before either changes: a keystroke may be ahead of its message."""
        if self._draft is not None and self._current and self._draft.type(self._current, self._input.value):
            self._edited()

    def show_value(self) -> None:
        """The field as the draft has it, after `take_typed`."""
        if self._draft is not None and self._current and self._input.value != self._draft.text(self._current):
            with self._input.prevent(Input.Changed):
                self._input.value = self._draft.text(self._current)

    def _verdict(self) -> None:
        assert self._draft is not None
        shown = self.query_one("#verdict", Static)
        rows = verdict(self._draft, self._current, self._note, max(20, shown.size.width), max(2, shown.size.height))
        shown.update(content(rows), layout=False)

    def say(self, text: str, token: str = "text") -> None:
        """One line beside the field, until the next edit."""
        self._note = (text, token)
        if not self.is_mounted:
            return
        if self._draft is None:
            lines = wrap(clean(text), max(20, self.size.width - 2), 3)
            self.query_one("#about", Static).update(content([row((line, token)) for line in lines]))
        else:
            self._verdict()

    def refresh_lines(self) -> None:
        """Draw again what an edit or an answer may have changed."""
        if self._draft is None:
            return
        self._list.redraw(self._draft, self._wanted)
        self._head()
        self._about()

    def on_resize(self) -> None:
        width, height = self.size
        small = width < _LEAST[0] or height < _LEAST[1]
        self.set_class(small, "-small")
        self.set_class(width >= _WIDE, "-wide")
        if small:
            kept = len(self._draft.unsaved) if self._draft is not None else 0
            text = f"The editor needs {_LEAST[0]}x{_LEAST[1]}, here are {width}x{height}. {kept} unsaved, kept. esc goes back."
            self.query_one("#small", Static).update(content([row((line, "text")) for line in wrap(text, max(8, width - 2), 6)]))
        elif self.focused is None:
            self.query_one("#fields").focus()
        self.call_after_refresh(self.refresh_lines)
        self.call_after_refresh(self._show_trial)

    def _keys(self) -> None:
        focused = self.focused.id if self.focused is not None else ""
        place = {"value": Place.TEXT, "search": Place.SEARCH}.get(focused or "", Place.LIST)
        line = key_line(place, self.size.width - 2, trial=self._trials.standing is not None)
        self.query_one("#keys", Static).update(content([line]), layout=False)

    def on_descendant_focus(self) -> None:
        self._keys()

    # -- typing --------------------------------------------------------------------------------------------------------

    @on(OptionList.OptionHighlighted)
    def _moved(self, message: OptionList.OptionHighlighted) -> None:
        if message.option.id is not None and message.option.id != self._current:
            self.take_typed()
            self._current = message.option.id
            self.show_value()
            self._about()

    @on(OptionList.OptionSelected)
    def _edit(self) -> None:
        if not self._input.disabled:
            self._input.focus()

    @on(Input.Changed, "#value")
    def _typed(self) -> None:
        self.take_typed()

    @on(Input.Changed, "#search")
    def _searched(self) -> None:
        self._fill()

    @on(Input.Submitted)
    def _to_list(self) -> None:
        self.query_one("#fields").focus()

    def _edited(self) -> None:
        """Show the edit, and have it judged once the typing pauses."""
        self._note = ("", "muted")
        self._unchecked = True
        self.refresh_lines()
        if self._validating is not None:
            self._validating.stop()
        self._validating = self.set_timer(_VALIDATE_AFTER_S, lambda: self.work(self._validate, group="validate"))

    async def _validate(self) -> None:
        assert self._draft is not None
        edits, why = self._draft.edits, ""
        problems: list[SettingProblem] | None = []
        if edits:
            problems, why = answered(await self._command(CommandName.SETTINGS_VALIDATE, values=edits), list[SettingProblem])
        if edits != self._draft.edits:
            return  # typed on meanwhile: a newer question is on its way
        self._unchecked = problems is None
        if not self._note[0] or self._note[0].startswith(_NOT_CHECKED):  # asked again and again: no newer word is talked over
            said = "" if problems is not None else f"{_NOT_CHECKED} {why}; checked when it answers"
            self.say(said, "state-backoff")
        if problems is None:
            return
        self._draft.judge(problems)
        self.refresh_lines()

    def action_undo(self) -> None:
        if self._draft is not None and self._current and self._draft.undo(self._current):
            self._changed()

    def action_reset(self) -> None:
        if self._draft is None or not self._current:
            return
        why = self._draft.reset(self._current)
        if why:
            self.say(why, "muted")
        else:
            self._changed()

    def action_cycle(self) -> None:
        if self._draft is None or not self._current:
            return
        if self._draft.cycle(self._current):
            self._changed()
        else:
            self._edit()

    def _changed(self) -> None:
        self.show_value()
        self._edited()

    def action_search(self) -> None:
        self.query_one("#search", Input).add_class("open").focus()

    def action_jump(self, step: int) -> None:
        """To the next setting that is wrong; where none is, to the next edited one. A search that hides it ends."""
        marked = self._draft.marked if self._draft is not None else []
        if self._draft is None or not marked:
            self.say("nothing is edited or wrong", "muted")
            return
        names = [item.name for item in self._draft.form.fields]
        here = names.index(self._current) if self._current in names else 0
        order = sorted(marked, key=lambda name: (step * (names.index(name) - here) - 1) % len(names))
        self.go_to(order[0])

    def go_to(self, name: str) -> None:
        """Put the cursor on a setting, whatever the list shows now."""
        if not self._list.shows(name):
            self.query_one("#search", Input).remove_class("open").value = ""
            self._fill()
        self._list.go_to(name)

    # -- saving and leaving --------------------------------------------------------------------------------------------

    def action_save(self) -> None:
        self.work(self._saving.save, group="saving")

    def action_undo_save(self) -> None:
        self.work(self._saving.undo, group="saving")

    def action_raw(self) -> None:
        self.work(self._edit_raw, group="raw")

    async def _edit_raw(self) -> None:
        result = await self._raw.edit(self.app)
        if result is not None:
            await self._saving.take(result, {})

    async def _reread(self) -> None:
        if await self.describe():
            await self._validate()

    def action_reread(self) -> None:
        self.work(self._reread, group="editor")

    def action_keep(self) -> None:
        self._trials.keep()

    def action_undo_trial(self) -> None:
        self._trials.undo()

    def action_help(self) -> None:
        from .help import EditorHelp

        self.app.push_screen(EditorHelp())

    def action_leave(self) -> None:
        """One step back: out of the text, out of the search, out of the editor; what would be lost is asked about once."""
        entry = self.query_one("#search", Input)
        if self.focused is not None and self.focused.id == "value":
            self._to_list()
        elif entry.has_class("open"):
            entry.remove_class("open").value = ""
            self._to_list()
        elif self._losses():
            self.app.push_screen(ask_discard(self._losses()), self._leave_answered)
        else:
            self.dismiss(self._saving.outcome)

    def _losses(self) -> list[str]:
        lines = [] if self._draft is None else [f"{name}  {text or '(empty)'}" for name, text in self._draft.unsaved.items()]
        return lines + (["the edited file (e goes on with it)"] if self._raw.kept else [])

    def _leave_answered(self, answer: str | None) -> None:
        if answer == "discard":
            self.dismiss(self._saving.outcome or "settings: edits thrown away")
        elif answer == "save":
            self.work(self._save_and_leave, group="saving")

    async def _save_and_leave(self) -> None:
        if await self._saving.save() and not self._losses():
            self.dismiss(self._saving.outcome)
