"""Why a step overflowed: real fp16 runs with a planted fault of each cause, in a loop that is not ours."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fp16_runs import INPUTS, Fp16Run, Mlp, batch
from torch import Tensor, nn
from training_support import config

from quantai_tui.training import dataset
from quantai_tui.training.diagnosis import Cause, Diagnostician, Evidence, diagnose
from quantai_tui.training.messages import Overflowed
from quantai_tui.training.precision import choose
from quantai_tui.training.stepper import Stepper

torch.set_num_threads(1)


def explained(evidence: Evidence | None) -> Overflowed:
    assert evidence is not None, "the step did not overflow"
    found = diagnose(7, evidence)
    assert found is not None
    assert found.step == 7
    assert "\n" not in found.text
    return found


def test_healthy_steps_do_not_overflow() -> None:
    run = Fp16Run()
    assert [run.step(*batch(seed)) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize("log_scale", [26, 30, 40, 60])
def test_a_scale_that_is_too_high_is_told_and_so_is_where_gradients_overflowed_first(log_scale: int) -> None:
    found = explained(Fp16Run(scale=2.0**log_scale).step(*batch()))
    assert found.cause == Cause.SCALE
    assert found.culprits[0].split(".")[0] in ("last", "middle")
    assert f"scale {2.0**log_scale:g} too high" in found.text


class Amplified(torch.autograd.Function):
    """Does nothing on the way forward, and multiplies by 2^14 on the way back."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * 2.0**14


def amplified(hidden: Tensor) -> Tensor:
    return F.gelu(Amplified.apply(hidden))


def test_the_parameter_nearest_the_loss_is_named_first_since_there_it_arose() -> None:
    inner = explained(Fp16Run(model=lambda: Mlp(between=amplified)).step(*batch()))
    assert (inner.cause, inner.culprits) == (Cause.SCALE, ("first.weight", "first.bias"))
    loss = explained(Fp16Run(loss=lambda outputs, targets: F.mse_loss(outputs, targets) * 2.0**20).step(*batch()))
    assert (loss.cause, loss.culprits) == (Cause.SCALE, ("last.weight", "last.bias", "middle.weight"))


def test_when_no_useful_scale_would_do_the_advice_is_to_divide_the_loss() -> None:
    found = explained(Fp16Run(loss=lambda outputs, targets: F.mse_loss(outputs, targets) * 2.0**50).step(*batch()))
    assert found.cause == Cause.SCALE
    assert "scale 65536 too high, and so is 1: " in found.text
    assert "divide it" in found.text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_data_that_is_not_finite_is_told_with_its_place(value: float) -> None:
    run = Fp16Run()
    inputs, targets = batch()
    inputs[3, 5] = value
    found = explained(run.step(inputs, targets))
    assert (found.cause, found.culprits) == (Cause.DATA, ())
    assert f"1 of 1,024 elements, first {value} at [3, 5]" in found.text
    assert run.monitor.scale == 2.0**16


def test_weights_that_are_not_finite_are_told_apart_from_data() -> None:
    run = Fp16Run()
    with torch.no_grad():
        run.model.middle.weight[0, 0] = math.nan  # type: ignore[union-attr, index, operator]
    found = explained(run.step(*batch()))
    assert (found.cause, found.culprits) == (Cause.FORWARD, ("middle.weight",))
    assert "weights not finite" in found.text
    assert run.monitor.scale == 2.0**16


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_target_that_is_not_finite_is_told(value: float) -> None:
    run = Fp16Run()
    inputs, targets = batch()
    targets[9, 0] = value
    found = explained(run.step(inputs, targets))
    assert (found.cause, found.culprits) == (Cause.TARGET, ())
    assert f"target not finite: 1 of 64 elements, first {value} at [9, 0]" in found.text
    assert run.monitor.scale == 2.0**16


def test_a_loss_of_a_logarithm_at_zero_is_a_target_matter_too() -> None:
    run = Fp16Run(loss=lambda outputs, targets: (targets * 0.0 + outputs.abs() * 0.0).log().mean())
    found = explained(run.step(*batch()))
    assert found.cause == Cause.TARGET
    assert "output finite, loss not" in found.text


def test_a_forward_pass_over_65504_names_the_module_where_it_began() -> None:
    run = Fp16Run()
    with torch.no_grad():
        run.model.middle.weight.mul_(1e7)  # type: ignore[union-attr, operator]
    found = explained(run.step(*batch()))
    assert (found.cause, found.culprits) == (Cause.FORWARD, ("middle",))
    assert run.monitor.scale == 2.0**16


