"""The two markets by themselves: what exists when, and that it is the same for whoever asks."""

from __future__ import annotations

import gzip
import math
import time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from exchange_support import NOON, replay, synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from quantai_tui.exchange.columns import fixed_point
from quantai_tui.exchange.folder import ExchangeFolder
from quantai_tui.exchange.markets import ExchangeError, ReplaySpec, SyntheticSpec
from quantai_tui.exchange.replay import MAX_RATE, LoadAbandonedError, ReplayMarket
from quantai_tui.exchange.synthetic import SyntheticMarket
from quantai_tui.exchange.tape import BLOCK_S, SymbolTape
from quantai_tui.market.archive import read_archive
from quantai_tui.market.bars import bars_of
from quantai_tui.market.trades import INTERVALS, AggTrade, Bar

ETH = "ETHUSDT"


def window(market: SyntheticMarket, start_s: float, stop_s: float, symbol: str = ETH) -> list[AggTrade]:
    """All trades that come into being after `start_s`, up to `stop_s`."""
    from_id = market.last_id_at(symbol, start_s) + 1
    return market.trades(symbol, from_id, 10**6, stop_s)


def numbers(bar: Bar) -> tuple[object, ...]:
    texts = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume, bar.buy_volume)
    return (bar.open_time_us, bar.interval_s, bar.trades, *map(Decimal, texts))


