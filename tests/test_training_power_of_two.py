"""The option that keeps every loss scale a power of two, and the settings of the policy as they are checked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_support import BareRig
from training_support import config as worker_config

from quantai_tui.training import DynamicGradScalerConfig


@pytest.mark.parametrize(
    ("growth", "interval", "doubling"),
    [
        (1.2, 2000, 8000), (1.5, 1000, 2000), (2.0, 2000, 2000), (math.sqrt(2.0), 1000, 2000), (2.0 ** (1 / 3), 100, 300),
        (4.0, 500, 500), (1.000001, 2000, 693_148 * 2000), (1.0000001, 2000, 2**31 - 1),
    ],
)  # fmt: skip
def test_growth_becomes_a_doubling_after_as_many_whole_intervals_as_it_takes(growth: float, interval: int, doubling: int) -> None:
    config = DynamicGradScalerConfig(1000, growth_factor=growth, growth_interval=interval, backoff_factor=0.7, power_of_two=True)
    assert config.moves == (2.0, 0.5, doubling)
    scaler = config.create_scaler("cpu")
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == config.moves


def test_without_the_option_what_was_asked_is_what_is_done() -> None:
    assert DynamicGradScalerConfig(1000, growth_factor=1.3, growth_interval=9, backoff_factor=0.7).moves == (1.3, 0.7, 9)


def test_bounds_are_rounded_inwards_to_powers_of_two() -> None:
    config = DynamicGradScalerConfig(1000, max_scale=100_000.0, min_scale=1.5, power_of_two=True)
    assert (config.floor, config.cap, config.init_scale) == (2.0, 65536.0, 65536.0)
    same = DynamicGradScalerConfig(1000, max_scale=4096.0, min_scale=0.25, power_of_two=True)
    assert (same.floor, same.cap, same.init_scale) == (0.25, 4096.0, 4096.0)


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(2.0**-30, 2.0**20),
    octaves=st.floats(1.0, 30.0),
    steps=st.lists(st.booleans(), max_size=60),
    percent=st.floats(0.001, 1.0),
    wanted=st.floats(1e-9, 1e9),
)
def test_no_way_of_changing_the_scale_leaves_the_powers_of_two(
    low: float, octaves: float, steps: list[bool], percent: float, wanted: float
) -> None:
    config = DynamicGradScalerConfig(
        1000, min_scale=low, max_scale=low * 2.0**octaves, growth_factor=1.9, growth_interval=1, power_of_two=True
    )
    rig = BareRig(config)
    for act in (lambda: None, lambda: rig.monitor.reset_scale(percent), lambda: rig.monitor.set_scale(wanted)):
        act()
        for overflow in steps:
            rig.step(overflow)
            assert math.frexp(rig.device_state[0])[0] == 0.5
            assert config.min_scale <= rig.device_state[0] <= config.max_scale


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"power_of_two": True, "min_scale": 70_000.0}, "no power of two lies between min_scale 70000 and max_scale 100000"),
        ({"policy": "hope"}, "policy must be one of grow, amax, got 'hope'"),
    ],
)
def test_combinations_that_leave_no_scale_are_named_by_policy_and_worker_alike(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DynamicGradScalerConfig(1000, **wrong)
    with pytest.raises(ValueError, match=says):
        worker_config(**wrong)


def test_scaling_by_powers_of_two_changes_no_bit_of_a_gradient_and_by_others_it_does() -> None:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(4096, generator=generator)

    def through_fp16(scale: float) -> torch.Tensor:
        return (gradient * scale).half().float() / scale

    assert torch.equal(through_fp16(1024.0), through_fp16(2048.0))
    assert (through_fp16(1024.0) == through_fp16(1228.8)).float().mean() < 0.2


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 0.0, -1.0])
def test_a_scale_that_is_none_is_refused_before_it_reaches_the_device(wrong: float) -> None:
    rig = BareRig(DynamicGradScalerConfig(1000))
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        rig.monitor.set_scale(wrong)
    assert rig.device_state == rig.mirror_state == (65536.0, 0)
