"""Panes as functions: what stands on the screen for what is in a snapshot."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from ui_stories import STORIES
from ui_support import NOW, alert, backoff_snapshot, engine_snapshot, series, stream_snapshot, training_snapshot

from quantai_tui.link.base import LinkState
from quantai_tui.telemetry import (
    BadFrame,
    EngineSnapshot,
    GapSnapshot,
    RecordingSnapshot,
    StateChangeSnapshot,
    StoreSnapshot,
    StreamSnapshot,
    StreamState,
    SymbolSnapshot,
    TrainingSnapshot,
    TrainingState,
)
from quantai_tui.ui import format as fmt
from quantai_tui.ui.cells import Pace, Row, clip, fitted, row, wrap
from quantai_tui.ui.layout import plan
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.panes.charts import LOSS, OVERFLOWS, RTT, SCALE, TRADES
from quantai_tui.ui.panes.market import wholeness
from quantai_tui.ui.panes.states import STREAM_SIGNS, TRAINING_SIGNS
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
from quantai_tui.ui.themes import TOKENS
from quantai_tui.ui.view import Chart, View

DRAWN = {spec.id: spec.draw for spec in PANES}


def drawn(pane: str, snapshot: EngineSnapshot | None, width: int = 58, height: int = 8) -> str:
    view = View(snapshot, LinkState.ATTACHED, now=NOW)
    return "\n".join(line.text for line in DRAWN[pane](view, width, height))


def symbol(**changes: object) -> SymbolSnapshot:
    return msgspec.structs.replace(SymbolSnapshot(last_id=10, complete_through_id=10, stored=10, price="1.5"), **changes)


@pytest.mark.parametrize(
    ("state", "repairing", "words"),
    [
        (symbol(), False, "whole"),
        (symbol(missing=132), True, "missing 132, repairing"),
        (symbol(missing=1_320), False, "missing 1,320, repair pending"),
        (symbol(subscription="silent"), False, "silent"),
        (symbol(subscription="refused", missing=3), True, "refused, missing 3"),
        (symbol(subscription="acknowledged"), False, "whole"),
        (symbol(repaired=132), False, "whole, 132 repaired"),
        (symbol(unrecoverable=4), False, "4 lost for good"),
        (symbol(last_id=None), False, "no trade yet"),
    ],
)
def test_whether_the_tape_has_holes_is_said_in_words(state: SymbolSnapshot, repairing: bool, words: str) -> None:
    assert wholeness(state, repairing)[0] == words


def test_a_training_worker_that_knows_nothing_yet_shows_no_zeros() -> None:
    nothing = engine_snapshot(training=TrainingSnapshot(state=TrainingState.STARTING, detail="importing torch"), series={})
    for pane in ("training", "scale", "overflow"):
        text = drawn(pane, nothing)
        assert "–" in text  # noqa: RUF001
        assert "0.0" not in text
    assert "importing torch" in drawn("training", nothing)


def test_both_baselines_are_named_and_the_better_one_is_compared_with() -> None:
    text = drawn("training", engine_snapshot())
    assert "52.1 %  +1.2 over persistence" in text
    assert "majority 50.2 %  persistence 50.9 %" in text
    worse = training_snapshot(accuracy=0.49, majority_accuracy=0.55, baseline_accuracy=0.55)
    assert "49.0 %  -6.0 to majority" in drawn("training", engine_snapshot(training=worse))


def test_a_loss_that_is_not_finite_is_named() -> None:
    text = drawn("training", engine_snapshot(training=training_snapshot(loss=math.nan, nonfinite_loss=3)))
    assert "loss NaN" in text
    assert "3 NaN or Inf" in text


def test_the_scale_at_its_cap_is_said_and_the_cap_is_marked_on_the_line() -> None:
    at_cap = training_snapshot(scale=100_000.0)
    full = engine_snapshot(training=at_cap, series={"scale": series(1.0, 50_000.0, 100_000.0)})
    text = drawn("scale", full)
    assert "100,000  AT THE CAP  100 % of cap 100,000" in text
    assert "┄ cap" in text
    assert text.splitlines()[1].count("┄") > 20


def test_the_backoff_shows_cause_and_advice_also_where_there_are_three_rows() -> None:
    lines = drawn("backoff", backoff_snapshot(), 38, 3).splitlines()
    assert lines[0].startswith("attempt 3 of 10  next in 2 s   ━")
    assert lines[1].startswith("refused: [Errno 111] Connect call")
    assert lines[2].startswith("Check the network of this machine")


@pytest.mark.parametrize(
    ("state", "attempt", "words"),
    [
        (StreamState.LIVE, 1, "no wait"),  # the attempt that led here may still be counted
        (StreamState.CONNECTING, 2, "attempt 2 of 10  dialling"),
        (StreamState.HANDSHAKING, 0, "first dial  dialling"),
        (StreamState.FAILED, 10, "retries used up"),
    ],
)
def test_dialling_is_said_only_while_it_is_so(state: StreamState, attempt: int, words: str) -> None:
    snapshot = engine_snapshot(stream=stream_snapshot(state=state, attempt=attempt))
    assert drawn("backoff", snapshot).splitlines()[0] == words


def test_the_countdown_bar_runs_down() -> None:
    filled = []
    for left in (4.0, 3.0, 1.0, 0.0):
        stream = stream_snapshot(state=StreamState.BACKOFF, attempt=1, backoff_remaining_s=left, backoff_total_s=4.0)
        filled.append(drawn("backoff", engine_snapshot(stream=stream), 40, 5).count("━"))
    assert filled == [40, 30, 10, 0]


def test_a_planted_burst_is_said_to_be_planted() -> None:
    planted = training_snapshot(planted="demo: an overflow burst is planted every 5 minutes")
    assert "burst is planted" in drawn("overflow", engine_snapshot(training=planted))


def test_a_disk_that_is_behind_is_said() -> None:
    behind = engine_snapshot(store=StoreSnapshot(size_bytes=1, queued=80_000, paused=True))
    assert "disk behind, 80,000 queued: reading slower" in drawn("market", behind)


def test_more_symbols_than_rows_are_counted() -> None:
    symbols = {f"COIN{i}USDT": symbol() for i in range(9)}
    text = drawn("market", engine_snapshot(stream=stream_snapshot(symbols=symbols)), 38, 4)
    assert "and 7 more: z shows them" in text
    assert "store" in text


def test_reconnects_are_listed_newest_first() -> None:
    lines = drawn("reconnects", engine_snapshot(), 90).splitlines()
    assert lines[0].split() == ["time", "outcome", "cause", "waited", "lasted"]
    assert lines[1].split()[:4] == ["21:45:00", "✓", "ok", "timeout"]
    assert lines[3].split()[:4] == ["21:30:00", "✗", "failed", "network"]
    assert "Connection reset by peer" in lines[3]


def test_every_state_has_a_sign_and_a_word() -> None:
    assert set(STREAM_SIGNS) == set(StreamState)
    assert set(TRAINING_SIGNS) == set(TrainingState)
    for snapshot_of, pane in ((stream_snapshot, "connection"), (training_snapshot, "training")):
        states = STREAM_SIGNS if pane == "connection" else TRAINING_SIGNS
        for state in states:
            key = "stream" if pane == "connection" else "training"
            text = drawn(pane, engine_snapshot(**{key: snapshot_of(state=state)}))
            assert fmt.words(state.value).upper() in text
    assert len({glyph for glyph, _ in STREAM_SIGNS.values()}) == len(STREAM_SIGNS)


@given(
    width=st.integers(26, 200),
    height=st.integers(1, 40),
    index=st.integers(0, len(PANES) - 1),
    which=st.sampled_from(["none", "live", "backoff", "empty", "trouble"]),
)
def test_no_pane_draws_outside_its_room_or_uses_an_unknown_colour(width: int, height: int, index: int, which: str) -> None:
    snapshots = {
        "none": None,
        "live": engine_snapshot(alerts=(alert(),)),
        "backoff": backoff_snapshot(),
        "empty": EngineSnapshot(),
        "trouble": engine_snapshot(stream=all_trouble()),
    }
    view = View(snapshots[which], LinkState.ATTACHED, detail="why\nbecause", now=NOW)
    rows = PANES[index].draw(view, width, height)
    assert len(rows) <= height
    for line in rows:
        assert len(line.text) <= width, line.text
        assert {token.removesuffix("-area") for _, token in line.spans} <= {"text", *TOKENS}


def all_trouble() -> StreamSnapshot:
    gaps = tuple(GapSnapshot(i * 10**9, i * 10**9 + 5, "a cause that is long " * 3, NOW) for i in range(1, 6))
    return stream_snapshot(
        state=StreamState.ROTATING,
        cause="the connection is old " * 5,
        transport="websockets",
        tls_cipher="TLS_AES_256_GCM_SHA384",
        tls_issuer="An Authority " * 9,
        certificate_days=3.0,
        banned_for_s=3_000.0,
        ban_reason="HTTP 418 " * 9,
        dials_left=3,
        rest_weight=5_999,
        rotations=4,
        rotates_in_s=1.0,
        probes=7,
        successor="second connection: websocket upgrade",
        consumer_lag_ms=1e6,
        loop_lag_ms=1e5,
        paused_s=12.0,
        suspends=2,
        bad_frames=123_456,
        quarantine=tuple(BadFrame(NOW, "no JSON " * 9, "x" * 160) for _ in range(20)),
        changes=tuple(StateChangeSnapshot(NOW, state, "why " * 30) for state in StreamState),
        recording=RecordingSnapshot("/data/" + "x" * 90, 10**9, 10**9, 10**7, 1e5),
        symbols={
            "1000000BABYDOGEUSDT": symbol(
                missing=10**6,
                gaps=9,
                open_gaps=gaps,
                subscription="silent",
                subscription_note="why " * 40,
                price="0.0000000123456",
            )
        },
    )


PLAIN = Look("spark-rtt", fmt.brief)


def test_a_gap_in_a_series_is_shown_as_a_gap() -> None:
    (line,) = spark_rows(plotted(Chart((1.0, None, 10.0)), 3), 1, Range(0.0, 10.0), PLAIN)
    assert line.text.rstrip() == "▂·█"
    assert line.pace is Pace.LINE


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


@pytest.mark.parametrize(
    ("size", "panes", "boxed"),
    [((80, 24), 12, False), ((120, 40), 13, True), ((200, 50), 13, True), ((50, 15), 2, False), ((80, 19), 2, False)],
)
def test_the_plan_covers_the_screen_without_overlap(size: tuple[int, int], panes: int, boxed: bool) -> None:
    arrangement = plan(*size)
    assert len(arrangement.regions) == panes
    assert arrangement.boxed is boxed
    cells = [(x, y) for region in arrangement.regions.values() for y in region.line_range for x in region.column_range]
    assert len(cells) == len(set(cells)) == size[0] * size[1]


@given(st.integers(60, 320), st.integers(20, 120))
def test_the_plan_fits_every_size(width: int, height: int) -> None:
    arrangement = plan(width, height)
    assert sum(region.area for region in arrangement.regions.values()) == width * height
    assert (
        min(region.height for name, region in arrangement.regions.items() if name not in ("header", "alerts", "status", "footer"))
        >= 3
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (fmt.duration(None), "–"),  # noqa: RUF001
        (fmt.duration(45.9), "45 s"),
        (fmt.duration(125), "2m 05s"),
        (fmt.duration(11_040), "3h 04m"),
        (fmt.duration(1_047_600), "12d 03h"),
        (fmt.age(0.4), "<1 s"),
        (fmt.countdown(0.2), "1 s"),
        (fmt.countdown(0.0), "0 s"),
        (fmt.delay(2.34), "2.3 s"),
        (fmt.decimal(0.68124), "0.6812"),
        (fmt.decimal(math.inf), "Inf"),
        (fmt.decimal(1e-7), "1.0e-07"),
        (fmt.quantity(65_536.0), "65,536"),
        (fmt.quantity(1.0), "1"),
        (fmt.short(65_536), "65.5k"),
        (fmt.percent(0.004), "0.4 %"),
        (fmt.percent(0.00001), "<0.1 %"),
        (fmt.percent(None), "–"),  # noqa: RUF001
        (fmt.per_second(18.24), "18.2 /s"),
        (fmt.size(128_400_000), "128 MB"),
        (fmt.price("2281.65000000"), "2281.65"),
        (fmt.price("0.00001230"), "0.0000123"),
        (fmt.price("65000.00000000"), "65000.00"),
        (fmt.price("12"), "12"),
        (fmt.words("SSL_ERROR"), "ssl error"),
        (fmt.wall_clock(NOW), "00:00:00"),
        (fmt.zone(NOW), "UTC"),
        (fmt.clean("a\x1b[2Jb\u200bc\td"), "a[2Jbc d"),
    ],
)
def test_numbers_and_times_have_a_fixed_shape(said: str, expected: str) -> None:
    assert said == expected


@given(st.text(max_size=60), st.integers(0, 30))
def test_clipped_text_fits_whatever_it_is(text: str, width: int) -> None:
    assert cell_len(clip(fmt.clean(text), width)) <= width
    assert all(cell_len(line) <= max(width, 1) for line in wrap(fmt.clean(text), max(width, 1), 3))


def test_what_does_not_fit_is_left_out_whole_and_only_the_first_is_cut() -> None:
    assert fitted(20, [("abcdefgh", "text")], [("123456789012", "text")], [("xy", "text")]).text == "abcdefgh  xy"
    assert fitted(5, [("abcdefgh", "text")]).text == "abcd…"
    assert fitted(9) == Row() == row()


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


@given(st.text("ab 0123456789.,:", max_size=40), st.integers(0, 40))
def test_a_number_is_never_cut(text: str, width: int) -> None:
    whole = set(re.findall(r"[\d.,:]+", text))
    assert set(re.findall(r"[\d.,:]+", clip(text, width))) <= whole


SIZES = [(60, 20), (61, 21), (79, 23), (80, 24), (100, 30), (116, 36), (120, 40), (132, 43), (176, 44), (200, 50), (250, 70)]


def numbers(text: str) -> set[str]:
    return {number.rstrip(".,:") for number in re.findall(r"\d[\d.,:]*", text)}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("story", STORIES)
def test_at_every_size_every_pane_of_every_story_is_whole(size: tuple[int, int], story: str) -> None:
    snapshot = STORIES[story]()
    view = View(snapshot, LinkState.ATTACHED, now=NOW)
    faces = {spec.id: [draw for draw in (spec.draw, spec.page) if draw is not None] for spec in PANES}
    whole = {
        name: {number for draw in draws for line in draw(view, 600, 60) for number in numbers(line.text)}
        for name, draws in faces.items()
    }
    for zoomed in ("", *(spec.id for spec in PANES if spec.page is not None)):
        arrangement = plan(*size, zoomed)
        for spec in PANES:
            region = arrangement.regions.get(spec.id)
            if region is None or spec.id == "footer" or (zoomed and spec.id != zoomed):
                continue
            width = region.width - (4 if arrangement.boxed and spec.title else 2)
            height = region.height - ((2 if arrangement.boxed else 1) if spec.title else 0)
            rows = spec.page(view, width, height) if zoomed and spec.page else spec.draw(view, width, height)
            assert zoomed or len(rows) <= height, spec.id
            for line in rows:
                assert cell_len(line.text) <= width, (spec.id, line.text)
                assert "…" not in line.text or numbers(line.text) <= whole[spec.id], (spec.id, line.text)
                assert {token.removesuffix("-area") for _, token in line.spans} <= {"text", *TOKENS}


@given(st.integers(1, 300), st.integers(1, 120), st.integers(0, 10**10), st.sampled_from(list(Fold)))
def test_no_column_of_a_full_series_is_a_gap(count: int, width: int, until: int, fold: Fold) -> None:
    plot = plotted(Chart((1.0,) * count, 0.5, until / 3), width, fold)
    assert plot.values
    assert None not in plot.values
    assert len(plot.values) <= width
