"""Sends only the cells that changed.

Textual keeps no picture of the terminal: a dirty region is sent again from the left edge of its widget, whatever is in it. Over
SSH that is most of the traffic. `CellMemory` remembers what stands on the screen and cuts each update down to the cells
that differ. It stands on private seams of the pinned Textual release, `App._display`, `ChopsUpdate` and `LayoutUpdate`; a test
replays its output in a terminal emulator and compares the result with a full repaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
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

Looks = list[Style | None]
_UNKNOWN = "\0"
_MERGE_GAP = 8  # moving the cursor and setting colours anew costs more than sending this many unchanged cells
# Characters that are one cell wide each: Latin letters, rules, blocks, and those shapes that no terminal draws wide.
_NARROW = re.compile("[ -~\u00a0-\u00ac\u00ae-\u024f\u2013\u2026\u2500-\u25fc]*").fullmatch


class Cells(NamedTuple):
    """A stretch of a row: the text of each cell and its style. The second half of a wide character is an empty text."""

    texts: list[str]
    styles: Looks


class CellMemory:
    """What is on the terminal, as far as it has been sent since `forget`."""

    def __init__(self) -> None:
        self._lines: dict[int, Cells] = {}

    def forget(self) -> None:
        """Everything may have changed: the next update of any cell is sent."""
        self._lines.clear()

    def changes(self, update: ChopsUpdate | LayoutUpdate) -> RunsUpdate | None:
        """The part of `update` that is not on the screen yet, taken as sent; None when there is none."""
        runs: list[tuple[int, int, Strip]] = []
        for y, x, cells in _stretches(update):
            known = self._known(y, x + len(cells.texts))
            runs += [(x + start, y, strip) for start, strip in _changed_runs(known, x, cells)]
        return RunsUpdate(runs) if runs else None

    def _known(self, y: int, width: int) -> Cells:
        """What stands in a row, of which at least `width` cells are told."""
        line = self._lines.setdefault(y, Cells([], []))
        if (missing := width - len(line.texts)) > 0:
            line.texts.extend([_UNKNOWN] * missing)
            line.styles.extend([None] * missing)
        return line


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


def _stretches(update: ChopsUpdate | LayoutUpdate) -> Iterator[tuple[int, int, Cells]]:
    """Row, column and cells of everything that the update would send."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            yield y, update.region.x, _cells(segment for strip in strips for segment in strip)
        return
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x < x2 and end > x1:  # a chop is a stretch of a line that belongs to one widget
                left, right = max(x, x1), min(end, x2)
                texts, styles = _cells(strip)
                yield y, left, Cells(texts[left - x : right - x], styles[left - x : right - x])


def _cells(segments: Iterable[Segment]) -> Cells:
    cells = Cells([], [])
    texts, styles = cells
    for text, style, control in segments:
        if control:
            continue
        if _NARROW(text):
            texts.extend(text)
            styles.extend([style] * len(text))
            continue
        for char in text:
            width = cell_len(char)
            if width == 0 and texts:
                texts[-1] += char
            else:
                texts.extend((char, "") if width == 2 else (char,))
                styles.extend([style] * (2 if width == 2 else 1))
    return cells


def _changed_runs(known: Cells, x: int, cells: Cells) -> Iterator[tuple[int, Strip]]:
    """What differs from `known`, which takes it over; runs that lie close together are sent as one."""
    stop = x + len(cells.texts)
    old_texts, old_styles = known.texts[x:stop], known.styles[x:stop]
    if old_texts == cells.texts and old_styles == cells.styles:
        return
    pairs = zip(cells.texts, old_texts, cells.styles, old_styles, strict=True)
    changed = [
        index
        for index, (text, old_text, style, old_style) in enumerate(pairs)
        if text != old_text or (style is not old_style and style != old_style)
    ]
    known.texts[x:stop], known.styles[x:stop] = cells
    start = last = changed[0]
    for index in changed[1:]:
        if index - last > _MERGE_GAP + 1:
            yield _run(cells, start, last + 1)
            start = index
        last = index
    yield _run(cells, start, last + 1)


def _run(cells: Cells, start: int, stop: int) -> tuple[int, Strip]:
    texts, styles = cells
    while start > 0 and texts[start] == "":
        start -= 1
    while stop < len(texts) and texts[stop] == "":
        stop += 1
    segments: list[Segment] = []
    begin = start
    for index in range(start + 1, stop):
        if styles[index] is not styles[begin] and styles[index] != styles[begin]:
            segments.append(Segment("".join(texts[begin:index]), styles[begin]))
            begin = index
    segments.append(Segment("".join(texts[begin:stop]), styles[begin]))
    return start, Strip(segments)
