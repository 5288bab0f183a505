"""The market of one archive file, played back by a clock that starts with the first subscription and never stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from quantai_tui.market.archive import ArchiveError, file_fingerprint, read_archive
from quantai_tui.market.trades import FIRST_MICROSECOND_STAMP, AggTrade, Bar

from .columns import BarColumns, Ints
from .folder import ExchangeFolder, PlayClock
from .markets import ExchangeError, ReplaySpec, Speed

MAX_RATE = 10_000.0  # trades a second at speed `max`

# All columns stay in memory. The largest daily files hold two million trades of some 75 bytes each.
_MOST_BYTES = 500_000_000
# A trade that differs from the one before needs several bytes, however well compressed. A small file can hold millions that
# are equal.
_MOST_TRADES_SMALL = 100_000
_DECIMALS = 8
_INT64_MAX = 2.0**63
_LONGEST_WAIT_US = 86_400_000_000


class LoadAbandonedError(Exception):
    """Somebody asked to leave while the file was being read."""


@dataclass(frozen=True, slots=True)
class _Tape:
    """The file as columns of shape (trades,), in order of id. Texts are kept as they were written."""

    symbol: str
    id: Ints
    price_text: NDArray[np.bytes_]
    quantity_text: NDArray[np.bytes_]
    first_id: Ints
    last_id: Ints
    time: Ints  # in the file's own unit
    time_us: Ints  # never falling, so that it can be searched
    buyer_is_maker: NDArray[np.bool_]
    price: Ints  # units of 10^-decimals[0]; Python integers where 64 bits would not hold the sums
    quantity: Ints
    decimals: tuple[int, int]

    def row(self, start: int, stop: int) -> list[AggTrade]:
        names = ("id", "price_text", "quantity_text", "first_id", "last_id", "time", "buyer_is_maker")
        columns = [getattr(self, name)[start:stop].tolist() for name in names]
        return [
            AggTrade(trade_id, price.decode(), quantity.decode(), first, last, time, maker, self.symbol)
            for trade_id, price, quantity, first, last, time, maker in zip(*columns, strict=True)
        ]


class ReplayMarket:
    """A `Market` out of a file: ids, prices, quantities and times as they are there, to the last digit.

    A trade exists from the moment that the play clock passes it. At speed N market time runs N times as fast as the wall clock
    and starts at the file's first trade; at speed `max` 10,000 trades come into being each second whatever their times. Before
    the first subscription of all nothing exists. The clock's start is kept in the exchange's folder, so the market goes on
    while the exchange is down. Started again at another speed, it goes on from where it then is.
    """

    mode = "replay"

    @staticmethod
    def fingerprint(spec: ReplaySpec) -> str:
        """What tells this file from others, by content. Raises ExchangeError when it cannot be read."""
        try:
            return file_fingerprint(spec.path)
        except ArchiveError as error:
            raise _refused(error) from error

    @classmethod
    def open(cls, spec: ReplaySpec, home: ExchangeFolder, now_s: float, abandoned: Callable[[], bool]) -> ReplayMarket:
        """Read the file and find the play clock in the folder. `abandoned` is asked now and then whether to go on.

        Raises ExchangeError, and LoadAbandonedError when `abandoned` said yes.
        """
        market = cls(_read(spec, abandoned), spec.speed, home)
        state = home.load()
        if state is not None and state.play is not None:
            market._resume(state.play, now_s)
        return market

    def __init__(self, tape: _Tape, speed: Speed, home: ExchangeFolder) -> None:
        self._tape = tape
        self._speed = speed
        self._home = home
        self._play: PlayClock | None = None
        self.symbols: tuple[str, ...] = (self._tape.symbol,)
        self.total = len(self._tape.id)

    def begin(self, now_s: float) -> None:
        if self._play is None:
            self._set(PlayClock(now_s, 0.0, self._speed))

    def _resume(self, play: PlayClock, now_s: float) -> None:
        self._play = play
        if play.speed == self._speed:
            return
        there = max(0, self._existing(now_s) - 1)
        offset = float(there) if self._speed == "max" else self._seconds_in(there)
        if play.speed != "max" and self._speed != "max":
            offset = self._position(play, now_s)
        self._set(PlayClock(now_s, offset, self._speed))

    def _set(self, play: PlayClock) -> None:
        self._play = play
        state = self._home.load()
        assert state is not None  # written before any market is opened
        self._home.save(msgspec.structs.replace(state, play=play))

    def _seconds_in(self, row: int) -> float:
        return int(self._tape.time_us[row] - self._tape.time_us[0]) / 1e6

    @staticmethod
    def _position(play: PlayClock, now_s: float) -> float:
        """Where the play clock is, in its own unit."""
        rate = MAX_RATE if isinstance(play.speed, str) else play.speed
        return play.offset + max(0.0, now_s - play.started_s) * rate

    def _existing(self, now_s: float) -> int:
        """How many trades exist."""
        play = self._play
        if play is None:
            return 0
        position = self._position(play, now_s)
        if play.speed == "max":
            return min(self.total, int(position) + 1)
        return int(np.searchsorted(self._tape.time_us, self._tape.time_us[0] + int(position * 1e6), side="right"))

    def _check(self, symbol: str) -> None:
        if symbol != self._tape.symbol:
            raise KeyError(symbol)

    def first_id(self, symbol: str) -> int:
        self._check(symbol)
        return int(self._tape.id[0])

    def final_id(self, symbol: str) -> int | None:
        self._check(symbol)
        return int(self._tape.id[-1])

    def last_id_at(self, symbol: str, now_s: float) -> int:
        self._check(symbol)
        existing = self._existing(now_s)
        return int(self._tape.id[existing - 1]) if existing else int(self._tape.id[0]) - 1

    def next_trade_s(self, symbol: str, now_s: float) -> float | None:
        self._check(symbol)
        play, row = self._play, self._existing(now_s)
        if play is None or row == self.total:
            return None
        if isinstance(play.speed, str):
            return play.started_s + (row - play.offset) / MAX_RATE
        return play.started_s + (self._seconds_in(row) - play.offset) / play.speed

    def trades(self, symbol: str, from_id: int, limit: int, now_s: float) -> list[AggTrade]:
        self._check(symbol)
        start = int(np.searchsorted(self._tape.id, from_id))
        return self._tape.row(start, min(start + limit, self._existing(now_s)))

    def id_at_or_after(self, symbol: str, time_ms: int, now_s: float) -> int:
        self._check(symbol)
        row = int(np.searchsorted(self._tape.time_us, time_ms * 1000))
        return int(self._tape.id[row]) if row < self._existing(now_s) else self.last_id_at(symbol, now_s) + 1

    def klines(
        self, symbol: str, interval_s: int, start_ms: int | None, end_ms: int | None, limit: int, now_s: float
    ) -> list[Bar]:
        self._check(symbol)
        existing, tape = self._existing(now_s), self._tape
        if not existing:
            return []
        width_us = interval_s * 1_000_000
        newest = int(tape.time_us[existing - 1])
        if self._play is not None and not isinstance(self._play.speed, str):
            # Market time has gone on since the last trade; quiet intervals are bars too, up to the file's end.
            newest = min(int(tape.time_us[-1]), int(tape.time_us[0]) + int(self._position(self._play, now_s) * 1e6))
        oldest, last = int(tape.time_us[0]) // width_us, newest // width_us
        if end_ms is not None:
            last = min(last, end_ms * 1000 // width_us)
        first = max(oldest, last - limit + 1 if start_ms is None else -(-start_ms * 1000 // width_us))
        last = min(last, first + limit - 1)
        if last < first:
            return []
        start, stop = np.searchsorted(tape.time_us[:existing], [first * width_us, (last + 1) * width_us])
        # Binance fills some ids of its past with placeholders of quantity 0: they are no trades.
        rows = start + np.flatnonzero(tape.quantity[start:stop])
        before = np.flatnonzero(tape.quantity[:start])[-1:]
        columns = BarColumns.of_trades(
            tape.time_us[rows] // width_us - first,
            last - first + 1,
            tape.price[rows],
            tape.quantity[rows],
            ~tape.buyer_is_maker[rows],
        )
        return columns.to_bars(first * interval_s, interval_s, tape.decimals, int(tape.price[before[0]]) if len(before) else None)

    def decimals(self, symbol: str) -> tuple[int, int]:
        self._check(symbol)
        return self._tape.decimals


def _refused(error: ArchiveError) -> ExchangeError:
    where = f"{error.path}, line {error.line}" if error.line else str(error.path)
    return ExchangeError(f"{where}: {error.reason}", error.remedy)


def _read(spec: ReplaySpec, abandoned: Callable[[], bool]) -> _Tape:
    """The whole file into columns: some four seconds for a million trades."""
    parts: list[list[NDArray[np.generic]]] = []
    count = held_bytes = 0
    try:
        archive = read_archive(spec.path, spec.symbol)
        for batch in archive.batches(20_000):
            if abandoned():
                raise LoadAbandonedError(f"{spec.path} was not read to its end")
            count += len(batch)
            if count > _MOST_TRADES_SMALL + archive.bytes_total:
                raise ExchangeError(
                    f"{spec.path} holds {count} trades in {archive.bytes_total} bytes: they are repetitions", "download it again"
                )
            parts.append(_columns(spec, batch))
            held_bytes += sum(column.nbytes for column in parts[-1])
            if held_bytes > _MOST_BYTES:
                reason = f"{spec.path} takes more than {_MOST_BYTES // 1_000_000} MB of memory"
                raise ExchangeError(reason, "replay a file of one day")
    except ArchiveError as error:
        raise _refused(error) from error
    ids, prices, quantities, first, last, time, maker, price, quantity = _joined(parts)
    time_us = _rising(np.where(time >= FIRST_MICROSECOND_STAMP, time, time * 1000))
    price, price_decimals = _shortened(price)
    quantity, quantity_decimals = _shortened(quantity)
    if float(price.max()) * float(quantity.astype(float).sum()) >= _INT64_MAX:
        price, quantity = price.astype(object), quantity.astype(object)
    return _Tape(
        archive.symbol,
        ids,
        prices,
        quantities,
        first,
        last,
        time,
        time_us,
        maker,
        price,
        quantity,
        (price_decimals, quantity_decimals),
    )


def _joined(parts: list[list[NDArray[np.generic]]]) -> list[Any]:
    """The columns of all parts, by rising id and without repetitions. Takes `parts` apart, so that memory is not held twice."""
    columns: list[Any] = []
    for number in range(len(parts[0]) if parts else 0):
        columns.append(np.concatenate([part[number] for part in parts]))
        for part in parts:
            part[number] = columns[-1][:0]
    if np.all(np.diff(columns[0]) > 0):
        return columns
    _, rows = np.unique(columns[0], return_index=True)
    for number in range(len(columns)):
        columns[number] = columns[number][rows]
    return columns


def _rising(time_us: Ints) -> Ints:
    """Non-decreasing times for the play clock. A time that both following trades contradict is replaced by theirs.

    No trade follows the last one, so playing waits at most a day for it.
    """
    padded = np.concatenate([time_us, time_us[-1:], time_us[-1:]])
    rising = np.maximum.accumulate(np.minimum(time_us, np.maximum(padded[1:-1], padded[2:])))
    if len(rising) > 1:
        rising[-1] = min(rising[-1], rising[-2] + _LONGEST_WAIT_US)
    return rising


def _columns(spec: ReplaySpec, batch: list[AggTrade]) -> list[NDArray[np.generic]]:
    return [
        np.array([trade.id for trade in batch], dtype=np.int64),
        np.array([trade.price.encode() for trade in batch]),
        np.array([trade.quantity.encode() for trade in batch]),
        np.array([trade.first_id for trade in batch], dtype=np.int64),
        np.array([trade.last_id for trade in batch], dtype=np.int64),
        np.array([trade.time for trade in batch], dtype=np.int64),
        np.array([trade.buyer_is_maker for trade in batch]),
        np.array([_units(spec, trade, trade.price) for trade in batch], dtype=np.int64),
        np.array([_units(spec, trade, trade.quantity) for trade in batch], dtype=np.int64),
    ]


def _units(spec: ReplaySpec, trade: AggTrade, text: str) -> int:
    """Decimal text in units of 10^-8."""
    whole, _, fraction = text.partition(".")
    try:
        units = int(whole + fraction) if len(fraction) == _DECIMALS else int(whole + f"{fraction:0<8}")
    except ValueError:
        units = -1
    if len(fraction) > _DECIMALS or not 0 <= units < _INT64_MAX:
        raise ExchangeError(
            f"{spec.path}: trade {trade.id} has the number {text}", "use a file whose numbers have at most 8 decimals"
        )
    return units


def _shortened(units: Ints) -> tuple[Ints, int]:
    """Without the decimals that no row uses, so that products of price and quantity stay small; and the decimals left."""
    decimals = _DECIMALS
    while decimals and not (units % 10).any():
        units, decimals = units // 10, decimals - 1
    return units, decimals
