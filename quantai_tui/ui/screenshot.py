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
    until: str = "",
    ready_within_s: float = 10.0,
) -> str:
    """The dashboard of `link` at `size` (columns, rows) after `keys` have been pressed and `until` is on the screen.

    Starts and closes the link. Waits at most `ready_within_s` seconds for the first snapshot, and as long for `until`; a failed
    link is drawn as such.
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
            await pilot.pause(0.1)
        for _ in range(max(1, round(ready_within_s / 0.05))):
            if until in "\n".join(strip.text for strip in app.screen._compositor.render_strips()):
                break
            await pilot.pause(0.05)
        await pilot.pause(0.5 if keys else 0.0)
        return app.export_screenshot(simplify=True)
