"""How far the scale may rise, and the policy that sets it from the gradients."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_support import Rig

from quantai_tui.training import DynamicGradScalerConfig
from quantai_tui.training.headroom import FP16_LARGEST, AmaxHistory

AMAX = DynamicGradScalerConfig(1000, policy="amax")


def test_without_a_gradient_nothing_is_known() -> None:
    history = AmaxHistory()
    assert (history.threshold, history.octaves(1.0), history.target(1.0, 1e5)) == (None, None, None)
    history.observe(0.0)
    assert history.threshold is None
    assert history.target(1.0, 1e5) == 65536.0, "gradients that are all zero fit under every scale"


@settings(max_examples=200, deadline=None)
@given(
    amaxes=st.lists(st.floats(0.0, 1e38), min_size=1, max_size=200),
    cap=st.floats(1.0, 2.0**100),
    octaves=st.floats(0.0, 60.0),
)
def test_the_target_is_the_largest_power_of_two_with_two_bits_to_spare(amaxes: list[float], cap: float, octaves: float) -> None:
    floor = cap * 2.0**-octaves
    history = AmaxHistory()
    for amax in amaxes:
        history.observe(amax)
    largest = max(amaxes[-64:])
    target = history.target(floor, cap)
    assert target is not None
    assert floor <= target <= cap
    if target > floor:
        assert math.frexp(target)[0] == 0.5
        assert target * largest * 4 <= FP16_LARGEST
        assert 2 * target > cap or 2 * target * largest * 4 > FP16_LARGEST


def test_headroom_is_told_in_octaves() -> None:
    rig = Rig(DynamicGradScalerConfig(1000))
    assert rig.monitor.headroom_octaves is None
    rig.step()
    rig.monitor.observe_amax(FP16_LARGEST / 2.0**20)
    assert rig.monitor.headroom_octaves == pytest.approx(4.0)
    rig.step(True)
    assert rig.monitor.headroom_octaves == pytest.approx(5.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_an_amax_that_is_none_is_refused_by_name(wrong: float) -> None:
    rig = Rig(AMAX)
    with pytest.raises(ValueError, match="amax"):
        rig.monitor.observe_amax(wrong)


def test_under_amax_the_scale_follows_the_largest_gradient_of_the_last_64_steps_in_place() -> None:
    rig = Rig(AMAX)
    rig.step()
    held = rig.scaler._scale
    for amax, scale in ((1.0, 8192.0), (100.0, 128.0), (1e-9, 128.0)):
        rig.monitor.observe_amax(amax)
        assert rig.device_state[0] == rig.mirror_state[0] == scale
    for _ in range(62):
        rig.monitor.observe_amax(1e-9)
        assert rig.monitor.scale == 128.0
    rig.monitor.observe_amax(1e-9)
    assert rig.device_state[0] == 65536.0, "the largest power of two under the cap"
    assert rig.scaler._scale is held


def test_under_amax_nothing_else_grows_the_scale_and_an_overflow_backs_off() -> None:
    rig = Rig(DynamicGradScalerConfig(1000, policy="amax", growth_interval=1, max_scale=2.0**20))
    for _ in range(20):
        rig.step()
    assert rig.device_state == rig.mirror_state == (65536.0, 20)
    rig.step(True)
    assert rig.device_state == rig.mirror_state == (32768.0, 0)


def test_after_an_overflow_a_small_gradient_does_not_lift_the_scale_back_over_it() -> None:
    rig = Rig(AMAX)
    rig.step(True)
    rig.monitor.observe_amax(1e-9)
    assert rig.monitor.scale == 16384.0, "two bits below the scale that overflowed"
    for _ in range(62):
        rig.step()
        rig.monitor.observe_amax(1e-9)
        assert rig.monitor.scale == 16384.0
    rig.step()
    rig.monitor.observe_amax(1e-9)
    assert rig.monitor.scale == 65536.0, "64 clean steps later it is forgotten"


def test_growth_returns_when_the_policy_is_grow_again() -> None:
    rig = Rig(AMAX)
    for _ in range(50):
        rig.step()
    rig.monitor.observe_amax(1.0)
    rig.monitor.apply(DynamicGradScalerConfig(1000, growth_interval=10), True, 5, 3)
    for _ in range(10):
        rig.step()
    assert rig.device_state == rig.mirror_state == (pytest.approx(8192 * 1.2), 0)
