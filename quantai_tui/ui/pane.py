"""The one widget that all panes are: draws rows, and marks as dirty only those that differ from what it drew before."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from .cells import Pace, Row, width_of
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

    def __init__(self, spec: PaneSpec, palette: Palette) -> None:
        super().__init__(id=spec.id, markup=False)
        self.can_focus = spec.focusable
        self._spec = spec
        self._palette = palette
        self._view: View | None = None
        self._rows: list[Row] = []
        self.number("")
        self.frame(boxed=True)

    @property
    def rows(self) -> list[Row]:
        """What it shows now."""
        return self._rows

    def number(self, key: str) -> None:
        """Show the key that goes to this pane before its title."""
        if self._spec.title:
            self.border_title = Content.assemble((f"{key} " if key else "", "not bold $muted"), self._spec.title)

    def frame(self, *, boxed: bool) -> None:
        """A box, or only a rule above: on a small screen rows are dear."""
        for name in ("framed", "ruled", "bare"):
            wanted = ("framed" if boxed else "ruled") if self._spec.title else "bare"
            self.set_class(name == wanted, name)

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
        rows = [_greyed(row) if stale else row for row in self._spec.draw(view, width, height)[:height]]
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
