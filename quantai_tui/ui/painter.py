"""Sends only the cells that changed.

Textual keeps no picture of the terminal: a dirty region is sent again from the left edge of its widget, whatever is in it. Over
SSH that is most of the traffic. `CellMemory` remembers what stands on the screen and cuts each update down to the cells
that differ. It stands on private seams of the pinned Textual release, `App._display`, `ChopsUpdate` and `LayoutUpdate`; a test
replays its output in a terminal emulator and compares the result with a full repaint.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

Cell = tuple[str, Style | None]
_UNKNOWN: Cell = ("\0", None)
_MERGE_GAP = 8  # moving the cursor and setting colours anew costs more than sending this many unchanged cells


class CellMemory:
    """What is on the terminal, as far as it has been sent since `forget`."""

    def __init__(self) -> None:
        self._lines: dict[int, dict[int, Cell]] = {}

    def forget(self) -> None:
        """Everything may have changed: the next update of any cell is sent."""
        self._lines.clear()

    def changes(self, update: ChopsUpdate | LayoutUpdate) -> RunsUpdate | None:
        """The part of `update` that is not on the screen yet, taken as sent; None when there is none."""
        runs: list[tuple[int, int, Strip]] = []
        for y, x, cells in _stretches(update):
            line = self._lines.setdefault(y, {})
            runs += [(x + start, y, strip) for start, strip in _changed_runs(line, x, cells)]
        return RunsUpdate(runs) if runs else None


class RunsUpdate(CompositorUpdate):
    """Runs of cells, each with the place it goes to."""

    def __init__(self, runs: list[tuple[int, int, Strip]]) -> None:
        self.runs = runs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for x, y, strip in self.runs:
            yield Control.move_to(x, y).segment
            yield from strip

    def render_segments(self, console: Console) -> str:
        return "".join(Control.move_to(x, y).segment.text + strip.render(console) for x, y, strip in self.runs)


def _stretches(update: ChopsUpdate | LayoutUpdate) -> Iterator[tuple[int, int, list[Cell]]]:
    """Row, column and cells of everything that the update would send."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            yield y, update.region.x, [cell for strip in strips for cell in _cells(strip)]
        return
    for y, x1, x2 in update.spans:
        for x, cells in _spans_of(update, y, x1, x2):
            yield y, x, cells


def _spans_of(update: ChopsUpdate, y: int, x1: int, x2: int) -> Iterator[tuple[int, list[Cell]]]:
    """The cells of one dirty span, per chop (a stretch of a line that belongs to one widget)."""
    for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
        if strip is None or x >= x2 or end <= x1:
            continue
        left, right = max(x, x1), min(end, x2)
        cells = _cells(strip)
        yield left, cells[left - x : right - x]


def _cells(strip: Strip) -> list[Cell]:
    """One entry per cell; the second half of a wide character is an empty string."""
    cells: list[Cell] = []
    for segment in strip:
        style = segment.style
        if segment.control:
            continue
        if segment.text.isascii():
            cells += [(char, style) for char in segment.text]
            continue
        for char in segment.text:
            width = cell_len(char)
            if width == 0 and cells:
                cells[-1] = (cells[-1][0] + char, cells[-1][1])
            else:
                cells += [(char, style), *([("", style)] if width == 2 else [])]
    return cells


def _changed_runs(line: dict[int, Cell], x: int, cells: list[Cell]) -> Iterator[tuple[int, Strip]]:
    start = stop = -1
    for index, cell in enumerate(cells):
        known = line.get(x + index, _UNKNOWN)
        if known == cell:
            continue
        line[x + index] = cell
        if start >= 0 and index - stop > _MERGE_GAP:
            yield _run(cells, start, stop)
            start = -1
        if start < 0:
            start = index
        stop = index + 1
    if start >= 0:
        yield _run(cells, start, stop)


def _run(cells: list[Cell], start: int, stop: int) -> tuple[int, Strip]:
    while start > 0 and cells[start][0] == "":
        start -= 1
    while stop < len(cells) and cells[stop][0] == "":
        stop += 1
    segments: list[Segment] = []
    text, style = "", cells[start][1]
    for char, cell_style in cells[start:stop]:
        if cell_style != style:
            segments.append(Segment(text, style))
            text, style = "", cell_style
        text += char
    segments.append(Segment(text, style))
    return start, Strip(segments)
