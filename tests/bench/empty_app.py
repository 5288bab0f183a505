"""The bare thing that the dashboard is compared with: a Textual app that shows one line, and another at a key press."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

LINES = ("An empty Textual application, with just enough letters for a first frame.", "The other line.")


class EmptyApp(App[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("t", "turn", "Turn")]
    ENABLE_COMMAND_PALETTE = False

    def compose(self) -> ComposeResult:
        yield Static(LINES[0])

    def action_turn(self) -> None:
        static = self.query_one(Static)
        static.update(LINES[1] if str(static.content) == LINES[0] else LINES[0])


if __name__ == "__main__":
    EmptyApp().run()
