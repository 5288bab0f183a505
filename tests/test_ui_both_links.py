"""Every key that acts, pressed on a dashboard over a real engine, in its own process and behind a socket: the same is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_engine import demo_engine
from textual.pilot import Pilot
from ui_support import screen_text, until

from quantai_tui.engine.engine import Engine
from quantai_tui.engine.local import LocalLink
from quantai_tui.engine.registry import control_socket
from quantai_tui.link import EngineLink, LinkState, SocketLink
from quantai_tui.settings import default_config_path
from quantai_tui.telemetry import StreamState
from quantai_tui.ui.app import DashboardApp

WITHIN_S = 40.0


@asynccontextmanager
async def linked(kind: str) -> AsyncIterator[tuple[Engine, EngineLink]]:
    """A demo engine without a worker, and the link of that kind to it; either way the engine is stopped in the end."""
    default_config_path().parent.mkdir(parents=True, exist_ok=True)
    engine = demo_engine("TRAIN_AUTOSTART=False")
    if kind == "local":

        async def build() -> Engine:
            return engine

        yield engine, LocalLink(build)
        return
    await engine.start()

    async def find() -> Path:
        return control_socket(engine.folder)

    try:
        yield engine, SocketLink(find)
    finally:
        await engine.stop()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["local", "socket"])
async def test_every_key_that_acts_is_answered_on_either_link(kind: str) -> None:
    async with linked(kind) as (engine, link):
        app = DashboardApp(link)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            await shows(pilot, "● LIVE", "whole")
            assert link.state is LinkState.ATTACHED
            await press(pilot, "o", "fresh connection: done", "● LIVE")
            await press(pilot, "d", "disconnect: done")
            await until(pilot, lambda: app.view().stream_is_off and "d connect" in key_line(app), WITHIN_S)
            await press(pilot, "d", " connect: done", "● LIVE")
            await press(pilot, "r", "reconnect: done", "● LIVE")
            await press(pilot, "b", "reset backoff: done")
            await press(pilot, "R", "there is no scale yet")
            await press(pilot, "s", "save checkpoint: not done")
            await press(pilot, "f", "break something", "type to filter")
            await pilot.press(*"close", "enter")
            await shows(pilot, "close: done")
            await shows(pilot, "● LIVE")
            await look_back(pilot)
            await change_a_setting(pilot, engine)
            assert engine.snapshot().stream.state is StreamState.LIVE
            await press(pilot, "Q", "stop it")
            await pilot.press("y")
            await until(pilot, lambda: app.return_value == "stop" or engine.stop_requested, WITHIN_S)


async def look_back(pilot: Pilot[Any]) -> None:
    await press(pilot, "left", "PAST")
    await press(pilot, "minus", "charts 10 min")
    await pilot.press("plus", "home")
    await until(pilot, lambda: "PAST" not in screen_text(pilot.app), WITHIN_S)
    await press(pilot, "p", "FROZEN")
    await pilot.press("p")
    await until(pilot, lambda: "FROZEN" not in screen_text(pilot.app), WITHIN_S)


async def change_a_setting(pilot: Pilot[Any], engine: Engine) -> None:
    await press(pilot, "c", "BACKFILL_START")
    await pilot.press("slash", *"PONG", "enter", "enter", "ctrl+u", "7", "enter")
    await press(pilot, "w", "10.0 → 7.0", "stream reconnects")
    await press(pilot, "enter", "settings on trial")
    await press(pilot, "y", "settings kept")
    assert engine.desk.settings.WS_PONG_TIMEOUT == 7.0
    await pilot.press("escape", "escape")  # out of the search, then out of the editor
    await until(pilot, lambda: pilot.app.screen is pilot.app.dashboard, WITHIN_S)  # type: ignore[attr-defined]
    await shows(pilot, "● LIVE")


def key_line(app: DashboardApp) -> str:
    return screen_text(app).splitlines()[-1]


async def press(pilot: Pilot[Any], key: str, *then: str) -> None:
    await pilot.press(key)
    await shows(pilot, *then)


async def shows(pilot: Pilot[Any], *wanted: str) -> None:
    await until(pilot, lambda: all(text in screen_text(pilot.app) for text in wanted), WITHIN_S)
