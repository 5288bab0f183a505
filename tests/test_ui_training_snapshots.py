"""Pictures of what training tells, compared with those that were looked at and found right (pytest --snapshot-update)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot
from ui_support import FakeLink, FrozenClock, screen_text, until
from ui_training_stories import explained_snapshot, many_ranks_snapshot, paused_snapshot

from quantai_tui.telemetry import EngineSnapshot
from quantai_tui.ui.app import DashboardApp

Compare = Callable[..., bool]


def dashboard(snapshot: EngineSnapshot, theme: str = "harbor") -> DashboardApp:
    return DashboardApp(FakeLink(snapshot), clock=FrozenClock(), theme=theme)


def shows(*words: str, zoomed: str = "") -> Callable[[Pilot[object]], object]:
    """Zoom a pane, then wait until all the words are on the screen."""

    async def run(pilot: Pilot[object]) -> None:
        await until(pilot, lambda: "connection" in screen_text(pilot.app))
        if zoomed:
            assert isinstance(pilot.app, DashboardApp)
            pilot.app.dashboard.go_to(zoomed)
            await pilot.press("z")
        await until(pilot, lambda: all(word in screen_text(pilot.app) for word in words))
        await pilot.pause()

    return run


def _name(value: object) -> str:
    return "x".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("size", "theme"), [((80, 24), "harbor"), ((120, 40), "chalk"), ((200, 50), "beacon")], ids=_name)
def test_a_training_that_explains_itself(snap_compare: Compare, size: tuple[int, int], theme: str) -> None:
    app = dashboard(explained_snapshot(), theme)
    assert snap_compare(app, terminal_size=size, run_before=shows("TRAINING", "headroom 3.2", "scale too high"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_a_training_that_has_paused_itself(snap_compare: Compare, size: tuple[int, int]) -> None:
    app = dashboard(paused_snapshot())
    assert snap_compare(app, terminal_size=size, run_before=shows("PAUSED  by itself", "gradient itself"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=_name)
def test_the_training_zoomed_with_ranks_and_cards(snap_compare: Compare, size: tuple[int, int]) -> None:
    app = dashboard(many_ranks_snapshot())
    assert snap_compare(app, terminal_size=size, run_before=shows("ms/step", "too hot (hardware)", zoomed="training"))


def test_the_overflow_zoomed(snap_compare: Compare) -> None:
    app = dashboard(paused_snapshot())
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("causes", "in norm.weight", zoomed="overflow"))
