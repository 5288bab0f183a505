"""Commands about the connection, and faults from the dashboard to the embedded exchange, all of them real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from stream_support import ScriptedExchange, authority, exchange

from quantai_tui.cli.options import Wanted
from quantai_tui.engine import source
from quantai_tui.engine.engine import Engine
from quantai_tui.link import Ack, Command, CommandName
from quantai_tui.telemetry import StreamState

__all__ = ["authority", "exchange"]  # fixtures


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


async def ask(engine: Engine, name: CommandName, **args: object) -> Ack:
    return await engine.execute(Command(1, name, args))


def is_live(engine: Engine) -> bool:
    stream = engine.snapshot().stream
    return stream.state is StreamState.LIVE and stream.symbols["ETHUSDT"].last_id is not None


@pytest.fixture
async def demo() -> AsyncIterator[Engine]:
    engine = Engine(Wanted("demo", seed=3).source(), overrides=("TRAIN_AUTOSTART=False",))
    await engine.start()
    await until(lambda: is_live(engine))
    yield engine
    await engine.stop()


async def test_a_fault_chosen_from_the_list_happens_and_nothing_is_lost(demo: Engine) -> None:
    offered = await ask(demo, CommandName.FAULT_LIST)
    assert offered.ok
    kinds = {offer["kind"]: offer["text"] for offer in offered.data}
    assert {"close", "reset", "silent-symbol", "flip-byte", "cert-expired", "clear"} <= set(kinds)
    assert all(kinds.values())
    done = await ask(demo, CommandName.FAULT, kind="close", code=1012)
    assert done.ok, done.message
    assert done.message
    await until(lambda: demo.snapshot().stream.reconnects == 1 and is_live(demo))
    await until(lambda: demo.snapshot().stream.symbols["ETHUSDT"].missing == 0)
    assert demo.snapshot().stream.symbols["ETHUSDT"].unrecoverable == 0
    error = demo.snapshot().stream.last_error
    assert error is not None
    assert "1012" in error.message


async def test_a_fault_that_cannot_be_had_is_refused_with_the_exchanges_words(demo: Engine) -> None:
    refused = await ask(demo, CommandName.FAULT, kind="clse")
    assert not refused.ok
    assert "'close'" in refused.message
    refused = await ask(demo, CommandName.FAULT, kind="close", code="often")
    assert not refused.ok
    assert "code" in refused.message
    assert is_live(demo)


async def test_a_connection_is_replaced_on_command_without_a_break(demo: Engine) -> None:
    done = await ask(demo, CommandName.ROTATE)
    assert done.ok
    assert "second connection" in done.message
    await until(lambda: demo.snapshot().stream.rotations == 1)
    stream = demo.snapshot().stream
    assert (stream.reconnects, stream.symbols["ETHUSDT"].gaps) == (0, 0)


async def test_without_a_connection_there_is_none_to_replace(demo: Engine) -> None:
    await ask(demo, CommandName.DISCONNECT)
    await until(lambda: demo.snapshot().stream.state is StreamState.IDLE)
    refused = await ask(demo, CommandName.ROTATE)
    assert not refused.ok
    assert "no live connection" in refused.message


async def test_resetting_the_backoff_leaves_a_live_link_alone(demo: Engine) -> None:
    done = await ask(demo, CommandName.RESET_BACKOFF)
    assert (done.ok, done.message) == (True, "attempts forgotten")
    assert is_live(demo)
    assert demo.snapshot().stream.reconnects == 0


async def test_an_engine_on_a_live_venue_cannot_be_broken_and_says_so(exchange: ScriptedExchange, tmp_path: Path) -> None:
    settings = (
        f"EXCHANGE_WS_URL=wss://localhost:{exchange.ws_port}",
        f"EXCHANGE_REST_URL=https://localhost:{exchange.rest_port}",
        f"EXCHANGE_CA_FILE={exchange.ca_file}",
        f"DATA_DIR={tmp_path}",
        "TRAIN_AUTOSTART=False",
    )
    engine = Engine(source.live(), overrides=settings, serve=False)
    await engine.start()
    try:
        for answer in (await ask(engine, CommandName.FAULT_LIST), await ask(engine, CommandName.FAULT, kind="close")):
            assert not answer.ok
            assert "faults are played by the embedded exchange only" in answer.message
    finally:
        await engine.stop()
