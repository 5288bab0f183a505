"""An event loop with virtual time: when nothing is ready it jumps to the next timer, so that a day takes seconds.

Everything that waits on the loop agrees: `asyncio.sleep`, `asyncio.timeout`, `call_later`, and a `VirtualClock`. The order of
events depends on nothing outside the program, so that a run is the same every time. What would wait for the real world (sockets,
files, threads) is refused.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

# Turns of the loop at one moment before it counts as spinning: a busy moment of ours takes some hundreds.
_MOST_TURNS = 200_000
_CLEAN_UP_TURNS = 10_000


class Stuck(AssertionError):
    """Nobody can ever go on, or somebody goes round without waiting."""


class RealWorld(AssertionError):
    """Something asked for what a virtual loop does not have."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Begins at 1,000 s, so that a deadline in the past is not below zero."""

    def __init__(self, begin: float = 1000.0) -> None:
        super().__init__()
        self._selector = _Jump(self)
        self._clock_resolution = 1e-9
        self.now = begin
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """There never are any."""

    def _write_to_self(self) -> None:
        raise RealWorld("another thread called into a loop with virtual time")

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]
        raise RealWorld("a thread takes real time: a loop with virtual time cannot wait for it")

    def run_in_executor(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]
        raise RealWorld("a thread takes real time: a loop with virtual time cannot wait for it")


def _refused(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise RealWorld(f"{name}: a loop with virtual time has no sockets, pipes, signals or processes")

    return refuse


for _name in (
    *("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection", "create_unix_server"),
    *("sock_connect", "sock_recv", "sock_sendall", "sock_accept", "getaddrinfo", "getnameinfo", "start_tls", "sendfile"),
    *("add_reader", "add_writer", "remove_reader", "remove_writer", "connect_read_pipe", "connect_write_pipe"),
    *("subprocess_exec", "subprocess_shell", "add_signal_handler"),
):
    setattr(VirtualLoop, _name, _refused(_name))


class _Jump:
    """Stands where the selector would: instead of waiting, it lets time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._turns = 0
        self.most_turns = _MOST_TURNS

    def select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck(f"at {self._loop.now:.3f} s everybody waits, and nothing will ever happen: {waiting(self._loop)}")
        if timeout > 0:
            self._turns = 0
            # To the timer's own moment, not by the difference: no rounding error adds up.
            self._loop.now = max(self._loop.now, min(self._loop._scheduled[0]._when, self._loop.now + timeout))  # type: ignore[attr-defined]
        else:
            self._turns += 1
            if self._turns > self.most_turns:
                raise Stuck(f"{self._turns} turns at {self._loop.now:.3f} s, and nobody waits: {waiting(self._loop)}")
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualClock:
    """A program's clock on a virtual loop. `ahead`: so far was the wall clock set forward, as when a machine wakes."""

    def __init__(self, loop: VirtualLoop, epoch: float = 1_700_000_000.0) -> None:
        self._loop = loop
        self._epoch = epoch
        self.ahead = 0.0

    def monotonic(self) -> float:
        return self._loop.now

    def time(self) -> float:
        return self._epoch + self._loop.now + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def clock_here() -> VirtualClock:
    """A clock for the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "run this by tests.virtual.loop.run"
    return VirtualClock(loop)


def waiting(loop: asyncio.AbstractEventLoop) -> str:
    """The tasks that are not done, for a message."""
    return ", ".join(sorted(task.get_name() + " " + _where(task) for task in asyncio.all_tasks(loop))) or "no task"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time.

    Raises AssertionError when a task is left over, when a callback or a task failed and nobody looked, or when the loop is stuck.
    """
    gc.freeze()  # what is there already is not looked through below: with all modules loaded that would take half a second
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        assert not left, f"left over: {waiting(loop)}"
        loop.run_until_complete(loop.shutdown_asyncgens())
        gc.collect()  # a task that failed unseen says so when it is dropped
        assert not loop.faults, f"failed unseen: {[fault.get('exception') or fault['message'] for fault in loop.faults]}"
        return result
    finally:
        _cancel_all(loop)
        asyncio.set_event_loop(None)
        loop.close()
        gc.unfreeze()


def _cancel_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop._selector.most_turns = _CLEAN_UP_TURNS
    try:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    except Stuck:
        pass  # the test has failed already, and says why


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    return f"({frames[0].f_code.co_qualname}:{frames[0].f_lineno})" if frames else ""
