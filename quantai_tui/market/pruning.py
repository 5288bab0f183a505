"""Deletes old trades in portions, and refuses deletions that look like a mistake."""

from __future__ import annotations

import sqlite3

from .bars import LADDER, US_PER_S
from .bartable import BarTable
from .gaptable import GapTable
from .ledger import CommittedLedger

_ROWS = 20_000  # per transaction; appends run in between
_HOUR_US = LADDER[-1] * US_PER_S
# If the trades that stay cover this share of the retention, the others really are old: the market was quiet.
_SPANNED = 0.9


class Pruner:
    """Deletes a symbol's trades and one-second bars by age, inside a transaction of the writing connection.

    `refused` describes, by symbol, the last deletion that was refused. A prune that would delete more than half of
    a symbol's trades is refused, unless those that stay cover the retention, or the retention changed since the last prune.
    """

    def __init__(self, connection: sqlite3.Connection, bars: BarTable, gaps: GapTable) -> None:
        self._connection = connection
        self._bars = bars
        self._gaps = gaps
        self.refused: dict[str, str] = {}

    def prune(self, ledger: CommittedLedger, max_age_us: int) -> int:
        """Delete one portion of rows older than `max_age_us` before the newest trade of `ledger`; returns the rows deleted.

        Nothing past complete-through is deleted, because a repair may still need it.
        """
        symbol = ledger.symbol
        through, through_us, newest_us = ledger.complete_through_id, ledger.complete_through_time_us, ledger.last_time_us
        if through is None or through_us is None or newest_us is None:
            return 0
        # Whole hours, so that no bar that stays is cut in two.
        cutoff_us = min(newest_us - max_age_us, through_us) // _HOUR_US * _HOUR_US
        self.refused.pop(symbol, None)
        if cutoff_us > ledger.pruned_before_us:
            first_kept = self._bars.lowest_id_between(symbol, cutoff_us, newest_us)
            kept_from = through + 1 if first_kept is None else min(first_kept, through + 1)
            refusal = self._refusal(symbol, kept_from, newest_us, max_age_us)
            if refusal:
                self.refused[symbol] = refusal
                # Record the age before the first prune, so that a later change is noticed.
                self._connection.execute("INSERT OR IGNORE INTO prunes VALUES (?, ?)", (symbol, max_age_us))
            else:
                ledger.pruned_to_id = max(ledger.pruned_to_id, kept_from)
                ledger.pruned_before_us = cutoff_us
                self._gaps.keep_times(symbol, ledger.pruned_to_id)
                self._connection.execute("INSERT OR REPLACE INTO prunes VALUES (?, ?)", (symbol, max_age_us))
        trades = self._connection.execute(
            "DELETE FROM trades WHERE symbol = ? AND id IN "
            "(SELECT id FROM trades WHERE symbol = ? AND id < ? ORDER BY id LIMIT ?)",
            (symbol, symbol, ledger.pruned_to_id, _ROWS),
        ).rowcount
        return trades + self._bars.prune_seconds(symbol, ledger.pruned_before_us, _ROWS)

    def _refusal(self, symbol: str, kept_from: int, newest_us: int, max_age_us: int) -> str:
        """Why the trades below `kept_from` must not be deleted; empty if they may."""
        goes = self._count("id < ?", symbol, kept_from, -1)
        stays = self._count("id >= ?", symbol, kept_from, goes)
        if goes <= stays or self._is_changed(symbol, max_age_us):
            return ""
        first = self._connection.execute(
            "SELECT time_us FROM trades WHERE symbol = ? AND id >= ? ORDER BY id LIMIT 1", (symbol, kept_from)
        ).fetchone()
        covered_us = 0 if first is None else max(0, newest_us - first[0])
        if covered_us >= _SPANNED * max_age_us:
            return ""
        return (
            f"{symbol}: {goes:,} of {goes + stays:,} trades would be deleted as older than {_days(max_age_us)}, and those that "
            f"stay cover {_days(covered_us)}"
        )

    def _count(self, which: str, symbol: str, id: int, limit: int) -> int:
        """Count a symbol's trades, up to `limit` (-1: all): an hourly prune reads no more rows than it deletes."""
        count: int = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM trades WHERE symbol = ? AND {which} LIMIT ?)", (symbol, id, limit)
        ).fetchone()[0]
        return count

    def _is_changed(self, symbol: str, max_age_us: int) -> bool:
        row = self._connection.execute("SELECT max_age_us FROM prunes WHERE symbol = ?", (symbol,)).fetchone()
        return row is not None and row[0] != max_age_us


def _days(us: int) -> str:
    return f"{us / 86_400e6:.3g} days"
