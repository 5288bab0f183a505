"""What a monitor keeps: as much as it may, through a checkpoint, and in how much memory."""

from __future__ import annotations

import io
import random
import tracemalloc
from typing import Any

import pytest
import torch
from checkpoint_support import differences, spoilt_in_one_place
from scaler_support import BareRig, StoppedClock

from quantai_tui.training import DynamicGradScalerConfig

CONFIG = DynamicGradScalerConfig(1000, growth_interval=7)


def driven(rig: BareRig, steps: int, seed: int, first: int = 0) -> BareRig:
    chance = random.Random(seed)
    for number in range(first, first + steps):
        kind = chance.random()
        rig.step(kind < 0.2, number // 50, loss_finite=kind > 0.03)
        if kind > 0.9:
            rig.monitor.observe_amax(chance.uniform(0.0, 3.0))
    return rig


def saved(rig: BareRig) -> dict[str, Any]:
    """Through a file as a checkpoint takes it."""
    file = io.BytesIO()
    torch.save(rig.monitor.state_dict(), file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("steps", [0, 1, 300, 4096, 5000])
@pytest.mark.parametrize("policy", ["grow", "amax"])
def test_a_monitor_that_was_saved_and_loaded_goes_on_as_if_it_had_not_been(steps: int, policy: str) -> None:
    config = DynamicGradScalerConfig(1000, growth_interval=7, policy=policy)
    one = driven(BareRig(config, clock=StoppedClock()), steps, seed=1)
    other = BareRig(config, clock=StoppedClock())
    other.monitor.load_state_dict(saved(one))
    for rig in (one, other):
        driven(rig, 200, seed=2, first=steps)
    assert one.device_state == other.device_state == other.mirror_state
    assert one.monitor.get_statistics() == other.monitor.get_statistics()
    assert one.monitor.growth_rate == other.monitor.growth_rate
    assert one.monitor.headroom_octaves == other.monitor.headroom_octaves
    kept = [(record.epoch, record.scale_value, record.has_overflow) for record in one.monitor.records()]
    assert kept == [(record.epoch, record.scale_value, record.has_overflow) for record in other.monitor.records()]


def test_settings_win_over_what_the_checkpoint_says() -> None:
    one = BareRig(DynamicGradScalerConfig(1000, growth_interval=900, growth_factor=3.0))
    for _ in range(800):
        one.step()
    other = BareRig(DynamicGradScalerConfig(1000, growth_interval=10, max_scale=5000.0, power_of_two=True))
    other.scaler.load_state_dict(one.scaler.state_dict())
    other.monitor.load_state_dict(saved(one))
    assert other.device_state == other.mirror_state == (4096.0, 39)
    scaler = other.scaler
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (2.0, 0.5, 40)


def test_being_stuck_survives_a_restart() -> None:
    one = BareRig(CONFIG)
    for _ in range(40):
        one.step(True)
    other = BareRig(CONFIG)
    other.monitor.load_state_dict(saved(one))
    assert other.monitor.stuck == one.monitor.stuck != ""


def test_records_of_a_larger_ring_are_taken_over_as_far_as_they_fit() -> None:
    one = driven(BareRig(CONFIG), 500, seed=3)
    other = BareRig(CONFIG, capacity=64)
    other.monitor.load_state_dict(saved(one))
    for rig in (one, other):
        driven(rig, 10, seed=4, first=500)
    kept = other.monitor.records()
    assert len(kept) == 64
    assert [record.scale_value for record in kept] == [record.scale_value for record in one.monitor.records()[-64:]]
    assert other.monitor.get_statistics()["avg_scale"] == one.monitor.get_statistics()["avg_scale"]


def test_a_state_that_is_not_one_is_refused_with_its_reason() -> None:
    state = saved(driven(BareRig(CONFIG), 10, seed=5))
    monitor = BareRig(CONFIG).monitor
    for wrong, says in (
        ({"version": 99}, "version 99"),
        ({"scale": float("nan")}, "scale must be"),
        ({"scale": 0.0}, "scale must be"),
        ({"growth_tracker": -1}, "growth_tracker"),
        ({"amax": {"amax": [float("inf")]}}, "amax of the checkpoint"),
        ({"records": {**state["records"], "packed": torch.zeros(5, dtype=torch.uint8)}}, "5 bytes are no"),
    ):
        with pytest.raises(ValueError, match=says):
            monitor.load_state_dict({**state, **wrong})
    with pytest.raises(KeyError, match="resets"):
        monitor.load_state_dict({name: part for name, part in state.items() if name != "resets"})


def test_a_state_that_is_refused_changes_nothing_whichever_part_is_wrong() -> None:
    state = saved(driven(BareRig(CONFIG), 300, seed=6))
    rig = driven(BareRig(CONFIG), 100, seed=7)
    before, on_device = saved(rig), rig.device_state
    refused = 0
    for spoilt in spoilt_in_one_place(state):
        try:
            rig.monitor.load_state_dict(spoilt)
        except (ValueError, KeyError, TypeError):
            refused += 1
        else:  # an accepted state must be complete
            driven(rig, 3, seed=8, first=300)
            rig.monitor.get_statistics()
            rig.monitor.load_state_dict(before)
        assert differences(saved(rig), before) == []
        assert rig.device_state == on_device
    assert refused > 100


def test_a_monitor_keeps_under_a_megabyte_however_much_it_has_seen() -> None:
    rig = BareRig(CONFIG, auto_reset=False)  # torch's own lazy imports are behind us
    rig.step()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        rig = BareRig(CONFIG)
        for number in range(6000):
            rig.step(number % 3 != 0, epoch=number // 20)
            rig.monitor.observe_amax(float(number))
        statistics = rig.monitor.get_statistics()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000
    assert len(statistics["epoch_records"]) == 64
    assert len(rig.monitor.records()) == 4096


def test_statistics_cost_the_same_after_a_hundred_times_as_many_steps() -> None:
    """Counted in the function calls that they make: time would depend on the neighbours."""
    import cProfile

    calls = []
    for steps in (100, 10_000):
        rig = BareRig(CONFIG)
        for number in range(steps):
            rig.step(number % 1000 == 5)
        rig.monitor.get_statistics()
        profile = cProfile.Profile()
        profile.runcall(rig.monitor.get_statistics)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[0] == calls[1]
