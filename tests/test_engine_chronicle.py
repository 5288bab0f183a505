"""The engine's memory: three days of numbers and moments in bounded space, told truly at any resolution."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_engine import ask, demo_engine, until
from ui_support import NOW, engine_snapshot, stream_snapshot, training_snapshot

from quantai_tui.engine.chronicle import Chronicle
from quantai_tui.engine.history import MOST_POINTS, REACH_S, Fold, History
from quantai_tui.engine.local import LocalLink
from quantai_tui.engine.moments import Moments
from quantai_tui.link import CommandName, HistoryWindow, LinkState, Moment
from quantai_tui.telemetry import EngineSnapshot, Severity, StreamState
from quantai_tui.telemetry.alerts import AlertBook

FOLDS = {"sum": Fold.SUM, "peak": Fold.PEAK, "mean": Fold.MEAN}
ALL = list(FOLDS)


def told(history: History, name: str, span_s: float, points: int, until: float) -> list[float]:
    return [value for value in history.window([name], span_s, points, until).values[name] if value is not None]


samples = st.lists(st.tuples(st.floats(0.1, 400.0), st.none() | st.integers(0, 1_000).map(float)), min_size=1, max_size=60)


@given(samples, st.integers(2, 400))
def test_a_window_over_everything_keeps_sums_peaks_and_ranges_whatever_its_resolution(
    steps: list[tuple[float, float | None]], points: int
) -> None:
    history, now = History(FOLDS), NOW
    known: list[float] = []
    for pause_s, value in steps:
        now += pause_s
        history.push(now, dict.fromkeys(ALL, value))
        if value is not None:
            known.append(value)
    span = min(REACH_S, now - NOW)
    assert math.fsum(told(history, "sum", span, points, now)) == pytest.approx(math.fsum(known))
    peaks, means = told(history, "peak", span, points, now), told(history, "mean", span, points, now)
    assert (max(peaks, default=None)) == (max(known, default=None))
    assert all(min(known) - 1e-9 <= value <= max(known) + 1e-9 for value in [*peaks, *means])
    window = history.window(ALL, span, points, now)
    assert all(len(values) <= points for values in window.values.values())
    assert window.until >= now
    assert window.until - window.period_s <= now


def test_what_was_not_known_stays_a_hole() -> None:
    history = History({"x": Fold.MEAN})
    for second in range(30):
        history.push(NOW + second, {"x": None if 10 <= second < 20 else 1.0})
    values = history.window(["x"], 29.5, 30, NOW + 29.5).values["x"]
    assert values == (1.0,) * 10 + (None,) * 10 + (1.0,) * 10


def test_a_window_that_moves_on_does_not_redraw_its_past() -> None:
    history, chance = History(FOLDS), random.Random(5)
    for second in range(4_000):
        history.push(NOW + second, dict.fromkeys(ALL, chance.random()))
    earlier = history.window(ALL, 3_600.0, 97, NOW + 3_990.0)
    later = history.window(ALL, 3_600.0, 97, NOW + 3_990.0 + 3 * earlier.period_s)
    assert later.period_s == earlier.period_s
    moved = round((later.until - earlier.until) / later.period_s)
    assert later.values["peak"][: -moved - 1] == earlier.values["peak"][moved:-1]


def test_three_days_are_remembered_and_the_fourth_is_not() -> None:
    history = History({"x": Fold.SUM})
    for minute in range(5 * 24 * 60):
        history.push(NOW + minute * 60.0, {"x": 1.0})
    end = NOW + 5 * 24 * 3_600.0 - 1
    assert math.fsum(told(history, "x", REACH_S, MOST_POINTS, end)) == pytest.approx(4_320, abs=3)
    assert told(history, "x", 3_600.0, 60, end - REACH_S - 7_200.0) == []


def test_a_clock_that_is_set_back_lets_those_seconds_be_told_anew() -> None:
    history = History({"x": Fold.SUM})
    for second in range(100):
        history.push(NOW + second, {"x": 1.0})
    for second in range(50, 60):
        history.push(NOW + second, {"x": 5.0})
    values = history.window(["x"], 99.5, 100, NOW + 59.5).values["x"]
    assert values[-60:] == (1.0,) * 50 + (5.0,) * 10
    assert told(history, "x", 30.0, 30, NOW + 99.0) == []


@pytest.mark.parametrize(("span_s", "points"), [(0.0, 10), (REACH_S + 1, 10), (math.nan, 10), (60.0, 1), (60.0, MOST_POINTS + 1)])
def test_a_window_that_cannot_be_is_refused(span_s: float, points: int) -> None:
    with pytest.raises(ValueError, match=r"span|points"):
        History(FOLDS).window(ALL, span_s, points, NOW)


def at(seconds: float, base: EngineSnapshot | None = None, **changes: object) -> EngineSnapshot:
    return msgspec.structs.replace(base or engine_snapshot(), time=NOW + seconds, **changes)


def test_each_second_of_late_and_each_minute_of_long_ago_is_found_again_as_it_was() -> None:
    moments = Moments()
    for second in range(0, 3_000):
        moments.keep(at(second, training=training_snapshot(step=second)))
    late = moments.at(NOW + 2_950.7)
    assert late is not None
    assert (late.time, late.training.step) == (NOW + 2_950, 2_950)
    assert late == msgspec.structs.replace(at(2_950, training=training_snapshot(step=2_950)), series={}, log=())
    long_ago = moments.at(NOW + 130)
    assert long_ago is not None
    assert NOW + 60 < long_ago.time <= NOW + 130
    assert moments.at(NOW - 1) is None
    assert moments.since == NOW


def test_an_outage_of_a_second_is_still_found_when_only_minutes_are_left() -> None:
    moments = Moments()
    broken = stream_snapshot(state=StreamState.BACKOFF)
    for second in range(0, 40_000, 1):
        moments.keep(at(second, stream=broken) if second == 100 else at(second))
        if second == 200:  # from here on once a minute is enough for this test
            break
    for minute in range(4, 600):
        moments.keep(at(minute * 60.0))
    outage = moments.at(NOW + 100.9)
    assert outage is not None
    assert outage.stream.state is StreamState.BACKOFF
    after = moments.at(NOW + 101.2)
    assert after is not None
    assert after.stream.state is StreamState.LIVE


def test_the_memory_of_moments_is_bounded_though_nothing_repeats() -> None:
    moments, chance = Moments(), random.Random(3)
    for second in range(0, 3 * 86_400, 40):
        noise = "".join(chance.choices("abcdefghijklmnop", k=60))
        moments.keep(at(second, training=training_snapshot(last_event=noise, restarts=second)))
    assert moments.size_bytes < 24_000_000
    assert moments.at(NOW + 3 * 86_400) is not None


def test_the_chronicle_tells_events_between_snapshots_and_knows_its_series() -> None:
    chronicle = Chronicle(lambda when: (f"log until {when:.0f}",))
    chronicle.record(at(0), {"overflows": 0.0})
    chronicle.record(at(1, stream=stream_snapshot(state=StreamState.BACKOFF, cause="connection reset")), {"overflows": 3.0})
    chronicle.record(at(2), {"overflows": None})
    window = chronicle.window(["overflows"], 59.5, 60, NOW + 2.5)
    assert window.series["overflows"][-3:] == (0.0, 3.0, None)
    assert [event.text.split(",")[0] for event in window.events if event.time > NOW] == ["stream: backoff", "stream: live"]
    moment = chronicle.moment(NOW + 1.5)
    assert moment is not None
    assert moment.snapshot.stream.state is StreamState.BACKOFF
    assert moment.log == (f"log until {NOW + 1.5:.0f}",)
    with pytest.raises(ValueError, match="no history of 'los'; there is rtt_ms"):
        chronicle.window(["los"], 60.0, 60, NOW)


def test_an_alert_that_was_seen_stays_seen_until_it_comes_again() -> None:
    book = AlertBook(lambda: 600.0)
    failing = engine_snapshot(stream=stream_snapshot(failed_last_5min=3), alerts=())
    (alert,) = book.evaluate(failing)
    assert (alert.acknowledged, alert.severity) == (False, Severity.WARNING)
    assert book.acknowledge("silence") == 0
    assert book.acknowledge("") == 1
    assert book.acknowledge("") == 0
    assert [item.acknowledged for item in book.evaluate(failing)] == [True]
    book.evaluate(engine_snapshot(stream=stream_snapshot(failed_last_5min=0), alerts=()))
    assert [item.acknowledged for item in book.evaluate(failing)] == [False]


async def test_an_engine_tells_its_past_over_a_link_and_says_where_its_memory_begins() -> None:
    engine = demo_engine("TRAIN_AUTOSTART=False")
    link = LocalLink(lambda: _made(engine))
    await link.start()
    try:
        await until(lambda: link.state is LinkState.ATTACHED and link.snapshot is not None)
        assert link.snapshot is not None
        begin = link.snapshot.time
        await until(lambda: link.snapshot is not None and link.snapshot.stream.state is StreamState.LIVE)
        await until(lambda: engine.vitals.chronicle.since is not None)

        def heard() -> bool:
            window = engine.vitals.chronicle.window(["trades_per_s"], 60.0, 61, engine.clock.time())
            return any(value is not None for value in window.series["trades_per_s"]) and bool(window.events)

        await until(heard)
        ack = await link.command(CommandName.HISTORY, names=["trades_per_s", "overflows"], span_s=120.0, points=60)
        assert ack.ok, ack.message
        window = msgspec.convert(ack.data, HistoryWindow)
        assert set(window.series) == {"trades_per_s", "overflows"}
        assert any("stream: live" in event.text for event in window.events)
        ack = await link.command(CommandName.MOMENT, at=engine.clock.time())
        moment = msgspec.convert(ack.data, Moment)
        assert moment.snapshot.stream.state is StreamState.LIVE
        assert any("engine demo-3 starts" in line for line in moment.log)
        done, text, _ = await ask(engine, CommandName.MOMENT, at=begin - 1e6)
        assert (done, "remembers nothing before 20" in text) == (False, True)
        done, text, _ = await ask(engine, CommandName.HISTORY, names=["nonsense"], span_s=1.0, points=2)
        assert (done, "no history of 'nonsense'" in text) == (False, True)
        done, text, _ = await ask(engine, CommandName.ALERT_ACK, key="silence")
        assert (done, text) == (False, "no unseen alert 'silence' stands")
    finally:
        await link.close()


async def _made(engine: object) -> object:
    return engine
