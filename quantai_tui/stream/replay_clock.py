"""Time in a replay."""

from __future__ import annotations

import asyncio

from ..telemetry import SYSTEM_CLOCK, Clock
from .tasks import until_first_ends


class ReplayClock:
    """The stream's time in a replay: another clock's, so many times as fast. A change of `rate` holds for who sleeps already."""

    def __init__(self, rate: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._rate = rate
        self._base = self._since = clock.monotonic()
        self._changed = asyncio.Event()

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if rate != self._rate:
            self._base, self._since = self.monotonic(), self._clock.monotonic()
            self._rate = rate
            self._changed.set()
            self._changed = asyncio.Event()

    def monotonic(self) -> float:
        return self._base + (self._clock.monotonic() - self._since) * self._rate

    def time(self) -> float:
        return self._clock.time()

    async def sleep(self, seconds: float) -> None:
        end = self.monotonic() + seconds
        left = seconds
        while True:
            changed = self._changed
            await until_first_ends(self._clock.sleep(max(left, 0.0) / self._rate), is_set(changed))
            if not changed.is_set():
                return
            left = end - self.monotonic()


async def is_set(event: asyncio.Event) -> None:
    """Wait for an event, as a part for `until_first_ends`."""
    await event.wait()
