"""Rows of styled text: what a pane hands over to be drawn. Plain data, so that a pane is a function that tests can call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct
from rich.cells import cell_len, set_cell_size

Span = tuple[str, str]
"""Text and the theme token that colours it."""

LABEL_WIDTH = 10
_FIGURES = "0123456789.,:"


class Pace(Enum):
    """How often a row may be repainted, in seconds. A series has a sample a second, so no row moves oftener than that; a tall
    chart costs many bytes to move by one sample, and moves by two."""

    TEXT = 1.0
    CHART = 2.0


class Row(Struct, frozen=True):
    """One line of a pane."""

    spans: tuple[Span, ...] = ()
    pace: Pace = Pace.TEXT

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.spans)


def row(*spans: Span) -> Row:
    return Row(spans)


def width_of(spans: Iterable[Span]) -> int:
    return sum([len(text) if text.isascii() else cell_len(text) for text, _ in spans])


def clip(text: str, width: int) -> str:
    """Text in at most `width` cells; what does not fit ends in an ellipsis, so that a cut is seen as a cut.

    A number is kept whole or left out: half of one would be another number.
    """
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return text
    kept = set_cell_size(text, width - 1)
    if kept[-1:] in _FIGURES and text[len(kept) : len(kept) + 1] in _FIGURES:
        kept = kept.rstrip(_FIGURES)
    return kept.rstrip() + "…"


def fitted(width: int, *groups: Sequence[Span], gap: int = 2) -> Row:
    """The groups that fit, in order of importance, `gap` cells apart. The first is clipped instead of left out."""
    if not groups:
        return Row()
    spans = list(_clipped(groups[0], width))
    used = width_of(spans)
    for group in groups[1:]:
        needed = width_of(group)
        if needed and used + gap + needed <= width:
            spans += [(" " * gap, "text"), *group]
            used += gap + needed
    return Row(tuple(spans))


def field(label: str, width: int, *groups: Sequence[Span]) -> Row:
    """A label in its column, then the groups that fit."""
    rest = fitted(width - LABEL_WIDTH, *groups)
    return Row(((f"{label:<{LABEL_WIDTH}}", "muted"), *rest.spans))


def flow(width: int, *groups: Sequence[Span], label: str = "", gap: int = 2) -> list[Row]:
    """All groups, over as many rows as they take, `gap` cells apart. With a label they stand beside its column."""
    indent = LABEL_WIDTH if label else 0
    rows: list[list[Span]] = [[]]
    for group in groups:
        if not width_of(group):
            continue
        needed = width_of(group)
        if rows[-1] and width_of(rows[-1]) + gap + needed > width - indent:
            rows.append([])
        rows[-1] += [(" " * gap, "text"), *group] if rows[-1] else _clipped(group, width - indent)
    if not label:
        return [Row(tuple(spans)) for spans in rows]
    return [Row(((f"{'' if i else label:<{LABEL_WIDTH}}", "muted"), *spans)) for i, spans in enumerate(rows)]


def steady(group: Sequence[Span], width: int) -> list[Span]:
    """The group in at least `width` cells, so that what follows keeps its place when digits change."""
    return [*group, (" " * (width - width_of(group)), "text")]


def heading(text: str) -> Row:
    """Above a part of a page."""
    return Row(((text, "title"),))


def table(width: int, heads: Sequence[str], lines: Sequence[Sequence[Span]]) -> list[Row]:
    """Columns as wide as their widest cell, those that do not fit left out from the right. A head that begins with `>` stands
    over numbers, which are flush right; the last column is text, and takes what room there is."""
    names = [head.removeprefix(">") for head in heads]
    sizes = [max(cell_len(name), *(cell_len(line[i][0]) for line in lines), 1) for i, name in enumerate(names)]
    fit = 0
    used = -2
    for size in sizes[:-1]:
        if used + 2 + size > width:
            break
        used += 2 + size
        fit += 1
    rest = width - used - 2
    last = len(heads) - 1 if fit == len(heads) - 1 and rest >= min(sizes[-1], 8) else -1

    def line_of(cells: Sequence[Span]) -> Row:
        spans: list[Span] = []
        for i in (*range(fit), *((last,) if last >= 0 else ())):
            text, token = cells[i]
            text = clip(text, rest) if i == last else text
            pad = " " * (sizes[i] - cell_len(text))
            text = pad + text if heads[i].startswith(">") else text if i == last else text + pad
            spans += [("  ", "text"), (text, token)] if spans else [(text, token)]
        return Row(tuple(spans))

    return [line_of([(name, "muted") for name in names]), *map(line_of, lines)]


def spread(width: int, left: Row, right: Sequence[Span]) -> Row:
    """`right` at the right edge, left out when it would touch what stands on the left."""
    room = width - width_of(left.spans) - width_of(right)
    return Row((*left.spans, (" " * room, "text"), *right)) if room >= 2 else left


def bar(fraction: float, width: int, token: str) -> tuple[Span, ...]:
    """A horizontal bar, `fraction` (0 to 1) of it filled."""
    filled = round(max(0.0, min(1.0, fraction)) * width)
    return (("━" * filled, token), ("╌" * (width - filled), "edge"))


def wrap(text: str, width: int, limit: int) -> list[str]:
    """Words over at most `limit` lines; the last one is clipped."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if cell_len(candidate) <= width or len(lines) == limit - 1:
            line = candidate
        else:
            lines.append(line)
            line = word
    if line:
        lines.append(line)
    return [clip(text, width) for text in lines if text][:limit]


def _clipped(spans: Sequence[Span], width: int) -> Iterable[Span]:
    for text, token in spans:
        kept = clip(text, width)
        if kept:
            yield kept, token
        width -= cell_len(kept)
        if kept != text:
            return
