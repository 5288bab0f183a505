"""The line at the foot of the dashboard: the keys that matter most, by what they would do now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment

from .actions import ACTIONS, Action
from .cells import Span, width_of
from .keymap import Keymap

if TYPE_CHECKING:
    from .themes import Palette


class KeyLine:
    """The most important keys, as many as fit; labels say what a key would do now."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._keymap = Keymap()

    def relabel(self, labels: dict[str, str]) -> bool:
        """Whether that makes a difference."""
        changed = labels != self._labels
        self._labels = labels
        return changed

    def rekey(self, keymap: Keymap) -> None:
        self._keymap = keymap

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

    def line(self, width: int, palette: Palette) -> list[Segment]:
        """Its one row, `width` cells wide."""
        spans: list[Span] = []
        for _, entry in self.entries(width - 2):
            spans += [("  ", "text"), *entry] if spans else [(" ", "text"), *entry]
        spans.append((" " * (width - width_of(spans)), "text"))
        return [Segment(text, palette[token]) for text, token in spans]

    def at(self, x: int, width: int) -> Action | None:
        """The action whose key stands in that column."""
        x -= 1
        for item, entry in self.entries(width - 2):
            taken = width_of(entry)
            if 0 <= x < taken:
                return item
            x -= taken + 2
        return None
