"""Panes as functions: what stands on the screen for what is in a snapshot."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
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
from quantai_tui.ui.cells import Row, clip, fitted, row, wrap
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.panes.market import wholeness
from quantai_tui.ui.panes.states import STREAM_SIGNS, TRAINING_SIGNS
from quantai_tui.ui.themes import TOKENS
from quantai_tui.ui.view import View

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
    assert "52.1 %  +1.2 pp over persistence" in text
    assert "majority 50.2 %  persistence 50.9 %" in text
    worse = training_snapshot(accuracy=0.49, majority_accuracy=0.55, baseline_accuracy=0.55)
    assert "49.0 %  -6.0 pp to majority" in drawn("training", engine_snapshot(training=worse))


def test_a_loss_that_is_not_finite_is_named() -> None:
    text = drawn("training", engine_snapshot(training=training_snapshot(loss=math.nan, nonfinite_loss=3)))
    assert "loss NaN" in text
    assert "3 NaN or Inf" in text


def test_the_scale_at_its_cap_is_said_and_the_cap_is_marked_on_the_line() -> None:
    at_cap = training_snapshot(scale=100_000.0)
    full = engine_snapshot(training=at_cap, series={"scale": series(1.0, 50_000.0, 100_000.0)})
    text = drawn("scale", full)
    assert "100 % of cap 100,000  AT THE CAP" in text
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
    spec = PANES[index]
    rows = spec.draw(view, width, height)
    assert len(rows) <= height
    for line in (*rows, *(spec.page(view, width, height) if spec.page is not None else ())):
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


@given(st.text("ab 0123456789.,:", max_size=40), st.integers(0, 40))
def test_a_number_is_never_cut(text: str, width: int) -> None:
    whole = set(re.findall(r"[\d.,:]+", text))
    assert set(re.findall(r"[\d.,:]+", clip(text, width))) <= whole
