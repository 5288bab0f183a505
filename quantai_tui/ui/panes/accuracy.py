"""How well the model does beside doing nothing clever: rows of the training pane."""

from __future__ import annotations

from ...telemetry import TrainingSnapshot
from ..cells import Row, Span, fitted, width_of
from ..format import count, decimal, percent

SURE = 0.05  # a lead that luck alone would bring more often than this is none
_NARROW = 52

# What each baseline is called, and on a narrow screen.
_NAMES = {"majority": "maj", "persistence": "pers", "logistic": "logit"}


def draw_accuracy(training: TrainingSnapshot, width: int) -> Row:
    """Accuracy, and how far ahead of the best baseline it is, in points; green only where that is no luck."""
    accuracy: list[Span] = [("accuracy ", "muted"), (percent(training.accuracy), "value")]
    if training.accuracy is None or training.baseline_accuracy is None:
        return fitted(
            width, accuracy, [("no baseline yet" if training.accuracy is not None else "after the first epoch", "muted")]
        )
    margin = (training.accuracy - training.baseline_accuracy) * 100
    lead: list[Span] = [(f"{margin:+.1f} pp", _token(training, margin))]
    if width < _NARROW and training.better_p is not None:
        return fitted(width, accuracy, lead, [(_luck(training.better_p), "muted")])
    room = width - width_of([*accuracy, *lead]) - 2
    better = _best_baseline(training)
    named = (f" {'over' if margin > 0 else 'to'} {name}" for name in (better, _NAMES.get(better, better)))
    return fitted(
        width,
        accuracy,
        [*lead, (next((words for words in named if len(words) <= room), ""), "muted")],
        [("of ", "muted"), (count(training.validation_samples), "text"), (" samples", "muted")],
    )


def draw_baselines(training: TrainingSnapshot, width: int) -> Row:
    groups: list[list[Span]] = []
    for name, accuracy in _baselines(training).items():
        if accuracy is not None or name != "logistic":  # the other two are there as soon as anything is
            called = _NAMES[name] if width < _NARROW and training.logistic_accuracy is not None else name
            groups.append([(f"{called} ", "muted"), (percent(accuracy), "text")])
    return fitted(width, *groups)


def draw_verdict(training: TrainingSnapshot, width: int) -> list[Row]:
    """Whether it beats the baselines, in words; nothing before that has been tested."""
    p = training.better_p
    if p is None:
        return []
    said, token = ("better than its baselines", "state-live") if p < SURE else ("not better than its baselines", "alert-warning")
    return [fitted(width, [(said, token), (f" ({_luck(p)})", "muted")])]


def draw_quality(training: TrainingSnapshot, width: int) -> list[Row]:
    """Of the probabilities: log loss beside the best baseline's, and how far they are off."""
    if training.log_loss is None and training.calibration_error is None:
        return []
    return [
        fitted(
            width,
            [("log loss ", "muted"), (decimal(training.log_loss), "text")],
            [("baseline ", "muted"), (decimal(training.baseline_log_loss), "text")],
            [("ece ", "muted"), (percent(training.calibration_error), "text")],
        )
    ]


def _baselines(training: TrainingSnapshot) -> dict[str, float | None]:
    return {
        "majority": training.majority_accuracy,
        "persistence": training.persistence_accuracy,
        "logistic": training.logistic_accuracy,
    }


def _best_baseline(training: TrainingSnapshot) -> str:
    known = {name: accuracy for name, accuracy in _baselines(training).items() if accuracy is not None}
    if len(known) < 2:
        return "baseline"
    return max(known, key=lambda name: known[name])


def _token(training: TrainingSnapshot, margin: float) -> str:
    if margin <= 0:
        return "alert-warning"
    return "state-live" if training.better_p is None or training.better_p < SURE else "text"


def _luck(p: float) -> str:
    return "p <0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"
