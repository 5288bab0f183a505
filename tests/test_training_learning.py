"""The synthetic market's planted signal is learnt, by the worker's own loop: better than every baseline, and not by luck."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from bench.learning import SYNTHETIC, columns_of, synthetic_bars, together, train_fold, verdict
from training_support import random_bars

from quantai_tui.market import Bar
from quantai_tui.training.folds import walk_forward

torch.set_num_threads(1)


@pytest.mark.timeout(400)  # ten seconds of one processor, which may be shared by many
def test_the_planted_signal_of_the_synthetic_market_is_learnt_better_than_by_any_baseline() -> None:
    bars = synthetic_bars(60_000, seed=1)
    (fold,) = walk_forward(len(bars.close), SYNTHETIC.window, SYNTHETIC.horizon)
    done = train_fold(bars, fold, SYNTHETIC)
    assert done.better_p is not None
    assert done.log_loss is not None
    assert done.baseline_log_loss is not None
    assert done.calibration_error is not None
    assert done.better_p < 0.01
    assert done.log_loss < done.baseline_log_loss < math.log(3)
    assert done.accuracy > max(done.majority_accuracy, done.persistence_accuracy) + 0.05
    assert done.accuracy < 0.5  # the signal is a weak one: more than this would be a leak
    assert done.calibration_error < 0.05


def test_where_there_is_no_signal_nothing_is_claimed() -> None:
    settings = msgspec.structs.replace(SYNTHETIC, batch_size=64, max_epochs=1)
    claimed = []
    for seed in range(3):
        bars = random_bars(2000, seed=seed)
        (fold,) = walk_forward(len(bars.close), settings.window, settings.horizon)
        done = train_fold(bars, fold, settings)
        assert done.better_p is not None
        claimed.append(done.better_p)
    assert together(claimed) > 0.01


def test_a_bar_without_trades_carries_the_last_close() -> None:
    traded = [Bar(second * 1_000_000, 1, *(["10.5"] * 4), "2", "21", "1.5", trades=3) for second in (100, 103)]
    columns = columns_of(traded, 1)
    np.testing.assert_array_equal(columns.open_time_us, np.arange(100, 104) * 1_000_000)
    np.testing.assert_array_equal(columns.close, [10.5] * 4)
    np.testing.assert_array_equal(columns.volume, [2, 0, 0, 2])
    np.testing.assert_array_equal(columns.trades, [3, 0, 0, 3])


def test_several_chances_come_to_one_as_fisher_puts_them_together() -> None:
    assert together([0.3]) == pytest.approx(0.3)
    assert together([0.05, 0.05]) == pytest.approx(0.0025 * (1 - math.log(0.0025)))  # of a product of two uniform numbers
    assert together([1.0, 1.0]) == 1.0
    assert together([0.0, 0.5]) < 1e-100


def test_a_verdict_is_in_words_and_does_not_flatter() -> None:
    assert verdict(1.0, 1.1, 0.001) == "better than every baseline"
    assert "luck" in verdict(1.0, 1.1, 0.2)
    assert verdict(1.2, 1.1, 0.9) == "NOT better than the best baseline"
    assert verdict(1.0, 1.1, None) == "too few samples to tell"
