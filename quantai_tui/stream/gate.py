"""When a dial or a REST request may leave at all: bans that the venue has pronounced, and its limit on new connections.

The venue counts by address, for websocket and REST alike, and lengthens a ban that is not respected. So there is one gate for
both, and no command of the operator passes it.
"""

from __future__ import annotations

from collections import deque

from ..telemetry import SYSTEM_CLOCK, Clock

# Binance: 300 new connections per 5 minutes and address, refused ones included. A tenth is left to other programs here.
DIALS_PER_WINDOW = 270
DIAL_WINDOW_S = 300.0


class Gate:
    """Says how long to wait before the next dial or request; `wait_*` waits for it."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._closed_until = clock.monotonic()
        self._reason = ""
        self._dials: deque[float] = deque(maxlen=DIALS_PER_WINDOW)

    def close_for(self, seconds: float, reason: str) -> None:
        """Nothing may leave for so long. A ban is only ever made longer, never shorter, by a second verdict."""
        until = self._clock.monotonic() + seconds
        if until > self._closed_until:
            self._closed_until = until
            self._reason = reason

    @property
    def closed_for(self) -> float:
        """Seconds until the venue's ban is over; 0 when there is none."""
        return max(0.0, self._closed_until - self._clock.monotonic())

    @property
    def reason(self) -> str:
        """Why nothing may leave; empty when there is no ban."""
        return self._reason if self.closed_for else ""

    def dial_wait(self) -> tuple[float, str]:
        """Seconds until a dial is allowed, and why it is not allowed now."""
        now = self._clock.monotonic()
        budget = 0.0
        if len(self._dials) == DIALS_PER_WINDOW:
            budget = max(0.0, self._dials[0] + DIAL_WINDOW_S - now)
        banned = self.closed_for
        return (
            (banned, self._reason) if banned >= budget else (budget, "the venue's limit of new connections per 5 min is used up")
        )

    def note_dial(self) -> None:
        """A dial leaves now."""
        self._dials.append(self._clock.monotonic())

    async def wait_open(self) -> None:
        """Wait until requests may leave."""
        while (wait := self.closed_for) > 0:
            await self._clock.sleep(wait)
