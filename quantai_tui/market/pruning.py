"""Removing trades by age, in portions; and refusing to where that would empty a store by mistake."""

from __future__ import annotations

import sqlite3

from .bars import LADDER, US_PER_S
from .bartable import BarTable
from .gaptable import GapTable
from .ledger import CommittedLedger

_ROWS = 20_000  # removed in one transaction; appends are served in between
_HOUR_US = LADDER[-1] * US_PER_S
# Trades that stay and cover this share of the time to be kept show that what goes is old: the rest is a market that was quiet.
_SPANNED = 0.9


class Pruner:
    """Removes a symbol's trades and one-second bars by age. For whoever holds the writing connection, inside its transaction.

    `refused` says in words, by symbol, what the last try would have taken and did not. A prune that would take more than half of
    a symbol's trades is refused, unless those that stay cover the time to be kept, or that time was changed since the last prune.
    """

    def __init__(self, connection: sqlite3.Connection, bars: BarTable, gaps: GapTable) -> None:
        self._connection = connection
        self._bars = bars
        self._gaps = gaps
        self.refused: dict[str, str] = {}

    def prune(self, ledger: CommittedLedger, max_age_us: int) -> int:
        """Remove one portion of what is older than `max_age_us` against the newest trade of `ledger`; returns the rows removed.

        Nothing past complete-through goes, since a repair may still need it.
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
                # Another age than this one is a change, even in a store that no prune has been made in yet.
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
        """Why what lies below `kept_from` must not go; empty if it may."""
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
        """How many trades of a symbol there are, up to `limit` (-1: all): a prune of an hour reads no more than it removes."""
        count: int = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM trades WHERE symbol = ? AND {which} LIMIT ?)", (symbol, id, limit)
        ).fetchone()[0]
        return count

    def _is_changed(self, symbol: str, max_age_us: int) -> bool:
        row = self._connection.execute("SELECT max_age_us FROM prunes WHERE symbol = ?", (symbol,)).fetchone()
        return row is not None and row[0] != max_age_us


def _days(us: int) -> str:
    return f"{us / 86_400e6:.3g} days"
