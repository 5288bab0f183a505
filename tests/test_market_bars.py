"""Bars: exact, and the same however the trades came."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_support import EPOCH_MS, plain, plain_bars, trade, walk

from quantai_tui.market import INTERVALS, AggTrade, read_archive
from quantai_tui.market.bars import Candle, bars_of, exact, fold, ladder, quiet_bar, roll_up
from quantai_tui.market.idranges import IdRanges


@pytest.mark.parametrize("interval_s", INTERVALS.values())
def test_bars_of_the_real_file_are_those_of_a_plain_computation(xrpeth: Path, interval_s: int) -> None:
    trades = [one for batch in read_archive(xrpeth).batches() for one in batch]
    assert [plain(bar) for bar in bars_of(trades, interval_s)] == plain_bars(trades, interval_s)


def test_an_interval_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of 1, 60"):
        bars_of([], 7)


_trades = st.lists(
    st.tuples(st.integers(0, 4_000_000), st.integers(1, 10**13), st.integers(1, 10**17), st.booleans()), min_size=1, max_size=40
).map(
    lambda rows: [
        trade(id, ms, f"{price // 10**8}.{price % 10**8:08d}", f"{quantity // 10**8}.{quantity % 10**8:08d}", maker)
        for id, (ms, price, quantity, maker) in enumerate(rows)
    ]
)


def _merged(parts: list[list[AggTrade]], interval_s: int) -> dict[int, Candle]:
    merged: dict[int, Candle] = {}
    for part in parts:
        for candle in ladder(part)[interval_s]:
            present = merged.setdefault(candle.open_time_us, candle)
            if present is not candle:
                with exact():
                    present.absorb(candle)
    return merged


@given(_trades, st.data())
def test_parts_merged_in_any_order_are_the_bars_of_the_whole(trades: list[AggTrade], data: st.DataObject) -> None:
    where = data.draw(st.lists(st.integers(0, 4), min_size=len(trades), max_size=len(trades)))
    parts = [[one for one, at in zip(trades, where, strict=True) if at == part] for part in data.draw(st.permutations(range(5)))]
    for interval_s in INTERVALS.values():
        merged = _merged([part for part in parts if part], interval_s)
        bars = [merged[opened].bar(interval_s) for opened in sorted(merged)]
        assert [plain(bar) for bar in bars] == plain_bars(trades, interval_s)
        assert bars == bars_of(trades, interval_s), "to the last digit of the text"


def test_sums_do_not_round_where_plain_decimals_would() -> None:
    trades = [trade(1, 0, "99999999999.99999999", "99999999999.99999999"), trade(2, 1, "0.00000001", "0.00000001")]
    (bar,) = bars_of(trades, 1)
    assert bar.volume == "100000000000.00000000"
    assert bar.quote_volume == "9999999999999999998000.0000000000000002"


def test_placeholders_of_the_venue_are_no_trades() -> None:
    placeholder = AggTrade(2, "0.00000000", "0.00000000", -1, -1, EPOCH_MS, True, "XRPETH")
    (bar,) = bars_of([trade(1), placeholder, trade(3)], 1)
    assert (bar.trades, bar.low, bar.volume) == (2, "2.50000000", "2.00000000")
    assert fold([placeholder]) == []


def test_prices_are_compared_as_numbers_and_kept_as_text() -> None:
    (bar,) = bars_of([trade(1, price="9.50000000"), trade(2, price="10.00000000"), trade(3, price="9.6")], 1)
    assert (bar.open, bar.high, bar.low, bar.close) == ("9.50000000", "10.00000000", "9.50000000", "9.6")


def test_a_minute_is_rolled_up_from_its_seconds() -> None:
    trades = walk(500, step_ms=300)
    (direct, rolled) = (bars_of(trades, 60), [candle.bar(60) for candle in roll_up(fold(trades), 60)])
    assert direct == rolled
    assert sum(Decimal(bar.volume) for bar in rolled) == sum(Decimal(one.quantity) for one in trades)


def test_a_quiet_bar_carries_the_last_close_and_no_volume() -> None:
    bar = quiet_bar(60_000_000, 60, "1.50")
    assert {bar.open, bar.high, bar.low, bar.close} == {"1.50"}
    assert (bar.volume, bar.quote_volume, bar.buy_volume, bar.trades) == ("0", "0", "0", 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 12)), max_size=30))
def test_id_ranges_are_the_set_of_their_ids(changes: list[tuple[bool, int, int]]) -> None:
    ranges, ids = IdRanges(), set[int]()
    for add, first, length in changes:
        last = first + length - 1
        if add:
            ranges.add(first, last)
            ids |= set(range(first, last + 1))
        else:
            ranges.remove(first, last)
            ids -= set(range(first, last + 1))
        assert {id for a, b in ranges for id in range(a, b + 1)} == ids
        pairs = list(ranges)
        assert all(b + 1 < c for (_, b), (c, _) in pairwise(pairs)), "disjoint, and never touching"
        assert ranges.first == min(ids, default=None)
        assert {id for a, b in ranges.overlap(10, 20) for id in range(a, b + 1)} == ids & set(range(10, 21))
