"""What a reader is given: only what is whole, dense, in order of time; klines where trades cannot tell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from market_support import EPOCH_MS, kline, trade, walk

from quantai_tui.market import AggTrade, Bar, StoreError, StoreReader, TradeStore, to_us
from quantai_tui.market.writer import LedgerWriter

_SYMBOL = "XRPETH"
_MINUTE_MS = 60_000


class _Store:
    """A store that is written synchronously, one transaction a call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = LedgerWriter(path)

    def trades(self, *trades: AggTrade) -> None:
        self._writer.begin()
        self._writer.append(_SYMBOL, trades)
        self._writer.commit()

    def klines(self, *bars: Bar) -> None:
        self._writer.begin()
        self._writer.put_klines(_SYMBOL, bars)
        self._writer.commit()

    def begin(self, first_id: int, ms: int) -> None:
        self._writer.begin()
        self._writer.begin_ledger(_SYMBOL, first_id, (EPOCH_MS + ms) * 1000)
        self._writer.commit()

    def give_up(self, first_id: int, last_id: int, outcome: str = "unrecoverable") -> None:
        self._writer.begin()
        self._writer.close_gap(_SYMBOL, first_id, last_id, outcome, 0.0)
        self._writer.commit()

    def prune(self, max_age_ms: int) -> int:
        self._writer.begin()
        removed = self._writer.prune(max_age_ms * 1000)
        self._writer.commit()
        return removed

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        self._writer.abandon()

    def bars(self, interval_s: int = 60, limit: int | None = None, since_ms: int | None = None) -> list[Bar]:
        """What a reader gets; the arrays, which are another path to the same bars, are compared on the way."""
        with StoreReader(self.path) as reader:
            since_us = None if since_ms is None else (EPOCH_MS + since_ms) * 1000
            bars = reader.bars(_SYMBOL, interval_s, limit, since_us)
            if since_us is None:
                columns = reader.bar_columns(_SYMBOL, interval_s, limit)
                for field, column in zip(columns._fields, columns, strict=True):
                    assert column.tolist() == [float(getattr(bar, field)) for bar in bars], field
        times = [bar.open_time_us for bar in bars]
        assert not times or times == list(range(times[0], times[-1] + 1, interval_s * 1_000_000)), "dense"
        return bars

    def minutes(self) -> list[int]:
        """The minutes after EPOCH_MS for which there are bars."""
        return [(bar.open_time_us // 1000 - EPOCH_MS) // _MINUTE_MS for bar in self.bars()]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[_Store]:
    store = _Store(tmp_path / "store.db")
    yield store
    store.abandon()


def test_only_whole_bars_are_given(store: _Store) -> None:
    store.trades(trade(1, 30_000), trade(2, 70_000), trade(3, 130_000, "3.0"), trade(4, 179_999))
    assert store.minutes() == [1], "the minute of the beginning is partial, the newest is not over"
    store.trades(trade(5, 180_000))
    assert store.minutes() == [1, 2]


def test_a_bar_waits_for_a_hole_before_its_end(store: _Store) -> None:
    store.trades(trade(1, 0), trade(2, 70_000), trade(4, 130_000), trade(5, 200_000))
    assert store.minutes() == []
    store.trades(trade(3, 100_000))
    assert store.minutes() == [1, 2]


def test_quiet_minutes_carry_the_last_close(store: _Store) -> None:
    store.trades(trade(1, 0, "1.5"), trade(2, 200_000, "2.5"), trade(3, 400_000, "3.5"))
    bars = store.bars()
    assert [(bar.close, bar.volume, bar.trades) for bar in bars] == [
        ("1.5", "0", 0),
        ("1.5", "0", 0),
        ("2.5", "1.00000000", 1),
        ("2.5", "0", 0),
        ("2.5", "0", 0),
    ]
    assert bars[0].open == bars[0].high == bars[0].low == "1.5"


def test_limit_and_since_choose_from_the_same_series(store: _Store) -> None:
    store.trades(*walk(2000, step_ms=900))
    everything = store.bars()
    assert len(everything) > 10
    assert store.bars(limit=4) == everything[-4:]
    assert store.bars(limit=10_000) == everything
    assert store.bars(limit=0) == []
    since_ms = everything[5].open_time_us // 1000 - EPOCH_MS
    assert store.bars(since_ms=since_ms) == everything[5:]
    assert store.bars(since_ms=since_ms - 1) == everything[5:]
    assert store.bars(since_ms=since_ms, limit=2) == everything[-2:]
    assert store.bars(since_ms=10**9) == []
    seconds = store.bars(1)
    for limit in (1, 2, 3, 50):
        assert store.bars(1, limit=limit) == seconds[-limit:], "also where the series starts in a quiet second"


def test_bars_between_two_times_stay_the_same_while_the_market_goes_on(store: _Store) -> None:
    trades = walk(2000, step_ms=900)
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(-5, 0)))
    store.trades(*trades[:1200])
    with StoreReader(store.path) as reader:
        before = reader.bar_columns(_SYMBOL, 60)
        first, last = int(before.open_time_us[2]), int(before.open_time_us[-3])
        between = reader.bar_columns(_SYMBOL, 60, since_us=first, until_us=last + 60_000_000)
        assert [column.tolist() for column in between] == [column[2:-2].tolist() for column in before]
        store.trades(*trades[1200:])
        later = reader.bar_columns(_SYMBOL, 60, since_us=first, until_us=last + 60_000_000)
        assert [column.tobytes() for column in later] == [column.tobytes() for column in between]
        assert len(reader.bar_columns(_SYMBOL, 60).close) > len(before.close)
        assert len(reader.bar_columns(_SYMBOL, 60, since_us=first, until_us=first).close) == 0
        klines_alone = reader.bar_columns(_SYMBOL, 60, until_us=int(before.open_time_us[3]))
        assert klines_alone.open_time_us.tolist() == before.open_time_us[:3].tolist()