def test_what_overflows_between_two_modules_is_before_the_second() -> None:
    found = explained(Fp16Run(model=lambda: Mlp(between=lambda hidden: hidden * 6e4 * 6e4)).step(*batch()))
    assert (found.cause, found.culprits) == (Cause.FORWARD, ("before middle",))


def test_an_input_beyond_fp16_is_a_forward_matter_and_its_size_is_told() -> None:
    inputs, targets = batch()
    found = explained(Fp16Run().step(inputs * 1e6, targets))
    assert (found.cause, found.culprits) == (Cause.FORWARD, ("first",))
    assert "normalise it" in found.text


def root_of_zero(hidden: Tensor) -> Tensor:
    return F.gelu(hidden) + (hidden * 0.0).sqrt()


@pytest.mark.parametrize("clip", [False, True])
def test_a_root_at_zero_is_the_gradient_itself_and_the_layer_before_it_is_named(clip: bool) -> None:
    """With clipping, a norm of NaN has made every gradient NaN."""
    run = Fp16Run(model=lambda: Mlp(between=root_of_zero), clip=clip)
    found = explained(run.step(*batch()))
    assert found.cause == Cause.GRADIENT
    assert found.culprits == ("first.weight", "first.bias")


def test_a_root_at_zero_in_the_loss_spoils_everything_and_the_last_layer_is_named_first() -> None:
    run = Fp16Run(loss=lambda outputs, targets: F.mse_loss(outputs, targets) + (outputs * 0.0).sqrt().sum())
    found = explained(run.step(*batch()))
    assert found.cause == Cause.GRADIENT
    assert found.culprits == ("last.weight", "last.bias", "middle.weight")


def test_without_a_replay_only_the_fifth_in_a_row_makes_the_gradient_a_suspect() -> None:
    run = Fp16Run(model=lambda: Mlp(between=root_of_zero))
    causes = []
    for _ in range(5):
        evidence = run.step(*batch())
        assert evidence is not None
        evidence.replay = None
        causes.append(explained(evidence).cause)
    assert causes == [Cause.SCALE] * 4 + [Cause.GRADIENT]


def test_without_outputs_a_replay_still_tells_target_from_forward() -> None:
    inputs, targets = batch()
    targets[0, 0] = math.inf
    evidence = Fp16Run().step(inputs, targets)
    assert evidence is not None
    evidence.outputs = evidence.targets = None
    assert explained(evidence).cause == Cause.TARGET
    blown = Fp16Run(model=lambda: Mlp(between=lambda hidden: hidden * 6e4 * 6e4)).step(*batch())
    assert blown is not None
    blown.outputs = None
    assert explained(blown).cause == Cause.FORWARD


def test_another_ranks_overflow_is_not_explained_from_this_ranks_batch() -> None:
    run = Fp16Run()
    run.step(*batch())
    inputs, targets = batch()
    outputs = run.forward(inputs)
    for parameter in run.model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(math.inf)  # as a sum over ranks would be
    evidence = Evidence(
        run.model, 2.0**16, inputs, outputs, targets, F.mse_loss(outputs, targets),
        replay=lambda: F.mse_loss(run.forward(inputs), targets), shared=True,
    )  # fmt: skip
    assert diagnose(1, evidence) is None


class Noisy(Mlp):
    """Dropout and running statistics: a replay that left a trace would show."""

    def __init__(self) -> None:
        super().__init__(between=F.gelu)
        self.norm = nn.BatchNorm1d(INPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(self.norm(x), 0.2))


