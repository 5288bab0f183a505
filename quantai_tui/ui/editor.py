"""The settings editor: a list of all settings, one line to type in, and the engine's word on what was typed.

The engine alone reads and writes settings files; this screen asks it to describe, to validate and to save. One text field
serves all settings: sixty of them would cost most of a second to mount.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..link.messages import Ack, CommandName, SaveResult, SettingField, SettingProblem, SettingsForm
from .cells import clip
from .conflict import ConflictScreen
from .dialogs import ask_discard
from .draft import Draft
from .format import clean

Command = Callable[..., Awaitable[Ack]]

_VALIDATE_AFTER_S = 0.25
_APPLIES = {"live": "applies live", "reconnect": "the stream reconnects", "restart": "at the next start"}
_NAME_CELLS = 36
_KEYS = "enter edit  space next choice  u undo  / filter  ctrl+s save  esc back"
_KEYS_TYPING = "enter or esc back to the list  ctrl+u clear  ctrl+s save"


class EditorScreen(Screen[str]):
    """Dismisses with one line that says what came of it."""

    DEFAULT_CSS = """
    EditorScreen { background: $background; layout: vertical; }
    EditorScreen Static { height: 1; padding: 0 1; color: $foreground; background: $background; }
    EditorScreen #filter { display: none; }
    EditorScreen #filter.open { display: block; }
    EditorScreen Input { height: 1; border: none; padding: 0 1; color: $value; background: $panel; }
    EditorScreen OptionList, EditorScreen OptionList:focus {
        width: 100%; height: 1fr; padding: 0; background: $background;
        border: none; border-top: solid $edge; border-bottom: solid $edge;
        background-tint: $background 0%; scrollbar-size-vertical: 1;
    }
    EditorScreen OptionList:focus { border-top: solid $edge-focus; border-bottom: solid $edge-focus; }
    EditorScreen OptionList > .option-list--option-highlighted,
    EditorScreen OptionList:focus > .option-list--option-highlighted { color: $value; background: $panel; text-style: none; }
    EditorScreen OptionList:ansi > .option-list--option-highlighted,
    EditorScreen OptionList:ansi:focus > .option-list--option-highlighted { text-style: reverse; }
    EditorScreen #about { height: 4; }
    EditorScreen #value, EditorScreen #filter { margin: 0 1; }
    EditorScreen #value:disabled { color: $muted; }
    EditorScreen #verdict { height: 2; }
    EditorScreen #keys { color: $muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back", show=False),
        Binding("q", "leave", "back", show=False),
        Binding("ctrl+s", "save", "save", show=False, priority=True),
        Binding("slash", "filter", "filter", show=False),
        Binding("u", "undo", "undo", show=False),
        Binding("space", "cycle", "next choice", show=False),
    ]

    def __init__(self, command: Command) -> None:
        super().__init__()
        self._command = command
        self._draft: Draft | None = None
        self._current = ""
        self._note: tuple[str, str] = ("", "$muted")
        self._validating: Timer | None = None
        self._outcome = ""
        self._busy = False

    # -- the page ------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static("config", id="title", markup=False)
        yield Input(id="filter", placeholder="filter by name, title, group or description", compact=True)
        yield OptionList(id="fields", markup=False)
        yield Static("asking the engine …", id="about", markup=False)
        yield Input(id="value", compact=True, disabled=True)
        yield Static("", id="verdict", markup=False)
        yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one("#fields").focus()
        self.run_worker(self._describe(), group="editor")

    async def _describe(self) -> bool:
        """Ask the engine for its settings; edits made so far stay."""
        ack = await self._command(CommandName.SETTINGS_DESCRIBE)
        try:
            form = msgspec.convert(ack.data, SettingsForm) if ack.ok else None
        except msgspec.ValidationError as error:
            form, ack = None, Ack(0, False, f"the engine's answer cannot be read: {error}")
        if form is None:
            self._say(f"The engine did not describe its settings: {ack.message}", "$state-failed")
            return False
        if self._draft is None:
            self._draft = Draft(form)
        else:
            self._draft.rebase(form)
        self._fill()
        return True

    def _fill(self) -> None:
        """The list anew, for another filter, form or width; the cursor stays on its setting."""
        if self._draft is None:
            return
        options = self.query_one("#fields", OptionList)
        fields = self._draft.matching(self.query_one("#filter", Input).value)
        options.clear_options()
        group = ""
        for item in fields:
            if item.group != group:
                group = item.group
                options.add_option(Option(Content.assemble((f" {clean(group)}", "bold $title")), disabled=True))
            options.add_option(Option(self._line(item), id=item.name))
        names = [item.name for item in fields]
        if names:
            options.highlighted = options.get_option_index(self._current if self._current in names else names[0])
        else:
            self._current = ""
            self._about()
        self._head()

    def _line(self, item: SettingField) -> Content:
        assert self._draft is not None
        edited = item.name in self._draft.edits
        sign, style = (" ", "$foreground")
        if item.name in self._draft.problems:
            sign, style = ("!", "$state-failed")
        elif edited:
            sign, style = ("*", "$state-backoff")
        elif item.locked:
            sign, style = ("=", "$muted")
        width = max(50, self.size.width - 3)
        value = clean(self._draft.text(item.name))
        shown = f"{value} {item.unit}".strip() if value else "(empty)"
        source = self._draft.applied.get(item.name) or ("edited" if edited else clean(item.locked or item.source))
        room = width - _NAME_CELLS - 4
        left = min(30, room // 2 - 1)
        return Content.assemble(
            (f" {sign} ", f"bold {style}"),
            (f"{item.name:<{_NAME_CELLS}} ", style),
            (f"{clip(shown, left):<{left}} ", "bold $value" if not item.locked else "$muted"),
            (clip(source, room - left - 1), "$state-live" if item.name in self._draft.applied else "$muted"),
        )

    def _head(self) -> None:
        if self._draft is None:
            return
        edits = len(self._draft.edits)
        state = ("nothing edited", "$muted") if not edits else (f"{edits} unsaved", "bold $state-backoff")
        title = Content.assemble(
            ("config", "bold $title"), ("  ", ""), (clean(self._draft.form.path), "$muted"), ("  ", ""), state
        )
        self.query_one("#title", Static).update(title, layout=False)

    def _about(self) -> None:
        """What is known of the setting under the cursor, and the engine's word on what was typed."""
        about, value = self.query_one("#about", Static), self.query_one("#value", Input)
        if self._draft is None or not self._current:
            about.update("", layout=False)
            value.disabled = True
            return
        item = self._draft.field(self._current)
        facts = [f"rule {item.rule}" if item.rule else "", f"unit {item.unit}" if item.unit else ""]
        facts += [f"default {item.default or '(empty)'}", _APPLIES.get(item.applies, item.applies)]
        more = f"one of {', '.join(item.choices)}" if item.choices else f"from {item.source}"
        last = (f"fixed by {item.locked}: change it there", "$state-backoff") if item.locked else (more, "$muted")
        about.update(
            Content.assemble(
                (clean(item.title), "bold $title"),
                ("  ", ""),
                (clean("  ".join(fact for fact in facts if fact)), "$muted"),
                "\n",
                clean(item.description),
                "\n",
                (clean(last[0]), last[1]),
            ),
            layout=False,
        )
        value.disabled = bool(item.locked)
        if value.value != self._draft.text(item.name):
            with value.prevent(Input.Changed):
                value.value = self._draft.text(item.name)
        self._verdict()

    def _verdict(self) -> None:
        assert self._draft is not None
        problem = self._draft.problems.get(self._current)
        text, style = (f"! {problem}", "$state-failed") if problem else self._note
        self.query_one("#verdict", Static).update(Content.assemble((clean(text), style)), layout=False)

    def _say(self, text: str, style: str = "$foreground") -> None:
        self._note = (text, style)
        if self._draft is None:
            self.query_one("#about", Static).update(Content.assemble((clean(text), style)), layout=False)
        else:
            self._verdict()

    def _refresh_lines(self) -> None:
        if self._draft is None:
            return
        options = self.query_one("#fields", OptionList)
        for option in options.options:
            if option.id is not None:
                options.replace_option_prompt(option.id, self._line(self._draft.field(option.id)))
        self._head()
        self._verdict()

    def on_resize(self) -> None:
        self._refresh_lines()

    # -- typing --------------------------------------------------------------------------------------------------------

    @on(OptionList.OptionHighlighted)
    def _moved(self, message: OptionList.OptionHighlighted) -> None:
        if message.option.id is not None and message.option.id != self._current:
            self._current = message.option.id
            self._about()

    @on(OptionList.OptionSelected)
    def _edit(self) -> None:
        value = self.query_one("#value", Input)
        if not value.disabled:
            value.focus()
            self._hint(_KEYS_TYPING)

    @on(Input.Changed, "#value")
    def _typed(self, message: Input.Changed) -> None:
        if self._draft is not None and self._current and self._draft.type(self._current, message.value):
            self._edited()

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        self._fill()

    @on(Input.Submitted)
    def _done_typing(self) -> None:
        self._to_list()

    def _to_list(self) -> None:
        self.query_one("#fields").focus()
        self._hint(_KEYS)

    def _hint(self, text: str) -> None:
        self.query_one("#keys", Static).update(text, layout=False)

    def _edited(self) -> None:
        """Show the edit, and have it judged once the typing pauses."""
        self._note = ("", "$muted")
        self._refresh_lines()
        if self._validating is not None:
            self._validating.stop()
        self._validating = self.set_timer(
            _VALIDATE_AFTER_S, lambda: self.run_worker(self._validate(), group="validate", exclusive=True)
        )

    async def _validate(self) -> None:
        assert self._draft is not None
        edits = self._draft.edits
        if not edits:
            self._draft.judge(())
            self._refresh_lines()
            return
        ack = await self._command(CommandName.SETTINGS_VALIDATE, values=edits)
        if edits != self._draft.edits:
            return  # typed on meanwhile: a newer question is on its way
        if not ack.ok:
            self._say(f"not checked: {ack.message}", "$state-backoff")
            return
        self._draft.judge(msgspec.convert(ack.data, list[SettingProblem]))
        self._refresh_lines()

    def action_undo(self) -> None:
        if self._draft is not None and self._current and self._draft.undo(self._current):
            self._about()
            self._edited()

    def action_cycle(self) -> None:
        if self._draft is None or not self._current:
            return
        if self._draft.cycle(self._current):
            self._about()
            self._edited()
        else:
            self._edit()

    def action_filter(self) -> None:
        entry = self.query_one("#filter", Input)
        entry.add_class("open")
        entry.focus()
        self._hint("type to filter  enter to the list  esc clears the filter")

    # -- saving and leaving --------------------------------------------------------------------------------------------

    def action_save(self) -> None:
        if not self._busy:
            self.run_worker(self._save(), group="editor")

    async def _save(self) -> bool:
        """Have the engine write the edits; returns whether it did."""
        if self._draft is None:
            return False
        edits = self._draft.edits
        if not edits:
            self._say("nothing to save", "$muted")
            return False
        self._busy = True
        self._say("saving …", "$state-pending")
        try:
            ack = await self._command(CommandName.SETTINGS_SAVE, values=edits, revision=self._draft.form.revision)
            result = msgspec.convert(ack.data, SaveResult) if ack.data is not None else None
        finally:
            self._busy = False
        if result is None:
            self._say(f"not saved: {ack.message}", "$state-failed")
            return False
        return await self._take(result, edits, ack)

    async def _take(self, result: SaveResult, edits: dict[str, str], ack: Ack) -> bool:
        assert self._draft is not None
        self._draft.saved(result)
        if result.saved:
            said = ", ".join(f"{name} {what}" for name, what in result.applied.items())
            self._outcome = f"settings saved: {said or f'{len(edits)} changed'}"
            await self._describe()
            self._say(self._outcome, "$state-live")
            self._refresh_lines()
            return True
        if result.conflict_text or result.proposed_text:
            self.app.push_screen(ConflictScreen(result.conflict_text, result.proposed_text), self._conflict_answered)
        elif result.problems:
            names = [problem.name for problem in result.problems]
            self._say(f"not saved: {len(names)} to correct ({', '.join(names)})", "$state-failed")
        else:
            self._say(f"not saved: {ack.message or 'the engine gave no reason'}", "$state-failed")
        self._refresh_lines()
        return False

    def _conflict_answered(self, answer: str | None) -> None:
        if answer == "reload":
            self.run_worker(self._reload(), group="editor")
        else:
            self._say("not saved: the file has changed on disk; your edits are kept", "$state-backoff")

    async def _reload(self) -> None:
        if await self._describe() and self._draft is not None:
            self._say(f"read again; {len(self._draft.edits)} of your edits are kept on top, ctrl+s saves them", "$state-pending")
            self._refresh_lines()

    def action_leave(self) -> None:
        """One step back: out of the text, out of the filter, out of the editor; unsaved edits are asked about once."""
        entry = self.query_one("#filter", Input)
        if isinstance(self.focused, Input) and self.focused.id == "value":
            self._to_list()
        elif entry.has_class("open"):
            entry.remove_class("open")
            entry.value = ""
            self._to_list()
        elif self._draft is not None and self._draft.edits:
            self.app.push_screen(ask_discard(len(self._draft.edits)), self._leave_answered)
        else:
            self.dismiss(self._outcome)

    def _leave_answered(self, answer: str | None) -> None:
        if answer == "discard":
            self.dismiss(self._outcome or "settings: edits thrown away")
        elif answer == "save":
            self.run_worker(self._save_and_leave(), group="editor")

    async def _save_and_leave(self) -> None:
        if await self._save():
            self.dismiss(self._outcome)
