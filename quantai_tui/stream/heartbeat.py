"""Our own pinger, in place of the library's keepalive.

The built-in keepalive takes a slow consumer for a dead link: the pong waits behind data that we have not read, and the
connection is closed although it is in order. This one counts only the time in which we could have seen a pong: while reading is
paused, or while the event loop itself was held up, the deadline stands still. It also keeps the round-trip times.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..arguments import check_number, shown
from ..telemetry import SYSTEM_CLOCK, Clock, RttSnapshot
from .advice import FailureKind
from .failures import LinkFault
from .tasks import settle, until_first_ends

Ping = Callable[[bytes], Awaitable[Awaitable[float]]]

_RTT_HISTORY = 128
_EWMA_WEIGHT = 0.125  # that of TCP's smoothed round-trip time, RFC 6298 section 2
_SLICES = 20
_LONGEST_SLICE_S = 1.0


class RoundTrips:
    """Round-trip times in milliseconds: the last 128, and a smoothed one."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RTT_HISTORY)
        self._ewma: float | None = None
        self.missed = 0

    def add(self, rtt_ms: float) -> None:
        self._recent.append(rtt_ms)
        self._ewma = rtt_ms if self._ewma is None else self._ewma + _EWMA_WEIGHT * (rtt_ms - self._ewma)

    def snapshot(self) -> RttSnapshot:
        if not self._recent:
            return RttSnapshot(missed=self.missed)
        ranked = sorted(self._recent)
        count = len(ranked)

        def rank(share: float) -> float:
            return ranked[min(count - 1, int(share * count))]

        return RttSnapshot(
            last=self._recent[-1], min=ranked[0], p50=rank(0.50), p95=rank(0.95), ewma=self._ewma, missed=self.missed
        )


class WebSocketHeartbeat:
    """Pings one connection: at once, then every `interval` seconds; a pong that takes longer than `timeout` means a dead link.

    `ping` is `ClientConnection.ping` or anything like it: given a payload it sends a ping and returns a future of the round-trip
    time in seconds. `paused` tells whether reading is held back on purpose.
    """

    def __init__(
        self,
        ping: Ping,
        *,
        interval: float = 30.0,
        timeout: float = 10.0,
        paused: Callable[[], bool] = lambda: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not callable(ping):
            raise TypeError(f"ping must be a function that sends a ping, such as ClientConnection.ping, got {shown(ping)}")
        check_number("interval", interval, above=0.0)
        check_number("timeout", timeout, above=0.0)
        self._ping = ping
        self._interval = interval
        self._timeout = timeout
        self._paused = paused
        self._clock = clock
        self._serial = itertools.count(1)
        self._task: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        self.round_trips = RoundTrips()
        self.worst_lag_s = 0.0

    async def start(self) -> None:
        """Begin to ping. A heartbeat that runs already goes on as it is."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Stop pinging; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await settle(task)

    def beat_now(self) -> None:
        """Ping at once instead of when the interval is over: there is reason to doubt the link."""
        self._now.set()

    def is_alive(self) -> bool:
        """Whether it runs and no pong is overdue."""
        return self._task is not None and not self._task.done()

    async def wait_dead(self) -> None:
        """Wait until the link is found dead.

        Raises:
            LinkFault: with kind PONG_TIMEOUT; or whatever `ping` raised when the connection closed under it.
        """
        if self._task is None:
            raise RuntimeError("the heartbeat was not started")
        await asyncio.shield(self._task)

    async def _beat(self) -> None:
        while True:
            sent_at = self._clock.monotonic()
            await self._one_round_trip()
            left = max(0.0, self._interval - (self._clock.monotonic() - sent_at))
            await until_first_ends(self._clock.sleep(left), self._now.wait())
            self._now.clear()

    async def _one_round_trip(self) -> None:
        # The serial number makes every payload ours and unique: a pong that merely repeats an old one proves nothing.
        trip = asyncio.create_task(self._send_and_wait(struct.pack("!4sI", b"qtui", next(self._serial) & 0xFFFFFFFF)))
        try:
            if not await self._in_time(trip):
                self.round_trips.missed += 1
                raise LinkFault(FailureKind.PONG_TIMEOUT, f"no pong within {self._timeout:g} s")
            self.round_trips.add(trip.result() * 1000)
        finally:
            await settle(trip)

    async def _send_and_wait(self, payload: bytes) -> float:
        return await (await self._ping(payload))

    async def _in_time(self, trip: asyncio.Task[float]) -> bool:
        """Whether the pong came before `timeout` seconds in which it could have been seen were over."""
        left = self._timeout
        step = min(self._timeout / _SLICES, _LONGEST_SLICE_S)
        while left > 0:
            asked = min(step, left)
            before = self._clock.monotonic()
            nap = asyncio.create_task(self._clock.sleep(asked))
            both: list[asyncio.Future[Any]] = [trip, nap]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await settle(nap)
            if trip.done():
                return True
            self.worst_lag_s = max(self.worst_lag_s, self._clock.monotonic() - before - asked)
            if not self._paused():
                left -= asked
        # The pong may lie decoded in this very turn of the loop, behind whatever held the loop up.
        await asyncio.sleep(0)
        return trip.done()
