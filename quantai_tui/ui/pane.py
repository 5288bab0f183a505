"""The one widget that all panes are: draws rows, and marks as dirty only those that differ from what it drew before.

At rest a pane shows the essentials in the room it has. Zoomed or scrolled it shows its page: everything, as far as it fits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .cells import Pace, Row, clip, row, width_of
from .panes import PaneSpec

if TYPE_CHECKING:
    from textual import events

    from .themes import Palette
    from .view import View

_KEPT_WHEN_STALE = frozenset({"muted", "edge", "title", "alert-critical", "state-failed"})


class Pane(Widget):
    """Shows a view through its spec's drawing function."""

    DEFAULT_CSS = """
    Pane { padding: 0 1; background: $background; }
    Pane.framed { border: round $edge; border-title-color: $title; border-title-style: bold; }
    Pane.framed:focus { border: heavy $edge-focus; border-title-color: $edge-focus; }
    Pane.ruled { border: none; border-top: solid $edge; border-title-color: $title; border-title-style: bold; }
    Pane.ruled:focus { border-top: heavy $edge-focus; border-title-color: $edge-focus; }
    Pane.bare:focus { background: $background; }
    """
    ALLOW_SELECT: ClassVar[bool] = False

    class Failed(Message):
        """Drawing has failed with `error`; the pane says so in its place, and is drawn again with the next view."""

        def __init__(self, pane: str, error: Exception) -> None:
            super().__init__()
            self.pane = pane
            self.error = error

    def __init__(self, spec: PaneSpec, palette: Palette) -> None:
        super().__init__(id=spec.id, markup=False)
        self.can_focus = spec.focusable
        self._spec = spec
        self._palette = palette
        self._view: View | None = None
        self._rows: list[Row] = []
        self._zoomed = False
        self._scrolled = 0  # rows away from where it rests: the top, or the end where the newest is there
        self._mark = ""
        self.number("")
        self.frame(boxed=True)

    @property
    def rows(self) -> list[Row]:
        """What it shows now."""
        return self._rows

    def number(self, key: str) -> None:
        """Show the key that goes to this pane before its title."""
        self._number = key
        self._title()

    def _title(self) -> None:
        if self._spec.title:
            number = f"{self._number} " if self._number else ""
            self.border_title = Content.assemble((number, "not bold $muted"), f"{self._spec.title}{self._mark}")

    def frame(self, *, boxed: bool) -> None:
        """A box, or only a rule above: on a small screen rows are dear."""
        for name in ("framed", "ruled", "bare"):
            wanted = ("framed" if boxed else "ruled") if self._spec.title else "bare"
            self.set_class(name == wanted, name)

    def zoom(self, *, on: bool) -> None:
        """Whether it has the screen to itself. Either way it begins where it rests."""
        if on != self._zoomed:
            self._zoomed, self._scrolled = on, 0

    def scroll(self, rows: int) -> None:
        """Move the page by so many rows, downwards if positive, as far as there is something."""
        if self._view is None or self._spec.page is None:
            return
        most = max(0, len(self._spec.page(self._view, *self.size)) - self.size.height)
        self._scrolled = max(0, min(self._scrolled + (-rows if self._spec.tail else rows), most))
        self.show(self._view)

    @property
    def scroll_page(self) -> int:
        """Rows that a page key moves by: one stays, to be found again."""
        return max(1, self.size.height - 1)

    def dress(self, palette: Palette) -> None:
        self._palette = palette
        self.refresh()

    def show(self, view: View, due: Collection[Pace] = tuple(Pace)) -> None:
        """Take in a view. Only rows whose pace is due may change."""
        self._view = view
        width, height = self.size
        if width <= 0 or height <= 0:
            return
        stale = view.stale and self._spec.title != ""
        rows = [_greyed(line) if stale else line for line in self._drawn(view)]
        rows += [Row()] * (height - len(rows))
        if len(self._rows) != height:
            self._rows = rows
            self.refresh()
            return
        changed = [y for y in range(height) if rows[y] != self._rows[y] and rows[y].pace in due]
        for y in changed:
            self._rows[y] = rows[y]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def _drawn(self, view: View) -> list[Row]:
        try:
            return self._content(view)
        except Exception as error:  # noqa: BLE001 - told by the app; the other panes are of use without this one
            self.post_message(self.Failed(self._spec.title or self._spec.id, error))
            return [row((clip(f"✗ cannot be drawn: {type(error).__name__}", self.size.width), "state-failed"))]

    def _content(self, view: View) -> list[Row]:
        """The rows that are to be seen, and in the title which of how many they are."""
        width, height = self.size
        if self._spec.page is None or not (self._zoomed or self._scrolled):
            self._entitle(self._spec.mark(view))
            return self._spec.draw(view, width, height)[:height]
        page = self._spec.page(view, width, height)
        most = max(0, len(page) - height)
        away = min(self._scrolled, most)
        top = most - away if self._spec.tail else away
        self._entitle(f"{self._spec.mark(view)} {top + 1}-{top + height} of {len(page)}" if most else self._spec.mark(view))
        return page[top : top + height]

    def _entitle(self, mark: str) -> None:
        if mark != self._mark:
            self._mark = mark
            self._title()

    def on_blur(self) -> None:
        """A pane that nobody is at shows the essentials."""
        if self._scrolled and not self._zoomed:
            self._scrolled = 0
            if self._view is not None:
                self.show(self._view)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        spans = self._rows[y].spans if y < len(self._rows) else ()
        segments = [Segment(text, self._palette[token]) for text, token in spans if text]
        room = width - width_of(spans)
        if room > 0:
            segments.append(Segment(" " * room, self._palette["text"]))
        return Strip(segments).crop(0, width)

    def on_resize(self, event: events.Resize) -> None:
        if self._view is not None:
            self._rows = []
            self.show(self._view)


def _greyed(row: Row) -> Row:
    """Old numbers in the colour of old numbers."""
    return Row(tuple((text, _stale_token(token)) for text, token in row.spans), row.pace)


def _stale_token(token: str) -> str:
    if token in _KEPT_WHEN_STALE:
        return token
    return "stale-area" if token.endswith("-area") else "stale"
