"""The training worker: what it does, how far it is, how well it does against doing nothing clever."""

from __future__ import annotations

from ...telemetry import TrainingSnapshot, TrainingState
from ..cells import Row, Span, bar, clip, fitted, flow, heading, row, width_of, wrap
from ..format import UNKNOWN, age, clean, count, countdown, date_and_time, decimal, rough, short, size
from ..view import View
from .accuracy import draw_accuracy, draw_baselines, draw_quality, draw_verdict
from .charts import LOSS, chart_page, inline, spark
from .machines import draw_machines, draw_ranks_in_brief
from .states import NOT_KNOWN, training_sign

_ALL_ROWS = 12  # so high, it has room for what it runs on
_LOW = 8  # below it a pause is all that is worth a row, and the loss has a small chart beside its number
_INLINE = 8  # cells of that chart
_ROOMY = 36  # cells from which on numbers keep their places, and the time left has one
_TIGHT = 48  # below it that time is told without a word
_LEAST_BAR = 6
_EVERY_MACHINE = 1_000


def draw_training(view: View, width: int, height: int) -> list[Row]:
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    low = height < _LOW
    rows = [_head(training, width), *_why_not(training, width, height - 1 if low else 5)]
    rows += [_progress(training, width), _optimizer(training, width, inline(view, LOSS, _INLINE) if low else [])]
    rows += [draw_accuracy(training, width), draw_baselines(training, width)]
    for_chart = 0 if low else 1
    more = [*draw_verdict(training, width), *draw_quality(training, width), *_more(training, view.now, width)]
    rows += more[: max(0, height - for_chart - len(rows))]
    if height >= _ALL_ROWS:
        rows += _runs_on(training, width, height - for_chart - len(rows))
    for_loss = height - len(rows)
    if for_loss >= 1 and not low:
        rows += spark(view, LOSS, width, min(for_loss, 12))
    return rows[:height]


def training_page(view: View, width: int, height: int) -> list[Row]:
    """All that training tells of itself, the loss as a chart, and every machine it runs on."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    training = view.snapshot.training
    log = [row((clip(clean(line), width), "muted")) for line in training.log_tail]
    return [
        _head(training, width),
        *_why_not(training, width, 12),
        _progress(training, width),
        *flow(width, *_steps(training, [])),
        draw_accuracy(training, width),
        draw_baselines(training, width),
        *draw_verdict(training, width),
        *draw_quality(training, width),
        *_more(training, view.now, width),
        *[row((line, "muted")) for line in wrap(clean(training.reason), width, 4)],
        *draw_machines(training, width, _EVERY_MACHINE),
        Row(),
        *chart_page(view, LOSS, width, max(7, min(16, height // 2))),
        *([Row(), heading("the worker's own log"), *log] if log else []),
    ]


def _why_not(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    """Why it does not train, as far as it says."""
    if training.paused_because:
        return _paused(training, width, room)
    if training.detail and training.state is not TrainingState.TRAINING:
        return [fitted(width, [(clean(training.detail), "text")])]
    return []


def _head(training: TrainingSnapshot, width: int) -> Row:
    where: list[Span] = [(clean(training.device or ""), "text")] if training.device else []
    if training.device and training.precision:
        where = [(clean(f"{training.device} {training.precision}"), "text")]
    late = training.age_s is not None and training.age_s >= 5 and training.state is TrainingState.TRAINING
    silent: list[Span] = [(f"silent {age(training.age_s)}", "alert-warning")] if late else []
    itself: list[Span] = [("by itself", "alert-critical")] if training.paused_because else []
    memory: list[Span] = []
    if training.memory_bytes is not None:
        memory = [("memory ", "muted"), (size(training.memory_bytes), "text")]
    symbol: list[Span] = [(clean(training.symbol or ""), "text")]
    heat: list[Span] = []
    if training.device == "cpu" and training.processor_temperature_c is not None:  # GPUs tell theirs in rows of their own
        heat = [(f"{training.processor_temperature_c:.0f} °C", "text")]
    return fitted(width, [training_sign(training.state)], itself, silent, where, symbol, memory, heat)


def _paused(training: TrainingSnapshot, width: int, room: int) -> list[Row]:
    """What was seen and what to try, over as many rows as it takes."""
    return [row((line, "alert-critical")) for line in wrap(clean(training.paused_because), width, room)]


def _progress(training: TrainingSnapshot, width: int) -> Row:
    """Epoch and step, a bar between what is done and what is to come, and how long that takes."""
    done, total = training.epoch_step, training.steps_per_epoch
    head: list[Span] = [("epoch ", "muted"), (count(training.epoch), "text")]
    figures = len(count(total)) if width >= _ROOMY else 0
    step: list[Span] = [("step ", "muted"), (f"{count(done):>{figures}}/{count(total)}", "text")]
    if done is None or not total:
        return fitted(width, head, step)
    left: list[Span] = []
    if training.epoch_eta_s is not None and width >= _ROOMY:
        left = [(f"  {eta(training.epoch_eta_s):>6}", "text"), (" left", "muted")]
    if width < _TIGHT:
        left = left[:1]
    line = row()
    for groups in ([head, step], [head, step[1:]]):
        line = fitted(width, *groups)
        room = width - width_of((*line.spans, *left)) - 2
        if room >= _LEAST_BAR:
            return Row((*line.spans, ("  ", "text"), *bar(done / total, min(room, 24), "state-live"), *left))
    return line


def eta(seconds: float | None) -> str:
    """Time left, as coarse as its length: six cells at most."""
    if seconds is None:
        return UNKNOWN
    return countdown(seconds) if seconds < 60 else rough(seconds)


def _samples(number: float | None) -> str:
    return decimal(None) if number is None else short(round(number))


def _optimizer(training: TrainingSnapshot, width: int, trend: list[Span]) -> Row:
    return fitted(width, *_steps(training, trend))


def _steps(training: TrainingSnapshot, trend: list[Span]) -> list[list[Span]]:
    """`trend`: a small sparkline of the loss, where there is no other."""
    loss_token = "alert-critical" if training.nonfinite_loss else "value"
    return [
        [("loss ", "muted"), (f"{decimal(training.loss):<6}", loss_token)],
        [(f"{count(training.nonfinite_loss)} NaN or Inf", "alert-critical")] if training.nonfinite_loss else trend,
        [("grad ", "muted"), (f"{decimal(training.grad_norm, 3):<4}", "text")],
        [("lr ", "muted"), (_learning_rate(training.learning_rate), "text")],
        [(f"{_samples(training.samples_per_s):>5}", "text"), (" samples/s", "muted")],
        [("step ", "muted"), (count(training.step), "text"), (" in all", "muted")],
    ]


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
