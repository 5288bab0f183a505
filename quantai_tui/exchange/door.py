"""A byte proxy before one of the exchange's ports: what can go wrong on a line happens here, between real sockets.

An undisturbed door only passes bytes on. Whatever is wrong is imposed on the connections that are open, on those that come, or on
both, and lifted again by what `impose` and its like return.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable
from enum import StrEnum

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .certificates import Trial
from .conditions import Condition
from .passage import Passage, Wound
from .server import HOST, bind

_LOG = logging.getLogger(__name__)

_MOST_CONNECTIONS = 200  # each takes three descriptors of this process; 1024 is a usual limit
_BACKLOG = 100
_RETRY_S = 0.1  # for a port that cannot be had back, and when descriptors have run out

Lift = Callable[[], None]
"""Ends what was imposed. Calling it again does nothing."""


class Scope(StrEnum):
    """Which connections are meant."""

    OPEN = "open"
    NEW = "new"
    ALL = "all"


class Door:
    """Listens on `listener`, a bound socket, for a server on `backend_port` of the same host. `start`, then `close`."""

    def __init__(
        self, listener: socket.socket, backend_port: int, *, rng: random.Random, clock: Clock = SYSTEM_CLOCK, name: str = "door"
    ) -> None:
        self.name = name
        self.port: int = listener.getsockname()[1]
        self._listener: socket.socket | None = listener
        self._rng = rng
        self._clock = clock
        self._routes: list[tuple[int, ssl.SSLContext | None]] = [(backend_port, None)]
        self._caps = [_MOST_CONNECTIONS]
        self._refusals = 0
        self._coming: list[Condition | Wound] = []
        self._passages: dict[Passage, asyncio.Task[None]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._serving = False

    @property
    def connections(self) -> int:
        """How many pass through now, those that lie dead in a black hole included."""
        return len(self._passages)

    def start(self) -> None:
        """Accept from now on. Call it in the event loop that is to serve."""
        self._serving = True
        self._listen()

    async def close(self) -> None:
        """Close the port and every connection. Idempotent."""
        self._serving = False
        self._deafen()
        tasks = list(self._passages.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def impose(self, measure: Condition | Wound, scope: Scope = Scope.ALL) -> Lift:
        """Lay a condition on connections, or deal each a wound. Lifting it does not spare those that were open their wound."""
        met = set(self._passages) if scope is not Scope.NEW else set()
        for passage in met:
            _lay(measure, passage, patient=False)
        if scope is not Scope.OPEN:
            self._coming.append(measure)

        def lift() -> None:
            if measure in self._coming:
                self._coming.remove(measure)
            for passage in self._passages:
                if isinstance(measure, Condition) or passage not in met:
                    passage.lift(measure)

        return self._once(lift)

    def refuse(self) -> Lift:
        """Close the port: dials are refused. Open connections go on. The port is not given to anybody else meanwhile."""
        self._refusals += 1
        if self._refusals == 1:
            self._deafen()
            self._reserve()
        return self._once(self._readmit)

    def route(self, backend_port: int, tls: ssl.SSLContext) -> Lift:
        """Connections that come go to that port instead, where a server listens under `tls`."""
        self._routes.append((backend_port, tls))
        return self._once(lambda: self._routes.remove((backend_port, tls)))

    def cap(self, connections: int) -> Lift:
        """Reset every connection beyond so many."""
        self._caps.append(connections)
        return self._once(lambda: self._caps.remove(connections))

    @staticmethod
    def _once(action: Lift) -> Lift:
        pending = [action]

        def lift() -> None:
            if pending:
                pending.pop()()

        return lift

    def _readmit(self) -> None:
        self._refusals -= 1
        if self._refusals == 0 and self._serving:
            self._listen()

    def _listen(self) -> None:
        self._retry = None
        if self._listener is None:
            self._reserve()
        if self._listener is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._listen)
            return
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _reserve(self) -> None:
        """Bind the port without listening: dials are refused, and no other program can have it."""
        try:
            self._listener = bind(self.port)
        except OSError as error:
            _LOG.warning("port %d cannot be had back (%s): trying again", self.port, error.strerror)

    def _deafen(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_BACKLOG):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _LOG.warning("cannot accept a connection (%s): trying again", error.strerror)
                asyncio.get_running_loop().remove_reader(self._listener)
                self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._listen)
                return
            passage = Passage(client, self._clock, self._rng)
            if len(self._passages) >= min(self._caps):
                passage.close(rough=True)
                continue
            for measure in self._coming:
                _lay(measure, passage, patient=True)
            port, tls = self._routes[-1]
            trial = Trial(tls) if tls is not None else None
            task = asyncio.create_task(passage.run(HOST, port, trial), name=f"{self.name}: a connection")
            self._passages[passage] = task
            task.add_done_callback(lambda task, passage=passage: self._ended(passage, task))  # type: ignore[misc]

    def _ended(self, passage: Passage, task: asyncio.Task[None]) -> None:
        del self._passages[passage]
        passage.close()  # a task that is cancelled before it ever ran closes nothing
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("a connection through the %s broke", self.name, exc_info=error)


def _lay(measure: Condition | Wound, passage: Passage, *, patient: bool) -> None:
    if isinstance(measure, Condition):
        passage.impose(measure)
    else:
        passage.wound(measure, patient=patient)
