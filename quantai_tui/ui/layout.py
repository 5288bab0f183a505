"""Where each pane goes at which size of terminal: a function from size to regions.

Three shapes: two columns under thin rules (from 60x20), two columns of boxes (from 116x36), three columns of boxes (from 176x44).
Below 60x20 there is one line that says the most important.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct
from textual.geometry import Region

_T = TypeVar("_T")

MIN_WIDTH, MIN_HEIGHT = 60, 20
BOXES_WIDTH, BOXES_HEIGHT = 116, 36
WIDE_WIDTH, WIDE_HEIGHT = 176, 44


class Slot(Struct, frozen=True):
    """A pane in a column: rows it cannot do without, rows it likes, and its share of what is left."""

    pane: str
    least: int
    wanted: int
    weight: int = 0


class Plan(Struct, frozen=True):
    regions: dict[str, Region]
    boxed: bool


_COMPACT_LEFT = (Slot("connection", 3, 4), Slot("heartbeat", 3, 3, 2), Slot("backoff", 3, 4, 1), Slot("market", 4, 5, 3))
_COMPACT_RIGHT = (Slot("training", 5, 6, 1), Slot("scale", 4, 5, 2), Slot("overflow", 4, 5, 2))
_BOX_LEFT = (Slot("connection", 6, 7), Slot("heartbeat", 5, 7, 2), Slot("backoff", 5, 6), Slot("market", 5, 7, 3))
_BOX_RIGHT = (Slot("training", 8, 10, 1), Slot("scale", 6, 9, 2), Slot("overflow", 6, 8, 2))
_WIDE_LEFT = (Slot("connection", 7, 8), Slot("heartbeat", 6, 9, 2), Slot("backoff", 6, 7), Slot("reconnects", 6, 10, 2))
_WIDE_MIDDLE = (Slot("market", 8, 14, 2), Slot("training", 10, 15, 2))
_WIDE_RIGHT = (Slot("scale", 8, 15, 1), Slot("overflow", 8, 12, 1))
# While there is no connection, why there is none and what to do comes before charts of what is not there.
_DOWN: dict[tuple[Slot, ...], tuple[Slot, ...]] = {
    _COMPACT_LEFT: (Slot("connection", 3, 3), Slot("heartbeat", 3, 3, 1), Slot("backoff", 4, 7, 1), Slot("market", 3, 5, 3)),
    _BOX_LEFT: (Slot("connection", 6, 7), Slot("heartbeat", 4, 4, 1), Slot("backoff", 8, 9), Slot("market", 5, 7, 3)),
    _WIDE_LEFT: (Slot("connection", 7, 9), Slot("heartbeat", 5, 6, 2), Slot("backoff", 8, 9), Slot("reconnects", 6, 10, 2)),
}


def plan(width: int, height: int, zoomed: str = "", notice: bool = False, down: bool = False) -> Plan:
    """The regions of all panes that are shown; the others are not. `down`: the stream has no connection."""
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        below = ("status", "footer")[-min(2, height - 1) :] if height > 1 else ()
        body = Region(0, 0, width, max(1, height - len(below)))
        return Plan({"summary": body} | {name: Region(0, body.height + y, width, 1) for y, name in enumerate(below)}, False)
    regions = {
        "header": Region(0, 0, width, 1),
        "alerts": Region(0, 1, width, 1),
        "status": Region(0, height - 2, width, 1),
        "footer": Region(0, height - 1, width, 1),
    }
    body = Region(0, 2, width, height - 4)
    if notice:
        return Plan(regions | {"notice": body}, True)
    if zoomed == "alerts":
        return Plan(regions | {"alerts": Region(0, 1, width, height - 3)}, True)
    if zoomed:
        return Plan(regions | {zoomed: body}, True)

    def left(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        return _DOWN[slots] if down else slots

    if width >= WIDE_WIDTH and height >= WIDE_HEIGHT:
        return Plan(regions | _columns(body, (left(_WIDE_LEFT), _WIDE_MIDDLE, _WIDE_RIGHT), ("log",), 12), True)
    if width >= BOXES_WIDTH and height >= BOXES_HEIGHT:
        return Plan(regions | _columns(body, (left(_BOX_LEFT), _BOX_RIGHT), ("reconnects", "log"), 9), True)
    log = 4 if body.height >= 20 else 3
    return Plan(
        regions | _columns(body, (left(_COMPACT_LEFT), _COMPACT_RIGHT), ("log",), log + max(0, body.height - 20) // 4), False
    )


def _columns(
    body: Region, columns: tuple[tuple[Slot, ...], ...], bottom: tuple[str, ...], bottom_height: int
) -> dict[str, Region]:
    regions: dict[str, Region] = {}
    top = body.height - bottom_height
    for x, width, slots in _split(body.width, columns):
        y = body.y
        for slot, rows in zip(slots, share(top, slots), strict=True):
            regions[slot.pane] = Region(x, y, width, rows)
            y += rows
    for x, width, pane in _split(body.width, bottom):
        regions[pane] = Region(x, body.y + top, width, bottom_height)
    return regions


def _split(width: int, items: tuple[_T, ...]) -> list[tuple[int, int, _T]]:
    edges = [round(width * index / len(items)) for index in range(len(items) + 1)]
    return [(edges[index], edges[index + 1] - edges[index], item) for index, item in enumerate(items)]


def share(total: int, slots: tuple[Slot, ...]) -> list[int]:
    """Rows for each slot: first what it needs, then what it likes from the top down, then the rest by weight. Sums to `total`."""
    rows = [slot.least for slot in slots]
    spare = total - sum(rows)
    for index, slot in enumerate(slots):
        more = max(0, min(spare, slot.wanted - slot.least))
        rows[index] += more
        spare -= more
    weights = [slot.weight for slot in slots]
    for _ in range(max(0, spare)):
        index = max(range(len(slots)), key=lambda i: (weights[i] / (1 + rows[i] - slots[i].wanted) if weights[i] else 0, -i))
        rows[index] += 1
    return rows
