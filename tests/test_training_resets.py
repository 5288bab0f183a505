"""When the scale is reset by itself, and when training is called stuck. On the real GradScaler."""

from __future__ import annotations

import pytest
from scaler_support import Rig

from quantai_tui.telemetry import Severity
from quantai_tui.training import DynamicGradScalerConfig


def test_a_scale_on_its_way_down_from_the_top_is_never_called_stuck() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    skipped = 0
    while rig.monitor.scale > 1.0:
        rig.step(True, epoch=skipped // 4)
        skipped += 1
    assert skipped == 16
    assert not rig.step(epoch=4)
    assert rig.monitor.stuck == ""
    assert [level for level, _ in rig.events] == [Severity.WARNING]


def test_a_slow_way_down_through_many_abnormal_epochs_is_not_stuck_either() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, backoff_factor=0.99), max_consecutive_overflow=10_000, reset_threshold_epochs=1)
    step = 0
    while rig.monitor.scale > 1.0:
        rig.step(True, epoch=step // 10)
        step += 1
    assert step > 1000
    assert rig.monitor.reset_count > 3
    for _ in range(30):
        rig.step(epoch=step // 10 + 1)
    assert rig.monitor.stuck == ""


def test_overflows_that_the_floor_cuts_off_one_after_another_are_stuck() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    steps = 0
    while not rig.monitor.stuck:
        rig.step(True)
        steps += 1
    assert steps == 26, "16 down to the floor, and 10 there"
    assert rig.monitor.stuck.startswith("10 overflows in a row with the scale at its floor")
    assert "suspect the gradient itself" in rig.monitor.stuck
    assert rig.events[-1] == (Severity.CRITICAL, rig.monitor.stuck)
    told = len(rig.events)
    for _ in range(50):
        rig.step(True)
    assert len(rig.events) == told, "told once"


@pytest.mark.parametrize("scale", [1.0, 2.0, 8.0, 64.0, 1024.0, 65536.0])
def test_planted_bursts_of_six_are_never_stuck_whatever_the_scale(scale: float) -> None:
    rig = Rig(DynamicGradScalerConfig(1000), max_consecutive_overflow=1)
    rig.monitor.set_scale(scale)
    for burst in range(12):
        rig.epoch(2 * burst, "xxxxxx" + "." * 20)
        rig.epoch(2 * burst + 1, "." * 26)
    assert rig.monitor.stuck == ""


def test_three_resets_by_epochs_full_of_overflows_without_a_better_one_between_are_stuck() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=2), reset_threshold_epochs=1)
    resets = []
    for epoch in range(100):
        rig.epoch(epoch, "x.." * 40)
        resets.append(rig.monitor.reset_count)
        if rig.monitor.stuck:
            break
    assert resets[-1] == 3
    assert "3 resets, overflows still over 20 %" in rig.monitor.stuck
    assert "learning rate" in rig.monitor.stuck


def test_one_better_epoch_between_such_resets_makes_the_count_start_over() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=2), reset_threshold_epochs=1)
    for epoch in range(60):
        rig.epoch(epoch, ("x.." if epoch % 5 else "...") * 40)
    assert rig.monitor.reset_count > 6
    assert rig.monitor.stuck == ""


def test_resets_because_of_the_cap_are_never_stuck() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=1, max_scale=65536.0), reset_threshold_epochs=1)
    for epoch in range(60):
        rig.epoch(epoch, "." * 30)
    assert rig.monitor.reset_count > 4
    assert rig.monitor.stuck == ""


def test_a_hundred_losses_in_a_row_that_are_not_finite_are_stuck_and_the_scale_is_not_blamed() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.epoch(1, "n" * 99 + ".")
    rig.epoch(1, "n" * 99)
    assert rig.monitor.stuck == ""
    rig.epoch(1, "n")
    assert rig.monitor.stuck.startswith("100 losses in a row were not finite")
    assert "data and weights" in rig.monitor.stuck
    assert rig.device_state == (65536.0, 1)
    assert rig.monitor.reset_count == 0


def test_without_automatic_resets_trouble_is_told_once_and_nothing_is_called_stuck() -> None:
    rig = Rig(DynamicGradScalerConfig(1000), auto_reset=False)
    rig.epoch(1, "x" * 60)
    rig.epoch(1, "n" * 150)
    rig.epoch(1, ".")
    assert rig.monitor.stuck == ""
    assert rig.monitor.reset_count == 0
    assert [level for level, _ in rig.events] == [Severity.CRITICAL]
    rig.epoch(1, "n" * 150)
    assert [level for level, _ in rig.events] == [Severity.CRITICAL] * 2, "after a clean step it is another trouble"


@pytest.mark.parametrize("manually", [True, False])
def test_the_operator_ends_it_and_it_takes_as_much_to_be_stuck_again(manually: bool) -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.epoch(1, "x" * 26)
    assert rig.monitor.stuck
    if manually:
        assert rig.monitor.reset_scale() == 32768.0
    else:
        rig.monitor.clear_stuck()
    assert rig.monitor.stuck == ""
    rig.epoch(1, "x" * ((15 if manually else 0) + 9))
    assert rig.monitor.stuck == ""
    rig.epoch(1, "x")
    assert rig.monitor.stuck


def test_a_scale_pressed_against_the_floor_all_epoch_is_abnormal_and_one_that_only_stands_there_is_not() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, min_scale=4.0, max_scale=4.0))
    rig.epoch(1, "." * 20)
    rig.epoch(2, "x" + "." * 19)
    rig.epoch(3, ".")
    assert [record["abnormal"] for record in rig.monitor.get_statistics()["epoch_records"]] == [False, True]


def test_an_epoch_with_a_fifth_of_overflows_is_normal_and_one_with_more_is_not() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.epoch(1, "xx" + "." * 8)
    rig.epoch(2, "xxx" + "." * 7)
    rig.epoch(3, "xxnnn" + "." * 5)
    rig.epoch(4, ".")
    assert [record["abnormal"] for record in rig.monitor.get_statistics()["epoch_records"]] == [False, True, False]
