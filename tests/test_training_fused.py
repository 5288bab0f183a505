"""Fused optimizers: their skipped steps are learned without waiting, early or late, and it ends the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_support import StoppedClock
from torch import Tensor

from quantai_tui.training import DynamicGradScalerConfig, GradScalerMonitor
from quantai_tui.training.fused import FusedSkips
from quantai_tui.training.scaler import SkipDetector

CONFIG = DynamicGradScalerConfig(1000, growth_interval=3, growth_factor=1.5, max_scale=200_000.0, min_scale=16.0)


class HandDriven:
    """A copy that has arrived when the test says so: `events` counts those that may. Rows are snapshots, as on a stream."""

    def __init__(self) -> None:
        self.events = 0
        self.waits = 0
        self._rows: Tensor | None = None
        self._arrived = False

    def start(self, rows: Tensor) -> None:
        assert self._rows is None, "one copy at a time"
        self._rows = rows.clone()
        self._arrived = False

    def arrived(self) -> bool:
        if not self._arrived and self.events:
            self.events -= 1
            self._arrived = True
        return self._arrived

    def wait(self) -> None:
        self.waits += 1
        self._arrived = True

    def rows(self) -> Tensor:
        assert self._arrived
        assert self._rows is not None
        rows, self._rows = self._rows, None
        return rows


class Fused:
    """A weight trained by a fused AdamW whose gradient is set by hand."""

    def __init__(self, config: DynamicGradScalerConfig = CONFIG, copies: Any = None, capacity: int = 256, **options: Any) -> None:
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.optimizer = torch.optim.AdamW([self.weight], lr=0.1, fused=True)
        self.scaler = config.create_scaler("cpu")
        self.monitor = GradScalerMonitor(self.scaler, config, clock=StoppedClock(), **options)
        self.skips = FusedSkips(self.scaler, self.optimizer, copies=copies, capacity=capacity)
        self.batch = 0

    def step(self, overflows: bool, loss_finite: bool = True, epoch: int = 1) -> bool | None:
        loss = torch.tensor(0.5 if loss_finite else math.nan)
        self.scaler.scale(loss)
        self.weight.grad = torch.full((3,), 0.25 * self.monitor.scale)
        if overflows:
            self.weight.grad[1] = math.inf
        self.scaler.step(self.optimizer)
        skipped = self.skips.update(self.monitor, loss, epoch, self.batch)
        self.batch += 1
        return skipped

    @property
    def device_state(self) -> tuple[float, int]:
        return self.scaler.get_scale(), self.scaler._get_growth_tracker()

    @property
    def mirror_state(self) -> tuple[float, int]:
        return self.monitor.mirror.scale, self.monitor.mirror.tracker


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """A monitor's state without tensors, to compare."""
    return {**state, "records": {**state["records"], "packed": state["records"]["packed"].tolist()}}


