"""Pictures of the dashboard as SVG, drawn without a terminal."""

from __future__ import annotations

import asyncio

from ..link.base import EngineLink
from ..telemetry import SYSTEM_CLOCK, Clock
from .app import DashboardApp


async def export_svg(
    link: EngineLink,
    size: tuple[int, int] = (120, 40),
    theme: str | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
    keys: tuple[str, ...] = (),
    ready_within_s: float = 10.0,
) -> str:
    """The dashboard of `link` at `size` (columns, rows) after `keys` have been pressed.

    Starts and closes the link. Waits at most `ready_within_s` seconds for the first snapshot; a failed link is drawn as such.
    """
    app = DashboardApp(link, clock=clock, theme=theme)
    async with app.run_test(size=size) as pilot:
        for _ in range(max(1, round(ready_within_s / 0.05))):
            if link.snapshot is not None or app.view().broken:
                break
            await asyncio.sleep(0.05)
        app.tick()
        await pilot.pause()
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        return app.export_screenshot(simplify=True)
