"""Walk-forward folds, and that nothing looks ahead: whatever the future is, the past stays what it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_support import random_bars

from quantai_tui.market import BarColumns
from quantai_tui.training import dataset
from quantai_tui.training.baselines import all_baselines
from quantai_tui.training.dataset import Dataset
from quantai_tui.training.folds import Fold, walk_forward

BARS = 700

windows = st.integers(2, 24)
horizons = st.integers(1, 12)


def with_another_future(bars: BarColumns, first: int, seed: int, factor: float, shift: int) -> BarColumns:
    """The same bars before `first`; from there on other ones: shifted in time against their clock, and prices times `factor`."""
    other = random_bars(len(bars.close), seed=seed)
    prices = [np.roll(column, shift) * factor for column in other[1:5]]
    amounts = [np.roll(column, shift) for column in other[5:]]
    return BarColumns(
        bars.open_time_us,
        *(np.concatenate((mine[:first], theirs[first:])) for mine, theirs in zip(bars[1:], prices + amounts, strict=True)),
    )


def assert_same_until(one: Dataset, other: Dataset, newest: int, horizon: int) -> None:
    """Everything that is known once bar `newest` has closed: features to there, labels to `horizon` before."""
    np.testing.assert_array_equal(one.features[: newest + 1], other.features[: newest + 1])
    for mine, theirs in ((one.train, other.train), (one.validation, other.validation)):
        np.testing.assert_array_equal(mine.at, theirs.at)
        labelled, seen = mine.at + horizon <= newest, mine.at <= newest
        np.testing.assert_array_equal(mine.labels[labelled], theirs.labels[labelled])
        np.testing.assert_array_equal(mine.persisted[seen], theirs.persisted[seen])


@settings(deadline=None, max_examples=60)
@given(
    window=windows,
    horizon=horizons,
    folds=st.integers(1, 5),
    which=st.integers(0, 4),
    cut=st.floats(0, 1),
    seed=st.integers(1, 1000),
    factor=st.sampled_from((1e-3, 1.0, 50.0)),
    shift=st.integers(0, BARS),
)
def test_another_future_changes_nothing_that_was_known_before(
    window: int, horizon: int, folds: int, which: int, cut: float, seed: int, factor: float, shift: int
) -> None:
    bars = random_bars(BARS)
    fold = walk_forward(BARS, window, horizon, folds)[which % folds]
    # The last bar that a training label needs is the first after which nothing fitted may change.
    trained_on = fold.train[-1] + horizon
    newest = trained_on + round(cut * (BARS - 2 - trained_on))
    other = with_another_future(bars, newest + 1, seed, factor, shift)
    one, two = (dataset.build_fold(each, window, horizon, fold) for each in (bars, other))
    assert_same_until(one, two, newest, horizon)
    if newest < fold.validation[-1]:
        assert not np.array_equal(one.features, two.features)  # so it was another future indeed


@settings(deadline=None, max_examples=15)
@given(window=windows, horizon=horizons, seed=st.integers(1, 1000))
def test_what_the_baselines_say_of_a_sample_does_not_hang_on_what_comes_after_it(window: int, horizon: int, seed: int) -> None:
    bars = random_bars(BARS)
    fold = walk_forward(BARS, window, horizon)[0]
    newest = fold.validation[len(fold.validation) // 2]
    other = with_another_future(bars, newest + 1, seed, 1.5, 0)
    known = newest - fold.validation.start + 1
    for mine, theirs in zip(
        *(all_baselines(dataset.build_fold(each, window, horizon, fold)) for each in (bars, other)), strict=True
    ):
        np.testing.assert_array_equal(mine.guess[:known], theirs.guess[:known])
        np.testing.assert_array_equal(mine.probabilities[:known], theirs.probabilities[:known])


@settings(deadline=None, max_examples=200)
@given(n_bars=st.integers(10, 5000), window=st.integers(2, 64), horizon=st.integers(1, 64), folds=st.integers(1, 8))
def test_folds_follow_each_other_to_the_newest_sample_with_an_embargo_before_each(
    n_bars: int, window: int, horizon: int, folds: int
) -> None:
    ample = (folds + 1) * (3 + 2 * (window + horizon)) + window + horizon
    if n_bars < ample:
        n_bars += ample
    found = walk_forward(n_bars, window, horizon, folds)
    assert len(found) == folds
    assert found[-1].validation[-1] == n_bars - 1 - horizon
    for fold, following in itertools.pairwise(found):
        assert fold.validation.stop == following.validation.start
        assert len(following.train) > len(fold.train)
    for fold in found:
        assert fold.train[0] == window
        # The last bar of a training label, and the first close that a validation window has seen.
        assert fold.train[-1] + horizon < fold.validation[0] - window
    lengths = {len(fold.validation) for fold in found}
    assert max(lengths) - min(lengths) <= 1


def test_a_worker_trains_on_the_newest_fold() -> None:
    bars = random_bars(1000)
    data = dataset.build(bars, 16, 5)
    for folds in (1, 2, 4):
        fold = walk_forward(1000, 16, 5, folds)[-1]
        np.testing.assert_array_equal(data.train.at, np.array(fold.train))
        np.testing.assert_array_equal(data.validation.at, np.array(fold.validation))


def test_a_beginning_that_leaves_nothing_to_validate_does_not_count() -> None:
    usual = walk_forward(1000, 16, 5)
    assert walk_forward(1000, 16, 5, not_before=10) == usual
    assert walk_forward(1000, 16, 5, not_before=995) == usual
    assert walk_forward(1000, 16, 5, not_before=994) == (Fold(range(16, 994 - 21), range(994, 995)),)


def test_folds_that_cannot_be_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="folds must be at least 1, got 0"):
        walk_forward(1000, 16, 5, 0)
    with pytest.raises(ValueError, match="100 bars are too few for a window of 16 and a horizon of 5 bars in 4 folds"):
        walk_forward(100, 16, 5, 4)
