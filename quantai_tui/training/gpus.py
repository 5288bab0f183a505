"""Watches the GPUs beside the training worker, in a thread of its own: a driver in trouble answers late, or never."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from ..telemetry import SYSTEM_CLOCK, Clock, GpuSnapshot
from .nvml import Nvml, NvmlUnavailable, Reading, load_pynvml

log = logging.getLogger(__name__)

PERIOD_S = 2.0
RETRY_S = 60.0  # a driver that is not there will hardly come
_ANSWER_S = 10.0
_LEAVE_S = 1.0

_T = TypeVar("_T")

Publish = Callable[[tuple[GpuSnapshot, ...], str], None]


class _Thread:
    """Makes calls one after another. Nothing waits for it when the program ends: a call into the driver may never return."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="nvml", daemon=True).start()

    def ask(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        answer: Future[_T] = Future()
        self._calls.put((answer, call))
        return asyncio.wrap_future(answer)

    def end(self, last: Callable[[], None]) -> Future[None]:
        """After the calls that are waiting, and a last one, whether or not anybody still waits for that."""
        answer: Future[None] = Future()
        self._calls.put((answer, last))
        self._calls.put(None)
        return answer

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            answer, call = item
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 (it is raised where the answer is awaited)
                answer.set_exception(error)
            else:
                answer.set_result(result)


class GpuWatch:
    """Publishes all GPUs and a note every 2 s, on the event loop that called `start`. `start` and `stop` once each.

    The note says why there is nothing to tell, or which GPU does not answer. Without a driver it is asked again once a minute. A
    driver that does not answer for 10 s is said to be silent, and is not asked a second thing meanwhile. `worker_pids` are the
    processes of our training on this machine; `load` returns `pynvml` or its like (see Nvml).
    """

    def __init__(
        self,
        publish: Publish,
        worker_pids: Callable[[], Collection[int]],
        clock: Clock = SYSTEM_CLOCK,
        load: Callable[[], Any] = load_pynvml,
        *,
        answer_s: float = _ANSWER_S,
    ) -> None:
        self._publish = publish
        self._worker_pids = worker_pids
        self._clock = clock
        self._answer_s = answer_s
        self._nvml = Nvml(load)
        self._thread: _Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._note: str | None = None

    def start(self) -> None:
        self._thread = _Thread()
        self._task = asyncio.create_task(self._watch(), name="GPU watch")

    async def stop(self) -> None:
        """Close NVML and end the thread, within a second: one that the driver holds is left behind. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None or self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        closed = thread.end(self._nvml.close)
        await asyncio.to_thread(wait, {closed}, _LEAVE_S)
        if not closed.done():
            log.warning("the NVIDIA driver does not answer; its session is closed when it does")
        elif (error := closed.exception()) is not None:
            log.error("NVML did not close cleanly: %s", error)

    async def _watch(self) -> None:
        while True:
            pause = RETRY_S
            try:
                reading = await self._read()
                pause = PERIOD_S
            except NvmlUnavailable as reason:
                reading = Reading((), str(reason))
            except Exception as error:
                # A library that is not what it should be must not take the engine along.
                log.exception("reading the GPUs has failed")
                reading = Reading((), f"n/a: NVML failed ({type(error).__name__}: {error})")
            self._tell(reading)
            await self._clock.sleep(pause)

    async def _read(self) -> Reading:
        assert self._thread is not None
        pids = frozenset(self._worker_pids())
        answer = self._thread.ask(lambda: self._nvml.read(pids))
        try:
            await asyncio.wait({answer}, timeout=self._answer_s)
            if not answer.done():
                self._tell(Reading((), f"n/a: the NVIDIA driver has not answered for {self._answer_s:g} s"))
            return await answer
        finally:
            answer.cancel()

    def _tell(self, reading: Reading) -> None:
        if reading.note != self._note:
            self._note = reading.note
            log.info("GPUs: %s", reading.note or f"{len(reading.gpus)} seen")
        self._publish(*reading)
