"""A training that was killed and goes on ends with the same bits as one that was not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_support import Killed, differences, kill_after, learnt, newest
from training_support import Heard, config, random_bars

from quantai_tui.market import BarColumns, StoreError
from quantai_tui.telemetry import Severity, TrainingState
from quantai_tui.training.loop import TrainingLoop
from quantai_tui.training.messages import Metrics, Saved

torch.set_num_threads(1)

BARS = random_bars(440)
# In fp16 the scale grows until steps really overflow, and comes down again: skipped steps are part of the way.
RESTLESS = {"growth_interval": 2, "growth_factor": 2.0, "max_scale": 2.0**40}


class Ticking:
    """A clock on which every look takes 10 ms."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Market:
    """Bars that go on: every read of the newest shows some more of them."""

    def __init__(self, bars: BarColumns = BARS, shown: int = 300) -> None:
        self.bars = bars
        self.shown = shown

    def newest(self, path: str, symbol: str, interval_s: int, limit: int) -> BarColumns:
        return BarColumns(*(column[: self.shown] for column in self.bars))

    def between(self, path: str, symbol: str, interval_s: int, first_us: int, last_us: int) -> BarColumns | None:
        times = self.bars.open_time_us
        return BarColumns(*(column[(times >= first_us) & (times <= last_us)] for column in self.bars))


def training(folder: Path, market: Market, heard: Heard | None = None, **changes: Any) -> TrainingLoop:
    settings: dict[str, Any] = {"max_epochs": 2, "batch_size": 32, "checkpoint_every_s": 0.01, **RESTLESS, **changes}
    return TrainingLoop(
        config(checkpoint_dir=str(folder), **settings),
        heard or Heard(),
        read=market.newest,
        read_between=market.between,
        clock=Ticking(),
    )