class TestSyntheticMarket:
    def test_two_exchanges_of_one_seed_and_epoch_are_one_market_whatever_was_asked_before(self) -> None:
        one, other = synthetic(), synthetic()
        window(other, NOON + 50_000, NOON + 50_010)
        one.klines(ETH, 60, None, None, 500, NOON + 20_000)
        assert window(one, NOON + 1795, NOON + 1805) == window(other, NOON + 1795, NOON + 1805)

    def test_another_seed_and_another_symbol_are_other_markets(self) -> None:
        market = synthetic(symbols=(ETH, "BTCUSDT"))
        assert window(synthetic(8), NOON, NOON + 60) != window(market, NOON, NOON + 60)
        assert [t.time for t in window(market, NOON, NOON + 60)] != [t.time for t in window(market, NOON, NOON + 60, "BTCUSDT")]

    @pytest.mark.parametrize("around", [BLOCK_S, 4 * BLOCK_S, 100 * BLOCK_S])
    def test_ids_run_on_without_a_gap_over_ten_seconds_around_a_block_edge(self, around: int) -> None:
        trades = window(synthetic(), NOON + around - 5, NOON + around + 5)
        assert len(trades) > 10
        for before, after in pairwise(trades):
            assert after.id == before.id + 1
            assert after.time >= before.time
            assert after.first_id == before.last_id + 1
        assert trades[0].time <= (NOON + around) * 1000 <= trades[-1].time

    def test_the_price_does_not_jump_at_block_edges(self) -> None:
        market = synthetic()
        steps = []
        for edge in range(NOON + BLOCK_S, NOON + 60 * BLOCK_S, BLOCK_S):
            trades = window(market, edge - 1, edge + 1)
            before = [t for t in trades if t.time < edge * 1000]
            after = [t for t in trades if t.time >= edge * 1000]
            if before and after:
                steps.append(math.log(float(after[0].price) / float(before[-1].price)))
        assert len(steps) > 40
        assert max(map(abs, steps)) < 1e-3  # a few seconds' volatility

    def test_a_trade_exists_from_its_own_millisecond_on(self) -> None:
        market = synthetic()
        due = market.next_trade_s(ETH, NOON + 100)
        assert due is not None
        assert due > NOON + 100
        newest = market.last_id_at(ETH, NOON + 100)
        assert market.last_id_at(ETH, due - 0.001) == newest
        assert market.last_id_at(ETH, due + 1e-6) > newest
        assert market.trades(ETH, newest + 1, 10, due - 0.001) == []

    def test_before_the_epoch_there_is_nothing_and_older_ids_start_at_the_first(self) -> None:
        market = synthetic()
        first = market.first_id(ETH)
        assert first > 1_000_000_000
        assert market.last_id_at(ETH, NOON - 1) == first - 1
        assert market.trades(ETH, first - 500, 3, NOON + 60)[0].id == first
        assert market.id_at_or_after(ETH, 0, NOON + 60) == first
        assert market.id_at_or_after(ETH, (NOON + 3600) * 1000, NOON + 60) == market.last_id_at(ETH, NOON + 60) + 1

    def test_a_year_of_downtime_costs_nothing_to_catch_up_with(self) -> None:
        market = synthetic()
        began = time.process_time()
        trades = window(market, NOON + 365 * 86_400, NOON + 365 * 86_400 + 10)
        assert time.process_time() - began < 0.5
        assert 2400 / 3 < float(trades[0].price) < 2400 * 3
        assert trades[0].id - market.first_id(ETH) == pytest.approx(365 * 86_400 * 12, rel=0.001)

    def test_prices_and_quantities_are_printed_as_the_venue_prints_them(self) -> None:
        market = synthetic(symbols=(ETH, "XRPETH", "NEWCOINUSDT"))
        for symbol in market.symbols:
            price_decimals, quantity_decimals = market.decimals(symbol)
            for trade in window(market, NOON, NOON + 60, symbol):
                for text, decimals in ((trade.price, price_decimals), (trade.quantity, quantity_decimals)):
                    whole, fraction = text.split(".")
                    assert whole.isdigit()
                    assert len(fraction) == 8
                    assert set(fraction[decimals:]) <= {"0"}
                    assert Decimal(text) > 0

    def test_thousands_of_second_and_minute_bars_exist_at_the_first_start(self) -> None:
        market = SyntheticMarket(SyntheticSpec(1, (ETH,)), NOON - SyntheticSpec().history_h * 3600)
        for interval_s in (1, 60):
            start = (NOON - 3000 * interval_s) * 1000
            bars: list[Bar] = []
            while len(bars) < 3000:
                bars += market.klines(ETH, interval_s, start + len(bars) * interval_s * 1000, None, 1000, NOON)
            assert [bar.open_time_us for bar in bars[:3000]] == [start * 1000 + n * interval_s * 1_000_000 for n in range(3000)]

    @pytest.mark.parametrize("interval_s", INTERVALS.values())
    def test_klines_are_the_bars_of_the_trades_the_one_in_progress_included(self, interval_s: int) -> None:
        market, now = synthetic(), NOON + 2 * 3600 + 1234.567
        bars = market.klines(ETH, interval_s, None, None, 1000, now)
        assert bars[-1].open_time_us == int(now) // interval_s * interval_s * 1_000_000
        from_id = market.id_at_or_after(ETH, bars[0].open_time_us // 1000, now)
        expected = bars_of(market.trades(ETH, from_id, 10**6, now), interval_s)
        assert [numbers(bar) for bar in bars if bar.trades] == [numbers(bar) for bar in expected]
        for before, after in pairwise(bars):
            assert after.open_time_us == before.open_time_us + interval_s * 1_000_000
            if not after.trades:
                assert {after.open, after.high, after.low, after.close} == {before.close}
                assert Decimal(after.volume) == 0

    def test_klines_keep_to_the_range_and_the_limit(self) -> None:
        market, now = synthetic(), NOON + 7200
        opens = lambda *arguments: [b.open_time_us // 1_000_000 - NOON for b in market.klines(ETH, 60, *arguments, now)]  # noqa: E731
        assert opens((NOON + 61) * 1000, (NOON + 300) * 1000, 500) == [120, 180, 240, 300]
        assert opens((NOON + 60) * 1000, None, 2) == [60, 120]
        assert opens(None, (NOON + 300) * 1000, 2) == [240, 300]
        assert opens(None, None, 2) == [7140, 7200]
        assert opens((NOON - 10**6) * 1000, None, 2) == [0, 60]
        assert opens((NOON + 10**6) * 1000, None, 2) == []

    def test_regimes_and_bursts_make_the_pace_uneven_around_twelve_a_second(self) -> None:
        bars = synthetic().klines(ETH, 1, NOON * 1000, None, 20 * 3600, NOON + 20 * 3600)
        counts = np.array([bar.trades for bar in bars])
        assert 10 < counts.mean() < 14
        assert counts.max() > 100
        minutes = counts[: len(counts) // 60 * 60].reshape(-1, 60).mean(axis=1)
        assert np.quantile(minutes, 0.9) > 2 * np.quantile(minutes, 0.1)

    def test_the_recent_imbalance_predicts_the_next_seconds_weakly(self) -> None:
        bars = synthetic().klines(ETH, 1, NOON * 1000, None, 48 * 3600, NOON + 48 * 3600)
        close = np.log([float(bar.close) for bar in bars])
        volume = np.array([float(bar.volume) for bar in bars])
        signed = 2 * np.array([float(bar.buy_volume) for bar in bars]) - volume
        window_sum = np.ones(5)
        imbalance = np.convolve(signed, window_sum, "valid") / np.maximum(np.convolve(volume, window_sum, "valid"), 1e-9)
        now = np.arange(4, len(close) - 10)
        ahead = close[now + 10] - close[now]
        correlation = float(np.corrcoef(imbalance[now - 4], ahead)[0, 1])
        assert 0.12 < correlation < 0.22  # there, and far from certain
        thirds = [np.digitize(x, np.quantile(x, [1 / 3, 2 / 3])) for x in (imbalance[now - 4], ahead)]
        accuracy = float((thirds[0] == thirds[1]).mean())
        assert 1 / 3 + 0.03 < accuracy < 1 / 3 + 0.08
        past = close[now] - close[np.maximum(0, now - 10)]
        assert abs(float(np.corrcoef(past, ahead)[0, 1])) < 0.08  # nothing of the kind in prices alone

    @settings(max_examples=200, deadline=None)
    @given(number=st.integers(1_900_000, 2_200_000), inside=st.floats(0, 1, exclude_max=True))
    def test_an_id_leads_back_to_its_block(self, number: int, inside: float) -> None:
        tape = SymbolTape(3, ETH, 1_900_000)
        first, after = tape.first_id(number), tape.first_id(number + 1)
        assert tape.block_of(first + int(inside * (after - first))) == number

    @pytest.mark.parametrize(
        "fields", [{"seed": -1}, {"symbols": ()}, {"symbols": ("eth/usd",)}, {"history_h": 0}, {"history_h": 10**6}]
    )
    def test_what_makes_no_market_is_refused_with_a_remedy(self, fields: dict[str, object]) -> None:
        with pytest.raises(ExchangeError) as refused:
            SyntheticSpec(**fields)  # type: ignore[arg-type]
        assert refused.value.remedy


class TestReplayMarket:
    def test_every_trade_is_what_the_file_says_to_the_last_digit(self, xrpeth: Path, tmp_path: Path) -> None:
        market, home = replay(xrpeth, tmp_path / "x", "max")
        with gzip.open(xrpeth, "rt") as file:
            rows = [line.strip().split(",") for line in file]
        market.begin(NOON)
        trades = market.trades("XRPETH", 0, 10**6, NOON + 10)
        assert [[str(t.id), t.price, t.quantity, str(t.first_id), str(t.last_id), str(t.time)] for t in trades] == [
            row[:6] for row in rows
        ]
        assert [t.buyer_is_maker for t in trades] == [row[6] == "True" for row in rows]
        assert (market.symbols, market.total, market.final_id("XRPETH")) == (("XRPETH",), 12_477, 13_532_283)
        home.close()

    def test_nothing_exists_before_the_first_subscription(self, xrpeth: Path, tmp_path: Path) -> None:
        market, home = replay(xrpeth, tmp_path / "x", 1.0)
        assert market.last_id_at("XRPETH", NOON) == market.first_id("XRPETH") - 1
        assert market.next_trade_s("XRPETH", NOON) is None
        assert market.trades("XRPETH", 0, 10, NOON) == []
        assert market.klines("XRPETH", 60, None, None, 10, NOON) == []
        market.begin(NOON)
        assert market.last_id_at("XRPETH", NOON) >= market.first_id("XRPETH")
        home.close()

    def test_the_clock_runs_at_the_speed_asked_for(self, xrpeth: Path, tmp_path: Path) -> None:
        market, home = replay(xrpeth, tmp_path / "x", 60.0)
        market.begin(NOON)
        newest = market.trades("XRPETH", market.last_id_at("XRPETH", NOON + 60), 1, NOON + 60)[0]
        following = market.next_trade_s("XRPETH", NOON + 60)
        start = market.trades("XRPETH", 0, 1, NOON)[0].time
        assert newest.time - start <= 3_600_000
        assert following is not None
        after = market.trades("XRPETH", newest.id + 1, 1, following + 1e-3)[0]
        assert (after.time - start) / 1000 == pytest.approx((following - NOON) * 60, abs=0.01)
        assert after.time - start > 3_600_000
        home.close()

    def test_at_speed_max_ten_thousand_come_into_being_each_second(self, xrpeth: Path, tmp_path: Path) -> None:
        market, home = replay(xrpeth, tmp_path / "x", "max")
        market.begin(NOON)
        assert market.last_id_at("XRPETH", NOON + 1) - market.first_id("XRPETH") == MAX_RATE
        due = market.next_trade_s("XRPETH", NOON + 1)
        assert due == pytest.approx(NOON + 1.0001)
        assert market.last_id_at("XRPETH", NOON + 2) == market.final_id("XRPETH")
        assert market.next_trade_s("XRPETH", NOON + 2) is None
        home.close()

    @pytest.mark.parametrize("wrong", [99_999_999_999_999, 0])
    def test_wrong_time_in_a_file_does_not_delay_later_trades(self, tmp_path: Path, wrong: int) -> None:
        file = tmp_path / "XRPETH-aggTrades-2019-10.csv"
        times = [1_570_752_000_000 + 1000 * id for id in range(100)]
        times[50] = times[99] = wrong
        file.write_text("\n".join(f"{id},1.0,1.0,{id},{id},{at},true,true" for id, at in enumerate(times)))
        market, home = replay(file, tmp_path / "x", 10.0)
        market.begin(NOON)
        assert market.last_id_at("XRPETH", NOON + 9.85) >= 98
        assert market.last_id_at("XRPETH", NOON + 9.9 + 8640) == 99
        assert market.trades("XRPETH", 50, 1, NOON + 10)[0].time == wrong
        home.close()

    def test_the_clock_went_on_while_the_exchange_was_down(self, xrpeth: Path, tmp_path: Path) -> None:
        market, home = replay(xrpeth, tmp_path / "x", 60.0)
        market.begin(NOON)
        expected = market.last_id_at("XRPETH", NOON + 500)
        home.close()
        again, home = replay(xrpeth, tmp_path / "x", 60.0, NOON + 400)
        again.begin(NOON + 450)
        assert again.last_id_at("XRPETH", NOON + 500) == expected
        home.close()

    @pytest.mark.parametrize(("before", "after"), [(60.0, 600.0), (60.0, "max"), ("max", 60.0)])
    def test_at_another_speed_it_goes_on_from_where_it_is(
        self, xrpeth: Path, tmp_path: Path, before: object, after: object
    ) -> None:
        market, home = replay(xrpeth, tmp_path / "x", before)
        market.begin(NOON)
        there = market.last_id_at("XRPETH", NOON + 0.7)
        home.close()
        again, home = replay(xrpeth, tmp_path / "x", after, NOON + 0.7)
        assert again.last_id_at("XRPETH", NOON + 0.7) == pytest.approx(there, abs=1)
        assert again.last_id_at("XRPETH", NOON + 100) > there
        home.close()

    @pytest.mark.parametrize("interval_s", [60, 3600])
    def test_klines_are_the_bars_of_the_trades(self, xrpeth: Path, tmp_path: Path, interval_s: int) -> None:
        market, home = replay(xrpeth, tmp_path / "x", "max")
        market.begin(NOON)
        trades = [trade for batch in read_archive(xrpeth).batches() for trade in batch]
        expected = bars_of(trades, interval_s)
        bars: list[Bar] = []
        start = 0
        while part := market.klines("XRPETH", interval_s, start, None, 1000, NOON + 10):
            bars += part
            start = part[-1].open_time_us // 1000 + 1
        assert [numbers(bar) for bar in bars if bar.trades] == [numbers(bar) for bar in expected]
        assert len(bars) == (bars[-1].open_time_us - bars[0].open_time_us) // (interval_s * 1_000_000) + 1
        home.close()

    def test_placeholders_and_microseconds_of_other_archives_are_understood(self, tmp_path: Path) -> None:
        file = tmp_path / "ETHUSDT-aggTrades-2025-01-01.csv"
        file.write_text(
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match\n"
            "10,2456.1,0.5,1,1,1735689600000123,true,true\n"
            "11,0,0,-1,-1,1735689600400000,false,true\n"
            "14,2456.25,2,3,4,1735689602000456,false,true\n"
        )
        market, home = replay(file, tmp_path / "x", "max")
        market.begin(NOON)
        trades = market.trades("ETHUSDT", 0, 10, NOON + 1)
        assert [(t.id, t.price, t.time) for t in trades] == [
            (10, "2456.1", 1735689600000123),
            (11, "0", 1735689600400000),
            (14, "2456.25", 1735689602000456),
        ]
        assert market.trades("ETHUSDT", 12, 1, NOON + 1)[0].id == 14
        bars = market.klines("ETHUSDT", 1, None, None, 10, NOON + 1)
        assert [(b.close, b.trades) for b in bars] == [("2456.10000000", 1), ("2456.10000000", 0), ("2456.25000000", 1)]
        home.close()

    def test_sums_that_do_not_fit_64_bits_are_exact_all_the_same(self, tmp_path: Path) -> None:
        file = tmp_path / "SHIBUSDT-aggTrades-2024-01-01.csv"
        rows = [f"{n},98765.12345678,90000000000.12345678,{n},{n},1704067200000,False,True\n" for n in range(1, 9)]
        file.write_text("".join(rows))
        market, home = replay(file, tmp_path / "x", "max")
        market.begin(NOON)
        [bar] = market.klines("SHIBUSDT", 60, None, None, 10, NOON + 1)
        exact = 8 * Decimal("98765.12345678") * Decimal("90000000000.12345678")
        assert Decimal(bar.quote_volume) == exact.quantize(Decimal("1e-8"))
        home.close()

    @pytest.mark.parametrize(
        ("name", "content", "named"),
        [
            ("ETHUSDT-aggTrades-2024-01-01.csv", "1,2,3\n", "line 1"),
            ("ETHUSDT-aggTrades-2024-01-01.csv", "1,0.123456789,3,1,1,1704067200000,True,True\n", "0.123456789"),
            ("ETHUSDT-aggTrades-2024-01-01.csv", "", "no trades"),
            ("trades.csv", "1,2,3,1,1,1704067200000,True,True\n", "name"),
        ],
    )
    def test_a_file_that_cannot_be_replayed_is_named_with_the_remedy(
        self, tmp_path: Path, name: str, content: str, named: str
    ) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(ExchangeError, match=named) as refused:
            replay(tmp_path / name, tmp_path / "x", "max")
        assert str(tmp_path / name) in str(refused.value)
        assert refused.value.remedy

    def test_unordered_file_is_played_in_order_without_duplicates(self, tmp_path: Path) -> None:
        file = tmp_path / "BTCUSDT_240628-aggTrades-2024-06-01.csv"
        rows = {number: f"{number},2456.1,0.5,{number},{number},{1717200000000 + number},true,true\n" for number in range(1, 7)}
        file.write_text("".join(rows[number] for number in (4, 5, 1, 3, 2, 6, 5)))
        market, home = replay(file, tmp_path / "x", "max")
        market.begin(NOON)
        assert (market.symbols, market.total) == (("BTCUSDT_240628",), 6)
        assert [trade.id for trade in market.trades("BTCUSDT_240628", 0, 10, NOON + 1)] == [1, 2, 3, 4, 5, 6]
        home.close()

    def test_small_file_of_repeated_trades_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "ETHUSDT-aggTrades-2024-01-01.csv.gz"
        with gzip.open(file, "wb") as packed:
            packed.write(b"1,2456.1,0.5,1,1,1704067200000,true,true\n" * 150_000)
        with pytest.raises(ExchangeError, match="they are repetitions"):
            replay(file, tmp_path / "x", "max")

    def test_file_that_takes_too_much_memory_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "ETHUSDT-aggTrades-2024-01-01.csv"
        file.write_text("".join(f"{number},2456.1,0.5,1,1,1704067200000,true,true\n" for number in range(1, 1001)))
        monkeypatch.setattr("quantai_tui.exchange.replay._MOST_BYTES", 40_000)  # 1,000 trades of some 60 bytes
        with pytest.raises(ExchangeError, match="of memory") as refused:
            replay(file, tmp_path / "x", "max")
        assert refused.value.remedy == "replay a file of one day"

    def test_reading_is_given_up_when_somebody_asks_to_leave(self, xrpeth: Path, tmp_path: Path) -> None:
        home = ExchangeFolder(tmp_path / "x")
        with pytest.raises(LoadAbandonedError):
            ReplayMarket.open(ReplaySpec(xrpeth), home, NOON, lambda: True)
        home.close()


@given(value=st.integers(0, 10**20), decimals=st.integers(0, 16))
def test_fixed_point_is_the_decimal_rounded_to_eight_places(value: int, decimals: int) -> None:
    text = fixed_point(value, decimals)
    assert len(text.split(".")[1]) == 8
    assert abs(Decimal(text) - Decimal(value).scaleb(-decimals)) <= Decimal("5e-9")
