"""The first scale, found by one backward pass and not by overflows: bounds, and real fp16 runs."""

from __future__ import annotations

import math

import pytest
import torch
from fp16_runs import Fp16Run, batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_support import config

from quantai_tui.telemetry import Severity
from quantai_tui.training import dataset
from quantai_tui.training.calibration import find_scale
from quantai_tui.training.precision import choose
from quantai_tui.training.stepper import Stepper

torch.set_num_threads(1)

FP16_LARGEST = 65504.0


@settings(max_examples=300, deadline=None)
@given(
    log_amax=st.floats(-40, 60),
    log_floor=st.floats(-100, 10),
    log_room=st.floats(0, 60),
)
def test_the_scale_found_is_the_largest_power_of_two_within_a_quarter_of_the_threshold_and_the_bounds(
    log_amax: float, log_floor: float, log_room: float
) -> None:
    amax, floor = 2.0**log_amax, 2.0**log_floor
    cap = floor * 2.0**log_room
    asked = []

    def largest(scale: float) -> float:
        assert floor <= scale <= cap
        asked.append(scale)
        return scale * amax if scale * amax <= FP16_LARGEST else math.inf

    found = find_scale(largest, floor, cap)
    assert found is not None
    assert found.trials == len(asked) <= 30
    assert floor <= found.scale <= cap
    wanted = min(FP16_LARGEST / amax / 4, cap)
    if wanted < floor:
        assert found.scale == floor
        return
    assert found.scale == floor or math.log2(found.scale).is_integer()
    assert found.scale <= wanted * (1 + 1e-9)
    assert 2 * found.scale > wanted * (1 - 1e-9) or found.scale == floor


def test_a_gradient_that_is_never_finite_ends_at_the_floor_and_a_zero_one_says_nothing() -> None:
    found = find_scale(lambda scale: math.nan, 1.0, 1e5)
    assert found is not None
    assert (found.scale, found.threshold, found.trials) == (1.0, None, 4)
    assert "overflow at every scale" in found.describe()
    assert find_scale(lambda scale: 0.0, 1.0, 1e5) is None


@pytest.mark.parametrize(("floor", "cap"), [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_bounds_that_make_no_sense_are_refused(floor: float, cap: float) -> None:
    with pytest.raises(ValueError, match=r"floor|cap"):
        find_scale(lambda scale: 1.0, floor, cap)


@pytest.mark.parametrize("loss_factor", [1.0, 2.0**7, 2.0**14])
def test_on_a_real_model_the_calibrated_scale_fits_and_sixteen_times_the_threshold_does_not(loss_factor: float) -> None:
    run = Fp16Run(loss=lambda outputs, targets: torch.nn.functional.mse_loss(outputs, targets) * loss_factor)
    found = run.calibration(*batch())
    assert found is not None
    assert found.threshold is not None
    assert found.scale <= max(found.threshold / 4, 1.0)
    run.monitor.set_scale(found.scale)
    assert run.step(*batch()) is None
    run.monitor.set_scale(16 * found.threshold)
    assert run.step(*batch()) is not None


def stepper(events: list[str], **changes: object) -> Stepper:
    settings = config(**changes)

    def on_event(severity: Severity, text: str) -> None:
        events.append(text)

    return Stepper(settings, len(dataset.FEATURES), choose("cpu", settings.precision, "tiny"), on_event)


def windows_and_labels() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(16, 8, len(dataset.FEATURES), generator=random), torch.randint(0, 3, (16,), generator=random)


def test_calibration_happens_once_before_the_first_step_and_moves_nothing_but_the_scale() -> None:
    events: list[str] = []
    plain, calibrated = stepper([]), stepper(events, calibrate=True)
    assert plain.monitor is not None
    assert calibrated.monitor is not None
    random = torch.get_rng_state()
    for number in range(3):
        assert not calibrated.step(*windows_and_labels(), 1, number)
    assert torch.equal(torch.get_rng_state(), random)
    assert len(events) == 1
    assert events[0].startswith("calibrated, scale 65536 -> ")
    plain.monitor.set_scale(calibrated.monitor.scale)
    for number in range(3):
        assert not plain.step(*windows_and_labels(), 1, number)
    pairs = zip(plain.model.parameters(), calibrated.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_first_batch_that_is_broken_does_not_spoil_the_calibration() -> None:
    events: list[str] = []
    tried = stepper(events, calibrate=True)
    windows, labels = windows_and_labels()
    assert tried.step(windows * math.nan, labels, 1, 0)
    assert events == []
    assert not tried.step(windows, labels, 1, 1)
    assert len(events) == 1
