"""The commands that record a running engine: what they refuse, and what an end of the engine leaves behind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stream_support import ScriptedExchange, authority, eventually, exchange

from quantai_tui.engine import source
from quantai_tui.engine.engine import Engine
from quantai_tui.link import Ack, Command, CommandName
from quantai_tui.stream.recorded import Recording
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures


@pytest.fixture
async def engine(exchange: ScriptedExchange, tmp_path: Path) -> AsyncIterator[Engine]:
    settings = (
        f"EXCHANGE_WS_URL=wss://localhost:{exchange.ws_port}",
        f"EXCHANGE_REST_URL=https://localhost:{exchange.rest_port}",
        f"EXCHANGE_CA_FILE={exchange.ca_file}",
        f"DATA_DIR={tmp_path}",
        "TRAIN_AUTOSTART=False",
    )
    engine = Engine(source.live(), overrides=settings, serve=False)
    await engine.start()
    await eventually(lambda: engine.snapshot().stream.state is StreamState.LIVE, "live", timeout=20)
    yield engine
    await engine.stop()


async def ask(engine: Engine, name: CommandName, **args: object) -> Ack:
    return await engine.execute(Command(1, name, args))


@pytest.mark.parametrize("size", [math.inf, math.nan, 0, -1.0])
async def test_a_size_that_is_none_is_refused_in_words(engine: Engine, size: float) -> None:
    answer = await ask(engine, CommandName.RECORD_START, max_mb=size)
    assert (answer.ok, "no size to end at" in answer.message) == (False, True)
    assert engine.snapshot().stream.recording is None


async def test_a_recording_under_way_is_whole_when_the_engine_stops(engine: Engine) -> None:
    assert not (await ask(engine, CommandName.RECORD_STOP)).ok
    first = await ask(engine, CommandName.RECORD_START)
    second = await ask(engine, CommandName.RECORD_START)
    assert (first.ok, second.ok, "recording already" in second.message) == (True, False, True)
    await engine.stop()
    [path] = engine.folder.recordings.iterdir()
    recording = Recording.open(path)
    assert (recording.closing, recording.damage, len(recording.links)) == ("stopped", "", 1)
    recording.close()