STEPS = st.lists(st.sampled_from((".", ".", ".", "x", "x", "n")), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, epoch_length=st.integers(3, 20))
def test_fused_and_unfused_go_through_the_same_states_to_the_same_weights(steps: list[str], epoch_length: int) -> None:
    fused, unfused = Fused(), Fused()
    unfused.optimizer = torch.optim.AdamW([unfused.weight], lr=0.1, fused=False)
    seen = SkipDetector(unfused.optimizer)
    for number, step in enumerate(steps):
        overflows, loss_finite = step != ".", step != "n"
        assert fused.step(overflows, loss_finite, number // epoch_length) is overflows
        unfused.scaler.scale(torch.ones(()))
        unfused.weight.grad = torch.full((3,), math.inf if overflows else 0.25 * unfused.monitor.scale)
        unfused.scaler.step(unfused.optimizer)
        unfused.monitor.update(seen.take(), number // epoch_length, number, loss_finite=loss_finite)
        assert fused.device_state == fused.mirror_state == unfused.device_state
    assert plain(fused.monitor.state_dict()) == plain(unfused.monitor.state_dict())
    torch.testing.assert_close(fused.weight, unfused.weight)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from((".", ".", ".", "x", "x", "n")), st.integers(0, 2)), min_size=1, max_size=80),
    epoch_length=st.integers(3, 20),
    capacity=st.integers(1, 24),
    consecutive=st.integers(1, 6),
)
def test_outcomes_that_come_late_end_in_the_same_state_as_those_known_at_once(
    steps: list[tuple[str, int]], epoch_length: int, capacity: int, consecutive: int
) -> None:
    copies = HandDriven()
    late = Fused(copies=copies, capacity=capacity, max_consecutive_overflow=consecutive)
    early = Fused(max_consecutive_overflow=consecutive)
    for number, (step, events) in enumerate(steps):
        copies.events += events
        assert late.step(step != ".", step != "n", number // epoch_length) is None
        early.step(step != ".", step != "n", number // epoch_length)
        assert CONFIG.floor <= late.device_state[0] <= CONFIG.cap
    held = late.scaler._scale
    late.monitor.settle()
    assert late.scaler._scale is held
    assert late.device_state == late.mirror_state == early.device_state
    assert plain(late.monitor.state_dict()) == plain(early.monitor.state_dict())


def test_while_nothing_has_arrived_nothing_is_waited_for_and_the_device_keeps_its_bounds() -> None:
    copies = HandDriven()
    late = Fused(copies=copies)
    for _ in range(40):
        late.step(True)
    assert (late.monitor.checked, late.monitor.scale, copies.waits) == (0, 65536.0, 0)
    assert late.device_state[0] == CONFIG.floor
    for _ in range(40):
        copies.events += 1
        late.step(False)
    assert copies.waits == 1, "for the reset after five in a row, and for nothing else"
    assert late.monitor.checked > 70
    late.monitor.settle()
    assert late.device_state == late.mirror_state
    assert late.monitor.overflow_count == 40


def test_clean_steps_and_single_overflows_are_never_waited_for() -> None:
    copies = HandDriven()
    late = Fused(copies=copies)
    for number in range(400):
        copies.events = 1
        late.step(number % 7 == 0)
    assert copies.waits == 0
    assert late.monitor.checked >= 398
    assert late.monitor.reset_count == 0


def test_what_a_loss_that_was_not_finite_did_to_the_scale_is_undone_once_it_is_known() -> None:
    copies = HandDriven()
    late = Fused(DynamicGradScalerConfig(1000), copies)
    late.step(False)
    late.step(True, loss_finite=False)
    late.step(False)
    assert late.device_state == (32768.0, 1), "the device has backed off: it cannot know better"
    copies.events = 3
    late.step(False)
    late.step(False)
    assert late.device_state == late.mirror_state == (65536.0, 4)
    assert late.monitor.reset_count == 0


def test_a_full_ring_is_waited_for_and_no_outcome_is_lost() -> None:
    copies = HandDriven()
    late = Fused(copies=copies, capacity=8)
    for number in range(20):
        late.step(number == 3)
    assert copies.waits > 0
    late.monitor.settle()
    assert (late.monitor.checked, late.monitor.overflow_count) == (20, 1)


def test_the_operator_and_a_checkpoint_find_every_step_accounted_for() -> None:
    for act in (
        lambda monitor: monitor.state_dict(),
        lambda monitor: monitor.apply(CONFIG, True, 5, 3),
        lambda monitor: monitor.reset_scale(),
        lambda monitor: monitor.set_scale(64.0),
        lambda monitor: monitor.resync(),
    ):
        late = Fused(copies=HandDriven())
        for _ in range(4):
            late.step(True)
        act(late.monitor)
        assert (late.monitor.checked, late.monitor.overflow_count) == (4, 4)
        assert late.device_state == late.mirror_state


def test_an_unfused_optimizer_is_sent_to_the_skip_detector() -> None:
    scaler = CONFIG.create_scaler("cpu")
    with pytest.raises(ValueError, match="SkipDetector"):
        FusedSkips(scaler, torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))


def test_an_update_without_a_step_is_an_error_that_says_what_is_missing() -> None:
    fused = Fused()
    fused.step(False)
    with pytest.raises(RuntimeError, match=r"GradScaler\.step"):
        fused.skips.update(fused.monitor, torch.tensor(0.5), 1, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing can be synchronised")
def test_on_cuda_a_clean_step_and_an_overflow_are_updated_without_a_sync() -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scaler = CONFIG.create_scaler("cuda")
    monitor = GradScalerMonitor(scaler, CONFIG)
    skips = FusedSkips(scaler, optimizer)
    loss = torch.tensor(0.5, device="cuda")
    clean, bad = torch.ones(3, device="cuda"), torch.full((3,), math.inf, device="cuda")

    def step(gradient: Tensor) -> None:
        scaler.scale(loss)
        weight.grad = gradient.clone()
        scaler.step(optimizer)
        skips.update(monitor, loss, 1, 1)

    step(clean)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(300):
            step(bad if number % 50 == 7 else clean)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    monitor.settle()
    assert (monitor.checked, monitor.overflow_count) == (301, 6)
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (monitor.mirror.scale, monitor.mirror.tracker)
