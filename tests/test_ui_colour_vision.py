"""States can be told apart by eyes that lack a cone, with true colour and with 256 colours."""

from __future__ import annotations

from itertools import combinations

import pytest
from colour_vision import VISIONS, distance, lab, on_256_colours
from textual.color import Color

from quantai_tui.ui.themes import read_theme, themes_folder

_STATES = ("state-live", "state-pending", "state-backoff", "state-failed", "state-idle")
_LEAST = 20.0  # about nine times the 2.3 of a just noticeable difference (Mahy et al. 1994)


def test_the_simulation_agrees_with_known_values() -> None:
    assert lab(Color(255, 255, 255)) == pytest.approx((100, 0, 0), abs=0.05)
    assert lab(Color(255, 0, 0)) == pytest.approx((53.24, 80.09, 67.20), abs=0.05)
    for vision in ("protanopia", "deuteranopia", "tritanopia"):
        assert lab(Color(128, 128, 128), vision) == pytest.approx(lab(Color(128, 128, 128)), abs=0.05)
    for matrix in VISIONS.values():
        assert [sum(line) for line in matrix] == pytest.approx([1, 1, 1], abs=2e-6)  # white stays white
    for vision, seen in (("deuteranopia", (163, 144, 0)), ("protanopia", (109, 95, 0))):  # red by hand, from its first column
        assert lab(Color(255, 0, 0), vision) == pytest.approx(lab(Color(*seen)), abs=0.5)
    red, green = Color(200, 60, 60), Color(110, 120, 40)
    assert distance(red, green, "deuteranopia") < distance(red, green) / 2
    assert on_256_colours(Color(255, 135, 0)) == Color(255, 135, 0)


@pytest.mark.parametrize(("name", "vision"), [("heron", "deuteranopia"), ("heron", "protanopia"), ("reef", "tritanopia")])
@pytest.mark.parametrize("few", [False, True], ids=["truecolour", "256"])
def test_states_are_told_apart(name: str, vision: str, few: bool) -> None:
    variables = read_theme(themes_folder() / f"{name}.toml").variables
    for one, other in [*combinations(_STATES, 2), ("scale-cap", "overflow"), ("diff-add", "diff-remove")]:
        pair = [Color.parse(variables[token]) for token in (one, other)]
        first, second = (on_256_colours(color) for color in pair) if few else pair
        apart = distance(first, second, vision)
        assert apart >= _LEAST, f"{one} and {other} are {apart:.1f} apart"
