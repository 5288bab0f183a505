"""Sends only the cells that changed.

Textual keeps no picture of the terminal: a dirty region is sent again from the left edge of its widget, whatever is in it. Over
SSH that is most of the traffic. `CellMemory` remembers what stands on the screen and cuts each update down to the cells
that differ. It stands on private seams of the pinned Textual release, `App._display`, `ChopsUpdate` and `LayoutUpdate`; a test
replays its output in a terminal emulator and compares the result with a full repaint.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderResult
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
        system = COLOR_SYSTEMS[console.color_system or "truecolor"]
        pen = _Pen(system)
        for x, y, strip in self.runs:
            pen.move_to(x, y)
            for segment in strip:
                pen.write(segment.text, segment.style or _NO_STYLE)
        return pen.finished()


class _Pen:
    """Writes an update. It knows the colours that it has set, and sends only what differs: over SSH, colours are most of a frame.

    Places are always absolute, if only within their row: a glyph that a terminal takes to be wider then spoils no other.
    """

    def __init__(self, system: ColorSystem) -> None:
        self._system = system
        self._output: list[str] = []
        self._row = -1
        self._set = _BARE

    def move_to(self, x: int, y: int) -> None:
        self._output.append(f"\x1b[{x + 1}G" if y == self._row else f"\x1b[{y + 1};{x + 1}H")
        self._row = y

    def write(self, text: str, style: Style) -> None:
        if style.link:
            self._output += [self._end(), Strip.render_style(style, text, self._system)]
            return
        wanted = _look(style, self._system)
        if wanted != self._set:
            self._output.append(f"\x1b[{';'.join(_codes(self._set, wanted))}m")
            self._set = wanted
        self._output.append(text)

    def finished(self) -> str:
        """All of it; whoever writes next finds the terminal's own colours."""
        self._output.append(self._end())
        return "".join(self._output)

    def _end(self) -> str:
        ended = "" if self._set == _BARE else "\x1b[0m"
        self._set = _BARE
        return ended


class _Look(NamedTuple):
    """A style as the parameters of SGR (ECMA-48, 8.3.117): attributes, foreground, background."""

    attributes: tuple[str, ...]
    fore: str
    back: str


_BARE = _Look((), "39", "49")
_NO_STYLE = Style()
_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28", "9": "29"}
_OFF |= {"21": "24", "51": "54", "52": "54", "53": "55"}


@lru_cache(maxsize=4096)
def _look(style: Style, system: ColorSystem) -> _Look:
    attributes = Strip.render_ansi(style.without_color, system)
    fore = ";".join(style.color.downgrade(system).get_ansi_codes()) if style.color else _BARE.fore
    back = ";".join(style.bgcolor.downgrade(system).get_ansi_codes(foreground=False)) if style.bgcolor else _BARE.back
    return _Look(tuple(attributes.split(";")) if attributes else (), fore, back)


def _codes(before: _Look, after: _Look) -> Iterator[str]:
    """What turns one into the other. Some attributes are switched off by one code together: those that stay are set again."""
    off = {_OFF[code] for code in before.attributes if code not in after.attributes}
    yield from sorted(off)
    yield from (code for code in after.attributes if code not in before.attributes or _OFF[code] in off)
    if after.fore != before.fore:
        yield after.fore
    if after.back != before.back:
        yield after.back


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
