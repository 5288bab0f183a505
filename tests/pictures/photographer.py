"""Photographs a real demo: starts an engine in a home of its own, waits until the sparklines are full, saves the screens."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from pathlib import Path

SHOTS = {
    "demo-120x40": ((120, 40), ()),
    "demo-80x24": ((80, 24), ()),
    "editor-120x40": ((120, 40), ("c",)),
}
_SECONDS_OF_HISTORY = 100.0


def photograph(folder: Path, history_s: float = _SECONDS_OF_HISTORY) -> None:
    """Write `SHOTS` into `folder` as SVG. Takes as long as the history on the sparklines is long."""
    with tempfile.TemporaryDirectory() as home:
        for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
            os.environ[f"XDG_{kind}_HOME"] = str(Path(home) / kind.lower())
        os.environ["TZ"] = "UTC"
        time.tzset()
        asyncio.run(_photograph(folder, history_s))


async def _photograph(folder: Path, history_s: float) -> None:
    from quantai_tui.engine.launch import EngineProcess
    from quantai_tui.engine.stopping import stop_engine
    from quantai_tui.link import SocketLink
    from quantai_tui.ui.screenshot import export_svg

    process = EngineProcess(["demo"])
    await process.find()
    try:
        # Passing time is the subject here: a sparkline fills at its own pace.
        await asyncio.sleep(history_s)
        for name, (size, keys) in SHOTS.items():
            svg = await export_svg(SocketLink(process.find), size, keys=keys)
            # The ids that Rich makes up change with every run and say nothing.
            svg = re.sub(r"terminal-\d+", "terminal", svg)
            (folder / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    finally:
        if process.entry is not None:
            await stop_engine(process.entry)
        process.forget()
