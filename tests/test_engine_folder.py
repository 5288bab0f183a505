"""An engine whose data folder is removed ends with an error and does not disturb its successor."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantai_tui.cli.options import Wanted
from quantai_tui.engine.asking import ask
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.host import serve
from quantai_tui.engine.registry import running
from quantai_tui.engine.starting import EXIT_STORE_FAILED
from quantai_tui.link import CommandName


def demo_engine() -> Engine:
    return Engine(Wanted("demo", seed=3).source(), overrides=("TRAIN_AUTOSTART=False",))


@pytest.fixture(autouse=True)
def package_log() -> Iterator[None]:
    """Restore logging: two engines in one process close their logs in an unusual order."""
    logger = logging.getLogger("quantai_tui")
    before = logger.propagate
    yield
    logger.propagate = before


async def test_removed_data_folder_ends_the_engine_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    engine = demo_engine()
    serving = asyncio.create_task(serve(lambda: engine, None))
    async with asyncio.timeout(60):
        while not running():
            await asyncio.sleep(0.02)
        shutil.rmtree(engine.folder.path)
        assert await serving == EXIT_STORE_FAILED
    assert "removed or replaced while the engine ran; start it again" in capsys.readouterr().err


async def test_engine_without_its_folder_does_not_disturb_its_successor() -> None:
    first, second = demo_engine(), demo_engine()
    try:
        await first.start()
        shutil.rmtree(first.folder.path)
        await second.start()
        async with asyncio.timeout(10):
            await first.wait_stop_requested()
        await first.stop()
        entry = second.entry()
        assert [one.socket for one in running()] == [entry.socket]
        assert Path(entry.guests).is_socket()
        assert (await asyncio.wait_for(ask(entry, CommandName.RECONNECT, client="a test"), 10)).ok
        assert second.failure == ""
    finally:
        await first.stop()
        await second.stop()
    assert running() == []
