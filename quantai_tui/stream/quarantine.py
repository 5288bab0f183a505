"""Messages that were not understood: counted, and the last of them kept for the operator to look at."""

from __future__ import annotations

import logging
from collections import deque

from ..cleaning import one_line
from ..market.wire import WireError
from ..telemetry import SYSTEM_CLOCK, BadFrame, Clock

log = logging.getLogger("quantai_tui.stream")

_KEPT = 20
_EXCERPT_CHARS = 160
_LOG_EVERY_S = 10.0


class Quarantine:
    """The last 20 messages that were no market data, shortened; one bad message never costs its neighbours anything."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._frames: deque[BadFrame] = deque(maxlen=_KEPT)
        self._logged_at: float | None = None
        self.count = 0

    @property
    def frames(self) -> tuple[BadFrame, ...]:
        """Oldest first."""
        return tuple(self._frames)

    def add(self, data: bytes, error: WireError) -> None:
        """Put one away. Logged at most every ten seconds, however many there are."""
        self.count += 1
        beginning = bytes(data[: 2 * _EXCERPT_CHARS]).decode("utf-8", "backslashreplace")
        excerpt = f"{one_line(beginning, _EXCERPT_CHARS)} ({len(data)} bytes)"
        self._frames.append(BadFrame(self._clock.time(), one_line(str(error)), excerpt))
        now = self._clock.monotonic()
        if self._logged_at is None or now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.warning("a frame was not understood (%d so far); the connection goes on: %s", self.count, one_line(str(error)))
