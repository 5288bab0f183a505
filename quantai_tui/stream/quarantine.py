"""Counts messages that were not understood and impossible trades, and keeps the last of them for the operator."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from ..cleaning import one_line
from ..market.trades import AggTrade
from ..market.wire import WireError
from ..telemetry import SYSTEM_CLOCK, BadFrame, Clock

log = logging.getLogger("quantai_tui.stream")

_KEPT = 20
_EXCERPT_CHARS = 160
_LOG_EVERY_S = 10.0


class Quarantine:
    """The last 20 messages and trades in quarantine, shortened; one bad message never affects its neighbours."""

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
        """Quarantine a message. Logs at most every ten seconds."""
        beginning = bytes(data[: 2 * _EXCERPT_CHARS]).decode("utf-8", "backslashreplace")
        reason = one_line(str(error))
        if self._put(reason, f"{one_line(beginning, _EXCERPT_CHARS)} ({len(data)} bytes)"):
            log.warning("a frame was not understood (%d so far); the connection goes on: %s", self.count, reason)

    def add_trade(self, trade: AggTrade, why: str) -> None:
        """Quarantine a trade, which is not stored. Logs like a message."""
        reason = one_line(f"{trade.symbol} {trade.id}: {why}")
        if self._put(reason, content_of(trade)):
            log.warning("a trade was put into quarantine (%d of all kinds so far): %s: %s", self.count, reason, content_of(trade))

    def add_trades(self, trades: Sequence[AggTrade], why: str) -> None:
        """Quarantine several trades for one reason: all are counted, and only those that are kept are formatted."""
        self.count += max(0, len(trades) - _KEPT)
        for trade in trades[-_KEPT:]:
            self.add_trade(trade, why)

    def _put(self, reason: str, excerpt: str) -> bool:
        """Keep one; returns whether to log it."""
        self.count += 1
        self._frames.append(BadFrame(self._clock.time(), reason, excerpt))
        now = self._clock.monotonic()
        if self._logged_at is not None and now - self._logged_at < _LOG_EVERY_S:
            return False
        self._logged_at = now
        return True


def content_of(trade: AggTrade) -> str:
    """A trade's content as one line, with its time as received."""
    side = "seller" if trade.buyer_is_maker else "buyer"
    return (
        f"price {trade.price}, quantity {trade.quantity}, trades {trade.first_id}-{trade.last_id}, T {trade.time}, "
        f"taken by the {side}"
    )
