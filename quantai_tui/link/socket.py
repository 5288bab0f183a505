"""SocketLink: an engine in another process, reached over its Unix socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..telemetry import SYSTEM_CLOCK, Clock
from .base import LinkState, LinkStatus
from .frames import FrameError, encode, read_from_engine
from .messages import PROTOCOL_VERSION, Ack, Command, CommandName, Hello, Refused, Sample, Watch, Welcome

_HELLO_TIMEOUT_S = 5.0
_COMMAND_TIMEOUT_S = 40.0  # a stop drains the store; anything slower than this is not coming
_RETRY_S = 0.5
_LOST_LIMIT_S = 20.0


class EngineUnavailable(Exception):
    """There is no engine to attach to, and there will be none. `exit_code` is set when the program should just say so and end."""

    def __init__(self, detail: str, exit_code: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.exit_code = exit_code


class SocketLink(LinkStatus):
    """Attaches to the engine whose socket `find` yields, and attaches again when the connection breaks.

    `find` may wait for an engine that is being started; it raises `EngineUnavailable` when there will be none.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Path]],
        *,
        client: str = "dashboard",
        period_s: float = 0.25,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(clock)
        self._find = find
        self._client = client
        self._period_s = period_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Ack]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="engine-link")

    async def close(self) -> None:
        self._state = LinkState.CLOSED
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def command(self, name: CommandName, **args: Any) -> Ack:
        number = next(self._ids)
        if self._writer is None or self._state is not LinkState.ATTACHED:
            return Ack(number, False, f"no engine attached ({self._state.value})")
        answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(encode(Command(number, name, args)))
            return await asyncio.wait_for(answer, _COMMAND_TIMEOUT_S)
        except TimeoutError:
            return Ack(number, False, f"no answer within {_COMMAND_TIMEOUT_S:.0f} s")
        finally:
            self._waiting.pop(number, None)

    async def _run(self) -> None:
        lost_since: float | None = None
        while True:
            try:
                path = await self._find()
                reader, writer = await asyncio.open_unix_connection(str(path))
            except EngineUnavailable as gone:
                self._fail(gone.detail, gone.exit_code)
                return
            except OSError as error:
                lost_since = self._clock.monotonic() if lost_since is None else lost_since
                if self._clock.monotonic() - lost_since > _LOST_LIMIT_S:
                    self._fail(f"the engine cannot be reached: {error.strerror or error}")
                    return
                await self._clock.sleep(_RETRY_S)
                continue
            lost_since = None
            try:
                await self._attached(reader, writer)
            except (OSError, asyncio.IncompleteReadError, FrameError, TimeoutError) as error:
                self._detail = _lost_reason(error)
            finally:
                self._writer = None
                writer.close()
                self._fail_waiting()
            if self._state is LinkState.REFUSED:
                return
            self._state = LinkState.LOST
            await self._clock.sleep(_RETRY_S)

    async def _attached(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Hello(PROTOCOL_VERSION, self._client)))
        first = await asyncio.wait_for(read_from_engine(reader), _HELLO_TIMEOUT_S)
        if isinstance(first, Refused):
            self._state, self._detail = LinkState.REFUSED, first.reason
            return
        if not isinstance(first, Welcome):
            raise FrameError("the engine did not greet")
        self._name = first.name
        writer.write(encode(Watch(self._period_s)))
        self._writer = writer
        self._state, self._detail = LinkState.ATTACHED, ""
        while True:
            message = await read_from_engine(reader)
            if isinstance(message, Sample):
                self._take(message.snapshot)
            elif isinstance(message, Ack):
                waiting = self._waiting.get(message.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)

    def _fail_waiting(self) -> None:
        for number, answer in self._waiting.items():
            if not answer.done():
                answer.set_result(Ack(number, False, "the engine's connection broke before it answered"))


def _lost_reason(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "the engine closed the connection"
    if isinstance(error, TimeoutError):
        return f"the engine did not answer within {_HELLO_TIMEOUT_S:.0f} s"
    return str(error)