def test_diagnosis_leaves_weights_gradients_buffers_and_chance_as_they_were() -> None:
    run = Fp16Run(model=Noisy, scale=2.0**40)
    evidence = run.step(*batch())
    assert evidence is not None

    def everything() -> list[Tensor]:
        found = [torch.get_rng_state(), *run.model.parameters(), *run.model.buffers()]
        found += [weight.grad for weight in run.model.parameters() if weight.grad is not None]
        return [tensor.detach().clone() for tensor in found]

    before = everything()
    assert explained(evidence).cause == Cause.SCALE
    assert all(torch.equal(was.nan_to_num(1), now.nan_to_num(1)) for was, now in zip(before, everything(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())


def test_a_storm_is_explained_in_part_and_counted_whole() -> None:
    evidence = Fp16Run(scale=2.0**40).step(*batch())
    assert evidence is not None
    looked = []

    def gather(step: int) -> Evidence:
        assert evidence is not None
        looked.append(step)
        return evidence

    diagnostician = Diagnostician(most=3, per_steps=20)
    found = [diagnostician.explain(step, lambda step=step: gather(step)) for step in range(50)]
    assert looked == [0, 1, 2, 20, 21, 22, 40, 41, 42]
    assert [overflow.count for overflow in found if overflow is not None] == [1, 1, 1, 18, 1, 1, 18, 1, 1]
    assert diagnostician.causes == {Cause.SCALE: 50}


def planted(cause: Cause, seed: int) -> Evidence | None:
    """A healthy run of a few steps, then a fault of this cause at a place that the seed chooses."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    model = Mlp()
    run = Fp16Run(seed=seed, model=lambda: model)
    for number in range(3):
        assert run.step(*batch(100 * seed + number)) is None
    inputs, targets = batch(seed, std=chance.choice((0.01, 1.0)))
    row, value = chance.randrange(64), chance.choice((math.nan, math.inf, -math.inf))
    if cause is Cause.SCALE:
        run.monitor.set_scale(2.0 ** chance.randint(32, 90))
    elif cause is Cause.DATA:
        inputs[row, chance.randrange(INPUTS)] = value
    elif cause is Cause.TARGET:
        targets[row, 0] = value
    elif cause is Cause.GRADIENT:
        model.between = root_of_zero
    elif chance.random() < 0.5:
        layer = chance.choice((model.first, model.middle, model.last))
        with torch.no_grad():
            layer.weight.mul_(1e9)
    else:
        with torch.no_grad():
            model.middle.weight[chance.randrange(128), chance.randrange(128)] = value
    return run.step(inputs, targets)


@pytest.mark.parametrize("cause", list(Cause))
def test_no_cause_is_taken_for_another(cause: Cause) -> None:
    assert [explained(planted(cause, seed)).cause for seed in range(12)] == [cause] * 12


def stepper(**changes: object) -> Stepper:
    settings = config(**changes)
    return Stepper(settings, len(dataset.FEATURES), choose("cpu", settings.precision, "tiny"), lambda severity, text: None)


def windows_and_labels(size: int = 16) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    return torch.randn(size, 8, len(dataset.FEATURES), generator=chance), torch.randint(0, 3, (size,), generator=chance)


def test_our_own_loop_explains_a_planted_overflow_once_and_clean_steps_not_at_all() -> None:
    tried = stepper()
    windows, labels = windows_and_labels()
    assert not tried.step(windows, labels, 1, 0)
    assert tried.take_overflow() is None
    assert tried.step(windows, labels, 1, 1, 2.0**40)
    found = tried.take_overflow()
    assert found is not None
    assert (found.step, found.cause) == (2, Cause.SCALE)
    assert found.culprits[0] == "head.weight"
    assert found.text.startswith("planted: scale 65536 too high")
    assert tried.take_overflow() is None


def test_our_own_loop_looks_into_a_storm_rarely_and_counts_all_of_it() -> None:
    tried = stepper(auto_reset=False)
    replays = []
    replay = tried._replay
    tried._replay = lambda windows, labels: (replays.append(1), replay(windows, labels))[1]  # type: ignore[method-assign, func-returns-value]
    windows, labels = windows_and_labels(4)
    told = []
    for number in range(130):
        assert tried.step(windows, labels, 1, number, 2.0**40)
        told.append(tried.take_overflow())
    assert len(replays) == sum(overflow is not None for overflow in told) == 16
    assert [overflow.count for overflow in told if overflow is not None] == [1] * 8 + [93] + [1] * 7


@pytest.mark.parametrize("layer", ["embed", "layers.0.up", "head"])
def test_our_own_loop_names_the_layer_where_the_forward_pass_overflows(layer: str) -> None:
    tried = stepper()
    with torch.no_grad():
        tried.model.get_parameter(f"{layer}.weight").mul_(1e9)
    assert tried.step(*windows_and_labels(), 1, 0)
    found = tried.take_overflow()
    assert found is not None
    assert (found.cause, found.culprits) == (Cause.FORWARD, (layer,))
    assert tried.monitor is not None
    assert tried.monitor.scale == 65536.0


def test_our_own_loop_names_nan_in_the_data_of_one_micro_batch() -> None:
    tried = stepper(accumulation=3)
    parts = [windows_and_labels() for _ in range(3)]
    parts[1][0][2, 7, 4] = math.nan
    assert tried.step([windows for windows, _ in parts], [labels for _, labels in parts], 1, 0)
    found = tried.take_overflow()
    assert found is not None
    assert found.cause == Cause.DATA
    assert "at [2, 7, 4]" in found.text


def test_in_fp32_a_skipped_step_is_explained_as_well() -> None:
    tried = stepper(precision="fp32")
    windows, labels = windows_and_labels()
    assert tried.step(windows, labels, 1, 0, math.inf)
    found = tried.take_overflow()
    assert found is not None
    assert found.cause == Cause.GRADIENT
    assert "not finite, the loss is" in found.text
