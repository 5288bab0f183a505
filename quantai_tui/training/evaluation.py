"""How good a model's forecasts are, and whether that is more than a baseline's luck. Plain numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .baselines import Forecast, all_baselines
from .dataset import Dataset, Floats, same
from .messages import EpochDone

# An fp32 softmax can say 0; what happens all the same would cost infinitely many nats.
_LEAST_PROBABILITY = 1e-7
_CALIBRATION_BINS = 15  # as Guo et al. had
# Fewer stretches of independent samples than this, and the variance between them is a guess.
_LEAST_STRETCHES = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The samples whose most likely class had a probability in (low, high]: how many, and on average how likely and how right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one forecaster on one validation part. Log loss in nats per sample; the others 0 to 1.

    Where a forecast is not finite it counts as wrong, and `log_loss` and `calibration_error` are None.
    """

    accuracy: float
    log_loss: float | None
    calibration_error: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A model beside the baselines; `better_p` as in `better_than_all`."""

    model: Scores
    baselines: dict[str, Scores]
    better_p: float | None

    @property
    def baseline_log_loss(self) -> float | None:
        """The lowest of the baselines'."""
        return min((scores.log_loss for scores in self.baselines.values() if scores.log_loss is not None), default=None)


class Evaluation:
    """Judges epoch after epoch. Baselines are fitted again only where the data are not those of the epoch before."""

    def __init__(self) -> None:
        self._data: Dataset | None = None
        self._baselines: tuple[Forecast, ...] = ()

    def report(self, epoch: int, data: Dataset, probabilities: NDArray[np.float32]) -> EpochDone:
        """What a model with these `probabilities` ([validation samples, 3]) is worth after `epoch`."""
        if self._data is None or not same(self._data, data):
            self._data, self._baselines = data, all_baselines(data)
        judgement = judge(probabilities, data, self._baselines)
        accuracies = {name: scores.accuracy for name, scores in judgement.baselines.items()}
        return EpochDone(
            epoch=epoch,
            accuracy=judgement.model.accuracy,
            majority_accuracy=accuracies["majority"],
            persistence_accuracy=accuracies["persistence"],
            validation_samples=len(data.validation),
            data_bars=data.bars,
            data_through_time=data.through_us / 1e6,
            logistic_accuracy=accuracies["logistic"],
            log_loss=judgement.model.log_loss,
            baseline_log_loss=judgement.baseline_log_loss,
            calibration_error=judgement.model.calibration_error,
            better_p=judgement.better_p,
        )


def judge(probabilities: NDArray[np.float32], data: Dataset, baselines: Sequence[Forecast]) -> Judgement:
    """A model's `probabilities` [validation samples, 3] beside the baselines' forecasts of the same samples."""
    labels = data.validation.labels
    own = probabilities.astype(np.float64)
    model = Scores(accuracy(own.argmax(axis=1), own, labels), log_loss(own, labels), calibration_error(own, labels))
    theirs = {
        each.name: Scores(
            accuracy(each.guess, each.probabilities, labels),
            log_loss(each.probabilities, labels),
            calibration_error(each.probabilities, labels),
        )
        for each in baselines
    }
    gains = [losses(each.probabilities, labels) - losses(own, labels) for each in baselines]
    return Judgement(model, theirs, better_than_all(gains, data.window + data.horizon))


def accuracy(guess: NDArray[np.int64], probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """The share of right guesses, 0 to 1; a guess from numbers that are not finite is none."""
    return float(np.mean((guess == labels) & np.isfinite(probabilities).all(axis=1)))


def losses(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """[samples]: minus the logarithm of what the class that came had been given, in nats."""
    given: Floats = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _LEAST_PROBABILITY))
    return given


def log_loss(probabilities: Floats, labels: NDArray[np.int64]) -> float | None:
    """The mean of `losses`; None where a forecast is not finite."""
    mean = float(losses(probabilities, labels).mean())
    return mean if math.isfinite(mean) else None


def calibration(probabilities: Floats, labels: NDArray[np.int64]) -> tuple[CalibrationBin, ...]:
    """The bins that have samples, by the probability of the most likely class, in 15 steps from 0 to 1."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * _CALIBRATION_BINS).astype(np.int64) - 1, 0, _CALIBRATION_BINS - 1)
    return tuple(
        CalibrationBin(
            float(each / _CALIBRATION_BINS),
            float((each + 1) / _CALIBRATION_BINS),
            int(np.sum(number == each)),
            float(confidence[number == each].mean()),
            float(right[number == each].mean()),
        )
        for each in np.unique(number)
    )


def calibration_error(probabilities: Floats, labels: NDArray[np.int64]) -> float | None:
    """The expected calibration error: |confidence - accuracy| of each bin, weighted by its samples (C. Guo et al., "On
    calibration of modern neural networks", ICML 2017). None where a forecast is not finite.
    """
    if not np.isfinite(probabilities).all():
        return None
    bins = calibration(probabilities, labels)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins) / len(labels)


def better_p(gain: Floats, dependent: int) -> float | None:
    """How likely a mean `gain` as high as this one is by luck, were the true one 0: one-sided, 0 to 1.

    `gain` is what the model saved in each sample, in order of time: a paired comparison of two forecasts (F. Diebold and
    R. Mariano, "Comparing predictive accuracy", Journal of Business & Economic Statistics 13, 1995). Labels that overlap and
    windows that share bars make neighbours alike, so the variance of the mean counts covariances over `dependent` lags, with
    falling weights (W. Newey and K. West, Econometrica 55, 1987). Taken for normal.

    None where there are too few samples to tell (under ten times `dependent`), or one is not finite.
    """
    samples = len(gain)
    if samples < _LEAST_STRETCHES * dependent or not np.isfinite(gain).all():
        return None
    mean = float(gain.mean())
    centred = gain - mean
    variance = float(centred @ centred)
    for lag in range(1, dependent + 1):
        variance += 2 * (1 - lag / (dependent + 1)) * float(centred[lag:] @ centred[:-lag])
    error = math.sqrt(max(variance, 0.0)) / samples
    if error <= abs(mean) * 1e-9:  # the same gain everywhere: nothing varies
        return 0.0 if mean > 0 else 1.0
    return 0.5 * math.erfc(mean / error / math.sqrt(2))


def better_than_all(gains: Sequence[Floats], dependent: int) -> float | None:
    """`better_p` against the baseline that is hardest to beat: the largest of all.

    To choose the best baseline first and to test against it alone would choose by the same samples; that all of them are beaten
    is what the largest p says (an intersection-union test: R. Berger, Technometrics 24, 1982).
    """
    ps = [better_p(gain, dependent) for gain in gains]
    known = [p for p in ps if p is not None]
    return max(known) if known and len(known) == len(ps) else None
