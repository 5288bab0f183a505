"""Shown when the settings file changed on disk since it was read: both texts, and the ways on. Nothing has been written."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from .format import clean

Way = tuple[str, str, str]
"""A way on: its key, the answer that it gives, and what it does in words. The last one changes nothing."""

RELOAD_OR_CANCEL: tuple[Way, ...] = (
    ("r", "reload", "read it again, your edits on top"),
    ("esc", "cancel", "cancel, edits kept"),
)


class ConflictScreen(Screen[str]):
    """Dismisses with the answer of one of the `ways`."""

    DEFAULT_CSS = """
    ConflictScreen { background: $background; layout: vertical; }
    ConflictScreen Static { padding: 0 1; color: $foreground; background: $background; }
    ConflictScreen .line { height: 1; }
    ConflictScreen #texts { height: 1fr; }
    ConflictScreen VerticalScroll {
        width: 1fr; height: 100%; border: round $edge; background: $background; border-title-color: $title;
        scrollbar-size-vertical: 1;
    }
    ConflictScreen VerticalScroll:focus { border: round $edge-focus; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "cancel", "cancel", show=False)]

    def __init__(self, on_disk: str, proposed: str, ways: Sequence[Way] = RELOAD_OR_CANCEL) -> None:
        super().__init__()
        self._ways = ways
        self._on_disk = on_disk
        self._proposed = proposed

    def compose(self) -> ComposeResult:
        head = Content.assemble(("Not saved: ", "bold $state-failed"), "the file has changed on disk since it was read.")
        yield Static(head, classes="line", markup=False)
        disk, mine = marked(self._on_disk, self._proposed)
        left = VerticalScroll(Static(disk, markup=False))
        right = VerticalScroll(Static(mine, markup=False))
        left.border_title, right.border_title = "on disk now", "with your edits"
        yield Horizontal(left, right, id="texts")
        keys = [Content.assemble((key, "bold $key"), f" {words}") for key, _, words in self._ways]
        yield Static(Content("   ").join(keys), classes="line", markup=False)

    def on_mount(self) -> None:
        for key, answer, _ in self._ways:
            if key != "esc":
                self._bindings.bind(key, f"answer({answer!r})", show=False)

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)

    def action_cancel(self) -> None:
        self.dismiss(self._ways[-1][1])


def marked(on_disk: str, proposed: str) -> tuple[Content, Content]:
    """Both texts, the lines that differ marked by sign and colour."""
    left, right = on_disk.splitlines(), proposed.splitlines()
    sides: tuple[list[Content], list[Content]] = ([], [])
    for tag, a, b, c, d in difflib.SequenceMatcher(a=left, b=right, autojunk=False).get_opcodes():
        style = "$foreground" if tag == "equal" else "bold $state-backoff"
        sign = " " if tag == "equal" else "±"
        sides[0].extend(Content.assemble((f"{sign} {clean(line)}\n", style)) for line in left[a:b])
        sides[1].extend(Content.assemble((f"{sign} {clean(line)}\n", style)) for line in right[c:d])
    return Content.assemble(*sides[0]), Content.assemble(*sides[1])
