"""Break something: the faults that the embedded exchange can play, to choose one from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..link.messages import Ack, FaultOffer
from .cells import clip
from .format import clean

_KIND_CELLS = 18
_KEYS = "type to filter  ↑ ↓ choose  enter breaks it  esc leaves"


def fault_names(ack: Ack) -> tuple[tuple[FaultOffer, ...], str]:
    """The faults in the engine's answer, or in words why there are none."""
    if not ack.ok:
        return (), ack.message
    try:
        return msgspec.convert(ack.data, tuple[FaultOffer, ...]), ""
    except msgspec.ValidationError as error:
        return (), f"the engine's answer cannot be read: {error}"


class FaultScreen(ModalScreen[str]):
    """Dismisses with the kind of the chosen fault; with an empty text when none was."""

    DEFAULT_CSS = """
    FaultScreen { align: center middle; background: $background 60%; }
    FaultScreen > Vertical {
        width: 100; max-width: 96%; height: 30; max-height: 92%; background: $surface; border: round $edge-focus; padding: 0 1;
        border-title-color: $title; border-title-style: bold;
    }
    FaultScreen Input { height: 1; border: none; padding: 0; color: $value; background: $panel; }
    FaultScreen OptionList {
        height: 1fr; background: $surface; background-tint: $surface 0%; border: none; padding: 0; scrollbar-size-vertical: 1;
    }
    FaultScreen OptionList > .option-list--option-highlighted { color: $value; background: $panel; text-style: none; }
    FaultScreen OptionList:ansi > .option-list--option-highlighted { text-style: reverse; }
    FaultScreen Static { height: 1; color: $foreground; background: $surface; }
    FaultScreen #about { height: 2; }
    FaultScreen #keys { color: $muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", show=False),
        # Above the text field's own keys: typing filters, and the arrows move in the list all the same.
        Binding("down", "move('cursor_down')", show=False, priority=True),
        Binding("up", "move('cursor_up')", show=False, priority=True),
        Binding("pagedown", "move('page_down')", show=False, priority=True),
        Binding("pageup", "move('page_up')", show=False, priority=True),
    ]

    def __init__(self, faults: Sequence[FaultOffer]) -> None:
        super().__init__()
        self._faults = faults

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "break something"
            yield Input(placeholder="filter", compact=True)
            yield OptionList(markup=False)
            yield Static("", id="about", markup=False)
            yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.can_focus = False  # the text field has the keys throughout
        self.query_one(Input).focus()
        self._fill("")

    def on_resize(self) -> None:
        self._fill(self.query_one(Input).value)

    def _fill(self, wanted: str) -> None:
        """The kinds that have every word of what was typed, in their name or text; those that are named so come first."""
        options = self.query_one(OptionList)
        before = self._chosen
        parts = wanted.lower().split()
        shown = [fault for fault in self._faults if all(part in f"{fault.kind} {fault.text}".lower() for part in parts)]
        shown.sort(key=lambda fault: not all(part in fault.kind.lower() for part in parts))
        room = max(8, options.size.width - _KIND_CELLS - 3)
        options.clear_options()
        options.add_options(
            Option(
                Content.assemble((f"{clean(fault.kind):<{_KIND_CELLS}} ", "bold"), clip(clean(fault.text), room)), id=fault.kind
            )
            for fault in shown
        )
        kinds = [fault.kind for fault in shown]
        if kinds:
            options.highlighted = kinds.index(before) if before in kinds and not parts else 0
        else:
            self.query_one("#about", Static).update(Content("no fault has all these words"))

    @property
    def _chosen(self) -> str:
        option = self.query_one(OptionList).highlighted_option
        return (option.id or "") if option is not None else ""

    def on_input_changed(self, message: Input.Changed) -> None:
        self._fill(message.value)

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        text = next((fault.text for fault in self._faults if fault.kind == message.option.id), "")
        self.query_one("#about", Static).update(Content(clean(text)))

    def on_input_submitted(self) -> None:
        if self._chosen:
            self.dismiss(self._chosen)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(message.option.id or "")

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    def action_leave(self) -> None:
        self.dismiss("")
