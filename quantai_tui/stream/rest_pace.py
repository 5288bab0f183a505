"""When the next REST request may be sent: not during a ban, within the weight, concurrent only while answers are good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..telemetry import Clock
from .gate import Gate
from .tasks import until_first_ends

log = logging.getLogger("quantai_tui.stream")

# Binance spot: 6,000 weight per minute and address. The last fifth is left to other programs.
WEIGHT_LIMIT = 6000
_OUR_SHARE = WEIGHT_LIMIT * 0.8
_LONGEST_WEIGHT = 9  # digits
_MINUTE_S = 60.0
MOST_AT_ONCE = 8
"""Most concurrent requests. 20 pages a second use up the weight, so this is enough even at 0.4 s per request."""
_MOST_UNDER_WAY = MOST_AT_ONCE * 4  # weight
_KNOWN_FOR_S = 10.0  # an older answer says nothing about the venue's present state
_AFTER_FAILURE_S = 0.25  # between failing requests, for all callers
_PATIENCE_S = 1.0  # a slower answer does not hold up requests of other symbols


class Turn:
    """A request that was sent. The sender reports its result here."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.counted = False

    def answered(self) -> None:
        """The venue gave a good answer."""
        self.counted = True
        self._pace.answered()

    def failed(self) -> None:
        """The request failed: the next one is sent alone, after a pause."""
        self._pace.failed()


class Pace:
    """Lets requests be sent in the order of their calls.

    The first is sent alone: its answer shows a ban, or the weight in use. Each good answer doubles the number of concurrent
    requests, up to 8; a failure, or 10 s without an answer, resets it to one. Then one more is sent every second, answered
    or not.
    """

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._queue = asyncio.Lock()  # held by the first in the queue; asyncio's locks are fair
        self._room = asyncio.Event()
        self._at_once = 1
        self._under_way: list[int] = []  # the weight of each
        self._lost = 0  # weight of requests in this minute whose answers did not report the weight in use
        self._minute = 0
        self._not_before = clock.monotonic()
        self._weight_free_at = clock.monotonic()
        self._answered_at = clock.monotonic()
        self.used_weight: int | None = None

    @property
    def weight_wait_s(self) -> float:
        """Seconds until the venue resets the weight; 0 while some is left."""
        return max(0.0, self._weight_free_at - self._clock.monotonic())

    @asynccontextmanager
    async def turn(self, weight: int) -> AsyncIterator[Turn]:
        """Wait until a request of this weight may be sent; it counts as in flight until the block ends."""
        async with self._queue:
            await self._until_allowed(weight)
            self._under_way.append(weight)
        turn = Turn(self)
        try:
            yield turn
        finally:
            self._under_way.remove(weight)
            if not turn.counted:
                self._lost += weight  # cancelled or failed, but the venue may have counted it
            self._room.set()

    def note_weight(self, header: str | None) -> None:
        """Take the venue's report of the weight used in this minute; anything but a plain number is ignored."""
        if header is None or not (header.isascii() and header.isdecimal()) or len(header) > _LONGEST_WEIGHT:
            return
        used = int(header)
        # Answers may arrive out of order; a much lower value is from a new minute.
        overtaken = self.used_weight is not None and 0 < self.used_weight - used <= _MOST_UNDER_WAY
        self.used_weight = self.used_weight if overtaken else used
        if used >= _OUR_SHARE and not self.weight_wait_s:
            # The venue counts by whole minutes of its clock; ours is near enough.
            wait = _MINUTE_S - self._clock.time() % _MINUTE_S
            self._weight_free_at = self._clock.monotonic() + wait
            log.info("REST weight %d of %d used: next request in %.0f s", self.used_weight, WEIGHT_LIMIT, wait)

    def answered(self) -> None:
        """See `Turn.answered`."""
        self._answered_at = self._clock.monotonic()
        self._at_once = min(self._at_once * 2, MOST_AT_ONCE)
        self._room.set()

    def failed(self) -> None:
        """See `Turn.failed`."""
        self._at_once = 1
        self._not_before = self._clock.monotonic() + _AFTER_FAILURE_S

    def start_over(self) -> None:
        """Forget the venue's state: the next request is sent alone, at once."""
        self._at_once = 1
        self._not_before = self._clock.monotonic()

    async def _until_allowed(self, weight: int) -> None:
        patient_until = self._clock.monotonic() + _PATIENCE_S
        while True:
            await self._gate.wait_open()
            now = self._clock.monotonic()
            if not self._has_room(weight, patient=now < patient_until):
                self._room.clear()
                await until_first_ends(self._room.wait(), self._clock.sleep(max(patient_until - now, _AFTER_FAILURE_S)))
                continue
            wait = max(self._not_before, self._weight_free_at) - now
            if wait <= 0:
                return
            await self._clock.sleep(wait)  # a ban may have begun meanwhile, so check everything again

    def _has_room(self, weight: int, *, patient: bool) -> bool:
        if not self._under_way:
            return True  # its answer reports the weight in use
        if self._clock.monotonic() - self._answered_at > _KNOWN_FOR_S:
            self._at_once = 1
        most = self._at_once if patient else MOST_AT_ONCE
        return len(self._under_way) < most and self._in_use() + weight <= _OUR_SHARE

    def _in_use(self) -> int:
        """An upper bound of the weight used in this minute, including what the venue has not reported."""
        minute = int(self._clock.time() // _MINUTE_S)
        if minute != self._minute:
            self._minute, self._lost = minute, 0
        return (self.used_weight or 0) + sum(self._under_way) + self._lost
