"""Background tasks of an engine, ended together."""

from __future__ import annotations

import asyncio
import logging

logger = logging.getLogger(__name__)


class BackgroundTasks:
    """An error that ends one task is logged at once; the others continue."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: asyncio._CoroutineLike[None], name: str) -> None:
        task = asyncio.create_task(work, name=f"engine-{name}")
        task.add_done_callback(_log_end)
        self._tasks.append(task)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("%s ended with an error", task.get_name(), exc_info=error)
