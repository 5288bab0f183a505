"""Features, labels and split: nothing looks ahead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_support import START_US, SYMBOL, config, random_bars, store_of

from quantai_tui.market import BarColumns
from quantai_tui.training import dataset
from quantai_tui.training.config import LIVE_FIELDS, WorkerConfig, changed_fields

WINDOW, HORIZON = 16, 5


def changed_after(bars: BarColumns, first: int) -> BarColumns:
    """The same bars, with another future from `first` on."""
    other = random_bars(len(bars.close), seed=99)
    return BarColumns(
        bars.open_time_us,
        *(np.concatenate((mine[:first], theirs[first:])) for mine, theirs in zip(bars[1:], other[1:], strict=True)),
    )


def test_another_future_changes_nothing_that_training_sees() -> None:
    bars = random_bars(1000)
    data = dataset.build(bars, WINDOW, HORIZON)
    last_label_needs = int(data.train.at[-1]) + HORIZON
    other = dataset.build(changed_after(bars, last_label_needs + 1), WINDOW, HORIZON)
    seen = slice(0, last_label_needs + 1)
    np.testing.assert_array_equal(data.features[seen], other.features[seen])
    np.testing.assert_array_equal(data.train.at, other.train.at)
    np.testing.assert_array_equal(data.train.labels, other.train.labels)
    assert not np.array_equal(data.validation.labels, other.validation.labels)


def test_a_feature_uses_its_own_bar_and_older_ones() -> None:
    bars = random_bars(300)
    np.testing.assert_array_equal(dataset.raw_features(bars)[:200], dataset.raw_features(changed_after(bars, 200))[:200])
    np.testing.assert_array_equal(dataset.raw_features(bars)[:200], dataset.raw_features(BarColumns(*(c[:200] for c in bars))))


def test_no_bar_of_a_training_label_is_in_a_window_of_the_validation_part() -> None:
    data = dataset.build(random_bars(1000), WINDOW, HORIZON)
    last_bar_of_a_label = data.train.at[-1] + HORIZON
    # The first row of a window holds a return, so it uses the close of the bar before it too.
    first_bar_of_a_window = data.validation.at[0] - WINDOW + 1 - 1
    assert last_bar_of_a_label < first_bar_of_a_window
    assert data.validation.at[-1] + HORIZON == 999
    assert data.train.at[0] - WINDOW + 1 == 1
    assert len(data.validation) == pytest.approx(0.2 * 1000, rel=0.05)


def test_a_third_of_the_training_part_is_flat_and_the_rest_follows_the_return() -> None:
    bars = random_bars(2000)
    data = dataset.build(bars, WINDOW, HORIZON)
    labels, at = data.train.labels, data.train.at
    assert np.mean(labels == dataset.FLAT) == pytest.approx(1 / 3, abs=0.01)
    move = np.log(bars.close[at + HORIZON] / bars.close[at])
    assert (move[labels == dataset.UP] > 0).all()
    assert (move[labels == dataset.DOWN] < 0).all()


def test_features_of_the_training_part_are_normalised_and_outliers_bounded() -> None:
    bars = random_bars(2000)
    bars.volume[1990] *= 1e9
    data = dataset.build(bars, WINDOW, HORIZON)
    fitted = data.features[1 : data.train.at[-1] + 1, :6]
    np.testing.assert_allclose(fitted.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(fitted.std(axis=0), 1.0, atol=0.05)
    assert np.abs(data.features).max() <= 8.0


def test_a_time_of_day_that_has_not_come_round_is_not_told() -> None:
    minute, day = 60_000_000, 1440
    bars = random_bars(4 * day)
    short = dataset.build(BarColumns(*(column[: 2 * day] for column in bars)), WINDOW, HORIZON)
    assert not short.features[:, 6:].any()
    long = dataset.build(bars, WINDOW, HORIZON)
    angle = 2 * np.pi * (bars.open_time_us // minute % day) / day
    np.testing.assert_allclose(long.features[:, 6:], np.stack((np.sin(angle), np.cos(angle)), axis=1), atol=1e-6)


def test_a_market_that_stands_still_is_flat_and_finite() -> None:
    bars = random_bars(500)
    still = np.full(500, 100.0)
    zero = np.zeros(500)
    data = dataset.build(BarColumns(bars.open_time_us, still, still, still, still, zero, zero, zero, zero), WINDOW, HORIZON)
    assert np.isfinite(data.features).all()
    assert (data.train.labels == dataset.FLAT).all()


def test_bars_found_later_in_the_past_do_not_move_validation_back_into_what_was_trained_on() -> None:
    bars = random_bars(2000)
    newest = BarColumns(*(column[1000:] for column in bars))
    before = dataset.build(newest, WINDOW, HORIZON)
    after = dataset.build(bars, WINDOW, HORIZON, before.validation_from_us)
    assert after.validation_from_us >= before.validation_from_us
    assert dataset.build(bars, WINDOW, HORIZON).validation_from_us < before.validation_from_us


def test_validation_begins_anew_where_all_bars_lie_before_where_it_began() -> None:
    bars = random_bars(2000)
    older = BarColumns(*(column[:600] for column in bars))
    for not_before in (900, 599, 598, 595):
        data = dataset.build(older, WINDOW, HORIZON, int(bars.open_time_us[not_before]))
        assert data.validation_from_us == dataset.build(older, WINDOW, HORIZON).validation_from_us
    assert len(dataset.build(older, WINDOW, HORIZON, int(bars.open_time_us[594])).validation) == 1


def test_a_price_that_is_none_is_named_with_its_bar() -> None:
    bars = random_bars(500)
    bars.close[77] = 0.0
    with pytest.raises(ValueError, match=str(START_US + 77 * 60_000_000)):
        dataset.build(bars, WINDOW, HORIZON)


def test_too_few_bars_are_said_to_be_too_few() -> None:
    with pytest.raises(ValueError, match="40 bars are too few"):
        dataset.build(random_bars(40), WINDOW, HORIZON)


@pytest.mark.parametrize(("window", "horizon"), [(2, 1), (32, 5), (8, 240), (512, 240), (4, 1)])
def test_as_many_bars_as_a_config_asks_for_can_be_split(window: int, horizon: int) -> None:
    needed = config(window=window, horizon=horizon, min_bars=0, max_bars=100_000).bars_needed
    data = dataset.build(random_bars(needed), window, horizon)
    assert len(data.train) > 0
    assert len(data.validation) > 0


async def test_bars_are_read_from_a_store_and_a_missing_store_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "trades.sqlite"
    assert dataset.read_bars(str(path), SYMBOL, 60, 100) is None
    bars = random_bars(250)
    await store_of(bars, path)
    read = dataset.read_bars(str(path), SYMBOL, 60, 100)
    assert read is not None
    np.testing.assert_array_equal(read.open_time_us, bars.open_time_us[-100:])
    np.testing.assert_allclose(read.close, bars.close[-100:], atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"precision": "fp8"}, "precision must be one of auto, fp16, bf16, fp32, got 'fp8'"),
        ({"device": "tpu"}, "device must be one of"),
        ({"model_size": "huge"}, "model_size"),
        ({"window": 1}, "window must be a finite number at least 2"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"max_bars": 79, "min_bars": 0}, "max_bars must be at least 80 with a window of 8"),
        ({"min_scale": 2e5}, "min_scale must not exceed max_scale"),
        ({"max_consecutive_overflow": 0}, "max_consecutive_overflow"),
        ({"symbol": ""}, "symbol"),
    ],
)
def test_a_wrong_worker_config_is_named_with_its_rule(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(**wrong)


def test_live_fields_are_fields_and_differences_are_found() -> None:
    assert set(WorkerConfig.__struct_fields__) >= LIVE_FIELDS
    assert changed_fields(config(), config(seed=1, window=9)) == {"seed", "window"}


@pytest.mark.parametrize("module", ["", ".supervisor", ".messages", ".config", ".worker"])
def test_torch_is_not_loaded_before_it_is_needed(module: str) -> None:
    code = f"import sys, quantai_tui.training{module}; assert not [m for m in ('torch', 'textual') if m in sys.modules]"
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)}, timeout=60)
