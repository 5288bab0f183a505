"""Baselines, scores, and the test of whether a model is better than all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_support import random_bars

from quantai_tui.market import BarColumns
from quantai_tui.training import baselines, dataset, evaluation
from quantai_tui.training.baselines import all_baselines, logistic, majority, persistence
from quantai_tui.training.evaluation import Evaluation, better_p, better_than_all, calibration, calibration_error, judge

WINDOW, HORIZON = 16, 5


def scores(data: dataset.Dataset) -> dict[str, evaluation.Scores]:
    even = np.full((len(data.validation), 3), 1 / 3, dtype=np.float32)
    return judge(even, data, all_baselines(data)).baselines


def test_the_majority_is_that_of_the_training_part_and_persistence_follows_a_turn() -> None:
    bars = random_bars(600)
    rising = BarColumns(bars.open_time_us, *(np.linspace(100, 400, 600) for _ in range(4)), *bars[5:])
    falling_late = rising.close.copy()
    falling_late[450:] = falling_late[450] - np.arange(150) * 0.5
    turned = rising._replace(open=falling_late, high=falling_late, low=falling_late, close=falling_late)
    data = dataset.build(turned, WINDOW, HORIZON)
    assert np.bincount(data.train.labels, minlength=3).argmax() == dataset.UP
    assert (majority(data).guess == dataset.UP).all()
    assert (persistence(data).guess == dataset.DOWN).all()
    found = scores(data)
    assert (found["majority"].accuracy, found["persistence"].accuracy) == (0.0, 1.0)


def test_a_market_that_stands_still_has_baselines_that_are_right_and_finite() -> None:
    bars = random_bars(500)
    still, zero = np.full(500, 100.0), np.zeros(500)
    data = dataset.build(BarColumns(bars.open_time_us, still, still, still, still, zero, zero, zero, zero), WINDOW, HORIZON)
    for name, each in scores(data).items():
        assert each.accuracy == 1.0, name
        assert each.log_loss is not None, name
        assert each.log_loss < 0.1, name


def test_probabilities_of_every_baseline_are_probabilities() -> None:
    data = dataset.build(random_bars(900), WINDOW, HORIZON)
    for each in all_baselines(data):
        assert each.probabilities.shape == (len(data.validation), 3)
        assert (each.probabilities > 0).all()
        np.testing.assert_allclose(each.probabilities.sum(axis=1), 1.0)


def test_the_logistic_regression_is_fitted_to_the_minimum_of_its_cost() -> None:
    """The cost is convex: where its gradient, by another hand, is zero, there is the one minimum."""
    data = dataset.build(random_bars(1500, told=True), WINDOW, 2)
    inputs = baselines._Inputs(data, data.train.at)
    weights = torch.from_numpy(baselines._fit(inputs, data.train.labels)).requires_grad_()
    x = torch.from_numpy(np.concatenate([rows for _, rows in inputs]))

    def gradient() -> float:
        loss = torch.nn.functional.cross_entropy(x @ weights, torch.from_numpy(data.train.labels), reduction="sum")
        (found,) = torch.autograd.grad(loss + (weights[:-1] ** 2).sum() * baselines._PENALTY / 2, weights)
        return float(found.abs().max())

    assert weights.detach().abs().max() > 0.1
    assert gradient() < 0.01
    with torch.no_grad():
        weights *= 1.01
    assert gradient() > 1.0


def test_the_logistic_regression_learns_a_linear_signal_and_is_the_same_each_time() -> None:
    data = dataset.build(random_bars(1500, told=True), WINDOW, 2)
    found = scores(data)
    assert found["logistic"].accuracy > max(found["majority"].accuracy, found["persistence"].accuracy) + 0.1
    np.testing.assert_array_equal(logistic(data).probabilities, logistic(data).probabilities)


def test_a_training_part_of_any_length_is_fitted_on_a_bounded_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset.build(random_bars(1500, told=True), WINDOW, 2)
    whole = logistic(data).probabilities
    monkeypatch.setattr(baselines, "_ROWS_AT_A_TIME", 100)  # in slices it comes to the same
    np.testing.assert_allclose(logistic(data).probabilities, whole, atol=1e-9)
    monkeypatch.setattr(baselines, "_FITTED_ON", 200)
    newest = dataset.Part(data.train.at[-200:], data.train.labels[-200:], data.train.persisted[-200:])
    limited = logistic(data).probabilities
    assert not np.allclose(limited, whole, atol=1e-3)
    monkeypatch.undo()
    shorter = dataset.Dataset(
        data.features, data.window, data.horizon, newest, data.validation, data.bars, data.through_us, data.validation_from_us
    )
    np.testing.assert_allclose(logistic(shorter).probabilities, limited, atol=1e-9)


def test_a_perfect_and_calibrated_forecast_has_no_error_and_a_boastful_one_has_its_boast() -> None:
    labels = np.array([0, 1, 2, 0])
    assert calibration_error(np.eye(3)[labels], labels) == 0.0
    boast = np.tile([0.9, 0.05, 0.05], (4, 1))  # right in half of the samples
    assert calibration_error(boast, labels) == pytest.approx(0.4)
    (only,) = calibration(boast, labels)
    assert (only.count, only.accuracy, only.confidence) == (4, 0.5, pytest.approx(0.9))
    assert only.low < 0.9 <= only.high


def test_bins_of_calibration_hold_every_sample_once() -> None:
    random = np.random.default_rng(0)
    said = random.dirichlet((1, 1, 1), 1000)
    labels = np.array([random.choice(3, p=row) for row in said])
    bins = calibration(said, labels)
    assert sum(each.count for each in bins) == 1000
    assert all(each.low < each.confidence <= each.high for each in bins)
    error = calibration_error(said, labels)
    assert error is not None
    assert error < 0.06  # drawn from what was said


def test_a_forecast_that_is_not_finite_is_wrong_and_has_no_log_loss() -> None:
    data = dataset.build(random_bars(900), WINDOW, HORIZON)
    said = np.full((len(data.validation), 3), np.nan, dtype=np.float32)
    found = judge(said, data, all_baselines(data))
    assert (found.model.accuracy, found.model.log_loss, found.model.calibration_error) == (0.0, None, None)
    assert found.better_p is None
    assert found.baseline_log_loss is not None


def test_a_certainty_that_fails_costs_much_and_not_infinitely_much() -> None:
    said = np.array([[1.0, 0.0, 0.0]])
    assert evaluation.log_loss(said, np.array([2])) == pytest.approx(-math.log(1e-7))


def moving_average(noise: np.ndarray, length: int) -> np.ndarray:
    total = np.cumsum(np.concatenate((np.zeros((len(noise), 1)), noise), axis=1), axis=1)
    return (total[:, length:] - total[:, :-length]) / length


def test_luck_that_lasts_as_long_as_a_label_is_not_taken_for_skill() -> None:
    """2,000 comparisons without a difference: a test that took neighbours for independent would claim one in a fifth of them."""
    luck = moving_average(np.random.default_rng(1).normal(size=(2000, 1004)), 5)
    claimed = np.mean([better_p(gain, 20) < 0.05 for gain in luck])  # type: ignore[operator]
    naive = np.mean(luck.mean(axis=1) / (luck.std(axis=1) / math.sqrt(1000)) > 1.645)
    assert naive > 0.18
    assert 0.03 < claimed < 0.09


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6), lags=st.integers(1, 30))
def test_the_chance_of_a_gain_falls_with_it_and_does_not_hang_on_its_unit(seed: int, scale: float, lags: int) -> None:
    noise = np.random.default_rng(seed).normal(size=400)
    less, more = better_p(noise, lags), better_p(noise + 0.1, lags)
    assert less is not None
    assert more is not None
    assert 0 <= more < less <= 1
    assert better_p(noise * scale, lags) == pytest.approx(less, rel=1e-6)
    assert better_p(-noise, lags) == pytest.approx(1 - less, abs=1e-9)


def test_a_gain_that_is_always_the_same_is_certain_and_too_few_samples_say_nothing() -> None:
    assert better_p(np.full(300, 0.01), 20) == 0.0
    assert better_p(np.zeros(300), 20) == 1.0
    assert better_p(np.ones(199), 20) is None
    assert better_p(np.full(300, np.inf), 20) is None


def test_better_than_all_is_better_than_the_one_that_is_hardest_to_beat() -> None:
    noise = np.random.default_rng(3).normal(size=400)
    easy, hard = noise + 1.0, noise + 0.05
    assert better_than_all([easy, hard], 10) == better_p(hard, 10)
    assert better_than_all([easy, np.full(400, np.nan)], 10) is None


def test_an_epoch_over_the_same_bars_does_not_fit_the_baselines_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def counting(data: dataset.Dataset) -> tuple[baselines.Forecast, ...]:
        fitted.append(data.bars)
        return all_baselines(data)

    monkeypatch.setattr(evaluation, "all_baselines", counting)
    judging = Evaluation()
    for epoch, bars in enumerate((800, 800, 801), start=1):
        data = dataset.build(random_bars(bars), WINDOW, HORIZON)
        done = judging.report(epoch, data, np.full((len(data.validation), 3), 1 / 3, dtype=np.float32))
        assert done.epoch == epoch
    assert fitted == [800, 801]
    assert done.log_loss == pytest.approx(math.log(3), rel=1e-6)
    assert done.better_p is None  # 160 samples are no ten times 21
    assert done.logistic_accuracy is not None
    assert done.baseline_log_loss is not None
