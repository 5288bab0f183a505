"""The store as the training worker sees it: read-only, from another process, never more than is whole.

Which bars a reader is given, for one symbol and interval:

- from trades: every bar whose interval lies wholly between the ledger's beginning and complete-through. An interval without
  trades is given too, as a quiet bar that carries the last close.
- where a range of trades was given up as unrecoverable, a fetched kline stands in for the bars that it touches. Where klines are
  lacking there, the series starts after the last bar that is neither whole nor stood in for: nobody knows what happened in it.
  Only a range whose neighbours lie no more than one bar apart is bridged, since what it lacks is little against what is there;
- where the venue itself has a hole in its ids, the same holds, but up to a minute is bridged in any case, without stand-ins: a
  few ids that were never given out are no reason to part a history;
- before them: the fetched klines that lead up to the ledger's beginning without a hole, the interval of the beginning itself
  included. Until that one has been fetched the bars before it and after it do not join, and the longer stretch is given.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from .bars import LADDER, US_PER_S, quiet_bar
from .damage import store_error
from .schema import TIMES_BESIDE, UNREPAIRED, LedgerPosition, open_for_reading, read_position
from .trades import AggTrade, Bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BRIDGED_US = 60 * US_PER_S
_COLUMNS = "open_time_us, open, high, low, close, volume, quote_volume, buy_volume, trades"


class BarColumns(NamedTuple):
    """Bars as arrays of equal length, one entry a bar, dense and in order of time; all float64 but `open_time_us` (int64)."""

    open_time_us: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    quote_volume: NDArray[np.float64]
    buy_volume: NDArray[np.float64]
    trades: NDArray[np.float64]


class _Row(NamedTuple):
    open_time_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    buy_volume: str
    trades: int
    from_trades: int


class _Span(NamedTuple):
    """What is whole: klines from `start_us`, bars of trades from `trades_us`, until `end_us` (exclusive)."""

    start_us: int
    trades_us: int
    end_us: int


class StoreReader:
    """One read-only connection; for one thread at a time. Close it before the store, or its write-ahead log stays behind.

    Every method sees one state of the store, that of one commit. Raises StoreError when the file cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._connection = open_for_reading(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def symbols(self) -> list[str]:
        with self._one_state():
            return [row[0] for row in self._connection.execute("SELECT symbol FROM symbols ORDER BY symbol")]

    def position(self, symbol: str) -> LedgerPosition:
        """How far the ledger goes, as of the last commit; all None for a symbol that is not there. `missing` is left empty."""
        with self._one_state():
            return read_position(self._connection, symbol)

    def trades(self, symbol: str, first_id: int, limit: int) -> list[AggTrade]:
        """Up to `limit` stored trades from `first_id` on, in order of id; `time` is in us."""
        with self._one_state():
            rows = self._connection.execute(
                "SELECT id, price, quantity, first_id, last_id, time_us, buyer_is_maker FROM trades "
                "WHERE symbol = ? AND id >= ? ORDER BY id LIMIT ?",
                (symbol, first_id, limit),
            ).fetchall()
        return [
            AggTrade(id, price, quantity, first, last, time_us, bool(maker), symbol)
            for id, price, quantity, first, last, time_us, maker in rows
        ]

    def bars(self, symbol: str, interval_s: int, limit: int | None = None, since_us: int | None = None) -> list[Bar]:
        """Whole bars, dense and in order of time: those that open at `since_us` or later, of these the newest `limit`."""
        with self._one_state():
            rows, start_us, end_us = self._rows(symbol, interval_s, limit, since_us)
        width_us = interval_s * US_PER_S
        bars: list[Bar] = []
        close: str | None = None
        expected_us = start_us
        for row in rows:
            if close is not None:
                bars.extend(quiet_bar(time_us, interval_s, close) for time_us in range(expected_us, row.open_time_us, width_us))
            if row.open_time_us >= start_us:
                bars.append(Bar(row.open_time_us, interval_s, *row[1:-1], from_trades=bool(row.from_trades)))
                expected_us = row.open_time_us + width_us
            close = row.close
        if close is not None:
            bars.extend(quiet_bar(time_us, interval_s, close) for time_us in range(expected_us, end_us, width_us))
        return bars

    def bar_columns(
        self,
        symbol: str,
        interval_s: int,
        limit: int | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> BarColumns:
        """The same bars as arrays, for features: numbers rounded to float64, which `bars` does not do.

        With `until_us` those alone that open before it: what happened later has no part in them.
        """
        import numpy as np  # not at import: the engine and the stream use the store without numpy

        with self._one_state():
            rows, start_us, end_us = self._rows(symbol, interval_s, limit, since_us, until_us)
        if not rows:
            return BarColumns(np.empty(0, dtype=np.int64), *(np.empty(0, dtype=np.float64) for _ in range(8)))
        times = np.arange(start_us, end_us, interval_s * US_PER_S, dtype=np.int64)
        numbers = list(zip(*rows, strict=True))[1:9]  # open to trades
        sparse = [np.frombuffer(array("d", map(float, column)), dtype=np.float64) for column in numbers]
        opened = np.fromiter((row.open_time_us for row in rows), dtype=np.int64, count=len(rows))
        source = np.searchsorted(opened, times, side="right") - 1  # the newest row at or before each bar
        quiet = opened[source] != times
        prices = [np.where(quiet, sparse[3][source], column[source]) for column in sparse[:4]]
        amounts = [np.where(quiet, 0.0, column[source]) for column in sparse[4:]]
        return BarColumns(times, *prices, *amounts)

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise store_error(self.path, "reading", error) from error

    def _rows(
        self, symbol: str, interval_s: int, limit: int | None, since_us: int | None, until_us: int | None = None
    ) -> tuple[list[_Row], int, int]:
        """The bars that are not quiet, and where the dense series starts and ends (exclusive).

        The first row may open before the start: its close is what a quiet start carries on. Where there is no such row the
        series starts with its first row.
        """
        if interval_s not in LADDER:
            raise ValueError(f"no bars of {interval_s} s: choose one of {', '.join(map(str, LADDER))}")
        if limit is not None and limit < 1:
            return [], 0, 0
        width_us = interval_s * US_PER_S
        span = self._span(symbol, interval_s, limit)
        if span is None:
            return [], 0, 0
        if until_us is not None:
            end_us = min(span.end_us, until_us // width_us * width_us)
            span = span._replace(trades_us=min(span.trades_us, end_us), end_us=end_us)
        start_us = span.start_us
        if since_us is not None:
            start_us = max(start_us, -(-since_us // width_us) * width_us)
        if limit is not None:
            start_us = max(start_us, span.end_us - limit * width_us)
        if start_us >= span.end_us:
            return [], 0, 0
        trades_us = max(start_us, span.trades_us)
        stand_ins, from_us = self._stand_ins(symbol, interval_s, trades_us, span.end_us)
        if from_us > trades_us:
            start_us = trades_us = from_us
        if start_us >= span.end_us:
            return [], 0, 0
        rows = self._select("klines", symbol, interval_s, start_us, span.trades_us)
        merged = {row.open_time_us: row for row in self._select("bars", symbol, interval_s, trades_us, span.end_us)}
        merged |= {time_us: row for time_us, row in stand_ins.items() if time_us >= trades_us}
        rows += [merged[time_us] for time_us in sorted(merged)]
        if not rows or rows[0].open_time_us > start_us:
            rows[:0] = self._row_before(symbol, interval_s, start_us)
        if rows and rows[0].open_time_us > start_us:
            start_us = rows[0].open_time_us
        return rows, start_us, span.end_us

    def _span(self, symbol: str, interval_s: int, limit: int | None) -> _Span | None:
        width_us = interval_s * US_PER_S
        row = self._connection.execute(
            "SELECT begin_time_us, complete_through_time_us, pruned_before_us FROM symbols WHERE symbol = ?", (symbol,)
        ).fetchone()
        if row is None:
            run = self._kline_run(symbol, interval_s, None, limit)
            return run and _Span(run[0], run[1], run[1])
        begin_us, through_us, pruned_us = row
        partial_us = begin_us // width_us * width_us  # the bar in which the ledger begins
        trades_us = partial_us + width_us
        if interval_s == LADDER[0] and pruned_us > trades_us:
            partial_us, trades_us = pruned_us - width_us, pruned_us
        end_us = trades_us if through_us is None else max(trades_us, through_us // width_us * width_us)
        run = self._kline_run(symbol, interval_s, partial_us, limit)
        if run is not None and run[1] == trades_us:
            return _Span(run[0], trades_us, end_us)
        if run is not None and run[1] == partial_us and run[1] - run[0] > end_us - trades_us:
            return _Span(run[0], run[1], run[1])
        return _Span(trades_us, trades_us, end_us)

    def _kline_run(self, symbol: str, interval_s: int, last_us: int | None, limit: int | None) -> tuple[int, int] | None:
        """Where the newest klines without a hole between them start and end (exclusive); none that open after `last_us`."""
        width_us = interval_s * US_PER_S
        rows = self._connection.execute(
            "SELECT open_time_us FROM klines WHERE symbol = ? AND interval_s = ? AND open_time_us <= ? "
            "ORDER BY open_time_us DESC LIMIT ?",
            (symbol, interval_s, (1 << 62) if last_us is None else last_us, -1 if limit is None else limit),
        )
        start_us = end_us = None
        for (open_time_us,) in rows:
            if start_us is not None and open_time_us != start_us - width_us:
                break
            start_us = open_time_us
            end_us = end_us or open_time_us + width_us
        return None if start_us is None or end_us is None else (start_us, end_us)

    def _select(self, table: str, symbol: str, interval_s: int, start_us: int, end_us: int) -> list[_Row]:
        if start_us >= end_us:
            return []
        rows = self._connection.execute(
            f"SELECT {_COLUMNS}, {int(table == 'bars')} FROM {table} "
            "WHERE symbol = ? AND interval_s = ? AND open_time_us >= ? AND open_time_us < ? ORDER BY open_time_us",
            (symbol, interval_s, start_us, end_us),
        )
        return list(map(_Row._make, rows))

    def _stand_ins(self, symbol: str, interval_s: int, start_us: int, end_us: int) -> tuple[dict[int, _Row], int]:
        """The klines that stand in for bars between the two times, by opening, and where holes let the series start."""
        width_us = interval_s * US_PER_S
        stand_ins: dict[int, _Row] = {}
        from_us = start_us
        for outcome, before_us, after_us in self._given_up(symbol):
            low_us = max(start_us, before_us // width_us * width_us)
            high_us = min(end_us - width_us, after_us // width_us * width_us)
            if low_us > high_us:
                continue
            lost = outcome == "unrecoverable"
            bridged = after_us - before_us <= (width_us if lost else max(width_us, _BRIDGED_US))
            if lost or not bridged:
                stand_ins.update(
                    (row.open_time_us, row) for row in self._select("klines", symbol, interval_s, low_us, high_us + width_us)
                )
            while not bridged and high_us >= low_us and high_us in stand_ins:
                high_us -= width_us
            if not bridged and high_us >= low_us:
                from_us = max(from_us, high_us + width_us)
        return stand_ins, from_us

    def _given_up(self, symbol: str) -> list[tuple[str, int, int]]:
        """For each settled range its outcome and the times of the last trade before it and of the first one after it.

        A range at the very beginning has the ledger's beginning before it; one that nothing follows parts nothing yet.
        """
        return self._connection.execute(
            # A time after that of the newest trade is wrong.
            "SELECT outcome, min(coalesce(low, begin_time_us), last_time_us), min(high, last_time_us) FROM ("
            f"SELECT gaps.symbol AS of, outcome, {TIMES_BESIDE} FROM {UNREPAIRED} AND outcome IS NOT NULL AND symbol = ?"
            ") JOIN symbols ON symbols.symbol = of WHERE high IS NOT NULL AND last_time_us IS NOT NULL",
            (symbol,),
        ).fetchall()

    def _row_before(self, symbol: str, interval_s: int, start_us: int) -> list[_Row]:
        """The newest row before `start_us`: a bar of trades, even the partial one, whose close is right, or a kline."""
        candidates = [
            row
            for table in ("bars", "klines")
            for row in self._connection.execute(
                f"SELECT {_COLUMNS}, {int(table == 'bars')} FROM {table} "
                "WHERE symbol = ? AND interval_s = ? AND open_time_us < ? ORDER BY open_time_us DESC LIMIT 1",
                (symbol, interval_s, start_us),
            )
        ]
        if not candidates:
            return []
        newest = max(candidates, key=lambda row: row[0])
        return [_Row._make(newest)]
