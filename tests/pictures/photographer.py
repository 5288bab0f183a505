"""Photographs a real demo: starts an engine in a home of its own, waits until the sparklines are full, saves the screens."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantai_tui.link import CommandName, EngineLink, LinkState


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: its size, theme and the keys pressed before it is taken; `until` must be on the screen then."""

    size: tuple[int, int]
    theme: str = "harbor"
    keys: tuple[str, ...] = ()
    until: str = ""


_SINCE_OUTAGE = "<since the outage>"
SHOTS = {
    "demo-120x40": Shot((120, 40)),
    "demo-80x24": Shot((80, 24)),
    "demo-chalk-120x40": Shot((120, 40), "chalk"),
    "demo-amber-80x24": Shot((80, 24), "amber"),
    # A value that breaks its rule, in words beside it.
    "editor-120x40": Shot((120, 40), keys=("c", "slash", *"PONG", "enter", "enter", "ctrl+u", "minus", "1"), until="1 wrong"),
    # Ten minutes of charts, and the cursor on the outage that was asked for.
    "past-120x40": Shot((120, 40), keys=("minus", "g", "-", _SINCE_OUTAGE, "s", "enter"), until="PAST"),
}
_SECONDS_OF_HISTORY = 100.0
_OUTAGE_AFTER = 0.4  # of the history
_OUTAGE: dict[str, Any] = {"kind": "close", "for": 6.0}


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
        await asyncio.sleep(history_s * _OUTAGE_AFTER)
        await _break(SocketLink(process.find))
        begun = time.time()
        await asyncio.sleep(history_s * (1 - _OUTAGE_AFTER))
        for name, shot in SHOTS.items():
            outage = str(int(time.time() - begun) - 2)
            keys = tuple(part for key in shot.keys for part in _typed(key, outage))
            svg = await export_svg(SocketLink(process.find), shot.size, shot.theme, keys=keys, until=shot.until)
            # The ids that Rich makes up change with every run and say nothing.
            svg = re.sub(r"terminal-\d+", "terminal", svg)
            (folder / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    finally:
        if process.entry is not None:
            await stop_engine(process.entry)
        process.forget()


def _typed(key: str, outage: str) -> tuple[str, ...]:
    """One key of a shot; the mark stands for the seconds that have passed since the outage."""
    return tuple(outage) if key == _SINCE_OUTAGE else (key,)


async def _break(link: EngineLink) -> None:
    """Have the embedded exchange refuse us for a while."""
    await link.start()
    try:
        while link.state is not LinkState.ATTACHED:
            await asyncio.sleep(0.05)
        ack = await link.command(CommandName.FAULT, **_OUTAGE)
        assert ack.ok, ack.message
    finally:
        await link.close()
