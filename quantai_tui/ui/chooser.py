"""A list to choose one thing from by typing a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from .cells import clip
from .format import clean
from .options import Options


class Choice(Struct, frozen=True):
    """One thing to choose. `text` says what it does, `key` how it is reached without this list. `faded` ones step back.

    `about` is what is said of the one under the cursor, where that is more than `text`.
    """

    id: str
    name: str
    text: str
    key: str = ""
    faded: bool = False
    about: str = ""


class Chooser(ModalScreen[str]):
    """Dismisses with the id of what was chosen, with an empty text when nothing was.

    Not Textual's own palette, which shows an emoji, takes two lines for each command and has no place for its key; to type in it
    costs a third more bytes.
    """

    DEFAULT_CSS = """
    Chooser { align: center middle; background: $background 60%; }
    Chooser > Vertical {
        width: 100; max-width: 96%; height: 30; max-height: 92%; background: $surface; border: round $edge-focus; padding: 0 1;
        border-title-color: $title; border-title-style: bold;
    }
    Chooser Input { height: 1; border: none; padding: 0; color: $value; background: $panel; }
    Chooser OptionList {
        height: 1fr; background: $surface; background-tint: $surface 0%; border: none; padding: 0; scrollbar-size-vertical: 1;
    }
    Chooser OptionList > .option-list--option-highlighted { color: $value; background: $panel; text-style: none; }
    Chooser OptionList:ansi > .option-list--option-highlighted { text-style: reverse; }
    Chooser Static { height: 1; color: $foreground; background: $surface; }
    Chooser #about { height: 2; }
    Chooser #keys { color: $muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", show=False),
        # Above the text field's own keys: typing filters, and the arrows move in the list all the same.
        Binding("down", "move('cursor_down')", show=False, priority=True),
        Binding("up", "move('cursor_up')", show=False, priority=True),
        Binding("pagedown", "move('page_down')", show=False, priority=True),
        Binding("pageup", "move('page_up')", show=False, priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[Choice], *, does: str, nothing: str, start: str = "") -> None:
        """`does`: what enter does, in a word or two; `nothing`: what is said when no choice has all the words typed.

        `start`: the choice that the cursor stands on at first.
        """
        super().__init__()
        self._title = title
        self.choices = choices
        self._does = does
        self._nothing = nothing
        self._start = start
        self._name_cells = max([18, *(cell_len(clean(choice.name)) for choice in choices if len(choice.name) <= 24)])
        self._key_cells = max((cell_len(choice.key) for choice in choices), default=0)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title).plain
            yield Input(placeholder="filter", compact=True)
            yield Options(markup=False)
            yield Static("", id="about", markup=False)
            yield Static(self.hint(), id="keys", markup=False)

    def hint(self) -> str:
        return f"type to filter  ↑ ↓ choose  enter {self._does}  esc leaves"

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.can_focus = False  # the text field has the keys throughout
        self.query_one(Input).focus()
        self._fill("")

    def on_resize(self) -> None:
        self._fill(self.query_one(Input).value)

    def _fill(self, wanted: str) -> None:
        """Those that have every word of what was typed, in their name or text; those that are named so come first."""
        options = self.query_one(OptionList)
        before = self.chosen or self._start
        parts = wanted.lower().split()
        shown = [
            choice for choice in self.choices if all(part in f"{choice.name} {choice.text} {choice.id}".lower() for part in parts)
        ]
        shown.sort(key=lambda choice: not all(part in choice.name.lower() for part in parts))
        options.clear_options()
        options.add_options(Option(self.line(choice, options.size.width), id=choice.id) for choice in shown)
        names = [choice.id for choice in shown]
        if names:
            options.highlighted = names.index(before) if before in names and not parts else 0
        else:
            self.query_one("#about", Static).update(Content(self._nothing))

    def line(self, choice: Choice, width: int) -> Content:
        key = f"{choice.key:<{self._key_cells}}  " if self._key_cells else ""
        name = clip(clean(choice.name), self._name_cells)
        room = max(8, width - self._name_cells - len(key) - 3)
        text = clip(clean(choice.text), room)
        return Content.assemble(
            (key, "$muted" if choice.faded else "$key"),
            (f"{name:<{self._name_cells}} ", "$muted" if choice.faded else "bold"),
            (text, "$muted" if choice.faded else ""),
        )

    @property
    def chosen(self) -> str:
        """The id of the choice under the cursor, or an empty text."""
        option = self.query_one(OptionList).highlighted_option
        return (option.id or "") if option is not None else ""

    def on_input_changed(self, message: Input.Changed) -> None:
        self._fill(message.value)

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        text = next((choice.about or choice.text for choice in self.choices if choice.id == message.option.id), "")
        self.query_one("#about", Static).update(Content(clean(text)))

    def on_input_submitted(self) -> None:
        if self.chosen:
            self.dismiss(self.chosen)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(message.option.id or "")

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    def action_leave(self) -> None:
        self.dismiss("")
