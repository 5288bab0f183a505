"""The tables of bars and klines. For whoever holds the writing connection: changes are made inside its transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from decimal import Decimal

from .bars import LADDER, Candle, decimal_text, exact, ladder
from .trades import AggTrade, Bar

_COLUMNS = "open_time_us, first_id, last_id, open, high, low, close, volume, quote_volume, buy_volume, trades"


class BarTable:
    """Bars of all symbols and intervals, merged in memory and written by `write`, once for all the batches of a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._changed: dict[tuple[str, int, int], Candle] = {}
        # The newest bar of each symbol and interval stays in memory: nearly every trade lands in it, and nothing lies above it.
        self._newest: dict[tuple[str, int], Candle] = {}

    def merge(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        """Add trades that no bar holds yet, in order of id, wherever in time they lie."""
        rungs = ladder(trades)
        with exact():
            for interval_s, candles in rungs.items():
                for candle in candles:
                    self._merge_candle(symbol, interval_s, candle)

    def write(self) -> None:
        """Bring what was merged into the file."""
        self._connection.executemany(
            f"INSERT OR REPLACE INTO bars (symbol, interval_s, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    symbol,
                    interval_s,
                    c.open_time_us,
                    c.first_id,
                    c.last_id,
                    c.open,
                    c.high,
                    c.low,
                    c.close,
                    decimal_text(c.volume),
                    decimal_text(c.quote_volume),
                    decimal_text(c.buy_volume),
                    c.trades,
                )
                for (symbol, interval_s, _), c in self._changed.items()
            ],
        )
        self._changed.clear()

    def put_klines(self, symbol: str, bars: Sequence[Bar]) -> None:
        """Store fetched klines; one that is there already is replaced."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO klines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    symbol,
                    b.interval_s,
                    b.open_time_us,
                    b.open,
                    b.high,
                    b.low,
                    b.close,
                    b.volume,
                    b.quote_volume,
                    b.buy_volume,
                    b.trades,
                )
                for b in bars
            ],
        )

    def lowest_id_between(self, symbol: str, first_us: int, last_us: int) -> int | None:
        """The lowest aggregate id in the written bars that open between the two times."""
        row = self._connection.execute(
            "SELECT min(first_id) FROM bars WHERE symbol = ? AND interval_s = ? AND open_time_us BETWEEN ? AND ?",
            (symbol, LADDER[0], first_us, last_us),
        ).fetchone()
        lowest: int | None = row[0]
        return lowest

    def prune_seconds(self, symbol: str, before_us: int, limit: int) -> int:
        """Remove up to `limit` one-second bars older than `before_us`; returns how many."""
        return self._connection.execute(
            "DELETE FROM bars WHERE symbol = ? AND interval_s = ? AND open_time_us IN (SELECT open_time_us FROM bars "
            "WHERE symbol = ? AND interval_s = ? AND open_time_us < ? ORDER BY open_time_us LIMIT ?)",
            (symbol, LADDER[0], symbol, LADDER[0], before_us, limit),
        ).rowcount

    def _merge_candle(self, symbol: str, interval_s: int, candle: Candle) -> None:
        key = (symbol, interval_s, candle.open_time_us)
        present = self._changed.get(key)
        if present is None:
            newest = self._newest.get((symbol, interval_s)) or self._read_newest(symbol, interval_s)
            if newest is None or candle.open_time_us > newest.open_time_us:
                self._newest[symbol, interval_s] = candle
            elif candle.open_time_us == newest.open_time_us:
                present = newest
            else:
                present = self._read(key)
        if present is not None:
            present.absorb(candle)
            candle = present
        self._changed[key] = candle

    def _read_newest(self, symbol: str, interval_s: int) -> Candle | None:
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM bars WHERE symbol = ? AND interval_s = ? ORDER BY open_time_us DESC LIMIT 1",
            (symbol, interval_s),
        ).fetchone()
        return self._newest.setdefault((symbol, interval_s), _candle(row)) if row else None

    def _read(self, key: tuple[str, int, int]) -> Candle | None:
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM bars WHERE symbol = ? AND interval_s = ? AND open_time_us = ?", key
        ).fetchone()
        return _candle(row) if row else None


def _candle(row: tuple[int, int, int, str, str, str, str, str, str, str, int]) -> Candle:
    opened, first_id, last_id, open, high, low, close, volume, quote, buy, trades = row
    return Candle(opened, first_id, last_id, open, high, low, close, Decimal(volume), Decimal(quote), Decimal(buy), trades)
