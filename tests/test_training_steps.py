"""One optimizer step after the other: accumulation, clipping, schedule, measurement, and going on where another process left."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from training_support import config

from quantai_tui.training import DynamicGradScalerConfig, dataset
from quantai_tui.training.model import BarEncoder, count_parameters
from quantai_tui.training.precision import choose
from quantai_tui.training.probing import HostCell, flushed_share, largest_magnitude
from quantai_tui.training.schedule import learning_rate_at
from quantai_tui.training.stepper import Stepper
from quantai_tui.training.trace import StepTrace

torch.set_num_threads(1)


def stepper(**changes: Any) -> Stepper:
    settings = config(**changes)
    return Stepper(settings, len(dataset.FEATURES), choose("cpu", settings.precision, "tiny"), lambda severity, text: None)


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(size, 8, len(dataset.FEATURES), generator=random), torch.randint(0, 3, (size,), generator=random)


def weights(of: Stepper) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in of.model.parameters()]


def equal(one: Stepper, other: Stepper) -> bool:
    return all(torch.equal(left, right) for left, right in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize(
    ("size", "parameters", "init_scale"),
    [("tiny", 10_019, 2.0**16), ("small", 202_883, 2.0**16), ("medium", 1_788_291, 2.0**14), ("large", 12_633_091, 2.0**12)],
)
def test_each_row_of_the_table_of_initial_scales_has_a_model(size: str, parameters: int, init_scale: float) -> None:
    count = count_parameters(BarEncoder(8, 32, size))
    assert count == parameters
    assert DynamicGradScalerConfig(count).init_scale == init_scale


# Accumulation


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (4, 12, 16)])
def test_micro_batches_add_up_to_the_big_batch(sizes: tuple[int, ...]) -> None:
    whole, parts = stepper(precision="fp32"), stepper(precision="fp32", accumulation=len(sizes))
    windows, labels = batch(0, 32)
    assert not whole.step(windows, labels, 1, 0)
    assert not parts.step(windows.split(sizes), labels.split(sizes), 1, 0)
    assert parts.steps_taken == 1
    assert torch.allclose(*(torch.from_numpy(one.trace.drain()) for one in (whole, parts)))
    # The gradients, and not the weights: where a gradient is all rounding Adam makes a whole step of it.
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_overflow_in_any_micro_batch_skips_the_whole_step(number: int, precision: str) -> None:
    tried = stepper(precision=precision, accumulation=3)
    parts = [batch(seed) for seed in range(3)]
    parts[number][0][0, 0, 0] = math.inf
    before = weights(tried)
    assert tried.step([windows for windows, _ in parts], [labels for _, labels in parts], 1, 0)
    assert tried.steps_taken == 0
    assert all(torch.equal(was, now) for was, now in zip(before, weights(tried), strict=True))
    if tried.monitor is not None:
        assert (tried.monitor.overflow_count, tried.monitor.scale) == (1, 65536.0)


def test_ranks_exchange_gradients_with_the_last_micro_batch_only() -> None:
    tried = stepper(precision="fp32")
    exchanged: list[bool] = []

    class Wrapped(torch.nn.Module):
        """What DistributedDataParallel shows of itself."""

        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module
            self.sync = True

        def no_sync(self) -> Any:
            return self

        def __enter__(self) -> None:
            self.sync = False

        def __exit__(self, *error: object) -> None:
            self.sync = True

        def forward(self, x: Tensor) -> Tensor:
            exchanged.append(self.sync)
            out: Tensor = self.module(x)
            return out

    tried.model = Wrapped(tried.model)
    windows, labels = batch()
    tried.step(windows.split(4), labels.split(4), 1, 0)
    assert exchanged == [False, False, False, True]


# Clipping and schedule


def test_the_gradient_is_clipped_in_its_own_units_whatever_the_scale() -> None:
    norms = []
    for max_scale in (1024.0, 65536.0):
        tried = stepper(max_scale=max_scale, clip_norm=1e-3)
        tried.step(*batch(), 1, 0)
        gradients = [weight.grad for weight in tried.model.parameters() if weight.grad is not None]
        assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-2)
        norms.append(float(tried.trace.drain()[0, 1]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
    assert norms[0] > 0.1


def test_the_schedule_is_the_one_configured() -> None:
    constant = config(lr_warmup_steps=10, learning_rate=1e-3, schedule="constant")
    assert [learning_rate_at(step, constant, 110) for step in (9, 10, 60, 110, 500)] == [1e-3] * 5
    cosine = config(lr_warmup_steps=10, learning_rate=1e-3, schedule="cosine", max_epochs=1)
    assert learning_rate_at(110, cosine, 110) == pytest.approx(1e-4)
    assert learning_rate_at(60, cosine, 110) == learning_rate_at(60, config(lr_warmup_steps=10, learning_rate=1e-3), 110)
    assert learning_rate_at(0, constant, 110) == pytest.approx(1e-4)


def test_a_skipped_step_moves_no_schedule() -> None:
    tried = stepper(lr_warmup_steps=0, learning_rate=1e-3, schedule="cosine", max_epochs=1)
    tried.total_steps = 4
    rates = []
    for number, factor in enumerate((1.0, 2.0**40, 2.0**40, 1.0, 1.0)):
        tried.step(*batch(), 1, number, factor)
        rates.append(tried.learning_rate)
    assert rates[1] == rates[2] == rates[3] > rates[4]
    assert tried.steps_taken == 3


# Measurement


def test_the_largest_gradient_of_a_clean_step_reaches_the_monitor_unscaled_and_before_clipping() -> None:
    tried = stepper(policy="amax", clip_norm=1e-3, lr_warmup_steps=10**6)
    assert tried.monitor is not None
    seen: list[float] = []
    tried.monitor.observe_amax = seen.append  # type: ignore[method-assign]
    assert not tried.step(*batch(), 1, 0)
    assert tried.step(*batch(), 1, 1, 2.0**40)  # an overflow has none
    assert not tried.step(*batch(), 1, 2)
    reference = stepper(precision="fp32")
    torch.autograd.backward(torch.nn.functional.cross_entropy(reference.model(batch()[0]), batch()[1]))
    expected = max(float(weight.grad.abs().max()) for weight in reference.model.parameters() if weight.grad is not None)
    assert seen == [pytest.approx(expected, rel=1e-2)] * 2


def test_without_the_policy_amax_every_sixteenth_step_is_measured() -> None:
    tried = stepper()
    assert tried.monitor is not None
    seen: list[float] = []
    tried.monitor.observe_amax = seen.append  # type: ignore[method-assign]
    for number in range(33):
        tried.step(*batch(size=4), 1, number)
    assert len(seen) == 3


@pytest.mark.parametrize("elements", [1000, 200_000])
@pytest.mark.parametrize("worst", [-7.5, math.nan, math.inf])
def test_the_largest_magnitude_sees_signs_and_what_is_not_finite(elements: int, worst: float) -> None:
    gradients = [torch.linspace(-1, 1, elements), torch.zeros(3), torch.tensor([[0.5, worst]])]
    assert float(largest_magnitude(gradients)) == pytest.approx(abs(worst), nan_ok=True)


def test_the_flushed_share_is_what_a_cast_to_fp16_loses() -> None:
    random = torch.Generator().manual_seed(0)
    gradients = [10.0 ** (torch.rand(5000, generator=random) * 14 - 14), torch.zeros(5000), torch.tensor([2.0**-25, -(2.0**-24)])]
    for scale in (1.0, 2.0**10, 2.0**16):
        lost = sum(int(((gradient * scale).half() == 0).sum() - (gradient == 0).sum()) for gradient in gradients)
        assert lost > 0
        assert float(flushed_share(gradients, scale)) == pytest.approx(lost / 10_002)


def test_the_underflow_share_is_sampled_and_training_does_not_notice() -> None:
    sampling, plain = stepper(), stepper()
    plain._sample_underflow = lambda micro, scale: None  # type: ignore[method-assign]
    for number in range(3):
        for tried in (sampling, plain):
            assert not tried.step(*batch(number), 1, number)
    assert plain.underflow_share is None
    assert sampling.underflow_share is not None
    assert 0.0 <= sampling.underflow_share < 0.01
    assert equal(sampling, plain)


# Going on in another process


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("changes", [{"precision": "fp32"}, {}, {"policy": "amax"}, {"calibrate": True, "power_of_two": True}])
def test_a_restored_stepper_goes_on_bit_for_bit(changes: dict[str, Any], accumulation: int) -> None:
    """Over overflows, growth, warm-up and the moments of Adam; the fresh one has another seed, so nothing of its own may stay."""

    def run(tried: Stepper, steps: range) -> None:
        for number in steps:
            factor = 2.0**40 if number in (3, 8, 9) and tried.monitor is not None else 1.0
            windows, labels = batch(number)
            size = 16 // accumulation
            tried.step(windows.split(size), labels.split(size), 1, number, factor)

    settings = {"growth_interval": 3, "lr_warmup_steps": 6, "accumulation": accumulation, **changes}
    whole, first, second = stepper(**settings), stepper(**settings), stepper(**settings, seed=77)
    whole.total_steps = first.total_steps = 20
    run(whole, range(14))
    run(first, range(7))
    second.load_state_dict(through_a_file(first.state_dict()))
    assert equal(first, second)
    run(second, range(7, 14))
    assert equal(whole, second)
    assert (whole.steps_taken, whole.attempts, whole.learning_rate) == (second.steps_taken, second.attempts, second.learning_rate)
    if whole.monitor is not None:
        assert second.monitor is not None
        assert whole.monitor.get_statistics() == second.monitor.get_statistics()
        assert whole._scaler.state_dict() == second._scaler.state_dict()


def test_settings_win_over_the_factors_of_a_checkpoint() -> None:
    old = stepper(growth_interval=50, growth_factor=4.0)
    old.step(*batch(), 1, 0)
    new = stepper(growth_interval=3, growth_factor=1.5, max_scale=1000.0)
    new.load_state_dict(through_a_file(old.state_dict()))
    assert new.monitor is not None
    assert new.monitor.scale == 1000.0
    assert (new._scaler.get_growth_factor(), new._scaler.get_growth_interval()) == (1.5, 3)


def test_a_checkpoint_of_another_precision_brings_all_but_a_scaler() -> None:
    old, new = stepper(precision="fp32"), stepper()
    old.step(*batch(), 1, 0)
    new.load_state_dict(through_a_file(old.state_dict()))
    assert equal(old, new)
    assert new.monitor is not None
    assert new.monitor.scale == 65536.0
    assert new.steps_taken == 1


# Precision


def test_what_is_configured_is_kept_but_the_reason_says_that_it_is_emulated() -> None:
    assert choose("cpu", "fp16", "tiny").reason == "as configured"
    assert "fp16 on a CPU is emulated" in choose("cpu", "fp16", "medium").reason
    assert "no loss scaling needed" in choose("cpu", "bf16", "medium").reason


# On a GPU

no_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: what is shown is that nothing waits for it"
)


@no_gpu
def test_on_a_gpu_neither_trace_nor_measurement_waits_for_the_device() -> None:
    device = torch.device("cuda")
    trace, cell = StepTrace(device), HostCell(device)
    gradients = [torch.full((1000,), 0.25, device=device), torch.full((3, 3), -2.0, device=device)]
    loss, norm = torch.tensor(0.5, device=device), torch.tensor(1.5, device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trace.push(loss, norm)
            cell.put(largest_magnitude(gradients))
        assert len(trace.drain()) == 0  # begins the copy
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = trace.drain()
        assert cell.read() == 2.0
        cell.put(flushed_share(gradients, 1024.0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows.tolist() == [[0.5, 1.5]] * 5


@no_gpu
def test_on_a_gpu_what_was_measured_has_arrived_once_the_scaler_has_stepped() -> None:
    settings = config(device="cuda", policy="amax")
    tried = Stepper(settings, len(dataset.FEATURES), choose("cuda", "fp16", "tiny"), lambda severity, text: None)
    assert tried.monitor is not None
    seen: list[float] = []
    tried.monitor.observe_amax = seen.append  # type: ignore[method-assign]
    windows, labels = (part.cuda() for part in batch())
    for number in range(3):
        assert not tried.step(windows, labels, 1, number)
        assert seen[-1] == float(tried._amax._host) > 0.0
        torch.cuda.synchronize()
        assert seen[-1] == float(tried._amax._host)
