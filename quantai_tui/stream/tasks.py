"""Two ways to run things side by side so that nothing is left behind: until the first of them ends, or until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def settle(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended, whatever it ends with.

    Its outcome is dropped: the caller has decided that it no longer counts. Our own cancellation still goes through.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # marks it as retrieved


async def all_ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until all of them have ended, even if cancelled meanwhile: that goes on when there is nothing left to wait for.

    For what is being closed and takes a moment; who leaves it alone leaves it behind.
    """
    interrupted: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


async def until_first_ends(*parts: Coroutine[Any, Any, object]) -> None:
    """Run all parts; when one returns or raises, cancel the others, wait for them, and end as that one did.

    Of parts that end in the same turn of the loop the one named first decides.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()
    first.result()


async def unless(signal: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work` to its end, or drop it when `signal` is set; None says that it was dropped. The signal stays set."""
    task = asyncio.create_task(work)
    flag = asyncio.create_task(signal.wait())
    try:
        await asyncio.wait([task, flag], return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not signal.is_set():
            return task.result()
        return None
    finally:
        # Both are told to end before either is waited for: who is cancelled meanwhile leaves nothing running. And told once: a
        # second time would break into the cleaning up.
        flag.cancel()
        task.cancel()
        await asyncio.wait([flag, task])
        if not task.cancelled():
            task.exception()  # marks it as retrieved


async def first_of(*tasks: asyncio.Task[Any], signal: asyncio.Event) -> None:
    """Wait until one of the tasks has ended or the signal is set. The tasks go on; their outcome is for the caller to look at."""
    flag = asyncio.create_task(signal.wait())
    try:
        await asyncio.wait([*tasks, flag], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await settle(flag)
