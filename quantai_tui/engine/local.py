"""LocalLink: an engine in the dashboard's own process, behind the same interface as one in another."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..link import Ack, Command, CommandName, LinkState, LinkStatus
from ..telemetry import SYSTEM_CLOCK, Clock
from .engine import Engine
from .starting import StartError

logger = logging.getLogger(__name__)


class LocalLink(LinkStatus):
    """Starts the engine that `build` makes, samples it, and stops it when closed.

    `build` runs after `start` has returned, so that a dashboard paints before the engine's imports are paid for.
    """

    def __init__(self, build: Callable[[], Awaitable[Engine]], *, period_s: float = 0.25, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock)
        self._build = build
        self._period_s = period_s
        self._engine: Engine | None = None
        self._ids = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="local-engine")

    async def command(self, name: CommandName, **args: Any) -> Ack:
        number = next(self._ids)
        if self._engine is None or self._state is not LinkState.ATTACHED:
            return Ack(number, False, f"no engine attached ({self._state.value})")
        return await self._engine.execute(Command(number, name, args))

    async def close(self) -> None:
        self._state = LinkState.CLOSED
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    async def _run(self) -> None:
        try:
            engine = self._engine = await self._build()
            await engine.start()
        except StartError as error:
            self._engine = None
            self._fail(str(error), error.exit_code)
            return
        except Exception as error:
            logger.exception("the engine did not start")
            self._engine = None
            self._fail(f"the engine did not start: {error}", 1)
            return
        self._state, self._name = LinkState.ATTACHED, engine.name
        while not engine.stop_requested:
            self._take(engine.snapshot())
            await self._clock.sleep(self._period_s)
        self._fail("the engine was stopped")
