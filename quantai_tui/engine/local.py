"""LocalLink: an engine in the dashboard's own process, behind the same interface as one in another."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..link import Ack, Command, CommandName, LinkState
from ..telemetry import SYSTEM_CLOCK, Clock, EngineSnapshot
from .engine import Engine, StartError

logger = logging.getLogger(__name__)


class LocalLink:
    """Starts the engine that `build` makes, samples it, and stops it when closed.

    `build` runs after `start` has returned, so that a dashboard paints before the engine's imports are paid for.
    """

    def __init__(self, build: Callable[[], Awaitable[Engine]], *, period_s: float = 0.25, clock: Clock = SYSTEM_CLOCK) -> None:
        self._build = build
        self._period_s = period_s
        self._clock = clock
        self._engine: Engine | None = None
        self._state = LinkState.STARTING
        self._detail = ""
        self._exit_code: int | None = None
        self._snapshot: EngineSnapshot | None = None
        self._arrived = 0.0
        self._ids = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def detail(self) -> str:
        return self._detail

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    @property
    def engine_name(self) -> str:
        return self._engine.name if self._engine is not None else ""

    @property
    def snapshot(self) -> EngineSnapshot | None:
        return self._snapshot

    @property
    def snapshot_age_s(self) -> float | None:
        return None if self._snapshot is None else self._clock.monotonic() - self._arrived

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
            self._state, self._detail, self._exit_code = LinkState.FAILED, str(error), error.exit_code
            return
        self._state = LinkState.ATTACHED
        while not engine.stop_requested:
            self._snapshot, self._arrived = engine.snapshot(), self._clock.monotonic()
            await self._clock.sleep(self._period_s)
        self._state, self._detail = LinkState.FAILED, "the engine was stopped"
