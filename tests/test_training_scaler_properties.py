"""What must hold for every sequence of steps and settings, on the real GradScaler."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scaler_support import BareRig

from quantai_tui.training import DynamicGradScalerConfig


@pytest.mark.parametrize("seed", range(20))
def test_the_mirror_is_bit_equal_to_torch_over_ten_thousand_random_updates_between_cap_and_floor(seed: int) -> None:
    chance = random.Random(seed)
    low = 2.0 ** chance.uniform(-20, 12)
    config = DynamicGradScalerConfig(
        1000,
        min_scale=low,
        max_scale=low * 2.0 ** chance.uniform(2.5, 30),
        growth_factor=chance.choice((1.0001, 1.2, 1.5, 2.0, 37.7)),
        growth_interval=chance.choice((1, 2, 7, 60)),
        backoff_factor=chance.choice((0.5, 0.77, 0.999, 0.01)),
        power_of_two=chance.random() < 0.25,
    )
    rig = BareRig(config, auto_reset=chance.random() < 0.5)
    # An own model of the kernel beside the mirror: torch is the judge of both.
    scale, tracker = torch.full((), rig.monitor.scale), torch.zeros((), dtype=torch.int32)
    odds = chance.choice((0.005, 0.05, 0.4))
    resets, seen = 0, set()
    for number in range(10_000):
        # Long calms and long storms, so that both bounds are met.
        storm = number // 500 % 2
        overflows = chance.random() < (0.9 if storm and seed % 3 == 0 else odds)
        loss_finite = chance.random() < 0.9
        rig.step(overflows, number // 300, loss_finite)
        if not overflows or loss_finite:
            torch._amp_update_scale_(scale, tracker, torch.full((), float(overflows)), *_torch_order(config))
            scale.clamp_(config.floor, config.cap)
        assert rig.device_state == rig.mirror_state
        if rig.monitor.reset_count == resets:
            assert rig.device_state == (scale.item(), tracker.item())
        else:
            resets = rig.monitor.reset_count
            scale.fill_(rig.device_state[0])
            tracker.fill_(rig.device_state[1])
        assert config.floor <= rig.device_state[0] <= config.cap
        seen.add(rig.device_state[0])
    assert len(seen) > 1


def _torch_order(config: DynamicGradScalerConfig) -> tuple[float, float, int]:
    return config.moves.growth_factor, config.moves.backoff_factor, config.moves.growth_interval


@settings(max_examples=150, deadline=None)
@given(
    cap=st.floats(2.0**-20, 2.0**40),
    floor_below=st.floats(0.0, 45.0),
    threshold_share=st.floats(0.0, 1.0),
    parameters=st.sampled_from((1000, 5_000_000, 50_000_000)),
    growth=st.floats(1.01, 1024.0),
    interval=st.integers(1, 3000),
    consecutive=st.integers(1, 12),
    epochs=st.tuples(st.integers(1, 4), st.integers(1, 30)),
    power_of_two=st.booleans(),
    policy=st.sampled_from(("grow", "amax")),
)
def test_no_threshold_makes_a_run_livelock(
    cap: float, floor_below: float, threshold_share: float, parameters: int, growth: float, interval: int, consecutive: int,
    epochs: tuple[int, int], power_of_two: bool, policy: str,
) -> None:  # fmt: skip
    """Counted before the first clean step, for every threshold from the floor up."""
    config = DynamicGradScalerConfig(
        parameters, max_scale=cap, min_scale=cap * 2.0**-floor_below / 2, growth_factor=growth, growth_interval=interval,
        power_of_two=power_of_two and floor_below > 1, policy=policy,
    )  # fmt: skip
    rig = BareRig(config, max_consecutive_overflow=consecutive, reset_threshold_epochs=epochs[0])
    threshold = config.floor * (2.0 * config.cap / config.floor) ** threshold_share
    init = rig.monitor.scale
    skipped, highest = 0, init
    while rig.monitor.scale > threshold:
        rig.step(overflows=True, epoch=skipped // epochs[1])
        skipped += 1
        assert rig.monitor.scale <= highest, "neither a backoff nor a reset raises the scale"
        highest = rig.monitor.scale
        assert skipped <= max(math.log2(init / threshold), 0.0) + 2
    rig.step(epoch=skipped // epochs[1])
    assert rig.device_state == rig.mirror_state
    assert not rig.monitor.stuck


def configs() -> st.SearchStrategy[DynamicGradScalerConfig]:
    return st.builds(
        DynamicGradScalerConfig,
        st.sampled_from((0, 5_000_000, 50_000_000)),
        growth_factor=st.sampled_from((1.2, 1.5, 2.0, 1000.0)),
        growth_interval=st.integers(1, 40),
        max_scale=st.floats(2.0**10, 2.0**20),
        min_scale=st.floats(2.0**-10, 2.0**9),
        backoff_factor=st.sampled_from((0.5, 0.3, 0.9)),
        power_of_two=st.booleans(),
        policy=st.sampled_from(("grow", "amax")),
    )


class LiveChanges(RuleBasedStateMachine):
    """Settings, steps, resets, checkpoints in any order, on one real scaler."""

    @initialize(config=configs(), options=st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 3)))
    def begin(self, config: DynamicGradScalerConfig, options: tuple[bool, int, int]) -> None:
        self.config = config
        self.rig = BareRig(config)
        self.rig.monitor.apply(config, *options)
        self.held = self.rig.scaler._scale
        self.epoch = 0

    @rule(config=configs(), options=st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 3)))
    def settings_change(self, config: DynamicGradScalerConfig, options: tuple[bool, int, int]) -> None:
        self.config = config
        self.rig.monitor.apply(config, *options)

    @rule(change=st.sampled_from(("power_of_two", "policy", "growth_interval")), interval=st.integers(1, 40))
    def one_setting_changes(self, change: str, interval: int) -> None:
        values: dict[str, Any] = {
            "power_of_two": not self.config.power_of_two,
            "policy": "amax" if self.config.policy == "grow" else "grow",
            "growth_interval": interval,
        }
        fields = {name: getattr(self.config, name) for name in self.config.__dataclass_fields__}
        self.config = DynamicGradScalerConfig(**{**fields, change: values[change]})
        self.rig.monitor.apply(self.config, True, 5, 3)

    @rule(count=st.integers(1, 90))
    def clean_steps(self, count: int) -> None:
        for _ in range(count):
            self.rig.step(epoch=self.epoch)

    @rule(count=st.integers(1, 12))
    def overflows(self, count: int) -> None:
        for _ in range(count):
            before = self.rig.monitor.scale
            self.rig.step(True, self.epoch)
            assert self.rig.monitor.scale <= before

    @rule(count=st.integers(1, 3))
    def losses_not_finite(self, count: int) -> None:
        before, resets = self.rig.device_state, self.rig.monitor.reset_count
        for _ in range(count):
            self.rig.step(True, self.epoch, loss_finite=False)
        assert resets != self.rig.monitor.reset_count or self.rig.device_state == before, "an epoch that ended may reset"

    @rule()
    def epoch_ends(self) -> None:
        self.epoch += 1

    @rule(amax=st.floats(0.0, 1e6))
    def amax_is_observed(self, amax: float) -> None:
        self.rig.monitor.observe_amax(amax)

    @rule()
    def manual_reset(self) -> None:
        scale = self.rig.monitor.reset_scale()
        assert scale == np.float32(self.config.clamp(self.config.init_scale / 2))
        assert self.rig.device_state[1] == 0
        assert not self.rig.monitor.stuck

    @rule(scale=st.floats(1e-30, 1e30))
    def scale_is_set(self, scale: float) -> None:
        self.rig.monitor.set_scale(scale)
        assert self.rig.device_state[1] == 0

    @rule(config=configs(), scaler_too=st.booleans())
    def saved_and_loaded_under_other_settings(self, config: DynamicGradScalerConfig, scaler_too: bool) -> None:
        state, scaler_state = self.rig.monitor.state_dict(), self.rig.scaler.state_dict()
        self.config = config
        rig = BareRig(config)
        if scaler_too:
            rig.scaler.load_state_dict(scaler_state)
        rig.monitor.load_state_dict(state)
        assert rig.monitor.checked == self.rig.monitor.checked
        self.rig, self.held = rig, rig.scaler._scale

    @rule(
        scale=st.floats(2.0**-30, 2.0**30),
        tracker=st.integers(0, 5000),
        factor=st.floats(1.1, 9.0),
        interval=st.integers(1, 3000),
    )
    def the_scaler_alone_is_loaded(self, scale: float, tracker: int, factor: float, interval: int) -> None:
        self.rig.scaler.load_state_dict(
            {
                "scale": scale, "growth_factor": factor, "backoff_factor": 0.123, "growth_interval": interval,
                "_growth_tracker": tracker,
            }
        )  # fmt: skip
        self.rig.monitor.resync()
        self.held = self.rig.scaler._scale  # torch itself makes a new tensor there

    @precondition(lambda self: self.config.policy == "grow")
    @rule()
    def growth_is_never_over(self) -> None:
        interval = self.config.moves.growth_interval
        if interval > 200:
            return
        before, resets = self.rig.monitor.scale, self.rig.monitor.reset_count
        for _ in range(interval):
            self.rig.step(epoch=self.epoch)
        if self.rig.monitor.reset_count == resets:
            assert self.rig.monitor.scale > before or before == self.config.cap

    @invariant()
    def device_and_mirror_agree_within_the_settings(self) -> None:
        rig, config = self.rig, self.config
        scale, tracker = rig.device_state
        assert (scale, tracker) == rig.mirror_state
        assert config.floor <= scale <= config.cap
        assert config.min_scale <= scale <= config.max_scale
        assert 0 <= tracker < config.moves.growth_interval
        scaler = rig.scaler
        assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == config.moves
        assert not config.power_of_two or math.frexp(scale)[0] == 0.5
        assert scaler._scale is self.held


LiveChanges.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLiveChanges = LiveChanges.TestCase
