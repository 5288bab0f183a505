"""The table of gaps: which ids were missing, why, and how it ended. For whoever holds the writing connection."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from .idranges import IdRanges
from .schema import TIMES_BESIDE, UNREPAIRED, Gap, read_open_gaps

_SETTLING = ("venue_hole", "unrecoverable")
OUTCOMES = ("repaired", *_SETTLING)

_INSERT = "INSERT OR REPLACE INTO gaps (symbol, first_id, last_id, cause, opened, outcome, closed) VALUES (?, ?, ?, ?, ?, ?, ?)"


class _Row(NamedTuple):
    first_id: int
    last_id: int
    cause: str
    opened: float | None
    outcome: str | None
    closed: float | None


class GapTable:
    """Gaps by symbol. Those that are open or settled never overlap; closing may take a part of one, and the rest stays."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._connection = connection

    def open_gaps(self, symbol: str) -> tuple[Gap, ...]:
        return read_open_gaps(self._connection, symbol)

    def settled(self, symbol: str) -> IdRanges:
        """The ids that were given up: holes at the venue, and what was past fetching."""
        return IdRanges(
            self._execute(f"SELECT first_id, last_id FROM {UNREPAIRED} AND outcome IS NOT NULL AND symbol = ?", (symbol,))
        )

    def add(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Record missing ids; the part that is recorded as open or settled already stays as it is."""
        fresh = IdRanges([(first_id, last_id)])
        for row in self._unrepaired(symbol, first_id, last_id):
            fresh.remove(row.first_id, row.last_id)
        for first, last in fresh:
            self._insert(symbol, _Row(first, last, cause, opened, None, None))

    def close(self, symbol: str, first_id: int, last_id: int, outcome: str, closed: float) -> bool:
        """Close these ids. Returns whether they are settled, that is given up; those are recorded even if no gap was open."""
        settles = outcome in _SETTLING
        unrecorded = IdRanges([(first_id, last_id)])
        for row in self._unrepaired(symbol, first_id, last_id):
            if row.outcome is None or settles:
                part = self._cut(symbol, row, first_id, last_id)
                unrecorded.remove(part.first_id, part.last_id)
                self._insert(symbol, part._replace(outcome=outcome, closed=closed))
        if settles:
            for first, last in unrecorded:
                self._insert(symbol, _Row(first, last, "", None, outcome, closed))
        return settles

    def recover(self, symbol: str, first_id: int, last_id: int) -> None:
        """These ids are stored after all: where they were settled, they are repaired."""
        for row in self._unrepaired(symbol, first_id, last_id):
            if row.outcome is not None:
                self._insert(symbol, self._cut(symbol, row, first_id, last_id)._replace(outcome="repaired"))

    def keep_times(self, symbol: str, before_id: int) -> None:
        """Write down when the trades next to the settled ids below `before_id` were: they are about to be removed by age."""
        self._execute(
            f"UPDATE gaps SET (before_us, after_us) = (SELECT {TIMES_BESIDE}) "
            "WHERE symbol = ? AND outcome IS NOT 'repaired' AND outcome IS NOT NULL AND first_id < ? AND before_us IS NULL",
            (symbol, before_id),
        )

    def _unrepaired(self, symbol: str, first_id: int, last_id: int) -> list[_Row]:
        rows = self._execute(
            f"SELECT first_id, last_id, cause, opened, outcome, closed FROM {UNREPAIRED} "
            "AND symbol = ? AND first_id <= ? AND last_id >= ? ORDER BY first_id",
            (symbol, last_id, first_id),
        )
        return [_Row(*row) for row in rows.fetchall()]

    def _cut(self, symbol: str, row: _Row, first_id: int, last_id: int) -> _Row:
        """Take the part between `first_id` and `last_id` out of the table; the rest of the row stays there."""
        part = row._replace(first_id=max(first_id, row.first_id), last_id=min(last_id, row.last_id))
        self._execute("DELETE FROM gaps WHERE symbol = ? AND first_id = ? AND last_id = ?", (symbol, row.first_id, row.last_id))
        for first, last in ((row.first_id, part.first_id - 1), (part.last_id + 1, row.last_id)):
            if first <= last:
                self._insert(symbol, row._replace(first_id=first, last_id=last))
        return part

    def _insert(self, symbol: str, row: _Row) -> None:
        self._execute(_INSERT, (symbol, *row))
