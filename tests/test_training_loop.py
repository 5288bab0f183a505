"""The loop itself, in this process: real fp16 on the CPU, real overflows, steered as an operator would."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from training_support import Heard, config, random_bars

from quantai_tui.market import BarColumns, StoreError
from quantai_tui.telemetry import Severity, TrainingState
from quantai_tui.training import dataset
from quantai_tui.training.config import WorkerConfig
from quantai_tui.training.loop import TrainingLoop
from quantai_tui.training.messages import Metrics
from quantai_tui.training.model import BarEncoder, count_parameters
from quantai_tui.training.precision import choose
from quantai_tui.training.stepper import Stepper, learning_rate_at

torch.set_num_threads(1)


def reading(bars: BarColumns) -> Callable[[str, str, int, int], BarColumns]:
    return lambda path, symbol, interval_s, limit: BarColumns(*(column[-limit:] for column in bars))


def stepper(**changes: object) -> Stepper:
    settings = config(**changes)
    precision = choose(settings.device, settings.precision, settings.model_size)
    return Stepper(settings, len(dataset.FEATURES), precision, lambda severity, text: None)


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 8, len(dataset.FEATURES), generator=generator), torch.randint(0, 3, (size,), generator=generator)


def weights(of: Stepper) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in of.model.parameters()]


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [
        ("tiny", 8_000, 12_000),
        ("small", 100_000, 1_000_000),
        ("medium", 1_000_000, 10_000_000),
        ("large", 10_000_001, 20_000_000),
    ],
)
def test_model_sizes_are_of_the_order_they_are_sold_as(size: str, least: int, most: int) -> None:
    assert least <= count_parameters(BarEncoder(len(dataset.FEATURES), 24, size)) <= most


def test_a_planted_signal_is_learnt_within_a_few_epochs() -> None:
    heard = Heard()
    settings = config(max_epochs=3, learning_rate=3e-3, batch_size=32)
    assert TrainingLoop(settings, heard, read=reading(random_bars(1500, told=True))).run()
    assert [epoch.epoch for epoch in heard.epochs] == [1, 2, 3]
    last = heard.epochs[-1]
    assert last.accuracy > max(last.majority_accuracy, last.persistence_accuracy) + 0.15
    assert last.validation_samples > 200
    assert last.data_bars == 1500
    assert heard.all_metrics[-1].state is TrainingState.TRAINING
    assert heard.all_metrics[-1].overflow_count == 0


def test_nothing_is_learnt_where_there_is_nothing_to_learn() -> None:
    heard = Heard()
    TrainingLoop(config(max_epochs=1), heard, read=reading(random_bars(1500))).run()
    assert heard.epochs[0].accuracy < 0.5


def test_training_survives_a_ledger_that_begins_earlier_and_still_validates_on_what_it_has_not_seen() -> None:
    bars = random_bars(2000)
    parts = iter((slice(1400, 2000), slice(0, 600), slice(0, 2000)))  # as it was; older history comes in; all is whole
    heard = Heard()
    assert TrainingLoop(
        config(max_epochs=3), heard, read=lambda *_: BarColumns(*(column[part] for part in [next(parts)] for column in bars))
    ).run()
    first, _, last = heard.epochs
    assert [epoch.data_bars for epoch in heard.epochs] == [600, 600, 2000]
    assert last.validation_samples == first.validation_samples


def test_the_same_seed_trains_the_same_model() -> None:
    runs = []
    for _ in range(2):
        heard = Heard()
        TrainingLoop(config(max_epochs=1, seed=5), heard, read=reading(random_bars(400))).run()
        runs.append(heard.epochs[0].accuracy)
    assert runs[0] == runs[1]


def test_a_planted_burst_really_overflows_leaves_the_weights_alone_and_the_scale_recovers() -> None:
    tried = stepper(growth_interval=2, growth_factor=2.0)
    windows, labels = batch()
    assert tried.monitor is not None
    tried.step(windows, labels, 1, 0)
    before = weights(tried)
    assert [tried.step(windows, labels, 1, number, 2.0**40) for number in range(6)] == [True] * 6
    assert tried.monitor.scale == 1024.0
    assert tried.monitor.reset_count == 1
    assert all(torch.equal(old, new) for old, new in zip(before, weights(tried), strict=True))
    skipped = [tried.step(windows, labels, 1, number) for number in range(40)]
    assert not any(skipped)
    assert tried.monitor.scale >= 65536.0
    assert all(torch.isfinite(weight).all() for weight in weights(tried))


def test_even_at_the_floor_a_planted_burst_overflows() -> None:
    tried = stepper(max_scale=1.0)
    assert tried.step(*batch(), 1, 0, 2.0**40)


def test_the_loop_plants_its_bursts_and_says_so() -> None:
    heard = Heard()

    def enough(metrics: Metrics) -> None:
        if metrics.overflow_count and metrics.overflow_count >= 12:
            loop.request_stop()

    heard.on_metrics = enough
    loop = TrainingLoop(config(plant_overflow_every_s=0.3, steps_per_s=200), heard, read=reading(random_bars(400)))
    assert not loop.run()
    assert heard.ready[0].planted == "planted: 6 overflows every 0.3 s (demo)"
    texts = [event.text for event in heard.events]
    # A report that comes late tells of the 12th overflow when the third burst has begun.
    assert sum(text.startswith("planted: ") for text in texts) == math.ceil(heard.all_metrics[-1].overflow_count / 6) >= 2
    assert any(text.startswith("automatic reset after 5 overflows in a row") for text in texts)
    assert sum(metrics.overflows for metrics in heard.all_metrics) == heard.all_metrics[-1].overflow_count
    losses = [metrics.loss for metrics in heard.all_metrics if metrics.loss is not None]
    assert max(losses) < 10.0  # what is shown is the loss itself, without the planted factor


def test_a_loss_that_is_not_finite_is_counted_and_told_and_does_not_move_the_scale() -> None:
    bars = random_bars(400)
    heard = Heard()
    loop = TrainingLoop(config(max_epochs=1), heard, read=reading(bars))
    windows = loop._windows

    def with_nan(features: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        out = windows(features, at).clone()
        out[0, 0, 0] = float("nan")
        return out

    loop._windows = with_nan  # type: ignore[method-assign]
    loop.run()
    last = heard.all_metrics[-1]
    assert last.nonfinite_loss == last.step > 0
    assert last.overflow_count == last.step
    assert (last.scale, last.resets, last.loss) == (65536.0, 0, None)
    assert [event.level for event in heard.events] == [Severity.CRITICAL]
    assert "check data and weights" in heard.events[0].text


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_without_fp16_the_scaler_is_off_and_the_telemetry_says_so(precision: str) -> None:
    heard = Heard()
    answers: list[tuple[bool, str]] = []
    loop = TrainingLoop(config(precision=precision, max_epochs=1), heard, read=reading(random_bars(300)))
    loop.request_reset_scale(lambda ok, text: answers.append((ok, text)))
    assert loop.run()
    last = heard.all_metrics[-1]
    assert last.loss is not None
    assert (last.scale, last.overflow_count, last.resets) == (None, None, None)
    assert "the scaler is off" in heard.ready[0].reason
    assert heard.ready[0].scale_cap is None
    assert answers == [(False, f"nothing to reset: {precision} runs without a gradient scaler")]


def test_in_fp32_a_gradient_that_is_not_finite_never_reaches_the_weights() -> None:
    tried = stepper(precision="fp32")
    windows, labels = batch()
    windows[0, 0, 0] = float("inf")
    before = weights(tried)
    assert tried.step(windows, labels, 1, 0)
    assert all(torch.equal(old, new) for old, new in zip(before, weights(tried), strict=True))


def test_precision_is_chosen_with_a_reason_and_a_missing_device_is_an_error() -> None:
    assert choose("cpu", "auto", "tiny").name == "fp16"
    assert choose("cpu", "auto", "medium").name == "fp32"
    assert "emulated" in choose("cpu", "auto", "medium").reason
    if not torch.cuda.is_available():
        assert choose("auto", "auto", "tiny").device.type == "cpu"
        with pytest.raises(ValueError, match="no usable CUDA device"):
            choose("cuda", "fp16", "tiny")


def test_the_learning_rate_warms_up_and_then_falls_as_a_cosine_or_stays() -> None:
    settings = config(lr_warmup_steps=10, learning_rate=1e-3)
    rates = [learning_rate_at(step, settings, 110) for step in range(120)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(0.55e-3)
    assert rates[110] == pytest.approx(1e-4)
    assert rates[119] == rates[110]
    assert rates[:10] == sorted(rates[:10])
    assert learning_rate_at(10**6, settings, None) == 1e-3


def test_skipped_steps_do_not_use_up_the_warm_up() -> None:
    tried = stepper(lr_warmup_steps=100)
    windows, labels = batch()
    for number in range(6):
        tried.step(windows, labels, 1, number, 2.0**40)
    assert tried.steps_taken == 0
    tried.step(windows, labels, 1, 6)
    assert tried.learning_rate == pytest.approx(1e-5)
    assert tried.steps_taken == 1


class Running:
    """A loop in a thread of its own, steered from the test."""

    def __init__(self, settings: WorkerConfig, read: Callable[[str, str, int, int], BarColumns | None]) -> None:
        self.changed = threading.Condition()
        self.heard = Heard(self._notify)
        self.loop = TrainingLoop(settings, self.heard, read=read)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def _notify(self, metrics: Metrics) -> None:
        with self.changed:
            self.changed.notify_all()

    def until(self, holds: Callable[[Metrics], bool]) -> Metrics:
        with self.changed:
            assert self.changed.wait_for(lambda: self.heard.all_metrics and holds(self.heard.all_metrics[-1]), 40)
            return self.heard.all_metrics[-1]

    def ask(self, request: Callable[[Callable[[bool, str], None]], None]) -> tuple[bool, str]:
        answers: list[tuple[bool, str]] = []
        answered = threading.Event()
        request(lambda ok, text: (answers.append((ok, text)), answered.set())[0])
        assert answered.wait(20)
        return answers[0]

    def stop(self) -> None:
        self.loop.request_stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_pause_holds_between_two_steps_resets_are_done_meanwhile_and_resume_goes_on() -> None:
    run = Running(config(), reading(random_bars(2000)))
    try:
        run.until(lambda metrics: metrics.step > 3)
        assert run.ask(run.loop.request_pause) == (True, "paused")
        at = run.until(lambda metrics: metrics.state is TrainingState.PAUSED).step
        assert run.ask(run.loop.request_reset_scale) == (True, "scale 65536 -> 32768")
        assert run.until(lambda metrics: metrics.scale == 32768.0).step == at
        assert run.ask(run.loop.request_resume) == (True, "resumed")
        run.until(lambda metrics: metrics.state is TrainingState.TRAINING and metrics.step > at + 3)
    finally:
        run.stop()


def test_live_settings_are_taken_over_and_others_refused() -> None:
    run = Running(config(), reading(random_bars(2000)))
    try:
        run.until(lambda metrics: metrics.step > 1)
        ok, text = run.ask(lambda answer: run.loop.request_settings(config(max_scale=2000.0), answer))
        assert ok
        assert "max_scale" in text
        run.until(lambda metrics: metrics.scale == 2000.0)
        assert run.heard.ready[-1].scale_cap == 2000.0
        ok, text = run.ask(lambda answer: run.loop.request_settings(config(max_scale=2000.0, window=9), answer))
        assert not ok
        assert text.startswith("window cannot change")
    finally:
        run.stop()


def test_too_few_bars_are_waited_for_and_new_ones_are_read_at_the_next_epoch() -> None:
    bars = random_bars(400)
    seen: list[int] = []

    def growing(path: str, symbol: str, interval_s: int, limit: int) -> BarColumns | None:
        seen.append(limit)
        if len(seen) == 1:
            return None
        if len(seen) == 2:
            raise StoreError("the store has no tables yet")
        return BarColumns(*(column[: 60 * len(seen)] for column in bars))

    heard = Heard()
    loop = TrainingLoop(config(max_epochs=2), heard, read=growing)
    loop._sleep = lambda seconds: None  # type: ignore[method-assign]
    assert loop.run()
    waiting = {metrics.detail for metrics in heard.all_metrics if metrics.state is TrainingState.WAITING}
    assert "waiting: 0 of 200 bars" in waiting
    assert [epoch.data_bars for epoch in heard.epochs] == [240, 300]
    assert heard.epochs[1].data_through_time == (int(bars.open_time_us[299]) + 60_000_000) / 1e6


def test_metrics_are_said_at_most_twenty_five_times_a_second_and_what_is_dropped_is_said_again() -> None:
    class Deaf(Heard):
        def metrics(self, metrics: Metrics) -> bool:
            return super().metrics(metrics) and len(self.all_metrics) % 2 == 0

    heard = Deaf()
    loop = TrainingLoop(config(max_epochs=1, plant_overflow_every_s=0.05), heard, read=reading(random_bars(800)))
    loop.run()
    heard_of = sum(metrics.overflows for metrics in heard.all_metrics[1::2])
    still_to_say = heard.all_metrics[-1].overflows if len(heard.all_metrics) % 2 else 0
    assert heard_of + still_to_say == heard.all_metrics[-1].overflow_count > 0
    assert len(heard.all_metrics) <= heard.all_metrics[-1].step
    assert np.isfinite([metrics.loss for metrics in heard.all_metrics if metrics.loss is not None]).all()


def test_growing_data_never_shows_the_backend_a_new_shape() -> None:
    """Each new shape costs memory for good: a market that adds a window a second would add up to a gigabyte."""
    shapes: set[tuple[int, ...]] = set()
    bars = iter(range(400, 460))

    def read(path: str, symbol: str, interval_s: int, limit: int) -> BarColumns:
        return random_bars(next(bars))

    loop = TrainingLoop(config(max_epochs=20), Heard(), read=read)
    forward = loop._stepper._forward

    def noting(windows: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(windows.shape))
        return forward(windows)

    loop._stepper._forward = noting  # type: ignore[method-assign]
    assert loop.run()
    assert len(shapes) == 1
