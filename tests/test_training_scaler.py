"""The loss scale: where it starts, how it is mirrored, bounded, recorded and reset. All on the real GradScaler."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_support import Rig

from quantai_tui.telemetry import Severity
from quantai_tui.training import DynamicGradScalerConfig, GradScalerMonitor, ScaleRecord
from quantai_tui.training.scaler import ScaleMirror, SkipDetector


@pytest.mark.parametrize(
    ("growth", "backoff", "interval", "overflow_odds"),
    [(1.2, 0.5, 3, 0.1), (2.0, 0.5, 1, 0.5), (1.37, 0.77, 7, 0.02), (1e10, 0.3, 2, 0.3), (1.2, 0.5, 50, 0.9)],
)
def test_the_mirror_is_bit_equal_to_the_scaler(growth: float, backoff: float, interval: int, overflow_odds: float) -> None:
    chance = random.Random(42)
    scale, tracker = torch.full((), 65536.0), torch.zeros((), dtype=torch.int32)
    mirror = ScaleMirror(65536.0)
    for _ in range(10_000):
        skipped = chance.random() < overflow_odds
        torch._amp_update_scale_(scale, tracker, torch.full((), float(skipped)), growth, backoff, interval)
        mirror.advance(skipped, growth, backoff, interval)
        assert (mirror.scale, mirror.tracker) == (scale.item(), tracker.item())


@settings(max_examples=30, deadline=None)
@given(
    overflows=st.lists(st.booleans(), min_size=1, max_size=120),
    growth=st.floats(1.01, 1e6),
    interval=st.integers(1, 5),
    cap=st.floats(2.0, 1e6),
)
def test_whatever_happens_mirror_and_scaler_agree_and_stay_in_bounds(
    overflows: list[bool], growth: float, interval: int, cap: float
) -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_factor=growth, growth_interval=interval, max_scale=cap))
    for number, overflow in enumerate(overflows):
        assert rig.step(overflow, epoch=number // 10) is overflow
        assert rig.device_state == rig.mirror_state
        assert 1.0 <= rig.device_state[0] <= cap


def test_the_cap_holds_from_the_very_first_step_even_for_a_scaler_made_elsewhere() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    GradScalerMonitor(scaler, DynamicGradScalerConfig(1000))
    assert scaler.scale(torch.ones(())).item() == 100_000.0


def test_reading_the_monitor_leaves_the_identity_of_the_device_scale() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=1))
    rig.step()
    held = rig.scaler._scale
    for overflow in (False, True, False):
        rig.step(overflow)
    rig.monitor.reset_scale()
    assert rig.scaler._scale is held


# With the initial scale at 2^16, 2^14 or 2^12, and the true threshold anywhere from the floor up.
@settings(max_examples=40, deadline=None)
@given(
    parameters=st.sampled_from((1000, 5_000_000, 50_000_000)),
    log_threshold=st.floats(0.0, 17.0),
    consecutive=st.integers(1, 8),
)
def test_with_automatic_resets_a_run_skips_no_more_than_plain_backoff_needs(
    parameters: int, log_threshold: float, consecutive: int
) -> None:
    config = DynamicGradScalerConfig(parameters)
    rig = Rig(config, max_consecutive_overflow=consecutive)
    threshold = 2.0**log_threshold
    skipped = 0
    for step in range(200):
        skipped += rig.step(rig.monitor.scale > threshold, epoch=step // 20)
    assert skipped <= max(math.log2(config.init_scale / threshold), 0.0) + 2


def test_five_overflows_in_a_row_reset_once_and_never_raise_the_scale() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    for _ in range(3):
        rig.step()
    before = []
    for _ in range(12):
        before.append(rig.monitor.scale)
        rig.step(overflows=True)
        assert rig.monitor.scale <= before[-1]
        assert rig.device_state == rig.mirror_state
    assert rig.monitor.reset_count == 1
    assert [level for level, _ in rig.events] == [Severity.WARNING], "on the way down there is nothing to inspect"
    assert rig.monitor.mirror.tracker == 0


def test_a_reset_brings_a_scale_that_has_grown_down_to_half_of_the_initial_one() -> None:
    config = DynamicGradScalerConfig(50_000_000, growth_factor=4.0, growth_interval=1, backoff_factor=0.99)
    rig = Rig(config)
    rig.step()
    rig.step()
    assert rig.monitor.scale == 65536.0
    for _ in range(5):
        rig.step(overflows=True)
    assert rig.device_state == rig.mirror_state == (2048.0, 0)


def test_resets_are_switched_off_by_one_setting() -> None:
    rig = Rig(DynamicGradScalerConfig(1000), auto_reset=False)
    for step in range(200):
        rig.step(overflows=True, epoch=step // 10)
    assert rig.monitor.reset_count == 0
    assert rig.monitor.scale == 1.0


def test_a_second_reset_waits_for_two_hundred_steps() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    resets_at = []
    for step in range(1, 421):
        before = rig.monitor.reset_count
        rig.step(overflows=True)
        if rig.monitor.reset_count > before:
            resets_at.append(step)
    assert resets_at == [5, 205, 405]


def test_abnormal_epochs_in_a_row_reset() -> None:
    rig = Rig(DynamicGradScalerConfig(1000), reset_threshold_epochs=3)
    for epoch in range(1, 4):
        for batch in range(10):
            rig.step(overflows=batch % 3 == 0, epoch=epoch)
        assert rig.monitor.reset_count == 0
    rig.step(epoch=4)
    assert rig.monitor.reset_count == 1
    assert "3 abnormal epochs in a row" in rig.events[0][1]
    assert [record["abnormal"] for record in rig.monitor.get_statistics()["epoch_records"]] == [True] * 3


def test_standing_at_the_cap_is_normal_as_long_as_the_cap_cuts_no_growth_off() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=1000, max_scale=65536.0))
    for epoch in range(8):
        for _ in range(5):
            rig.step(epoch=epoch)
    assert rig.monitor.scale == 65536.0
    assert rig.monitor.reset_count == 0
    assert not rig.events
    assert not any(record["abnormal"] for record in rig.monitor.get_statistics()["epoch_records"])


def test_epochs_in_which_the_scale_is_pressed_against_the_cap_reset_it_and_it_grows_back() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, growth_interval=5))
    for epoch in range(4):
        for _ in range(20):
            rig.step(epoch=epoch)
    assert not rig.events
    rig.step(epoch=4)
    assert rig.device_state == rig.mirror_state == (32768.0, 0)
    assert "pressed against its cap" in rig.events[0][1]
    records = rig.monitor.get_statistics()["epoch_records"]
    assert [record["abnormal"] for record in records] == [False, True, True, True], "in the first it was still growing"
    for _ in range(200):
        rig.step(epoch=99)
    assert rig.monitor.scale == 100_000.0
    assert rig.monitor.stuck == ""


def test_overflows_with_the_scale_at_the_floor_throughout_make_an_epoch_abnormal() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, max_scale=4.0, min_scale=4.0))
    for epoch in range(2):
        for batch in range(20):
            rig.step(overflows=batch == 0, epoch=epoch)
    rig.step(epoch=2)
    assert [record["abnormal"] for record in rig.monitor.get_statistics()["epoch_records"]] == [True, True]


def test_a_loss_that_is_not_finite_moves_neither_scale_nor_tracker_and_resets_nothing() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.step()
    rig.step()
    for _ in range(30):
        assert rig.step(overflows=True, loss_finite=False)
    assert rig.device_state == rig.mirror_state == (65536.0, 2)
    assert rig.monitor.reset_count == 0
    assert rig.monitor.consecutive_overflow == 30
    assert not rig.step()
    assert rig.device_state == rig.mirror_state == (65536.0, 3)


def test_epochs_of_losses_that_are_not_finite_reset_nothing() -> None:
    for options in ({}, {"max_scale": 4.0, "min_scale": 4.0}):
        rig = Rig(DynamicGradScalerConfig(1000, **options))
        before = rig.monitor.scale
        for epoch in range(6):
            for batch in range(10):
                rig.step(overflows=batch < 5, epoch=epoch, loss_finite=batch >= 5)
        assert (rig.monitor.reset_count, rig.monitor.scale) == (0, before)
        records = rig.monitor.get_statistics()["epoch_records"]
        assert [(record["overflow_count"], record["nonfinite_losses"], record["abnormal"]) for record in records] == [
            (5, 5, False)
        ] * 5


def test_a_loaded_checkpoint_is_followed_and_not_raised_back() -> None:
    config = DynamicGradScalerConfig(1000, growth_interval=10)
    saved = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 5, "_growth_tracker": 4}
    for steps in (0, 3):
        rig = Rig(config)
        for _ in range(steps):
            rig.step()
        rig.scaler.load_state_dict(saved)
        assert rig.monitor.resync() == 1024.0
        rig.monitor.apply(config, True, 5, 3)
        assert rig.device_state == rig.mirror_state == (1024.0, 4)
        for _ in range(5):
            rig.step()
        assert rig.device_state == rig.mirror_state == (1024.0, 9), "the interval is the config's"
        rig.step()
        rig.step(overflows=True)
        assert rig.device_state == rig.mirror_state
        assert rig.monitor.scale == pytest.approx(1024 * 1.2 / 2), "and so are the factors"


def test_a_loaded_scale_out_of_bounds_is_brought_within_them() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.step()
    rig.scaler.load_state_dict({**rig.scaler.state_dict(), "scale": 2.0**20, "_growth_tracker": 5000})
    assert rig.monitor.resync() == 100_000.0
    assert rig.device_state == rig.mirror_state == (100_000.0, 1999)


def test_a_manual_reset_may_raise_a_collapsed_scale_and_zeroes_the_tracker() -> None:
    rig = Rig(DynamicGradScalerConfig(1000), auto_reset=False)
    for _ in range(30):
        rig.step(overflows=True)
    rig.step()
    assert rig.device_state == (1.0, 1)
    assert rig.monitor.reset_scale() == 32768.0
    assert rig.device_state == rig.mirror_state == (32768.0, 0)
    assert rig.monitor.reset_scale(0.25) == 16384.0
    with pytest.raises(ValueError, match="a fraction"):
        rig.monitor.reset_scale(50)


def test_a_manual_reset_before_the_first_step_is_where_the_scale_begins() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.monitor.reset_scale(0.5)
    rig.step()
    assert rig.device_state == rig.mirror_state == (32768.0, 1)


def test_a_shorter_growth_interval_than_the_tracker_does_not_stop_growth_for_good() -> None:
    rig = Rig(DynamicGradScalerConfig(50_000_000, growth_interval=100))
    for _ in range(50):
        rig.step()
    rig.monitor.apply(DynamicGradScalerConfig(50_000_000, growth_interval=10), True, 5, 3)
    rig.step()
    assert rig.device_state == rig.mirror_state
    assert rig.monitor.scale > 4096.0


def test_a_lower_cap_takes_effect_at_once() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    rig.step()
    rig.monitor.apply(DynamicGradScalerConfig(1000, max_scale=1000.0), True, 5, 3)
    assert rig.device_state[0] == 1000.0


def test_statistics_of_a_monitor_that_has_seen_nothing_are_unknown_not_zero() -> None:
    statistics = Rig(DynamicGradScalerConfig(1000)).monitor.get_statistics()
    assert statistics["current_scale"] == 65536.0
    assert statistics["min_scale"] is None
    assert statistics["overflow_rate"] is None
    assert set(statistics) == {
        "current_scale", "min_scale", "max_scale", "avg_scale", "overflow_count", "overflow_rate", "consecutive_overflow",
        "reset_count", "epoch_records",
    }  # fmt: skip


def test_statistics_are_those_of_the_whole_history() -> None:
    rig = Rig(DynamicGradScalerConfig(1000), auto_reset=False)
    scales = []
    for overflow in (False, True, True, False, True):
        rig.step(overflow)
        scales.append(rig.scaler.get_scale())
    statistics = rig.monitor.get_statistics()
    assert statistics["min_scale"] == min(scales)
    assert statistics["max_scale"] == max(scales)
    assert statistics["avg_scale"] == pytest.approx(sum(scales) / 5)
    assert statistics["overflow_count"] == 3
    assert statistics["overflow_rate"] == pytest.approx(0.6)
    assert statistics["consecutive_overflow"] == 1


def test_records_are_kept_in_a_ring_that_does_not_grow() -> None:
    scaler = DynamicGradScalerConfig(1000).create_scaler("cpu")
    monitor = GradScalerMonitor(scaler, DynamicGradScalerConfig(1000))
    size = len(monitor._records._ring)
    assert size < 100_000
    for batch in range(5000):
        monitor.check_overflow(batch == 4999, 3, batch)
        monitor.record_scale(3, batch)
    records = monitor.records()
    assert len(monitor._records._ring) == size
    assert len(records) == 4096
    assert (records[0].batch, records[-1].batch) == (904, 4999)
    newest = records[-1]
    assert isinstance(newest, ScaleRecord)
    assert (newest.epoch, newest.has_overflow, newest.consecutive_overflow_count) == (3, True, 1)
    assert newest.timestamp > 1.6e9


def test_a_record_made_before_its_batch_was_checked_still_carries_the_overflow() -> None:
    monitor = GradScalerMonitor(DynamicGradScalerConfig(1000).create_scaler("cpu"), DynamicGradScalerConfig(1000))
    monitor.record_scale(1, 0)
    monitor.check_overflow(True, 1, 0)
    (record,) = monitor.records()
    assert record.has_overflow
    assert record.scale_value == 65536.0


def test_an_old_calm_does_not_hide_a_new_storm_in_the_overflow_rate() -> None:
    monitor = GradScalerMonitor(DynamicGradScalerConfig(1000).create_scaler("cpu"), DynamicGradScalerConfig(1000), capacity=100)
    for batch in range(1000):
        monitor.check_overflow(batch >= 950, 1, batch)
    assert monitor.overflow_rate == pytest.approx(0.5)


def test_fused_optimizers_are_refused_since_their_skips_are_unseen() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)
    with pytest.raises(ValueError, match="fused=False"):
        SkipDetector(optimizer)


def test_a_disabled_scaler_cannot_be_monitored() -> None:
    with pytest.raises(ValueError, match="disabled"):
        GradScalerMonitor(torch.amp.GradScaler("cpu", enabled=False), DynamicGradScalerConfig(1000))
