"""The training worker: what it does, how far it is, how well it does against doing nothing clever."""

from __future__ import annotations

from ...telemetry import TrainingSnapshot, TrainingState
from ..cells import Row, Span, bar, fitted, row
from ..format import age, clean, count, date_and_time, decimal, percent, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .states import NOT_KNOWN, training_sign


def draw_training(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    rows = [_head(training, width)]
    if training.detail and training.state is not TrainingState.TRAINING:
        rows.append(fitted(width, [(clean(training.detail), "text")]))
    rows += [_progress(training, width), _optimizer(training, width), _accuracy(training, width), _baselines(training, width)]
    if height > len(rows):
        rows.append(_worker(training, width))
    if height > len(rows) and training.data_bars is not None:
        rows.append(_data(training, width))
    spark = height - len(rows)
    if spark >= 1:
        values = view.series("loss")
        span = nice_range(values, from_zero=False)
        labels = (decimal(span.high, 3), decimal(span.low, 3)) if any(value is not None for value in values) else ("loss", "")
        rows += spark_rows(values, width, min(spark, 12), span, "spark-loss", labels=labels)
    return rows[:height]


def _head(training: TrainingSnapshot, width: int) -> Row:
    where: list[Span] = [(clean(training.device or ""), "text")] if training.device else []
    if training.device and training.precision:
        where = [(clean(f"{training.device} {training.precision}"), "text")]
    late = training.age_s is not None and training.age_s >= 5 and training.state is TrainingState.TRAINING
    silent: list[Span] = [(f"silent {age(training.age_s)}", "alert-warning")] if late else []
    return fitted(width, [training_sign(training.state)], silent, where, [(clean(training.symbol or ""), "text")])


def _progress(training: TrainingSnapshot, width: int) -> Row:
    done, total = training.epoch_step, training.steps_per_epoch
    speed: list[Span] = [(_samples(training.samples_per_s), "text"), (" samples/s", "muted")]
    head: list[Span] = [("epoch ", "muted"), (count(training.epoch), "text")]
    step: list[Span] = [("step ", "muted"), (f"{count(done)}/{count(total)}", "text")]
    left = fitted(width, head, step, speed)
    room = width - len(left.text) - 2
    if done is None or not total or room < 6:
        return left
    return Row((*left.spans, ("  ", "text"), *bar(done / total, min(room, 24), "state-live")))


def _samples(number: float | None) -> str:
    return decimal(None) if number is None else short(round(number))


def _optimizer(training: TrainingSnapshot, width: int) -> Row:
    loss_token = "alert-critical" if training.nonfinite_loss else "value"
    return fitted(
        width,
        [("loss ", "muted"), (decimal(training.loss), loss_token)],
        [("grad ", "muted"), (decimal(training.grad_norm, 3), "text")],
        [("lr ", "muted"), (_learning_rate(training.learning_rate), "text")],
        [(f"{count(training.nonfinite_loss)} NaN or Inf", "alert-critical")] if training.nonfinite_loss else [],
        [("step ", "muted"), (count(training.step), "text"), (" in all", "muted")],
    )


def _learning_rate(rate: float | None) -> str:
    return decimal(None) if rate is None else f"{rate:.1e}"


def _accuracy(training: TrainingSnapshot, width: int) -> Row:
    accuracy: list[Span] = [("accuracy ", "muted"), (percent(training.accuracy), "value")]
    better = _better_baseline(training)
    if training.accuracy is None or training.baseline_accuracy is None:
        return fitted(
            width, accuracy, [("no baseline yet" if training.accuracy is not None else "after the first epoch", "muted")]
        )
    margin = (training.accuracy - training.baseline_accuracy) * 100
    token = "state-live" if margin > 0 else "alert-warning"
    return fitted(
        width,
        accuracy,
        [(f"{margin:+.1f}", token), (f" over {better}" if margin > 0 else f" to {better}", "muted")],
        [("of ", "muted"), (count(training.validation_samples), "text"), (" samples", "muted")],
    )


def _better_baseline(training: TrainingSnapshot) -> str:
    majority, persistence = training.majority_accuracy, training.persistence_accuracy
    if majority is None or persistence is None:
        return "baseline"
    return "majority" if majority >= persistence else "persistence"


def _baselines(training: TrainingSnapshot, width: int) -> Row:
    return fitted(
        width,
        [("majority ", "muted"), (percent(training.majority_accuracy), "text")],
        [("persistence ", "muted"), (percent(training.persistence_accuracy), "text")],
    )


def _worker(training: TrainingSnapshot, width: int) -> Row:
    return fitted(
        width,
        [("parameters ", "muted"), (count(training.parameters), "text")],
        [("restarts ", "muted"), (count(training.restarts), "alert-warning" if training.restarts else "text")],
        [("pid ", "muted"), (str(training.pid), "text")] if training.pid else [],
    )


def _data(training: TrainingSnapshot, width: int) -> Row:
    through: list[Span] = []
    if training.data_through_time is not None:
        through = [("through ", "muted"), (date_and_time(training.data_through_time), "text")]
    return fitted(width, [("bars ", "muted"), (count(training.data_bars), "text")], through)