def test_klines_lead_up_to_the_ledger_and_trades_win_inside_it(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(-5, 4)))
    assert store.minutes() == list(range(-5, 4)), "before there is a ledger"
    store.begin(1, 30_000)
    assert store.minutes() == list(range(-5, 1)), "the kline covers the minute in which the ledger begins; later ones wait"
    store.trades(trade(1, 30_000), trade(2, 70_000), trade(3, 130_000))
    bars = store.bars()
    assert store.minutes() == list(range(-5, 2))
    assert [bar.from_trades for bar in bars] == [False] * 6 + [True]
    assert (bars[-2].close, bars[-1].close) == ("9.00000000", "2.50000000")


def test_a_partial_bar_is_never_given_and_parts_history_until_a_kline_covers_it(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(-5, 0)))
    store.trades(trade(1, 30_000), trade(2, 70_000), trade(3, 130_000))
    assert store.minutes() == [-5, -4, -3, -2, -1], "the longer stretch: five klines against one bar"
    store.klines(kline(0))
    assert store.minutes() == list(range(-5, 2))


def test_the_longer_stretch_may_be_that_of_the_trades(store: _Store) -> None:
    store.klines(kline(-_MINUTE_MS))
    store.trades(trade(1, 30_000), trade(2, 70_000), trade(3, 200_000))
    assert store.minutes() == [1, 2]


def test_klines_before_a_hole_in_the_klines_are_not_given(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in (-9, -8, -3, -2, -1, 0)))
    store.trades(trade(1, 30_000), trade(2, 130_000))
    assert store.minutes() == [-3, -2, -1, 0, 1]


def test_old_klines_that_end_before_the_ledger_are_not_given(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(-90, -80)))
    store.trades(trade(1, 30_000), trade(2, 130_000))
    assert store.minutes() == [1]


def test_a_partial_bar_made_whole_by_older_trades_wins_over_its_kline(store: _Store) -> None:
    store.begin(5, 30_000)
    store.klines(kline(0))
    store.trades(trade(5, 30_000), trade(6, 70_000))
    assert [bar.from_trades for bar in store.bars()] == [False]
    store.trades(trade(3, -1_000), trade(4, 10_000))
    (bar,) = store.bars()
    assert bar.from_trades
    assert bar.trades == 2


def test_klines_stand_in_where_trades_were_given_up(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(0, 8)))
    store.trades(trade(1, 0), trade(2, 70_000), trade(3, 130_000))
    store.trades(trade(50, 310_000), trade(51, 370_000), trade(52, 430_000))
    store.give_up(4, 49)
    assert [(bar.from_trades, bar.close) for bar in store.bars()] == [
        (False, "9.00000000"),  # begins in the middle
        (True, "2.50000000"),
        (False, "9.00000000"),  # the trades break off
        (False, "9.00000000"),
        (False, "9.00000000"),
        (False, "9.00000000"),  # they set in again
        (True, "2.50000000"),
    ]


def test_without_klines_the_series_starts_after_a_stretch_that_was_given_up(store: _Store) -> None:
    store.trades(trade(1, 0), trade(2, 70_000, "7.0"), trade(50, 310_000, "3.0"), trade(51, 370_000), trade(52, 430_000))
    store.give_up(3, 49)
    assert store.minutes() == [6], "neither quiet bars for hours nobody knows of, nor the two partial bars at their edges"
    store.klines(kline(5 * _MINUTE_MS), kline(4 * _MINUTE_MS))
    assert store.minutes() == [4, 5, 6]
    store.klines(*(kline(minute * _MINUTE_MS) for minute in (1, 2, 3)))
    assert store.minutes() == [1, 2, 3, 4, 5, 6]


def test_a_quiet_start_after_a_stretch_that_was_given_up_carries_the_close_of_the_partial_bar(store: _Store) -> None:
    store.trades(trade(1, 0), trade(2, 70_000), trade(50, 310_000, "3.0"), trade(51, 430_000), trade(52, 490_000))
    store.give_up(3, 49)
    assert [(bar.trades, bar.close) for bar in store.bars()] == [(0, "3.0"), (1, "2.50000000")]


def test_what_was_given_up_within_a_bars_width_is_bridged(store: _Store) -> None:
    store.trades(trade(1, 0), trade(2, 90_000), trade(5, 149_000), trade(6, 200_000))
    store.give_up(3, 4)
    assert store.minutes() == [1, 2]


