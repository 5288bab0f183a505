"""The stream's states and the only ways between them. A transition that the table does not have is a bug, and is raised."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..telemetry import SYSTEM_CLOCK, Clock, StreamState

log = logging.getLogger("quantai_tui.stream")

_S = StreamState

# Passed through in a moment by every dial: the log of a day should show what came of them.
_ON_THE_WAY = frozenset({_S.CONNECTING, _S.HANDSHAKING, _S.SUBSCRIBING})

# The stream may be disconnected or stopped from anywhere, and a fault of its own may strike anywhere.
_ANYWHERE = frozenset({_S.IDLE, _S.STOPPED, _S.FAILED})
# A failure, or a command to dial again, may come at any moment of a connection.
_AFTER_FAILURE = frozenset({_S.BACKOFF, _S.COOLING_DOWN, _S.FAILED, _S.CONNECTING})

TRANSITIONS: dict[StreamState, frozenset[StreamState]] = {
    _S.IDLE: frozenset({_S.CONNECTING, _S.BACKOFF}) | _ANYWHERE,
    _S.CONNECTING: frozenset({_S.HANDSHAKING}) | _AFTER_FAILURE | _ANYWHERE,
    _S.HANDSHAKING: frozenset({_S.SUBSCRIBING}) | _AFTER_FAILURE | _ANYWHERE,
    _S.SUBSCRIBING: frozenset({_S.LIVE}) | _AFTER_FAILURE | _ANYWHERE,
    _S.LIVE: frozenset({_S.STALLED, _S.ROTATING}) | _AFTER_FAILURE | _ANYWHERE,
    _S.STALLED: frozenset({_S.LIVE, _S.ROTATING}) | _AFTER_FAILURE | _ANYWHERE,
    _S.ROTATING: frozenset({_S.LIVE, _S.STALLED}) | _AFTER_FAILURE | _ANYWHERE,
    _S.BACKOFF: frozenset({_S.CONNECTING}) | _ANYWHERE,
    _S.COOLING_DOWN: frozenset({_S.CONNECTING, _S.BACKOFF}) | _ANYWHERE,
    _S.FAILED: frozenset({_S.CONNECTING, _S.BACKOFF}) | _ANYWHERE,
    _S.STOPPED: frozenset(),
}

_HISTORY = 64


class IllegalTransition(RuntimeError):
    """The stream tried a way between states that does not exist."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change. `at` is monotonic seconds."""

    state: StreamState
    cause: str
    at: float


class StateMachine:
    """Where the stream is, since when and why."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._changes: deque[StateChange] = deque([StateChange(_S.IDLE, "not started", clock.monotonic())], maxlen=_HISTORY)
        self._waiters: list[tuple[Callable[[StreamState], bool], asyncio.Future[StreamState]]] = []

    @property
    def state(self) -> StreamState:
        return self._changes[-1].state

    @property
    def cause(self) -> str:
        return self._changes[-1].cause

    @property
    def since(self) -> float:
        """Monotonic time of the last change of state."""
        return self._changes[-1].at

    @property
    def changes(self) -> tuple[StateChange, ...]:
        """The last changes, oldest first."""
        return tuple(self._changes)

    def to(self, state: StreamState, cause: str) -> None:
        """Go to `state`. To stay where one is with another cause is no change, and keeps the time.

        Raises:
            IllegalTransition: the table has no such way.
        """
        now = self._changes[-1]
        if state is now.state:
            self._changes[-1] = StateChange(state, cause, now.at)
            return
        if state not in TRANSITIONS[now.state]:
            raise IllegalTransition(f"the stream cannot go from {now.state.value} to {state.value} ({cause})")
        self._changes.append(StateChange(state, cause, self._clock.monotonic()))
        log.log(logging.DEBUG if state in _ON_THE_WAY else logging.INFO, "%s: %s", state.value.replace("_", " "), cause)
        waiting, self._waiters = self._waiters, []
        for accepts, future in waiting:
            if future.done():
                continue
            if accepts(state):
                future.set_result(state)
            else:
                self._waiters.append((accepts, future))

    async def wait_for(self, *states: StreamState) -> StreamState:
        """Wait until one of `states` is entered, or return at once; a state that is passed through quickly counts."""
        if self.state in states:
            return self.state
        future: asyncio.Future[StreamState] = asyncio.get_running_loop().create_future()
        waiter = (frozenset(states).__contains__, future)
        self._waiters.append(waiter)
        try:
            return await future
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