def die(loop: TrainingLoop, after: int) -> None:
    """As by SIGKILL, after so many steps, with every checkpoint begun until then on the disk."""
    kill_after(loop, after)
    checkpoints = loop._checkpoints
    assert checkpoints is not None
    save = checkpoints.save

    def promptly(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        checkpoints.finish()  # a thread cannot be killed: the next writer must not meet it

    checkpoints.save = promptly  # type: ignore[method-assign]
    with pytest.raises(Killed):
        loop.run()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_killed_at_any_step_training_ends_with_the_same_bits(precision: str, tmp_path: Path) -> None:
    straight = Heard()
    assert training(tmp_path / "straight", Market(), straight, precision=precision).run()
    wanted = learnt(newest(tmp_path / "straight"))
    steps = wanted["step"]
    assert steps == 2 * 6
    if precision == "fp16":
        assert wanted["stepper"]["monitor"]["counts"]["overflow_count"] > 0
    for step in range(1, steps + 1):
        folder = tmp_path / f"{step}"
        market = Market()
        die(training(folder, market, precision=precision, checkpoint_every_s=0.05), step)
        heard = Heard()
        assert training(folder, market, heard, precision=precision).run()
        assert differences(wanted, learnt(newest(folder))) == [], f"killed after step {step}"
        assert heard.epochs[-1] == straight.epochs[-1]


def test_killed_again_and_again_training_still_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert training(tmp_path / "straight", Market()).run()
    for _ in range(4):
        die(training(tmp_path / "other", Market()), 3)
    assert training(tmp_path / "other", Market()).run()
    assert differences(learnt(newest(tmp_path / "straight")), learnt(newest(tmp_path / "other"))) == []


def checkpoint_of(folder: Path) -> dict[str, Any]:
    die(training(folder, Market(), checkpoint_every_s=0.05), 9)
    state: dict[str, Any] = torch.load(newest(folder), weights_only=True)
    return state


WRONG: dict[str, Callable[[dict[str, Any]], None]] = {
    "no stepper": lambda state: state["stepper"].clear(),
    "no loop": lambda state: state["loop"].clear(),
    "no place in the epoch": lambda state: state["loop"]["epochs"].update(within={}),
    "no best": lambda state: state["loop"]["best"].clear(),
    "another model": lambda state: state["stepper"]["model"].popitem(),
    "NaN in the weights": lambda state: next(iter(state["stepper"]["model"].values())).fill_(float("nan")),
    "optimizer of other shapes": lambda state: state["stepper"]["optimizer"][0].update(exp_avg=torch.zeros(3)),
    "optimizer of some weights": lambda state: state["stepper"]["optimizer"].pop(0),
    "a step that is a text": lambda state: state["loop"].update(step="seven"),
    "random state": lambda state: state["rng"].update(torch=torch.zeros(5, dtype=torch.uint8)),
    "half a monitor": lambda state: state["stepper"]["monitor"].pop("resets"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_complete_but_wrong_checkpoint_is_skipped(wrong: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path)
    wrong(state)
    path = newest(tmp_path)
    later = path.with_name(path.name.replace("-0000", "-0009"))
    torch.save(state, later)
    heard = Heard()
    assert training(tmp_path, Market(), heard).run()
    (warning,) = [event.text for event in heard.events if event.level is Severity.WARNING]
    assert warning.startswith(f"checkpoint {later.name} is skipped: ")
    assert (heard.saved[0].resumed, heard.saved[0].path) == (True, str(path))
    assert training(tmp_path / "straight", Market()).run()
    assert differences(learnt(newest(tmp_path / "straight")), learnt(newest(tmp_path))) == []


def test_training_starts_anew_when_every_checkpoint_is_wrong(tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path)
    state["loop"]["best"] = {}  # the last part to be restored: all others are undone
    for path in tmp_path.glob("*.pt"):
        torch.save(state, path)
    heard = Heard()
    assert training(tmp_path, Market(), heard).run()
    assert any(event.text == "no checkpoint could be used: training begins anew" for event in heard.events)
    assert training(tmp_path / "straight", Market()).run()
    assert differences(learnt(newest(tmp_path / "straight")), learnt(newest(tmp_path))) == []


def test_running_out_of_memory_does_not_skip_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_of(tmp_path)
    heard = Heard()
    loop = training(tmp_path, Market(), heard)

    def full(state: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop._stepper, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        loop.run()
    assert heard.events == []


def test_bars_that_come_in_have_no_part_in_an_epoch_that_goes_on(tmp_path: Path) -> None:
    def grown(market: Market) -> Callable[[Metrics], None]:
        def on_metrics(metrics: Metrics) -> None:
            market.shown = 300 if metrics.epoch < 2 else 440

        return on_metrics

    market = Market()
    assert training(tmp_path / "straight", market, Heard(grown(market))).run()
    market = Market()
    die(training(tmp_path / "other", market), 4)  # within the first epoch
    market.shown = 440
    heard = Heard()
    assert training(tmp_path / "other", market, heard).run()
    assert [epoch.data_bars for epoch in heard.epochs] == [300, 440]


def repaired(bars: BarColumns) -> BarColumns:
    volume = bars.volume.copy()
    volume[150] = np.nextafter(volume[150], np.inf)
    return bars._replace(volume=volume)


def pruned(bars: BarColumns) -> BarColumns:
    return BarColumns(*(column[20:] for column in bars))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (repaired, "of the bars that it was begun with some have changed"),
        (pruned, "of the bars that it was begun with the store has 280 left"),
        (lambda bars: BarColumns(*(column[:0] for column in bars)), "the store has none any more"),
    ],
)
def test_bars_that_have_changed_begin_the_epoch_again_with_the_weights_kept(
    change: Callable[[BarColumns], BarColumns], why: str, tmp_path: Path
) -> None:
    die(training(tmp_path, Market()), 9)
    market = Market(change(BARS))
    market.newest = Market().newest  # type: ignore[method-assign]
    heard = Heard()
    assert training(tmp_path, market, heard).run()
    (warning,) = [event.text for event in heard.events if event.level is Severity.WARNING]
    assert warning.startswith("the epoch begins again over the bars of now, with what was learnt so far: ")
    assert warning.endswith(why)
    assert [epoch.epoch for epoch in heard.epochs] == [2]
    assert heard.saved[0].resumed
    assert heard.all_metrics[-1].step == heard.saved[0].step + 6


def test_other_batches_begin_the_epoch_again(tmp_path: Path) -> None:
    die(training(tmp_path, Market()), 9)
    heard = Heard()
    assert training(tmp_path, Market(), heard, batch_size=16).run()
    assert any("steps of 32 samples, and now they have 16" in event.text for event in heard.events)


def test_a_store_that_cannot_be_read_yet_is_waited_for(tmp_path: Path) -> None:
    assert training(tmp_path / "straight", Market()).run()
    die(training(tmp_path / "other", Market()), 9)
    market, tries = Market(), iter((None, StoreError("locked")))
    between = market.between

    def late(*args: Any) -> BarColumns | None:
        for trouble in tries:
            if trouble is None:
                return None
            raise trouble
        return between(*args)

    market.between = late  # type: ignore[method-assign]
    heard = Heard()
    loop = training(tmp_path / "other", market, heard)
    loop._sleep = lambda seconds: None  # type: ignore[method-assign]
    assert loop.run()
    waiting = {metrics.detail for metrics in heard.all_metrics if metrics.state is TrainingState.WAITING}
    assert "waiting for the store, to go on within an epoch" in {detail.partition(" (")[0] for detail in waiting}
    assert differences(learnt(newest(tmp_path / "straight")), learnt(newest(tmp_path / "other"))) == []


def test_a_stop_saves_and_a_start_goes_on_from_that_very_step(tmp_path: Path) -> None:
    assert training(tmp_path / "straight", Market()).run()
    heard = Heard()
    loop = training(tmp_path / "other", Market(), heard, checkpoint_every_s=0.0)
    heard.on_metrics = lambda metrics: loop.request_stop() if metrics.step == 7 else None
    assert not loop.run()
    (saved,) = [told for told in heard.saved if not told.best]
    assert saved == Saved(str(newest(tmp_path / "other")), 7, saved.time, epochs_done=1)
    heard = Heard()
    assert training(tmp_path / "other", Market(), heard).run()
    assert heard.saved[0] == Saved(saved.path, 7, saved.time, resumed=True, epochs_done=1)
    assert heard.events[0].text.startswith("training goes on from step 7, epoch 2 (")
    assert differences(learnt(newest(tmp_path / "straight")), learnt(newest(tmp_path / "other"))) == []


def test_a_stop_while_paused_right_after_a_start_keeps_the_place(tmp_path: Path) -> None:
    die(training(tmp_path, Market()), 9)
    before = learnt(newest(tmp_path))
    loop = training(tmp_path, Market())
    answers: list[tuple[bool, str]] = []
    loop.request_checkpoint(lambda ok, text: answers.append((ok, text)))
    loop.request_stop()
    assert not loop.run()
    assert answers[0][0]
    assert f"step {before['step']} saved in {newest(tmp_path)}" == answers[0][1]
    assert differences(before, learnt(newest(tmp_path))) == []


def test_a_checkpoint_can_be_asked_for_and_without_a_folder_the_answer_says_so(tmp_path: Path) -> None:
    answers: list[tuple[bool, str]] = []
    loop = TrainingLoop(config(max_epochs=1), Heard(), read=Market().newest)
    loop.request_checkpoint(lambda ok, text: answers.append((ok, text)))
    assert loop.run()
    assert answers == [(False, "this training keeps no checkpoints: no folder was given for them")]


def test_a_folder_that_cannot_be_written_is_told_and_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    heard = Heard()
    answers: list[tuple[bool, str]] = []
    loop = training(tmp_path / "file" / "folder", Market(), heard)
    loop.request_checkpoint(lambda ok, text: answers.append((ok, text)))
    assert loop.run()
    assert not answers[0][0]
    assert "no checkpoint could be written at step 0" in answers[0][1]
    assert "Not a directory" in answers[0][1]
    assert heard.epochs[-1].epoch == 2
    assert not heard.saved


def test_weights_that_hold_nan_never_take_the_place_of_good_ones(tmp_path: Path) -> None:
    heard, answers = Heard(), []
    loop = TrainingLoop(config(max_epochs=1, checkpoint_dir=str(tmp_path), checkpoint_every_s=0.0), heard, read=Market().newest)
    with torch.no_grad():
        next(loop._stepper.model.parameters()).fill_(float("nan"))
    loop.request_checkpoint(lambda ok, text: answers.append((ok, text)))
    loop.request_stop()
    assert not loop.run()
    assert [ok for ok, _ in answers] == [False]
    assert "NaN or Inf" in answers[0][1]
    assert (heard.saved, list(tmp_path.glob("*.pt"))) == ([], [])


def test_settings_win_over_what_a_checkpoint_says(tmp_path: Path) -> None:
    die(training(tmp_path, Market()), 9)
    loop = training(tmp_path, Market(), max_scale=1000.0, growth_interval=7, growth_factor=1.5, weight_decay=0.5)
    loop.request_pause()
    loop.request_stop()
    assert not loop.run()
    monitor, scaler = loop._stepper.monitor, loop._stepper._scaler
    assert monitor is not None
    assert monitor.scale == scaler.get_scale() == 1000.0
    assert (scaler.get_growth_interval(), scaler.get_growth_factor()) == (7, 1.5)
    assert {group["weight_decay"] for group in loop._stepper.optimizer.param_groups} == {0.5}


def test_from_fp32_to_fp16_the_weights_are_kept_and_the_scale_begins(tmp_path: Path) -> None:
    die(training(tmp_path, Market(), precision="fp32"), 9)
    heard = Heard()
    assert training(tmp_path, Market(), heard, precision="fp16").run()
    assert heard.saved[0].resumed
    assert heard.all_metrics[-1].scale is not None


def test_epochs_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    assert training(tmp_path, Market()).run()
    heard = Heard()
    assert training(tmp_path, Market(), heard).run()
    assert (heard.epochs, heard.saved[0].resumed, heard.saved[0].epochs_done) == ([], True, 2)


def test_training_that_resets_do_not_help_pauses_and_says_why_until_it_is_resumed() -> None:
    heard = Heard()
    loop = TrainingLoop(config(max_epochs=6), heard, read=Market().newest)
    weight = next(loop._stepper.model.parameters())
    # A gradient that is infinite at every scale, with a loss that is fine: a square root at 0 does this.
    broken = weight.register_hook(lambda gradient: gradient * float("inf"))

    def repaired_and_resumed(metrics: Metrics) -> None:
        if metrics.state is TrainingState.PAUSED:
            broken.remove()
            loop.request_resume()

    heard.on_metrics = repaired_and_resumed
    assert loop.run()
    paused = [metrics for metrics in heard.all_metrics if metrics.state is TrainingState.PAUSED]
    assert "overflows in a row" in paused[0].paused_because
    assert paused[0].overflow_count == paused[0].step > 5
    last = heard.all_metrics[-1]
    assert last.paused_because == ""
    assert last.overflow_count == paused[0].overflow_count
    assert last.step > paused[0].step
    critical = [event.text for event in heard.events if event.level is Severity.CRITICAL]
    assert f"training has paused: {paused[0].paused_because}" in critical
