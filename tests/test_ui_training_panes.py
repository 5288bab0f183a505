"""The panes of training: what stands there for a verdict, a pause, a checkpoint, an overflow, a card, a rank, at every width."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from ui_support import NOW, engine_snapshot
from ui_training_stories import (
    REASON,
    STUCK,
    explained,
    explained_snapshot,
    gpu,
    many_ranks_snapshot,
    paused_snapshot,
    rank,
)

from quantai_tui.link.base import LinkState
from quantai_tui.telemetry import (
    OVERFLOW_CAUSES,
    TOO_HOT,
    CheckpointSnapshot,
    EngineSnapshot,
    OverflowSnapshot,
    TrainingSnapshot,
    TrainingState,
)
from quantai_tui.ui.format import clean
from quantai_tui.ui.help import help_text
from quantai_tui.ui.panes import PANES
from quantai_tui.ui.themes import TOKENS
from quantai_tui.ui.view import View

DRAWN = {spec.id: spec.draw for spec in PANES}
PAGES = {spec.id: spec.page for spec in PANES if spec.page is not None}
SMALLEST = (28, 4)  # training at 60x20
NARROW = (38, 5)  # at 80x24
BOX = (56, 8)  # at 120x40
WIDE = (62, 15)  # at 200x50
ZOOMED = (76, 18)  # at 80x24


def rows(pane: str, snapshot: EngineSnapshot, size: tuple[int, int]) -> list[str]:
    drawn = DRAWN[pane](View(snapshot, LinkState.ATTACHED, now=NOW), *size)
    assert len(drawn) <= size[1]
    assert all(len(line.text) <= size[0] for line in drawn)
    return [line.text for line in drawn]


def text(pane: str, size: tuple[int, int], **training: object) -> str:
    return "\n".join(rows(pane, explained_snapshot(**training), size))


def tokens(pane: str, size: tuple[int, int], words: str, **training: object) -> set[str]:
    view = View(explained_snapshot(**training), LinkState.ATTACHED, now=NOW)
    return {token for line in DRAWN[pane](view, *size) for said, token in line.spans if words in said}


def test_all_three_baselines_stand_beside_the_accuracy_at_every_width_from_80_columns_on() -> None:
    assert "majority 50.2 %  persistence 50.9 %  logistic 51.2 %" in text("training", BOX)
    assert "maj 50.2 %  pers 50.9 %  logit 51.2 %" in text("training", NARROW)
    assert "accuracy 52.1 %  +1.0 pp over logistic" in text("training", BOX)
    for word in ("maj", "pers", "logit"):
        assert f"\n {word} " in help_text().plain


def test_before_there_is_a_logistic_regression_nothing_is_said_of_one() -> None:
    assert "logi" not in text("training", BOX, logistic_accuracy=None, baseline_accuracy=0.5092)
    assert "majority 50.2 %  persistence 50.9 %" in text("training", NARROW, logistic_accuracy=None)


@pytest.mark.parametrize(
    ("p", "words", "token"),
    [
        (0.0031, "better than its baselines (p 0.003)", "state-live"),
        (0.00002, "better than its baselines (p <0.001)", "state-live"),
        (0.049, "better than its baselines (p 0.049)", "state-live"),
        (0.05, "not better than its baselines (p 0.050)", "alert-warning"),
        (0.41, "not better than its baselines (p 0.41)", "alert-warning"),
    ],
)
def test_whether_it_beats_its_baselines_is_said_in_words(p: float, words: str, token: str) -> None:
    assert words in rows("training", explained_snapshot(better_p=p), BOX)
    assert tokens("training", BOX, "better than its baselines", better_p=p) == {token}


def test_a_lead_that_may_be_luck_is_not_shown_in_the_colour_of_success() -> None:
    assert tokens("training", NARROW, "+1.0 pp", better_p=0.003) == {"state-live"}
    assert tokens("training", NARROW, "+1.0 pp", better_p=0.3) == {"text"}
    assert "accuracy 52.1 %  +1.0 pp  p 0.30" in text("training", NARROW, better_p=0.3)
    assert tokens("training", BOX, "-2.0", accuracy=0.4917) == {"alert-warning"}


def test_nothing_is_said_of_a_test_that_has_not_been_made() -> None:
    said = text("training", WIDE, better_p=None, log_loss=None, calibration_error=None)
    assert "baselines" not in said
    assert "log loss" not in said


def test_log_loss_stands_beside_the_baselines_and_calibration_beside_both() -> None:
    assert "log loss 0.6891  baseline 0.6931  ece 2.1 %" in text("training", BOX)
    assert "log loss 0.6891  baseline –  ece –" in text(  # noqa: RUF001
        "training", BOX, baseline_log_loss=None, calibration_error=None
    )


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (None, "checkpoint none yet"),
        (CheckpointSnapshot("/a/b.pt", 11_000, NOW - 200), "checkpoint step 11,000  3 min ago"),
        (CheckpointSnapshot("/a/b.pt", 900, NOW - 9_000, True), "checkpoint step 900  2 h ago  training went on from it"),
        (CheckpointSnapshot("/a/b.pt", 900, NOW + 9), "checkpoint step 900  <1 min ago"),
    ],
)
def test_the_last_checkpoint_is_told_with_its_age_and_whether_training_went_on_from_it(
    checkpoint: CheckpointSnapshot | None, words: str
) -> None:
    assert words in rows("training", explained_snapshot(checkpoint=checkpoint), WIDE)


@pytest.mark.parametrize("size", [BOX, WIDE, ZOOMED])
def test_a_pause_that_training_made_itself_is_told_in_full_right_below_the_state(size: tuple[int, int]) -> None:
    lines = rows("training", paused_snapshot(), size)
    assert lines[0].startswith("‖ PAUSED  by itself")
    told = " ".join(lines[1:6])
    assert " ".join(told.split()).startswith(STUCK)
    assert tokens("training", size, "10 overflows", paused_because=STUCK) == {"alert-critical"}


@pytest.mark.parametrize("size", [SMALLEST, NARROW])
def test_on_a_small_screen_a_pause_takes_all_the_room_there_is(size: tuple[int, int]) -> None:
    lines = rows("training", paused_snapshot(), size)
    assert lines[0].startswith("‖ PAUSED  by itself")
    assert STUCK.startswith(" ".join(lines[1:-1]))
    assert len(lines) == size[1]


def test_among_all_alerts_a_long_one_is_told_to_its_end() -> None:
    page = PAGES["alerts"](View(paused_snapshot(), LinkState.ATTACHED, now=NOW), 78, 20)
    said = " ".join(" ".join(line.text for line in page).split())
    assert "■ CRITICAL since" in said
    assert f"training has paused itself: {STUCK}" in said
    assert "space goes on, R resets the scale" in said


def test_a_pause_of_the_operator_is_only_a_pause() -> None:
    said = text("training", WIDE, state=TrainingState.PAUSED, detail="paused by the operator")
    assert "by itself" not in said
    assert "paused by the operator" in said


def test_device_precision_and_why_are_told_where_there_is_room() -> None:
    assert "cuda:0 fp16" in text("training", NARROW)
    assert REASON in text("training", ZOOMED)
    assert "\x1b" not in text("training", ZOOMED, reason="because\x1b[2J")


def test_a_card_is_told_with_load_heat_memory_and_power() -> None:
    assert "▶ H100 80GB HBM3  97 %  66 °C  61.2/85.9 GB  612/700 W" in rows("training", explained_snapshot(), ZOOMED)
    hot = gpu(throttle=("power limit", f"{TOO_HOT} (driver)"), ecc_errors=3, used_by_worker=False)
    (line,) = [line for line in rows("training", explained_snapshot(gpus=(hot,)), ZOOMED) if "H100" in line]
    assert line.startswith("  H100 80GB HBM3  97 %  66 °C  too hot (driver)  3 ecc  61.2/85.9 GB")
    assert tokens("training", ZOOMED, "too hot", gpus=(hot,)) == {"alert-warning"}


def test_what_a_card_does_not_tell_is_not_known_and_never_zero() -> None:
    nothing = gpu(
        utilisation=None,
        memory_used_bytes=None,
        memory_total_bytes=None,
        temperature_c=None,
        power_w=None,
        power_limit_w=None,
        ecc_errors=None,
    )
    assert "▶ H100 80GB HBM3  – %  – °C  – GB  – W" in rows("training", explained_snapshot(gpus=(nothing,)), ZOOMED)  # noqa: RUF001
    half = gpu(memory_used_bytes=None, power_limit_w=None)
    assert "–/85.9 GB  612/– W" in text("training", ZOOMED, gpus=(half,))  # noqa: RUF001


def test_without_cards_the_reason_stands_in_their_place_and_before_that_is_known_a_dash() -> None:
    assert "gpu n/a: no NVIDIA driver" in rows("training", explained_snapshot(gpus=(), gpu_note="n/a: no NVIDIA driver"), ZOOMED)
    assert "gpu –" in rows("training", explained_snapshot(gpus=()), ZOOMED)  # noqa: RUF001


def test_cards_in_trouble_come_first_and_those_without_room_are_counted() -> None:
    cards = tuple(gpu(index, name=f"NVIDIA A{index}") for index in range(8))
    cards = (*cards[:6], msgspec.structs.replace(cards[6], ecc_errors=1), cards[7])
    lines = [line for line in rows("training", explained_snapshot(gpus=cards), ZOOMED) if " A" in line or "GPUs" in line]
    assert "A6" in lines[0]
    assert "1 ecc" in lines[0]
    assert lines[-1] == f"and {8 - (len(lines) - 1)} more GPUs"
    assert len([line for line in rows("training", explained_snapshot(gpus=cards), (76, 40)) if " A" in line]) == 8


def test_several_cards_are_told_apart_by_their_uuid() -> None:
    said = text("training", (90, 30), gpus=(gpu(0), gpu(1)))
    assert "0a2b3c4d" in said
    assert "1a2b3c4d" in said
    assert "0a2b3c4d" not in text("training", (90, 30))


def test_the_ranks_are_a_table_with_the_slow_one_first_and_marked() -> None:
    lines = rows("training", many_ranks_snapshot(), (76, 30))
    head = next(index for index, line in enumerate(lines) if "ms/step" in line)
    assert lines[head].split() == ["rank", "ms/step", "overflows", "device", "step", "host"]
    assert lines[head + 1].split() == ["◆", "2", "41.7", "12", "cuda:0", "11,340", "trainer-b"]
    assert [line.split()[0] for line in lines[head + 2 : head + 5]] == ["0", "1", "3"]
    assert "GPU 3 fell off the bus" in lines


def test_a_slow_rank_is_named_where_there_is_no_room_for_a_table() -> None:
    slow = (rank(0), rank(1, straggler=True))
    assert "ranks 2  rank 1 slow" in text("training", (56, 10), ranks=slow)
    assert "slow" not in text("training", (56, 10), ranks=(rank(0), rank(1)))


def test_a_rank_that_has_not_been_timed_has_no_time() -> None:
    lines = rows("training", explained_snapshot(ranks=(rank(0, step_ms=None), rank(1))), (76, 30))
    assert any(line.split()[:2] == ["0", "–"] for line in lines)  # noqa: RUF001


@pytest.mark.parametrize("size", [(38, 4), (55, 5), (56, 7), (63, 17)])
def test_headroom_and_underflow_stand_beside_the_scale(size: tuple[int, int]) -> None:
    said = text("scale", size)
    assert "headroom 3.2" in said
    assert "underflow 0.002 %" in said
    unknown = text("scale", size, headroom_octaves=None, underflow_share=None)
    assert "headroom –" in unknown  # noqa: RUF001
    assert "underflow –" in unknown  # noqa: RUF001
    assert "resets 2" in said


@pytest.mark.parametrize(
    ("octaves", "share", "words"),
    [
        (-0.04, 0.0, "headroom 0.0 octaves  underflow 0 %"),
        (-2.5, 1e-9, "headroom -2.5 octaves  underflow <0.001 %"),
        (0.0, 0.25, "headroom 0.0 octaves  underflow 25.0 %"),
        (12.0, 0.0001, "headroom 12.0 octaves  underflow 0.010 %"),
    ],
)
def test_headroom_is_told_to_a_tenth_and_underflow_as_finely_as_it_matters(octaves: float, share: float, words: str) -> None:
    assert words in rows("scale", explained_snapshot(headroom_octaves=octaves, underflow_share=share), (56, 7))


@pytest.mark.parametrize("cause", OVERFLOW_CAUSES)
@pytest.mark.parametrize("size", [(28, 3), (38, 4), (56, 6), (63, 13), (76, 18)])
def test_every_cause_of_an_overflow_is_said_in_words_at_every_size(cause: str, size: tuple[int, int]) -> None:
    last = OverflowSnapshot(NOW - 9, 812, cause, ("head.weight",), "what was found")
    said = text("overflow", size, last_overflow=last, overflow_causes={cause: 3})
    assert OVERFLOW_CAUSES[cause].name in said
    assert ("in head.weight" in said) == (size[1] >= 4)
    if size[1] >= 12:
        assert "what was found" in said
        assert OVERFLOW_CAUSES[cause].brief in said


def test_causes_are_counted_and_one_that_this_version_does_not_know_is_said_as_it_is() -> None:
    lines = rows("overflow", explained_snapshot(overflow_causes={"magic\x1b": 2, "target": 1, "scale": 11}), ZOOMED)
    counted = lines[lines.index("causes") + 1 :]
    assert [line.split()[:3] for line in counted] == [["scale", "too", "high"], ["target", "or", "loss"], ["magic", "2"]]


def test_as_many_guilty_parameters_are_named_as_fit() -> None:
    assert "in head.2.weight, head.2.bias and 1 more" in rows("overflow", explained_snapshot(), (56, 6))
    assert "in head.2.weight and 2 more" in rows("overflow", explained_snapshot(), (38, 4))
    long = OverflowSnapshot(NOW, 1, "scale", ("encoder.layers.11.self_attention.in_projection.weight",))
    assert rows("overflow", explained_snapshot(last_overflow=long), (38, 4))[-1].endswith("…")


def test_a_planted_burst_is_still_said_to_be_planted_on_a_small_screen() -> None:
    said = text("overflow", (38, 4), planted="demo: a burst is planted")
    assert "a burst is planted" in said
    assert "scale too high" in said


def test_an_engine_that_explains_nothing_shows_no_zeros() -> None:
    bare = engine_snapshot(training=TrainingSnapshot(state=TrainingState.STARTING), series={})
    for pane in ("training", "scale", "overflow"):
        for size in (SMALLEST, NARROW, BOX, WIDE, ZOOMED):
            said = "\n".join(rows(pane, bare, size))
            assert "0.0" not in said, said
            assert "None" not in said


CLEAN = {
    "training": [SMALLEST, NARROW, (54, 8), BOX, (54, 12), WIDE, (56, 14), ZOOMED, (116, 34), (196, 44)],
    "scale": [(28, 3), (38, 4), (54, 5), (56, 7), (63, 17), ZOOMED],
    "overflow": [(28, 3), (38, 4), (54, 4), (56, 6), (63, 13), ZOOMED],
}


@pytest.mark.parametrize(("pane", "size"), [(pane, size) for pane, sizes in CLEAN.items() for size in sizes])
def test_nothing_is_cut_at_any_size_of_screen(pane: str, size: tuple[int, int]) -> None:
    for story in (explained_snapshot(), many_ranks_snapshot(), *([paused_snapshot()] if size[0] > 50 else [])):
        for line in rows(pane, story, size):
            assert "…" not in line, line


TEXT = st.text(max_size=90)
WHOLE = st.one_of(st.none(), st.integers(0, 10**13))
SOME = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
CARD = st.builds(
    gpu,
    st.integers(0, 9),
    name=TEXT,
    utilisation=SOME,
    memory_used_bytes=WHOLE,
    temperature_c=st.one_of(st.none(), st.floats(-50, 200)),
    power_w=st.one_of(st.none(), st.floats(0, 1e5)),
    ecc_errors=WHOLE,
    throttle=st.lists(TEXT, max_size=4).map(tuple),
)
RANK = st.builds(rank, st.integers(0, 4095), host=TEXT, device=TEXT, step_ms=SOME, straggler=st.booleans())


@settings(deadline=None, max_examples=100)
@given(
    size=st.tuples(st.integers(26, 200), st.integers(1, 40)),
    pane=st.sampled_from(["training", "scale", "overflow", "alerts"]),
    cards=st.lists(CARD, max_size=9),
    ranks=st.lists(RANK, max_size=9),
    words=st.tuples(TEXT, TEXT, TEXT, TEXT),
    numbers=st.tuples(SOME, SOME, SOME),
    known=st.booleans(),
)
def test_whatever_is_told_no_pane_draws_outside_its_room(
    size: tuple[int, int],
    pane: str,
    cards: list[object],
    ranks: list[object],
    words: tuple[str, str, str, str],
    numbers: tuple[float | None, float | None, float | None],
    known: bool,
) -> None:
    cause, culprit, said, note = words
    training = explained(
        gpus=tuple(cards),
        gpu_note=note,
        ranks=tuple(ranks),
        paused_because=said if known else "",
        last_overflow=OverflowSnapshot(NOW, 10**12, cause, (culprit, "b" * 50, culprit), said),
        overflow_causes={cause: 10**9, "scale": 1},
        headroom_octaves=numbers[0],
        log_loss=numbers[1],
        better_p=numbers[2],
        planted=note,
        reason=said,
        checkpoint=CheckpointSnapshot(said, 10**12, 0.0, known) if known else None,
    )
    view = View(engine_snapshot(training=training), LinkState.ATTACHED, now=NOW)
    drawn = DRAWN[pane](view, *size)
    assert len(drawn) <= size[1]
    for line in (*drawn, *PAGES[pane](view, *size)):
        assert cell_len(line.text) <= size[0], line.text
        assert {token.removesuffix("-area") for _, token in line.spans} <= {"text", *TOKENS}
        assert clean(line.text) == line.text
