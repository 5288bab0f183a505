"""What a dashboard holds: a source of snapshots that also takes commands. Panes cannot tell where it leads."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from ..telemetry import EngineSnapshot
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
