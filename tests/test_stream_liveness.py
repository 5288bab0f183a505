"""A symbol's usual silence: a busy one is suspected within seconds, a thin one is left alone, and none for too long."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.stream.liveness import ENOUGH_S, ENOUGH_SILENCES, FACTOR, LEAST_S, Liveness

LONGEST = 600.0
BATCH_S = 0.075
DAY_S = 86_400.0


class Hand:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may wait")


@pytest.fixture
def clock() -> Hand:
    return Hand()


def watch(clock: Hand, *symbols: str, longest: float = LONGEST) -> Liveness:
    live = Liveness(symbols or ("A",), longest=longest, clock=clock)
    live.on_link()
    return live


def trade_every(clock: Hand, live: Liveness, seconds: float, count: int, symbol: str = "A") -> None:
    for _ in range(count):
        clock.now += seconds
        live.heard(symbol, 1)


def wait(clock: Hand, seconds: float) -> None:
    clock.now += seconds


def test_a_busy_symbol_is_suspected_after_five_seconds_beside_a_thin_one_that_is_not(clock):
    live = watch(clock, "BUSY", "THIN")
    for _ in range(40):
        trade_every(clock, live, 0.1, 300, "BUSY")
        live.heard("THIN", 1)
    assert live.limit_s("BUSY") == LEAST_S
    assert live.limit_s("THIN") == pytest.approx(30 * FACTOR)
    wait(clock, LEAST_S - 0.01)
    assert live.suspects() == []
    wait(clock, 0.02)
    assert live.suspects() == ["BUSY"]
    live.heard("BUSY", 1)
    assert live.suspects() == []


def test_before_enough_was_observed_only_the_outer_bound_counts(clock):
    live = watch(clock)
    trade_every(clock, live, ENOUGH_S / ENOUGH_SILENCES * 2, ENOUGH_SILENCES)
    assert live.limit_s("A") == LONGEST, "as many trades have one silence less between them"
    trade_every(clock, live, 1.0, 1)
    assert live.limit_s("A") < LONGEST
    hasty = watch(clock)
    trade_every(clock, hasty, 0.01, 1000)
    assert hasty.limit_s("A") == LONGEST


def test_what_was_learnt_outlives_a_connection_and_the_time_without_one_is_not_learnt(clock):
    live = watch(clock)
    trade_every(clock, live, 1.0, 100)
    wait(clock, 500.0)
    live.on_link()
    assert (live.suspects(), live.silent_s("A"), live.any_silent_s()) == ([], 0.0, 0.0)
    wait(clock, 4.0)
    live.heard("A", 1)
    assert live.limit_s("A") == LEAST_S
    wait(clock, LEAST_S)
    assert live.suspects() == ["A"]


def test_while_reading_is_paused_silence_proves_nothing_and_is_not_learnt(clock):
    live = watch(clock)
    trade_every(clock, live, 1.0, 100)
    for _ in range(50):
        wait(clock, 1.0)
        live.hold()
        assert live.suspects() == []
    wait(clock, 3.0)
    live.heard("A", 1)
    assert live.limit_s("A") == LEAST_S


def test_an_excused_silence_raises_the_limit_and_starts_the_suspicion_anew(clock):
    live = watch(clock)
    trade_every(clock, live, 1.0, 100)
    wait(clock, 20.0)
    assert live.suspects() == ["A"]
    live.excuse("A")
    assert live.limit_s("A") == pytest.approx(20.0 * FACTOR)
    assert live.silent_s("A") == 20.0, "it is still silent"
    wait(clock, 59.0)
    assert live.suspects() == []
    wait(clock, 1.0)
    assert live.suspects() == ["A"]


def test_an_excuse_fades(clock):
    live = watch(clock)
    trade_every(clock, live, 1.0, 100)
    wait(clock, 100.0)
    live.excuse("A")
    trade_every(clock, live, 1.0, 6 * 3600)
    assert live.limit_s("A") == LEAST_S


def test_symbols_that_are_not_watched_have_no_silence(clock):
    live = watch(clock, "A")
    live.heard("B", 3)
    live.excuse("B")
    assert (live.silent_s("B"), live.limit_s("B")) == (None, None)
    wait(clock, 2.0)
    live.heard("A", 1)
    wait(clock, 1.0)
    assert (live.any_silent_s(), live.silent_s("A")) == (1.0, 1.0)


@given(
    silences=st.lists(st.floats(0.01, 2000.0), max_size=80),
    longest=st.floats(1.0, 1000.0),
    share=st.floats(0.0, 0.999),
)
def test_nothing_is_suspected_before_its_limit_and_everything_beyond_it(silences, longest, share):
    clock = Hand()
    live = watch(clock, longest=longest)
    for silence in silences:
        trade_every(clock, live, silence, 1)
    limit = live.limit_s("A")
    assert min(LEAST_S, longest) <= limit <= longest
    wait(clock, limit * share)
    assert live.suspects() == []
    clock.now += limit * (1 - share) + 0.001
    assert live.suspects() == ["A"]
    wait(clock, longest)
    live.heard("A", 1)
    wait(clock, longest + 0.001)
    assert live.suspects() == ["A"], "beyond the outer bound every silence is suspected"


def poisson(per_second: float, seconds: float, seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    at = 0.0
    while at < seconds:
        at += rng.expovariate(per_second)
        yield at


def xrpeth(shared_data, faster: float) -> list[float]:
    with gzip.open(shared_data / "XRPETH-aggTrades-2019-10-11.csv.gz", "rt") as file:
        return [int(row[5]) / 1000 / faster for row in csv.reader(file)]


def rehearse(times: Iterator[float] | list[float]) -> tuple[float, float]:
    """Wrong suspicions per day, and the median limit, over a market in which no link ever fails."""
    clock = Hand()
    live = watch(clock)
    wrong = 0
    limits: list[float] = []
    began = batch = -1.0
    for at in times:
        due = (at // BATCH_S + 1) * BATCH_S
        if due == batch:
            continue
        if began < 0:
            began = clock.now = due
            live.on_link()
        for tick in range(int(batch) + 1, int(due) + 1) if batch > 0 else ():
            clock.now = max(float(tick), batch)
            if live.suspects():
                wrong += 1
                live.excuse("A")
        batch = clock.now = due
        live.heard("A", 1)
        limits.append(live.limit_s("A"))
    limits.sort()
    return wrong * DAY_S / (clock.now - began), limits[len(limits) // 2]


@pytest.mark.parametrize(
    ("per_second", "days", "wrong_per_day", "median_s"),
    [(0.1, 6.0, 1.0, 200.0), (1.0, 0.5, 2.0, 30.0), (20.0, 0.04, 0.0, LEAST_S), (2000.0, 0.003, 0.0, LEAST_S)],
)
def test_a_steady_market_is_hardly_ever_suspected_and_its_stall_soon(per_second, days, wrong_per_day, median_s):
    wrong, median = rehearse(poisson(per_second, days * DAY_S, seed=5))
    assert wrong <= wrong_per_day
    assert median <= median_s


@pytest.mark.parametrize(("faster", "wrong_per_day", "median_s"), [(1.0, 2.0, 500.0), (20.0, 0.0, 60.0)])
def test_a_real_thin_market_is_hardly_ever_suspected(shared_data, faster, wrong_per_day, median_s):
    wrong, median = rehearse(xrpeth(shared_data, faster))
    assert wrong <= wrong_per_day
    assert median <= median_s


def test_the_silence_of_a_symbol_that_the_venue_traded_is_not_learnt(clock):
    live = watch(clock)
    trade_every(clock, live, 1.0, 100)
    limit = live.limit_s("A")
    wait(clock, 75.0)
    live.accuse("A")
    live.heard("A", 1)
    assert live.suspects() == []
    trade_every(clock, live, 1.0, 5)
    assert live.limit_s("A") == limit == LEAST_S
