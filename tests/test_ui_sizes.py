"""The layouts, and every pane of every story at every size of terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from ui_stories import STORIES
from ui_support import NOW

from quantai_tui.link.base import LinkState
from quantai_tui.ui.layout import plan
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.themes import TOKENS
from quantai_tui.ui.view import View


@pytest.mark.parametrize(
    ("size", "panes", "boxed"),
    [((80, 24), 12, False), ((120, 40), 13, True), ((200, 50), 13, True), ((50, 15), 3, False), ((80, 19), 3, False)],
)
def test_the_plan_covers_the_screen_without_overlap(size: tuple[int, int], panes: int, boxed: bool) -> None:
    arrangement = plan(*size)
    assert len(arrangement.regions) == panes
    assert arrangement.boxed is boxed
    cells = [(x, y) for region in arrangement.regions.values() for y in region.line_range for x in region.column_range]
    assert len(cells) == len(set(cells)) == size[0] * size[1]


@given(st.integers(60, 320), st.integers(20, 120))
def test_the_plan_fits_every_size(width: int, height: int) -> None:
    arrangement = plan(width, height)
    assert sum(region.area for region in arrangement.regions.values()) == width * height
    assert (
        min(region.height for name, region in arrangement.regions.items() if name not in ("header", "alerts", "status", "footer"))
        >= 3
    )


SIZES = [(60, 20), (61, 21), (79, 23), (80, 24), (100, 30), (116, 36), (120, 40), (132, 43), (176, 44), (200, 50), (250, 70)]


def numbers(text: str) -> set[str]:
    return {number.rstrip(".,:") for number in re.findall(r"\d[\d.,:]*", text)}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("story", STORIES)
def test_at_every_size_every_pane_of_every_story_is_whole(size: tuple[int, int], story: str) -> None:
    snapshot = STORIES[story]()
    view = View(snapshot, LinkState.ATTACHED, now=NOW)
    faces = {spec.id: [draw for draw in (spec.draw, spec.page) if draw is not None] for spec in PANES}
    whole = {
        name: {number for draw in draws for line in draw(view, 600, 60) for number in numbers(line.text)}
        for name, draws in faces.items()
    }
    for zoomed in ("", *(spec.id for spec in PANES if spec.page is not None)):
        arrangement = plan(*size, zoomed, down=view.stream_is_down)
        for spec in PANES:
            region = arrangement.regions.get(spec.id)
            if region is None or spec.id == "footer" or (zoomed and spec.id != zoomed):
                continue
            width = region.width - (4 if arrangement.boxed and spec.title else 2)
            height = region.height - ((2 if arrangement.boxed else 1) if spec.title else 0)
            rows = spec.page(view, width, height) if zoomed and spec.page else spec.draw(view, width, height)
            assert zoomed or len(rows) <= height, spec.id
            for line in rows:
                assert cell_len(line.text) <= width, (spec.id, line.text)
                assert "…" not in line.text or numbers(line.text) <= whole[spec.id], (spec.id, line.text)
                assert {token.removesuffix("-area") for _, token in line.spans} <= {"text", *TOKENS}


@given(st.integers(60, 320), st.integers(20, 120))
def test_while_the_stream_is_down_the_backoff_has_more_room_and_no_pane_is_lost(width: int, height: int) -> None:
    quiet, down = plan(width, height).regions, plan(width, height, down=True).regions
    assert sum(region.area for region in down.values()) == width * height
    assert down.keys() == quiet.keys()
    assert down["backoff"].height > quiet["backoff"].height or height > 60
    assert all(region.height >= 2 for name, region in down.items() if name not in ("header", "alerts", "status", "footer"))
