"""What is sent for cells that changed, played in a terminal emulator beside the same cells with every colour spelled out."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.console import Console
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from quantai_tui.ui.painter import RunsUpdate

COLORS = st.sampled_from([None, "default", "red", "bright_blue", "#6db5d8", "#101418"])
FLAGS = st.sampled_from([None, None, True, False])
STYLES = st.builds(Style, color=COLORS, bgcolor=COLORS, bold=FLAGS, italic=FLAGS, underline=FLAGS, reverse=FLAGS)
SEGMENTS = st.builds(Segment, st.text("ab ▃é", min_size=1, max_size=4), STYLES | st.none())
STRIPS = st.lists(SEGMENTS, min_size=1, max_size=4).map(Strip)
RUNS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 7), STRIPS), max_size=12)


Runs = list[tuple[int, int, Strip]]


def console(system: str) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=system)  # type: ignore[arg-type]


def emulated(output: str) -> list[list[pyte.screens.Char]]:
    screen = pyte.Screen(40, 8)
    pyte.Stream(screen).feed(output)
    return [[screen.buffer[y][x] for x in range(40)] for y in range(8)]


@pytest.mark.parametrize(
    ("name", "system"), [("standard", ColorSystem.STANDARD), ("256", ColorSystem.EIGHT_BIT), ("truecolor", ColorSystem.TRUECOLOR)]
)
@given(runs=RUNS)
@settings(max_examples=40)  # each is played in an emulator twice
def test_what_differs_in_colour_adds_up_to_the_colours_spelled_out(name: str, system: ColorSystem, runs: Runs) -> None:
    spelled = ""
    for x, y, strip in runs:
        spelled += Control.move_to(x, y).segment.text
        spelled += "".join(Strip.render_style(segment.style or Style(), segment.text, system) for segment in strip)
    sent = RunsUpdate(runs).render_segments(console(name))
    after = "\x1b[1;39Hx"  # whoever writes next is not coloured
    assert emulated(sent + after) == emulated(spelled + after)


def test_a_link_is_sent_as_one_and_the_colours_around_it_stay() -> None:
    red, link = Style(color="red"), Style(color="red", link="https://example.org")
    update = RunsUpdate([(0, 0, Strip([Segment("a", red), Segment("b", link), Segment("c", red)]))])
    output = update.render_segments(console("standard"))
    assert ";https://example.org\x1b\\" in output
    row = emulated(output)[0]
    assert [(char.data, char.fg) for char in row[:3]] == [("a", "red"), ("b", "red"), ("c", "red")]


def test_a_colour_that_stays_is_not_sent_again() -> None:
    ground = Style(color="#aaaaaa", bgcolor="#101418")
    update = RunsUpdate([(0, 0, Strip([Segment("one", ground)])), (9, 0, Strip([Segment("two", ground)]))])
    output = update.render_segments(console("truecolor"))
    assert output.count("48;2") == output.count("38;2") == 1
