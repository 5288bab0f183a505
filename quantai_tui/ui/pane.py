"""One pane of the board: where it stands, its frame, and which of its rows differ from those that were drawn before.

At rest a pane shows the essentials in the room it has. Zoomed or scrolled it shows its page: everything, as far as it fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace
from rich.segment import Segment
from textual.geometry import Region, Size
from textual.strip import Strip

from .cells import Row, Span, clip, row, width_of
from .panes import PaneSpec
from .view import ALL_PACES

if TYPE_CHECKING:
    from .themes import Palette
    from .view import View

_KEPT_WHEN_STALE = frozenset({"muted", "edge", "title", "alert-critical", "state-failed"})


class Frame(NamedTuple):
    """What is drawn around a pane: signs of the corners and edges, and how many rows and columns they take."""

    corners: str = ""
    flat: str = ""
    side: str = ""
    top: int = 0
    bottom: int = 0


_NONE = Frame()
_RULE, _RULE_FOCUS = Frame(flat="─", top=1), Frame(flat="━", top=1)
_BOX, _BOX_FOCUS = Frame("╭╮╰╯", "─", "│", 1, 1), Frame("┏┓┗┛", "━", "┃", 1, 1)


class Pane:
    """Shows a view through its spec's drawing function. Its methods return the regions of the board that they changed."""

    def __init__(self, spec: PaneSpec, failed: Callable[[str, Exception], None]) -> None:
        """`failed` is told the title of a pane that cannot be drawn. The pane says so, and is drawn again with the next view."""
        self.spec = spec
        self.region = Region()
        self._number = ""
        self._failed = failed
        self._view: View | None = None
        self._rows: list[Row] = []
        self._boxed = False
        self._zoomed = False
        self._focused = False
        self._scrolled = 0  # rows away from where it rests: the top, or the end where the newest is there
        self._mark = ""
        self._palette: Palette | None = None
        self._painted: dict[int, list[Segment]] = {}  # the lines as they were last asked for: a neighbour's change asks again

    @property
    def rows(self) -> list[Row]:
        """What it shows now."""
        return self._rows

    @property
    def framed(self) -> bool:
        """Whether it has a frame, which shows that it is focused."""
        return self.spec.title != ""

    @property
    def size(self) -> Size:
        """Of what is inside of the frame."""
        frame = self._frame
        aside = 2 * (len(frame.side) + 1)
        return Size(max(0, self.region.width - aside), max(0, self.region.height - frame.top - frame.bottom))

    @property
    def _frame(self) -> Frame:
        if not self.framed:
            return _NONE
        return (_BOX_FOCUS if self._focused else _BOX) if self._boxed else (_RULE_FOCUS if self._focused else _RULE)

    def place(self, region: Region, *, boxed: bool, zoomed: bool) -> None:
        """Stand there from the next view on; on a small screen a rule above instead of a box, since rows are dear."""
        if (region, boxed) != (self.region, self._boxed):
            self._rows = []
        if zoomed != self._zoomed:  # either way it begins where it rests
            self._scrolled = 0
        self.region, self._boxed, self._zoomed = region, boxed, zoomed
        self._painted.clear()

    def entitle(self, number: str) -> None:
        """Show the key that goes to this pane before its title."""
        self._number = number
        self._painted.clear()

    def focus(self, *, on: bool) -> list[Region]:
        if on == self._focused:
            return []
        self._focused = on
        self._painted.clear()
        changed = [self.region] if self.framed else []
        if not on and self._scrolled and not self._zoomed:  # one that nobody is at shows the essentials
            self._scrolled = 0
            changed += self._show_again()
        return changed

    def scroll(self, rows: int) -> list[Region]:
        """Move the page by so many rows, downwards if positive, as far as there is something."""
        if self._view is None or self.spec.page is None or not self.region:
            return []
        try:
            most = max(0, len(self.spec.page(self._view, *self.size)) - self.size.height)
        except Exception as error:  # noqa: BLE001 - told by the app, as where a pane is drawn
            self._failed(self.spec.title or self.spec.id, error)
            return []
        self._scrolled = max(0, min(self._scrolled + (-rows if self.spec.tail else rows), most))
        return self._show_again()

    def _show_again(self) -> list[Region]:
        return self.show(replace(self._view, due=ALL_PACES)) if self._view is not None else []

    @property
    def scroll_page(self) -> int:
        """Rows that a page key moves by: one stays, to be found again."""
        return max(1, self.size.height - 1)

    def show(self, view: View) -> list[Region]:
        """Take in a view. Only rows whose pace is due in it may change."""
        width, height = self.size
        self._view = view
        if width <= 0 or height <= 0:
            return []
        mark = self._mark
        rows = self._drawn(view, height)
        moved = [line.pace for line in rows] != [line.pace for line in self._rows]
        if moved and view.due != ALL_PACES:  # what is not due has no old row to stay
            rows = self._drawn(replace(view, due=ALL_PACES), height)
        if len(self._rows) != height:
            self._rows = rows
            self._painted.clear()
            return [self.region]
        changed = [y for y in range(height) if rows[y] != self._rows[y] and (moved or rows[y].pace in view.due)]
        for y in changed:
            self._rows[y] = rows[y]
        inside = self._frame.top
        lines = [*([0] if mark != self._mark else []), *(inside + y for y in changed)]
        for y in lines:
            self._painted.pop(y, None)
        x, top, outer, _ = self.region
        return [Region(x, top + y, outer, 1) for y in lines]

    def _drawn(self, view: View, height: int) -> list[Row]:
        """`height` rows, whatever happens."""
        try:
            rows = self._content(view)
        except Exception as error:  # noqa: BLE001 - told by the app; the other panes are of use without this one
            self._failed(self.spec.title or self.spec.id, error)
            rows = [row((clip(f"✗ cannot be drawn: {type(error).__name__}", self.size.width), "state-failed"))]
        if view.stale and self.framed:
            rows = [_greyed(line) for line in rows]
        return rows + [Row()] * (height - len(rows))

    def _content(self, view: View) -> list[Row]:
        """The rows that are to be seen, and in the title which of how many they are."""
        width, height = self.size
        self._mark = self.spec.mark(view)
        if self.spec.page is None or not (self._zoomed or self._scrolled):
            return self.spec.draw(view, width, height)[:height]
        page = self.spec.page(view, width, height)
        most = max(0, len(page) - height)
        away = min(self._scrolled, most)
        top = most - away if self.spec.tail else away
        if most:
            self._mark += f" {top + 1}-{top + height} of {len(page)}"
        return page[top : top + height]

    def line(self, y: int, palette: Palette) -> list[Segment]:
        """The cells of one row of the board, as wide as the pane's region."""
        if palette is not self._palette:
            self._palette = palette
            self._painted.clear()
        y -= self.region.y
        if y not in self._painted:
            self._painted[y] = self._paint(y, palette)
        return self._painted[y]

    def _paint(self, y: int, palette: Palette) -> list[Segment]:
        frame = self._frame
        edge = palette["edge-focus" if self._focused else "edge"]
        if y < frame.top:
            return [Segment(text, palette[token]) for text, token in self._top(frame) if text]
        if y >= self.region.height - frame.bottom:
            return [Segment(f"{frame.corners[2]}{frame.flat * (self.region.width - 2)}{frame.corners[3]}", edge)]
        index, width = y - frame.top, self.size.width
        spans = self._rows[index].spans if index < len(self._rows) else ()
        blank, room = palette["text"], width - width_of(spans)
        cells = [Segment(text, palette[token]) for text, token in spans if text]
        if room < 0:  # a row too wide would push its neighbours aside
            cells = list(Strip(cells).crop(0, width))
        cells = [Segment(" ", blank), *cells, Segment(" " * (max(0, room) + 1), blank)]
        if self.region.width < 2:  # not even the blanks at its sides fit
            return list(Strip(cells).crop(0, self.region.width))
        return [Segment(frame.side, edge), *cells, Segment(frame.side, edge)] if frame.side else cells

    def _top(self, frame: Frame) -> list[Span]:
        """The edge with the title in it."""
        edge, title = ("edge-focus", "title-focus") if self._focused else ("edge", "title")
        left, right = (f"{frame.corners[0]}{frame.flat} ", f" {frame.corners[1]}") if frame.corners else (frame.flat, "")
        number = f"{self._number} " if self._number else ""
        room = self.region.width - len(left) - len(right)
        text = clip(f"{number}{self.spec.title}{self._mark}", room)
        number = text[: len(number)]
        used = width_of([(text, title)])
        end = f"{' ' if frame.corners else ''}{frame.flat * (room - used)}{right.strip()}"
        return [(left, edge), (number, "muted"), (text[len(number) :], title), (end, edge)]


def _greyed(row: Row) -> Row:
    """Old numbers in the colour of old numbers."""
    return Row(tuple((text, _stale_token(token)) for text, token in row.spans), row.pace)


def _stale_token(token: str) -> str:
    if token in _KEPT_WHEN_STALE:
        return token
    return "stale-area" if token.endswith("-area") else "stale"
