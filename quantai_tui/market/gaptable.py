"""The table of gaps: which ids were missing, why, and how it ended. For whoever holds the writing connection."""

from __future__ import annotations

import sqlite3

from .idranges import IdRanges
from .schema import Gap, read_open_gaps

_SETTLING = ("venue_hole", "unrecoverable")
OUTCOMES = ("repaired", *_SETTLING)

_INSERT = "INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?)"


class GapTable:
    """Gaps by symbol. Open gaps never overlap; closing may take a part of one, and the rest stays open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._connection = connection

    def open_gaps(self, symbol: str) -> tuple[Gap, ...]:
        return read_open_gaps(self._connection, symbol)

    def settled(self, symbol: str) -> IdRanges:
        """The ids that were given up: holes at the venue, and what was past fetching."""
        return IdRanges(
            self._execute(
                "SELECT first_id, last_id FROM gaps WHERE symbol = ? AND outcome IN ('venue_hole', 'unrecoverable')", (symbol,)
            )
        )

    def add(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Record missing ids; the part that is recorded as open already stays as it is."""
        fresh = IdRanges([(first_id, last_id)])
        for gap in self.open_gaps(symbol):
            fresh.remove(gap.first_id, gap.last_id)
        for first, last in fresh:
            self._execute(_INSERT, (symbol, first, last, cause, opened, None, None))

    def close(self, symbol: str, first_id: int, last_id: int, outcome: str, closed: float) -> bool:
        """Close these ids. Returns whether they are settled, that is given up; those are recorded even if no gap was open."""
        unrecorded = IdRanges([(first_id, last_id)])
        for gap in self.open_gaps(symbol):
            low, high = max(first_id, gap.first_id), min(last_id, gap.last_id)
            if low > high:
                continue
            unrecorded.remove(low, high)
            self._execute(
                "DELETE FROM gaps WHERE symbol = ? AND first_id = ? AND last_id = ?", (symbol, gap.first_id, gap.last_id)
            )
            for first, last in ((gap.first_id, low - 1), (high + 1, gap.last_id)):
                if first <= last:
                    self._execute(_INSERT, (symbol, first, last, gap.cause, gap.opened, None, None))
            self._execute(_INSERT, (symbol, low, high, gap.cause, gap.opened, outcome, closed))
        settles = outcome in _SETTLING
        if settles:
            for first, last in unrecorded:
                self._execute(_INSERT, (symbol, first, last, "", None, outcome, closed))
        return settles
