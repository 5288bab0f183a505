"""A session under way: the task that runs it, and waiting for other things while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .advice import FailureKind
from .failures import Failure, LinkFault, classify
from .session import Session
from .tasks import settle

T = TypeVar("T")


class Line:
    """A session and its task. `on_verdict` is told of how it ended at that very moment, whoever waits or has stopped waiting."""

    def __init__(self, session: Session, on_verdict: Callable[[Failure], None]) -> None:
        self.session = session
        self._on_verdict = on_verdict
        self.task: asyncio.Task[None] = asyncio.create_task(session.run(), name="link")
        self.task.add_done_callback(self._ended)

    @property
    def error(self) -> BaseException:
        """What ended the link; to be asked for when `task` is done."""
        assert self.task.done()
        if self.task.cancelled():
            # Not by us, who never ask then: a library below has cancelled what it was waiting for.
            return LinkFault(FailureKind.UNKNOWN, "the connection was cancelled from within")
        return self.task.exception() or AssertionError("a session ends by an exception")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._on_verdict(classify(self.error, self.session.phase))

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` while the link lasts; raises what ended it, should that come first."""
        doing = asyncio.create_task(work)
        try:
            await asyncio.wait([self.task, doing], return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                raise self.error
            return doing.result()
        finally:
            await settle(doing)
