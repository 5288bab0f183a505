"""What a dashboard holds: a source of snapshots that also takes commands. Panes cannot tell where it leads."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from ..telemetry import Clock, EngineSnapshot
from .messages import Ack, CommandName


class LinkState(StrEnum):
    STARTING = "starting"  # the engine is being started, or the socket is not there yet
    ATTACHED = "attached"
    LOST = "lost"  # was attached; is trying again
    REFUSED = "refused"  # the engine speaks another protocol version
    FAILED = "failed"  # the engine did not start, or has ended; `detail` says why
    CLOSED = "closed"


class EngineLink(Protocol):
    """An engine, near or far."""

    @property
    def state(self) -> LinkState: ...

    @property
    def detail(self) -> str:
        """Why it is in this state, in words; may span lines (the tail of an engine's log)."""
        ...

    @property
    def exit_code(self) -> int | None:
        """Set with FAILED when there is nothing to look at: leave with this code, after printing `detail`."""
        ...

    @property
    def engine_name(self) -> str: ...

    @property
    def snapshot(self) -> EngineSnapshot | None:
        """The newest snapshot; None before the first."""
        ...

    @property
    def snapshot_age_s(self) -> float | None:
        """Monotonic seconds since the newest snapshot arrived."""
        ...

    async def start(self) -> None:
        """Begin to attach, in the background; returns at once."""
        ...

    async def command(self, name: CommandName, **args: Any) -> Ack:
        """Send one command and wait for its answer. A link that is down answers with `ok=False`; it does not raise."""
        ...

    async def close(self) -> None:
        """Detach; the engine goes on (a LocalLink stops its engine). Idempotent."""
        ...


class LinkStatus:
    """The part of a link that a dashboard reads: its state and the newest snapshot. Links inherit it and set the fields."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state = LinkState.STARTING
        self._detail = ""
        self._exit_code: int | None = None
        self._name = ""
        self._snapshot: EngineSnapshot | None = None
        self._arrived = 0.0

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
        return self._name

    @property
    def snapshot(self) -> EngineSnapshot | None:
        return self._snapshot

    @property
    def snapshot_age_s(self) -> float | None:
        return None if self._snapshot is None else self._clock.monotonic() - self._arrived

    def _take(self, snapshot: EngineSnapshot) -> None:
        self._snapshot, self._arrived = snapshot, self._clock.monotonic()

    def _fail(self, detail: str, exit_code: int | None = None) -> None:
        self._state, self._detail, self._exit_code = LinkState.FAILED, detail, exit_code
