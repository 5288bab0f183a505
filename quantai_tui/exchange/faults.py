"""What is wrong with the exchange now, and what will be: `Faults` plays a script, takes single faults, and ends each in time.

It does nothing by itself. The fronts and the door offer what they can do, under the kind's name, and ask what is in force.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .catalogue import FAULTS, completed
from .fault import Fault, FaultError, FaultKind

_LOG = logging.getLogger(__name__)

Begin = Callable[[Fault], Awaitable[str]]
"""Does what the fault says; one line for the operator about what was done. Raises FaultError when it cannot be."""
End = Callable[[Fault], Awaitable[None]]

CLEAR = "clear"


@dataclass(eq=False)
class _Entry:
    fault: Fault
    ends_at: float  # monotonic; inf: until it is cleared, or used up
    timer: asyncio.Task[None] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """Owns what is in force, from `__init__` to `close`. `rng` is where all chance comes from: one seed, one course of events."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self._clock = clock
        self._offers: dict[str, tuple[Begin | None, End | None]] = {}
        self._in_force: dict[tuple[str, str], _Entry] = {}
        self._subscribed = asyncio.Event()
        self._player: asyncio.Task[None] | None = None

    def offer(self, kind: str, begin: Begin | None = None, end: End | None = None) -> None:
        """The caller can do `kind`. `begin` is awaited when one is asked for; `end` when it is over, however that comes about.

        Without `begin` the caller asks `in_force` instead; whoever offers a kind that goes by count says when it is `used_up`.
        """
        if kind not in FAULTS:
            raise ValueError(f"{kind!r} is not in the catalogue")
        self._offers[kind] = (begin, end)

    @property
    def offered(self) -> list[FaultKind]:
        """The kinds that can be asked for, in the catalogue's order."""
        return [kind for name, kind in FAULTS.items() if name in self._offers or name == CLEAR]

    def among(self, kinds: frozenset[str]) -> bool:
        """Whether one of these is in force: without one the fast paths may be taken."""
        return any(kind in kinds for kind, _ in self._in_force)

    def in_force(self, kind: str, symbol: str = "") -> Fault | None:
        """The fault of that kind which holds now, for that symbol or for all of them."""
        entry = self._in_force.get((kind, "")) or self._in_force.get((kind, symbol))
        return entry.fault if entry is not None else None

    def left_s(self, fault: Fault) -> float:
        """Seconds until it ends by itself; inf for one that does not, 0 for one that is over."""
        entry = self._in_force.get((fault.kind, fault.symbol))
        if entry is None or entry.fault is not fault:
            return 0.0
        return max(0.0, entry.ends_at - self._clock.monotonic())

    async def inject(self, fault: Fault) -> str:
        """Let it happen now, whatever its `at`; one line of what was done. One of the same kind and symbol is ended before.

        Raises FaultError for a fault that this exchange cannot have.
        """
        self.require(fault.kind)
        fault = completed(fault)
        if fault.kind == CLEAR:
            return await self.clear()
        begin, _ = self._offers[fault.kind]
        await self._finish((fault.kind, fault.symbol))
        kind = FAULTS[fault.kind]
        entry = _Entry(fault, self._clock.monotonic() + (fault.for_s or math.inf))
        if fault.for_s or kind.by_count:
            self._in_force[fault.kind, fault.symbol] = entry
        try:
            note = await begin(fault) if begin is not None else kind.text
        except BaseException:
            self.used_up(fault)
            raise
        # It may have been cleared while it began.
        cleared = self._in_force.get((fault.kind, fault.symbol)) is not entry
        if fault.for_s and not math.isinf(fault.for_s) and not cleared:
            entry.timer = _watched(self._end_in(fault.for_s, entry), f"end of {fault.kind}")
            note = f"{note}, for {fault.for_s:g} s"
        _LOG.info("fault %s: %s", fault.kind, note)
        return note

    def require(self, kind: str) -> None:
        """Raises FaultError for a kind that nobody here can do."""
        if kind in FAULTS and kind not in self._offers and kind != CLEAR:
            raise FaultError(f"{kind} needs the byte proxy before the ports", "start the exchange with --breakable")

    def used_up(self, fault: Fault) -> None:
        """A fault that goes by count is over. Nothing happens when it is not in force any more."""
        entry = self._in_force.get((fault.kind, fault.symbol))
        if entry is not None and entry.fault is fault:
            del self._in_force[fault.kind, fault.symbol]
            entry.over.set()

    async def until_over(self, kind: str) -> None:
        """Wait until no fault of that kind is in force for all symbols."""
        while (entry := self._in_force.get((kind, ""))) is not None:
            await entry.over.wait()

    async def clear(self) -> str:
        """End all that is in force."""
        names = sorted({kind for kind, _ in self._in_force})
        for key in list(self._in_force):
            await self._finish(key)
        return f"ended: {', '.join(names)}" if names else "nothing was wrong"

    def play(self, script: Sequence[Fault]) -> None:
        """Let these happen, each `at` its time from the first subscription on. Once, before `subscribed`."""
        for fault in script:
            self.require(fault.kind)
        if script:
            self._player = _watched(self._play(sorted(script, key=lambda fault: fault.at)), "fault script")

    def subscribed(self) -> None:
        """Somebody subscribes: the first time, the script's time begins."""
        self._subscribed.set()

    async def close(self) -> None:
        """Stop the script and every timer. What is in force is not ended: the exchange itself is."""
        tasks = [entry.timer for entry in self._in_force.values() if entry.timer is not None]
        tasks += [self._player] if self._player is not None else []
        for entry in self._in_force.values():
            entry.over.set()
        self._in_force.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _play(self, script: list[Fault]) -> None:
        await self._subscribed.wait()
        began = self._clock.monotonic()
        for fault in script:
            if (wait := began + fault.at - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            try:
                await self.inject(fault)
            except FaultError as error:
                _LOG.error("fault %s at %g s did not happen: %s; %s", fault.kind, fault.at, error, error.remedy)

    async def _end_in(self, seconds: float, entry: _Entry) -> None:
        await self._clock.sleep(seconds)
        entry.timer = None  # `_finish` must not cancel the task that calls it
        if self._in_force.get((entry.fault.kind, entry.fault.symbol)) is entry:
            await self._finish((entry.fault.kind, entry.fault.symbol))

    async def _finish(self, key: tuple[str, str]) -> None:
        entry = self._in_force.pop(key, None)
        if entry is None:
            return
        entry.over.set()
        if entry.timer is not None:
            entry.timer.cancel()
        _, end = self._offers[entry.fault.kind]
        if end is not None:
            await end(entry.fault)


def _watched(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """A task whose failure is in the log, since nobody waits for its result."""
    task = asyncio.create_task(work, name=name)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("%s broke", name, exc_info=error)

    task.add_done_callback(ended)
    return task
