"""What a model has to be compared with: forecasts that need no training loop, fitted on the training part. Plain numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dataset import CLASSES, FEATURES, Dataset, Floats

# Of 1, 8 and 16 newest bars, 16 had the lowest log loss, or nearly, in most of the synthetic markets tried; 512 bars of a long
# window would be 4,096 columns.
_BARS_SEEN = 16
_FITTED_ON = 20_000  # newest training samples: 21 MB of inputs, whatever `max_bars` says
_ROWS_AT_A_TIME = 4_096
_PENALTY = 100.0  # as if each weight had a standard deviation of 0.1: there is little to be known of a market
_ITERATIONS = 40
_SMALL_STEP = 1e-6


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a baseline says of each validation sample: a class, and a probability for each class ([samples, 3])."""

    name: str
    guess: NDArray[np.int64]
    probabilities: Floats


def all_baselines(data: Dataset) -> tuple[Forecast, ...]:
    """Majority, persistence and logistic regression, in this order. Deterministic; the last takes nearly all of the time."""
    return majority(data), persistence(data), logistic(data)


def majority(data: Dataset) -> Forecast:
    """The most frequent class of the training part, always; as probabilities, its class shares."""
    counts = np.bincount(data.train.labels, minlength=CLASSES)
    shares = (counts + 1) / (counts.sum() + CLASSES)
    samples = len(data.validation)
    return Forecast("majority", np.full(samples, counts.argmax()), np.tile(shares, (samples, 1)))


def persistence(data: Dataset) -> Forecast:
    """The class of the horizon that has just ended; as probabilities, how often which class followed it in the training part."""
    counts = np.ones((CLASSES, CLASSES))  # one of each seen (Laplace), so that nothing is impossible
    np.add.at(counts, (data.train.persisted, data.train.labels), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return Forecast("persistence", data.validation.persisted, shares[data.validation.persisted])


def logistic(data: Dataset) -> Forecast:
    """Multinomial logistic regression on the newest bars of each window, with an L2 penalty (none on the intercept)."""
    weights = _fit(_Inputs(data, data.train.at[-_FITTED_ON:]), data.train.labels[-_FITTED_ON:])
    inputs = _Inputs(data, data.validation.at)
    probabilities = np.concatenate([_softmax(rows @ weights) for _, rows in inputs])
    return Forecast("logistic", probabilities.argmax(axis=1), probabilities)


class _Inputs:
    """The flattened windows of samples and a 1, in slices of a bounded number of rows: (which samples, [rows, columns])."""

    def __init__(self, data: Dataset, at: NDArray[np.int64]) -> None:
        self._features = data.features
        self._at = at
        self._behind = np.arange(1 - min(data.window, _BARS_SEEN), 1)
        self.columns = len(self._behind) * len(FEATURES) + 1

    def __iter__(self) -> Iterator[tuple[slice, Floats]]:
        for start in range(0, len(self._at), _ROWS_AT_A_TIME):
            at = self._at[start : start + _ROWS_AT_A_TIME]
            rows = np.ones((len(at), self.columns))
            rows[:, :-1] = self._features[at[:, None] + self._behind].reshape(len(at), -1)
            yield slice(start, start + len(at)), rows


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def _fit(inputs: _Inputs, labels: NDArray[np.int64]) -> Floats:
    """Weights [columns, 3], by Boehning's bound: X'X / 2 is at least the Hessian of every class, wherever the weights are.

    So one matrix is factorised once, and each iteration costs two products with X and cannot overshoot (D. Boehning, "Multinomial
    logistic regression algorithm", Annals of the Institute of Statistical Mathematics 44, 1992). Where the classes are about
    equally likely, as here, the true Hessian is two thirds of the bound: a dozen iterations reach six digits.
    """
    penalty = np.full(inputs.columns, _PENALTY)
    penalty[-1] = 1e-6  # the intercept's; not zero, so that the matrix has an inverse
    kept = [(labels[part], rows) for part, rows in inputs]
    bound = sum((rows.T @ rows for _, rows in kept), np.diag(2 * penalty)) / 2
    inverse = np.linalg.inv(bound)
    weights = np.zeros((inputs.columns, CLASSES))
    for _ in range(_ITERATIONS):
        gradient = penalty[:, None] * weights
        for wanted, rows in kept:
            excess = _softmax(rows @ weights)
            excess[np.arange(len(wanted)), wanted] -= 1
            gradient += rows.T @ excess
        step = inverse @ gradient
        weights -= step
        if np.abs(step).max() < _SMALL_STEP:
            break
    return weights
