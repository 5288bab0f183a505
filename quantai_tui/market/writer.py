"""The only hand that writes the store: each change is in one transaction with the bars and the position that it leads to."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, lt
from pathlib import Path

import msgspec

from ..telemetry import SYSTEM_CLOCK, Clock
from .bartable import BarTable
from .conflicts import Conflict, conflicts_between
from .damage import is_held
from .gaptable import GapTable
from .holders import who_holds
from .ledger import CommittedLedger
from .pruning import Pruner
from .schema import Counts, LedgerPosition, open_for_writing, read_settled, read_settled_counts
from .times import WITNESSES, believed_us
from .trades import FIRST_MICROSECOND_STAMP, FIRST_UNSAFE_INTEGER, AggTrade, Bar

log = logging.getLogger("quantai_tui.market")

_COLUMNS = 8  # of the trades
_INSERT = "INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
# So many rows in one statement: a third less time per row than one by one, and more would save little.
_ROWS_AT_ONCE = 50
_IDS_AT_ONCE = 500  # below SQLite's smallest limit of parameters per statement (999)
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?, ?, ?, ?, ?)" * (_ROWS_AT_ONCE - 1)


class Written(msgspec.Struct, frozen=True):
    """What became of one batch."""

    stored: int
    duplicates: int
    conflicts: tuple[Conflict, ...] = ()  # duplicates that differ from the stored trade


class LedgerWriter:
    """Applies changes inside `begin()` ... `commit()`. Not thread-safe: it belongs to the thread that made it.

    A method that raises leaves a transaction that must not be committed: what the writer remembers may be ahead of the file by
    then, so it is good for `abandon` only.
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._path = path
        self._connection = open_for_writing(path)
        self._gaps = GapTable(self._connection)
        self._bars = BarTable(self._connection)
        self._pruner = Pruner(self._connection, self._bars, self._gaps)
        self._touched: dict[str, CommittedLedger] = {}
        try:
            rows = self._connection.execute("SELECT * FROM symbols").fetchall()
            self._ledgers = {row[0]: self._load(*row) for row in rows}
        except BaseException:
            self._connection.close()
            raise

    def begin(self) -> bool:
        """Begin a transaction; False when another program has locked the file for a second."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_held(error):
                return False
            raise
        return True

    def commit(self) -> dict[str, Counts]:
        """Write the bars and positions that the changes led to, and commit. Returns the counts of the symbols concerned."""
        self._bars.write()
        for ledger in self._touched.values():
            self._write_position(ledger)
        self._connection.execute("COMMIT")
        counts = {symbol: Counts(ledger.stored, ledger.duplicates) for symbol, ledger in self._touched.items()}
        self._touched.clear()
        return counts

    def counts(self) -> dict[str, Counts]:
        return {symbol: Counts(ledger.stored, ledger.duplicates) for symbol, ledger in self._ledgers.items()}

    def close(self) -> None:
        """Merge the write-ahead log into the file, which is then complete once every reader has closed it.

        While another program locks the file, the log stays beside it; nothing is lost, and the next open merges it.
        """
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            if not is_held(error):
                raise
            log.warning("the write-ahead log of the store stays beside it: it is held by %s", who_holds(self._path))
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close after a failure; what was not committed is rolled back."""
        self._connection.close()

    def append(self, symbol: str, trades: Sequence[AggTrade]) -> Written:
        """Store what is new of a batch, in any order, and merge it into the bars."""
        ledger = self._ledger(symbol)
        offered = len(trades)
        ids = [trade.id for trade in trades]
        conflicts: list[Conflict] = []
        if ledger.follows(ids[0]) and all(map(lt, ids, ids[1:])):
            # The usual case: above all that is there, so nothing needs to be looked up.
            self._insert_many(_rows(symbol, trades))
        else:
            trades, known = self._insert_new(ledger, trades)
            conflicts = self.find_conflicts(symbol, known)
            ids = [trade.id for trade in trades]
            ledger.duplicates += offered - len(ids)
        if ids:
            self._bars.merge(symbol, trades)
            ledger.arrive(ids)
            for first, last in ledger.recover(ids):
                self._gaps.recover(symbol, first, last)
            if ledger.begin_given and ledger.begin_id is not None and ids[0] < ledger.begin_id:
                self._extend_back(ledger, ledger.begin_id)
        return Written(len(ids), offered - len(ids), tuple(conflicts))

    def find_conflicts(self, symbol: str, trades: Sequence[AggTrade]) -> list[Conflict]:
        """Find trades that differ from the stored ones of the same ids."""
        stored: dict[int, AggTrade] = {}
        for at in range(0, len(trades), _IDS_AT_ONCE):
            ids = [trade.id for trade in trades[at : at + _IDS_AT_ONCE]]
            rows = self._connection.execute(
                "SELECT id, price, quantity, first_id, last_id, time_us, buyer_is_maker FROM trades "
                f"WHERE symbol = ? AND id IN ({', '.join('?' * len(ids))})",
                (symbol, *ids),
            )
            stored |= {row[0]: _trade(symbol, *row) for row in rows}
        return conflicts_between(stored, trades)

    def begin_ledger(self, symbol: str, first_id: int, time_us: int) -> None:
        """Say where a ledger begins; said again, only an earlier beginning counts, and none once trades were removed by age."""
        ledger = self._ledger(symbol)
        if ledger.pruned_to_id or (ledger.begin_given and ledger.begin_id is not None and first_id >= ledger.begin_id):
            return
        ledger.begin(first_id, time_us, self._stored_runs(symbol))
        self._extend_back(ledger, first_id)

    def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        self._gaps.add(symbol, first_id, last_id, cause, opened)

    def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str, closed: float) -> None:
        if self._gaps.close(symbol, first_id, last_id, outcome, closed):
            ledger = self._ledger(symbol)
            ledger.settle(first_id, last_id)
            for first, last in self._stored_runs(symbol, first_id, last_id):  # came in the meantime, on another way
                ledger.settled.remove(first, last)
                self._gaps.recover(symbol, first, last)

    def put_klines(self, symbol: str, bars: Sequence[Bar]) -> None:
        self._bars.put_klines(symbol, bars)

    def position(self, symbol: str) -> LedgerPosition:
        ledger = self._ledgers.get(symbol)
        gaps = self._gaps.open_gaps(symbol)
        holes, lost = read_settled_counts(self._connection, symbol)
        settled = read_settled(self._connection, symbol)
        if ledger is None:
            return LedgerPosition(gaps=gaps, venue_holes=holes, unrecoverable=lost, settled=settled)
        self._find_times(ledger)
        return LedgerPosition(
            ledger.begin_id,
            ledger.last_id,
            ledger.complete_through_id,
            ledger.stored,
            gaps,
            tuple(ledger.missing),
            None if ledger.begin_id is None else ledger.begin_time_us,
            ledger.complete_through_time_us,
            ledger.last_time_us,
            holes,
            lost,
            settled,
        )

    def prune(self, max_age_us: int) -> int:
        """Remove one portion of what is older than `max_age_us` against each symbol's newest trade; returns the rows removed.

        Deletes trades and one-second bars; longer bars stay. See `prune_refused` for refusals.
        """
        self._bars.write()
        removed = 0
        for ledger in self._ledgers.values():
            self._find_times(ledger)
            pruned_before_us = ledger.pruned_before_us
            removed += self._pruner.prune(ledger, max_age_us)
            if ledger.pruned_before_us != pruned_before_us:
                self._touched[ledger.symbol] = ledger
        return removed

    @property
    def prune_refused(self) -> dict[str, str]:
        """By symbol, the deletion that the last prune refused."""
        return dict(self._pruner.refused)

    def _insert_many(self, rows: Sequence[tuple[str, int, str, str, int, int, int, bool]]) -> None:
        whole = len(rows) - len(rows) % _ROWS_AT_ONCE
        values = list(chain.from_iterable(rows[:whole]))
        size = _ROWS_AT_ONCE * _COLUMNS
        self._connection.executemany(_INSERT_MANY, [values[at : at + size] for at in range(0, len(values), size)])
        self._connection.executemany(_INSERT, rows[whole:])

    def _insert_new(self, ledger: CommittedLedger, trades: Sequence[AggTrade]) -> tuple[list[AggTrade], list[AggTrade]]:
        """Insert new trades. Returns them in order of id, then those that were already stored."""
        new: list[AggTrade] = []
        known: list[AggTrade] = []
        begin_id = ledger.begin_id or 0
        ordered = sorted(trades, key=attrgetter("id"))
        for trade, row in zip(ordered, _rows(ledger.symbol, ordered), strict=True):
            if begin_id <= trade.id < ledger.pruned_to_id:
                continue  # it was stored, and removed by age since
            if self._connection.execute("INSERT OR IGNORE INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount == 1:
                new.append(trade)
            else:
                known.append(trade)
        return new, known

    def _extend_back(self, ledger: CommittedLedger, begin_id: int) -> None:
        reached, time_us = begin_id, 0
        for id, id_time_us in self._connection.execute(
            "SELECT id, time_us FROM trades WHERE symbol = ? AND id < ? ORDER BY id DESC", (ledger.symbol, begin_id)
        ):
            if id != reached - 1:
                break
            reached, time_us = id, id_time_us
        if reached < begin_id:
            ledger.extend_back(reached, time_us)

    def _ledger(self, symbol: str) -> CommittedLedger:
        ledger = self._ledgers.get(symbol)
        if ledger is None:
            ledger = self._ledgers[symbol] = CommittedLedger(symbol)
            ledger.settled = self._gaps.settled(symbol)
        self._touched[symbol] = ledger
        return ledger

    def _load(
        self,
        symbol: str,
        begin_id: int,
        begin_time_us: int,
        begin_given: int,
        last_id: int | None,
        last_time_us: int | None,
        complete_through_id: int | None,
        complete_through_time_us: int | None,
        stored: int,
        pruned_to_id: int,
        pruned_before_us: int,
    ) -> CommittedLedger:
        ledger = CommittedLedger(symbol)
        ledger.begin_id, ledger.begin_given, ledger.begin_time_us = begin_id, bool(begin_given), begin_time_us
        ledger.last_id, ledger.last_time_us, ledger.stored = last_id, last_time_us, stored
        ledger.complete_through_time_us = complete_through_time_us
        ledger.pruned_to_id, ledger.pruned_before_us = pruned_to_id, pruned_before_us
        ledger.settled = self._gaps.settled(symbol)
        if last_id is not None:
            open_from = begin_id if complete_through_id is None else complete_through_id + 1
            ledger.missing.add(open_from, last_id)
            for first, last in self._stored_runs(symbol, open_from):
                ledger.missing.remove(first, last)
            for first, last in ledger.settled.overlap(open_from, last_id):
                ledger.missing.remove(first, last)
        return ledger

    def _stored_runs(self, symbol: str, from_id: int = 0, to_id: int = FIRST_UNSAFE_INTEGER) -> list[tuple[int, int]]:
        """The ids that are in the file, as ranges. Reads every id from `from_id` to `to_id`."""
        # Within a run, id minus row number is constant.
        return self._connection.execute(
            "SELECT min(id), max(id) FROM (SELECT id, id - row_number() OVER (ORDER BY id) AS run FROM trades "
            "WHERE symbol = ? AND id BETWEEN ? AND ?) GROUP BY run ORDER BY 1",
            (symbol, from_id, to_id),
        ).fetchall()

    def _time_at(self, symbol: str, id: int) -> int | None:
        """The time of the newest stored trade up to `id`, unless its neighbours contradict it."""
        rows = self._connection.execute(
            "SELECT time_us FROM trades WHERE symbol = ? AND id <= ? ORDER BY id DESC LIMIT ?", (symbol, id, WITNESSES)
        ).fetchall()
        return believed_us([row[0] for row in rows], self.now_us)

    @property
    def now_us(self) -> int:
        """By this machine's clock."""
        return int(self._clock.time() * 1e6)

    def _find_times(self, ledger: CommittedLedger) -> None:
        # A trade that was removed by age has no time any more; what was known of it stays.
        if ledger.last_id is not None:
            ledger.last_time_us = self._time_at(ledger.symbol, ledger.last_id) or ledger.last_time_us
        through = ledger.complete_through_id
        if through is None:
            ledger.complete_through_time_us = None
        elif through == ledger.last_id:
            ledger.complete_through_time_us = ledger.last_time_us
        else:
            ledger.complete_through_time_us = self._time_at(ledger.symbol, through) or ledger.complete_through_time_us
        if ledger.begin_id is not None:
            self._find_begin_time(ledger, ledger.begin_id)
        if ledger.last_time_us is not None:
            # It is later only if an earlier release accepted a wrong time.
            ledger.pruned_before_us = min(ledger.pruned_before_us, ledger.last_time_us)

    def _find_begin_time(self, ledger: CommittedLedger, begin_id: int) -> None:
        """Set the time of the record's beginning, from its trade if it was not given. It is never after the newest trade."""
        last_us = ledger.last_time_us
        if ledger.begin_given and (last_us is None or ledger.begin_time_us <= last_us):
            return
        rows = self._connection.execute(
            "SELECT id, time_us FROM trades WHERE symbol = ? AND id >= ? ORDER BY id LIMIT ?",
            (ledger.symbol, begin_id, WITNESSES),
        ).fetchall()
        if not ledger.begin_given and rows and rows[0][0] == begin_id:
            ledger.begin_time_us = rows[0][1]
        if rows and last_us is not None and ledger.begin_time_us > last_us:
            ledger.begin_time_us = min(time_us for _, time_us in rows)

    def _write_position(self, ledger: CommittedLedger) -> None:
        if ledger.begin_id is None:
            return
        self._find_times(ledger)
        self._connection.execute(
            "INSERT OR REPLACE INTO symbols VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ledger.symbol,
                ledger.begin_id,
                ledger.begin_time_us,
                ledger.begin_given,
                ledger.last_id,
                ledger.last_time_us,
                ledger.complete_through_id,
                ledger.complete_through_time_us,
                ledger.stored,
                ledger.pruned_to_id,
                ledger.pruned_before_us,
            ),
        )


def _trade(symbol: str, id: int, price: str, quantity: str, first_id: int, last_id: int, time_us: int, maker: int) -> AggTrade:
    return AggTrade(id, price, quantity, first_id, last_id, time_us, bool(maker), symbol)


def _rows(symbol: str, trades: Sequence[AggTrade]) -> list[tuple[str, int, str, str, int, int, int, bool]]:
    # `time_us` written out: as a property it costs a call per trade here.
    return [
        (
            symbol,
            t.id,
            t.price,
            t.quantity,
            t.first_id,
            t.last_id,
            t.time if t.time >= FIRST_MICROSECOND_STAMP else t.time * 1000,
            t.buyer_is_maker,
        )
        for t in trades
    ]
