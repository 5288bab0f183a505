"""Sparklines: what one column says of many samples, gaps, limits, extremes, and the time cursor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ui_support import NOW

from quantai_tui.ui import format as fmt
from quantai_tui.ui.cells import Pace
from quantai_tui.ui.panes.charts import LOSS, OVERFLOWS, RTT, SCALE, TRADES
from quantai_tui.ui.sparkline import (
    AXIS_WIDTH,
    Fold,
    Look,
    Plot,
    Range,
    columns,
    nice_ceiling,
    nice_range,
    plotted,
    spark_rows,
)
from quantai_tui.ui.view import Chart

PLAIN = Look("spark-rtt", fmt.brief)


def test_a_gap_in_a_series_is_shown_as_a_gap() -> None:
    (line,) = spark_rows(plotted(Chart((1.0, None, 10.0)), 3), 1, Range(0.0, 10.0), PLAIN)
    assert line.text.rstrip() == "▂·█"
    assert line.pace is Pace.TEXT


def test_something_never_looks_like_nothing() -> None:
    assert columns((0.0, 0.001, 10.0), 1, Range(0.0, 10.0)) == [1, 2, 8]


def test_a_tall_chart_moves_more_slowly_than_a_line() -> None:
    assert {line.pace for line in spark_rows(plotted(Chart((1.0, 2.0)), 20), 5, Range(0.0, 2.0), PLAIN)} == {Pace.CHART}


def test_a_logarithmic_range_gives_each_octave_the_same_height() -> None:
    span = Range(256.0, 65_536.0, log=True)
    assert columns((512.0, 4_096.0, 65_536.0, 1e9, 1.0), 1, span) == [2, 4, 8, 8, 1]


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_on_a_round_number_that_is_not_below(value: float) -> None:
    ceiling = nice_ceiling(value, 1e-9)
    assert value <= ceiling * (1 + 1e-8)
    assert ceiling <= value * 2.5000001
    assert f"{ceiling:.0e}"[0] in "125"


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=50), st.booleans())
def test_any_series_can_be_drawn(values: list[float | None], from_zero: bool) -> None:
    finite = [value for value in values if value is None or not math.isfinite(value) or abs(value) < 1e100]
    span = nice_range(finite, from_zero=from_zero)
    look = Look("spark-rtt", fmt.brief, cap="scale-cap", floor="scale-cap", shaded=True)
    for fold in Fold:
        rows = spark_rows(plotted(Chart(tuple(finite), cursor=-1.0), 32, fold), 3, span, look)
        assert [len(line.text) for line in rows] == [32 + AXIS_WIDTH] * 3


def test_samples_too_many_for_a_column_each_are_folded_and_no_peak_is_lost() -> None:
    values = tuple(100.0 if i == 17 else 1.0 for i in range(240))
    folded = {fold: plotted(Chart(values, 0.5, NOW), 30, fold) for fold in Fold}
    assert max(value for value in folded[Fold.MAX].values if value is not None) == 100.0
    counted = sum(value for value in folded[Fold.SUM].values if value is not None)
    assert sum(values) - folded[Fold.SUM].per_column < counted <= sum(values)  # the oldest column may not be whole
    assert all(len(plot.values) <= 30 for plot in folded.values())
    assert folded[Fold.MEAN].column_s == 4.0


@given(st.integers(1, 300), st.integers(1, 120), st.integers(0, 40), st.sampled_from([Fold.MAX, Fold.MEAN]))
def test_a_column_keeps_its_value_while_time_goes_on(count: int, width: int, later: int, fold: Fold) -> None:
    tape = [float((i * 7919) % 101) for i in range(count + later)]
    before = plotted(Chart(tuple(tape[:count]), 0.5, NOW), width, fold)
    after = plotted(Chart(tuple(tape[later:]), 0.5, NOW + later * 0.5), width, fold)

    def by_time(plot: Plot) -> dict[float, float | None]:
        inner = range(plot.pad + 1, plot.width - 1)  # the first and the last column are not whole
        return {plot.first + column - plot.pad: plot.value_at(column) for column in inner}

    seen, now = by_time(before), by_time(after)
    assert all(seen[time] == now[time] for time in seen.keys() & now.keys())


def test_a_column_is_a_gap_only_where_nothing_at_all_is_known() -> None:
    plot = plotted(Chart((1.0, None, None, None, 5.0, math.nan), 1.0, NOW + 1), 3)
    assert plot.values == (1.0, None, 5.0)


@pytest.mark.parametrize("height", [1, 2, 5])
def test_the_time_cursor_stands_in_every_row_and_its_value_at_the_axis(height: int) -> None:
    values = tuple(float(i) for i in range(20))
    rows = spark_rows(plotted(Chart(values, 1.0, NOW, NOW - 6.2), 30), height, Range(0.0, 20.0), PLAIN)
    assert {line.text.index("│") for line in rows} == {29 - 6}
    assert [text.strip() for line in rows for text, token in line.spans if token == "cursor" and text != "│"] == ["13"]


def test_the_time_cursor_is_seen_where_nothing_was_known_and_not_drawn_outside_the_chart() -> None:
    def drawn_at(cursor: float) -> str:
        chart = Chart((1.0, None, 3.0), 1.0, NOW, cursor)
        return spark_rows(plotted(chart, 8), 1, Range(0.0, 4.0), PLAIN)[0].text

    assert drawn_at(NOW - 1) == "     ▂│▆ ·      "
    assert drawn_at(NOW - 5)[2] == "│"
    assert "│" not in drawn_at(NOW - 60)
    assert "│" not in drawn_at(NOW + 60)


def test_the_extremes_of_a_tall_chart_are_marked_with_their_values() -> None:
    values = (5.0, 5.0, 9.0, 5.0, 2.0, 5.0)
    rows = [line.text for line in spark_rows(plotted(Chart(values), 6), 5, Range(0.0, 10.0), PLAIN)]
    assert rows[0][2] == "█" or "▾" in rows[0]
    assert rows[-1][4] == "▴"
    assert rows[1].endswith(" ▾9     ")
    assert rows[3].endswith(" ▴2     ")
    flat = spark_rows(plotted(Chart((5.0, 5.0)), 6), 5, Range(0.0, 10.0), PLAIN)
    assert not any(mark in line.text for line in flat for mark in "▾▴")


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e14, max_value=1e14))
def test_an_axis_label_is_never_too_long_for_its_axis(value: float) -> None:
    for kind in (RTT, TRADES, LOSS, OVERFLOWS, SCALE):
        said = kind.look.say(abs(value) if kind is not LOSS else value)
        assert len(said.replace(" ", "")) < AXIS_WIDTH - 1 or not 0.05 <= abs(value) < 1e12 or kind is LOSS


@given(st.integers(1, 300), st.integers(1, 120), st.integers(0, 10**10), st.sampled_from(list(Fold)))
def test_no_column_of_a_full_series_is_a_gap(count: int, width: int, until: int, fold: Fold) -> None:
    plot = plotted(Chart((1.0,) * count, 0.5, until / 3), width, fold)
    assert plot.values
    assert None not in plot.values
    assert len(plot.values) <= width


@given(st.integers(2, 400), st.integers(1, 200), st.sampled_from(Fold), st.integers(0, 10**6))
def test_while_time_goes_on_the_left_edge_stands_still(count: int, width: int, fold: Fold, second: int) -> None:
    """A first column that comes and goes with the seconds would be painted anew with each of them."""
    plots = [plotted(Chart((1.0,) * count, 1.0, float(second + later)), width, fold) for later in range(5)]
    assert len({plot.pad for plot in plots}) == 1
    assert all(value is not None for plot in plots for value in plot.values)
