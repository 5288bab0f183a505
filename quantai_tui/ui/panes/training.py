"""The training worker: what it does, how far it is, how well it does against doing nothing clever."""

from __future__ import annotations

from ...telemetry import TrainingSnapshot, TrainingState
from ..cells import Row, Span, bar, fitted, row, wrap
from ..format import age, clean, count, date_and_time, decimal, rough, short
from ..sparkline import nice_range, spark_rows
from ..view import View
from .accuracy import draw_accuracy, draw_baselines, draw_quality, draw_verdict
from .machines import draw_machines, draw_ranks_in_brief
from .states import NOT_KNOWN, training_sign

_ALL_ROWS = 12  # so high, it has room for what it runs on
_LOW = 8  # below it a pause is all that is worth a row


def draw_training(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    rows = [_head(training, width)]
    if training.paused_because:
        rows += _paused(training, width, height - 1 if height < _LOW else 5)
    elif training.detail and training.state is not TrainingState.TRAINING:
        rows.append(fitted(width, [(clean(training.detail), "text")]))
    rows += [_progress(training, width), _optimizer(training, width)]
    rows += [draw_accuracy(training, width), draw_baselines(training, width)]
    for_chart = 1 if height >= _LOW else 0
    more = [*draw_verdict(training, width), *draw_quality(training, width), *_more(training, view.now, width)]
    rows += more[: max(0, height - for_chart - len(rows))]
    if height >= _ALL_ROWS:
        rows += _runs_on(training, width, height - for_chart - len(rows))
    spark = height - len(rows)
    if spark >= 1:
        chart = view.chart("loss")
        span = nice_range(chart.values, from_zero=False)
        labels = (
            (decimal(span.high, 3), decimal(span.low, 3)) if any(value is not None for value in chart.values) else ("loss", "")
        )
        rows += spark_rows(chart, width, min(spark, 12), span, "spark-loss", labels=labels)
    return rows[:height]


def _head(training: TrainingSnapshot, width: int) -> Row:
    where: list[Span] = [(clean(training.device or ""), "text")] if training.device else []
    if training.device and training.precision:
        where = [(clean(f"{training.device} {training.precision}"), "text")]
    late = training.age_s is not None and training.age_s >= 5 and training.state is TrainingState.TRAINING
    silent: list[Span] = [(f"silent {age(training.age_s)}", "alert-warning")] if late else []
    itself: list[Span] = [("by itself", "alert-critical")] if training.paused_because else []
    return fitted(width, [training_sign(training.state)], itself, silent, where, [(clean(training.symbol or ""), "text")])


def _paused(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    """What was seen and what to try, over as many rows as it takes."""
    return [row((line, "alert-critical")) for line in wrap(clean(training.paused_because), width, room)]


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


def _more(training: TrainingSnapshot, now: float, width: int) -> list[Row]:
    """What changes seldom, in order of importance."""
    rows = [_checkpoint(training, now, width), _worker(training, width)]
    return [*rows, _data(training, width)] if training.data_bars is not None else rows


def _checkpoint(training: TrainingSnapshot, now: float, width: int) -> Row:
    saved = training.checkpoint
    if saved is None:
        return fitted(width, [("checkpoint ", "muted"), ("none yet", "text")])
    return fitted(
        width,
        [("checkpoint ", "muted"), (f"step {count(saved.step)}", "text")],
        [(rough(now - saved.time), "text"), (" ago", "muted")],
        [("training went on from it", "muted")] if saved.resumed else [],
    )


def _worker(training: TrainingSnapshot, width: int) -> Row:
    return fitted(
        width,
        [("parameters ", "muted"), (count(training.parameters), "text")],
        *draw_ranks_in_brief(training.ranks),
        [("restarts ", "muted"), (count(training.restarts), "alert-warning" if training.restarts else "text")],
        [("pid ", "muted"), (str(training.pid), "text")] if training.pid else [],
    )


def _data(training: TrainingSnapshot, width: int) -> Row:
    through: list[Span] = []
    if training.data_through_time is not None:
        through = [("through ", "muted"), (date_and_time(training.data_through_time), "text")]
    return fitted(width, [("bars ", "muted"), (count(training.data_bars), "text")], through)


def _runs_on(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    """Why this device and precision, and the machines behind it; the reason yields to machines."""
    if room < 1:
        return []
    machines = draw_machines(training, width, room)
    reason = wrap(clean(training.reason), width, max(0, min(2, room - len(machines)))) if training.reason else []
    return [*[row((line, "muted")) for line in reason], *machines]
