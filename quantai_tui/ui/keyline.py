"""The line at the foot of the dashboard: the keys that matter most, by what they would do now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .actions import ACTIONS, Action
from .cells import Span, width_of
from .keymap import Keymap

if TYPE_CHECKING:
    from textual import events

    from .themes import Palette


class KeyLine(Widget):
    """The most important keys, as many as fit; labels say what a key would do now. Clickable where there is a mouse."""

    DEFAULT_CSS = "KeyLine { height: 1; padding: 0 1; background: $background; }"
    ALLOW_SELECT: ClassVar[bool] = False

    class Pressed(Message):
        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action

    def __init__(self, palette: Palette) -> None:
        super().__init__(id="footer")
        self._palette = palette
        self._labels: dict[str, str] = {}
        self._keymap = Keymap()

    def dress(self, palette: Palette) -> None:
        self._palette = palette
        self.refresh()

    def relabel(self, labels: dict[str, str]) -> None:
        if labels != self._labels:
            self._labels = labels
            self.refresh()

    def rekey(self, keymap: Keymap) -> None:
        self._keymap = keymap
        self.refresh()

    def entries(self, width: int) -> list[tuple[Action, list[Span]]]:
        """The actions that fit into `width`, in the registry's order."""
        shown: list[Action] = []
        offered = [item for item in ACTIONS if item.footer and self._labels.get(item.id) != ""]
        for item in sorted(offered, key=lambda item: item.footer):
            if sum(width_of(self._spans(other)) + 2 for other in [*shown, item]) - 2 <= width:
                shown.append(item)
        return [(item, self._spans(item)) for item in ACTIONS if item in shown]

    def _spans(self, item: Action) -> list[Span]:
        return [(self._keymap.shown(item), "key"), (f" {self._labels.get(item.id, item.label)}", "muted")]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        spans: list[Span] = []
        for _, entry in self.entries(width) if y == 0 else ():
            spans += [("  ", "text"), *entry] if spans else entry
        spans.append((" " * (width - width_of(spans)), "text"))
        return Strip([Segment(text, self._palette[token]) for text, token in spans])

    def on_click(self, event: events.Click) -> None:
        x = event.x - self.content_offset.x
        for item, entry in self.entries(self.size.width):
            width = width_of(entry)
            if 0 <= x < width:
                self.post_message(self.Pressed(item))
                return
            x -= width + 2