def test_what_was_given_up_at_the_very_beginning_parts_the_klines_from_the_trades(store: _Store) -> None:
    store.klines(*(kline(minute * _MINUTE_MS) for minute in range(-5, 1)))
    store.begin(1, 30_000)
    store.trades(trade(40, 310_000), trade(41, 370_000), trade(42, 430_000))
    store.give_up(1, 39)
    assert store.minutes() == [6]


def test_a_hole_at_the_venue_is_bridged_where_it_is_short(store: _Store) -> None:
    store.trades(trade(1, 0), trade(2, 70_000), trade(4, 130_000), trade(5, 190_000), trade(9, 1_000_000), trade(10, 1_060_000))
    store.give_up(3, 3, "venue_hole")
    assert store.minutes() == [1, 2]
    with StoreReader(store.path) as reader:
        assert len(reader.bars(_SYMBOL, 1)) == 189, "also in seconds, which are shorter than it"
    store.give_up(6, 8, "venue_hole")
    assert store.minutes() == [], "nobody has trades of that quarter of an hour"
    store.trades(trade(11, 1_090_000))
    assert store.minutes() == [17]


@pytest.mark.parametrize("klines", [True, False])
def test_what_was_given_up_stays_so_when_its_neighbours_are_removed_by_age(klines: bool, store: _Store) -> None:
    hour_ms = 3_600_000
    if klines:
        store.klines(*(kline(minute * _MINUTE_MS) for minute in range(1, 6)))
    store.trades(trade(1, 0), trade(2, 70_000), trade(50, 310_000), trade(51, 370_000))
    store.trades(trade(52, 4 * hour_ms), trade(53, 5 * hour_ms))
    store.give_up(3, 49)
    before = store.bars()
    assert len(before) == (299 if klines else 294)
    assert sum(not bar.from_trades for bar in before) == (5 if klines else 0)
    while store.prune(hour_ms):
        pass
    with StoreReader(store.path) as reader:
        assert [one.id for one in reader.trades(_SYMBOL, 0, 100)] == [52, 53]
    assert store.bars() == before


def test_a_later_kline_replaces_an_earlier_one(store: _Store) -> None:
    store.klines(kline(0, price="1.0"))
    store.klines(kline(0, price="2.0"))
    assert [bar.close for bar in store.bars()] == ["2.0"]


def test_stored_trades_come_back_as_they_were(store: _Store) -> None:
    trades = walk(50)
    store.trades(*trades)
    with StoreReader(store.path) as reader:
        back = reader.trades(_SYMBOL, 11, 20)
        assert reader.symbols() == [_SYMBOL]
    assert [one.id for one in back] == list(range(11, 31))
    assert [(one.price, one.quantity, one.time_us) for one in back] == [
        (one.price, one.quantity, to_us(one.time)) for one in trades[10:30]
    ]


def test_a_symbol_that_is_not_there_has_nothing(store: _Store) -> None:
    with StoreReader(store.path) as reader:
        assert reader.bars("NOPE", 60) == []
        assert len(reader.bar_columns("NOPE", 60).close) == 0
        assert reader.position("NOPE").begin_id is None
        with pytest.raises(ValueError, match="choose one of"):
            reader.bars(_SYMBOL, 61)


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*none\.db"):
        StoreReader(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_reader_cannot_write(store: _Store) -> None:
    with StoreReader(store.path) as reader, pytest.raises(Exception, match="readonly"):
        reader._connection.execute("DELETE FROM trades")


async def test_a_reader_sees_one_state_while_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    trades = walk(6000, step_ms=300)
    store = await TradeStore.open(path)
    await store.write(_SYMBOL, trades[:10])
    reader = StoreReader(path)
    whole: dict[int, Bar] = {}
    for at in range(10, 6000, 90):
        await store.append(_SYMBOL, trades[at : at + 90])
        bars = reader.bars(_SYMBOL, 60)  # beside the writing thread, which may be anywhere
        position = reader.position(_SYMBOL)
        assert position.stored == position.complete_through_id == position.last_id
        for bar in bars:
            assert whole.setdefault(bar.open_time_us, bar) == bar, "a bar that was given once does not change"
    await store.flush()
    assert reader.position(_SYMBOL).last_id == 6000
    reader.close()
    await store.close()
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("store")] == ["store.db"]


_READ = """
import sys
from collections.abc import Iterator
from pathlib import Path
from quantai_tui.market.store import StoreReader
with StoreReader(Path(sys.argv[1])) as reader:
    print(len(reader.bars("XRPETH", 60)), reader.position("XRPETH").last_id)
print(sorted({"torch", "textual", "aiohttp", "numpy", "pydantic"} & set(sys.modules)))
"""


def test_another_process_reads_beside_the_writer_without_heavy_imports(store: _Store) -> None:
    store.trades(*walk(1000, step_ms=900))
    expected = len(store.bars())
    done = subprocess.run([sys.executable, "-c", _READ, str(store.path)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"{expected} 1000", "[]"]
    store.close()
    assert not store.path.with_name("store.db-wal").exists()
