"""Shown when the settings file changed on disk since it was read: both texts, and two ways on. Nothing has been written."""

from __future__ import annotations

import difflib
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from .format import clean


class ConflictScreen(Screen[str]):
    """Dismisses with "reload" or "cancel"; the edits stay either way."""

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
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "answer('reload')", "reload", show=False),
        Binding("escape,c", "answer('cancel')", "cancel", show=False),
    ]

    def __init__(self, on_disk: str, proposed: str) -> None:
        super().__init__()
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
        keys = Content.assemble(
            ("r", "bold $key"), " read it again, your edits on top   ", ("esc", "bold $key"), " cancel, edits kept"
        )
        yield Static(keys, classes="line", markup=False)

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)


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
