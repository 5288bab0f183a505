"""Why a step overflowed and where, found out on overflow steps only: gradients survive a skipped step, and it has paid its sync.

Usable in any loop: `Evidence` says what is known about the step, and what is not known may be left out. Which parameter is
named: a backward pass runs from the loss to the input, and what is not finite spoils every gradient after it, so of the guilty
parameters the one nearest the loss is where it arose; the others, further towards the input, are mostly its victims.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from .headroom import FP16_LARGEST
from .messages import Overflowed
from .probing import gradients_at, largest_magnitude, undisturbed
from .trail import ForwardTrail, all_finite, tensors_of

MOST_CULPRITS = 3
_LOWER = 2.0**-16
_LOWEST = 2.0**-64  # the scale at which only a gradient that is infinite by itself is still not finite: zeros do no harm here
_SUSPECT_GRADIENT_AFTER = 5
_AT_ZERO = "look for a square root, a logarithm or a division at 0 between there and the loss"


class Cause(StrEnum):
    SCALE = "scale"  # finite at a lower scale
    DATA = "data"  # the input was not finite
    TARGET = "target"  # the output was finite, the loss was not
    FORWARD = "forward"  # the input was finite, the output was not: fp16 overflowed on the way, or weights are not finite
    GRADIENT = "gradient"  # the loss was finite, its gradient is not at any scale


@dataclass(slots=True)
class Evidence:
    """What is known about a step that overflowed, right after it was skipped; gradients and weights as it left them.

    `inputs`, `outputs` and `targets` are tensors or lists, tuples and dicts of them. `scale` is the one of that step, None where
    nothing is scaled. `in_a_row` counts overflows, this one included. `replay` runs the step's forward pass again, in the same
    precision, and returns what was differentiated, unscaled, or None where it cannot know the loss. It must use `model` itself,
    not a wrapper that talks to other ranks. `shared`: gradients are sums over several ranks, and another one may have overflowed.
    """

    model: nn.Module
    scale: float | None = None
    inputs: Any = None
    outputs: Any = None
    targets: Any = None
    loss: Tensor | None = None
    in_a_row: int = 1
    replay: Callable[[], Tensor | None] | None = None
    shared: bool = False


def diagnose(step: int, evidence: Evidence) -> Overflowed | None:
    """Explain one overflow, or None where it was another rank's. With a `replay` it costs one forward pass and up to four
    backward passes; weights, gradients, buffers and torch's random state stay as they are.
    """
    model = evidence.model
    if trouble := _describe_nonfinite(evidence.inputs):
        return _overflowed(step, Cause.DATA, (), f"input not finite: {trouble}; look at the data of this batch")
    if bad := _guilty(model, lambda parameter: parameter):
        text = f"weights not finite, in {len(bad)} parameters: {bad[0]} and whatever it feeds; go back to a checkpoint"
        return _overflowed(step, Cause.FORWARD, tuple(bad[:MOST_CULPRITS]), text)
    if evidence.loss is None or all_finite(evidence.loss):
        if all_finite(evidence.outputs):
            return _explain_gradient(step, evidence)
    elif evidence.outputs is not None and all_finite(evidence.outputs):
        return _explain_target(step, evidence)
    return _explain_forward(step, evidence)


def _overflowed(step: int, cause: Cause, culprits: tuple[str, ...], text: str) -> Overflowed:
    return Overflowed(step, cause.value, culprits, text)


def _explain_target(step: int, evidence: Evidence) -> Overflowed:
    trouble = _describe_nonfinite(evidence.targets)
    found = f"target not finite: {trouble}" if trouble else "output finite, loss not"
    advice = "look at the targets, and for a logarithm or a division at 0 in the loss"
    return _overflowed(step, Cause.TARGET, (), f"{found}; {advice}")


def _explain_forward(step: int, evidence: Evidence) -> Overflowed:
    """Finite weights, finite input, an output that is not; or an output that nobody has kept."""
    known = not all_finite(evidence.outputs)
    trail = ForwardTrail(evidence.model)
    if evidence.replay is not None:
        with undisturbed(evidence.model), torch.no_grad(), trail:
            evidence.replay()
        if not known and not trail.where:
            return _explain_target(step, evidence)
    elif not known:
        text = "loss not finite, input and weights are; look at the targets and for values over 65,504 in the model"
        return _overflowed(step, Cause.TARGET, (), text)
    culprits = (trail.where,) if trail.where else ()
    where = f"first in {trail.where}" if trail.where else "somewhere in the model"
    size = max((float(tensor.detach().abs().max()) for tensor in _floats(evidence.inputs)), default=0.0)
    advice = "normalise what goes in there, or run it in bf16 or fp32"
    if size > FP16_LARGEST:
        advice = f"the input reaches {size:.3g}, and fp16 ends at 65,504: normalise it"
    return _overflowed(step, Cause.FORWARD, culprits, f"forward pass overflows, {where}; {advice}")


def _explain_gradient(step: int, evidence: Evidence) -> Overflowed | None:
    """Everything up to the loss is finite: is it the scale, or the gradient itself?"""
    bad = _guilty(evidence.model, lambda parameter: parameter.grad)
    if evidence.replay is None:
        return _guess(step, evidence, _named(bad, ()))
    try:
        with undisturbed(evidence.model), torch.enable_grad():
            return _try_again(step, evidence, bad)
    except torch.OutOfMemoryError:
        found = _guess(step, evidence, _named(bad, ()))
        return msgspec.structs.replace(found, text=f"{found.text} (not tried at a lower scale: out of memory)")


def _try_again(step: int, evidence: Evidence, bad: list[str]) -> Overflowed | None:
    """Differentiate the same batch at lower scales. `bad` are the parameters whose gradients were not finite."""
    scale = evidence.scale
    parameters = {name: parameter for name, parameter in evidence.model.named_parameters() if parameter.requires_grad}
    assert evidence.replay is not None
    with ForwardTrail(evidence.model) as trail:
        loss = evidence.replay()
    if loss is None:
        return _guess(step, evidence, _named(bad, trail.order))
    if evidence.shared or len(bad) == len(parameters):
        # A sum over ranks hides this one's part, and a norm of NaN, clipped by, makes all NaN: only the replay can tell.
        own = _guilty_at(loss, parameters, scale or 1.0)
        if evidence.shared and not own:
            return None
        bad = own or bad
    culprits = _named(bad, trail.order)
    first = culprits[0] if culprits else "no single parameter"
    if scale is None:
        text = f"gradient not finite, the loss is, first at {first}"
        return _overflowed(step, Cause.GRADIENT, culprits, f"{text}: {_AT_ZERO}")
    too_high = scale
    for lower in sorted({scale * _LOWER, min(scale * _LOWER, 1.0), _LOWEST}, reverse=True):
        gradients = gradients_at(loss, list(parameters.values()), lower, retain_graph=True)
        largest = float(largest_magnitude(gradients)) if gradients else 0.0
        if math.isfinite(largest):
            fits = lower * FP16_LARGEST / largest if largest else math.inf
            return _overflowed(step, Cause.SCALE, culprits, _scale_text(scale, too_high, fits, first))
        too_high = lower
    text = f"gradient not finite at any scale, first at {first}"
    return _overflowed(step, Cause.GRADIENT, culprits, f"{text}: {_AT_ZERO}")


def _scale_text(scale: float, too_high: float, fits: float, first: str) -> str:
    """`too_high` is the lowest scale at which they overflowed as well, `fits` about the one below which they would not."""
    if too_high <= 1.0:
        also = f", and so is {too_high:g}" if too_high < scale else ""
        return f"scale {scale:g} too high{also}: gradients overflow first at {first}; the loss is far too large: divide it"
    below = f", fit below {fits:.3g}" if math.isfinite(fits) else ""
    return f"scale {scale:g} too high: gradients overflow first at {first}{below}; it backs off by itself"


def _guess(step: int, evidence: Evidence, culprits: tuple[str, ...]) -> Overflowed:
    """Without a second backward pass only the number of overflows in a row speaks."""
    first = culprits[0] if culprits else "no single parameter"
    if evidence.scale is None or evidence.in_a_row >= _SUSPECT_GRADIENT_AFTER:
        row = f" {evidence.in_a_row} times in a row" if evidence.in_a_row > 1 else ""
        text = f"gradient not finite{row} with a finite loss, first at {first}"
        return _overflowed(step, Cause.GRADIENT, culprits, f"{text}: {_AT_ZERO}")
    text = f"scale {evidence.scale:g} too high: gradients overflow first at {first}; it backs off by itself"
    return _overflowed(step, Cause.SCALE, culprits, text)


def _guilty(model: nn.Module, of: Callable[[Tensor], Tensor | None]) -> list[str]:
    """Names of the parameters whose weight or gradient is not finite, as registered."""
    named = [(name, tensor) for name, parameter in model.named_parameters() if (tensor := of(parameter)) is not None]
    return _nonfinite_names([(name, tensor.detach()) for name, tensor in named])


def _guilty_at(loss: Tensor, parameters: dict[str, nn.Parameter], scale: float) -> list[str]:
    found = torch.autograd.grad(loss * scale, list(parameters.values()), retain_graph=True, allow_unused=True)
    return _nonfinite_names([(name, gradient) for name, gradient in zip(parameters, found, strict=True) if gradient is not None])


def _nonfinite_names(named: list[tuple[str, Tensor]]) -> list[str]:
    named = [(name, tensor.coalesce().values() if tensor.is_sparse else tensor) for name, tensor in named if tensor.numel()]
    if not named:
        return []
    if any(tensor.device.type != "cpu" for _, tensor in named):
        # One wait for all of them. The largest magnitude is NaN or inf exactly where an element is.
        norms = torch._foreach_norm([tensor for _, tensor in named], math.inf)
        finite = torch.isfinite(torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms])).tolist()
        return [name for (name, _), good in zip(named, finite, strict=True) if not good]
    return [name for name, tensor in named if not bool(torch.isfinite(tensor).all())]


def _named(bad: list[str], order: tuple[str, ...]) -> tuple[str, ...]:
    """At most three of them, the one nearest the loss first; within a module as registered, since weight comes before bias.

    `order` are the modules as the forward pass called them; without it the order of registration has to do.
    """
    if order:
        place = {name: index for index, name in enumerate(order)}
    else:
        place = {}
        for name in bad:
            place.setdefault(_owner(name), len(place))
    return tuple(sorted(bad, key=lambda name: -place.get(_owner(name), -1))[:MOST_CULPRITS])


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _floats(tree: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_of(tree) if tensor.is_floating_point() and tensor.numel())


def _describe_nonfinite(tree: Any) -> str:
    """How many elements are not finite, and where the first one is; empty when all are."""
    for tensor in _floats(tree):
        bad = ~torch.isfinite(tensor.detach())
        count = int(bad.sum())
        if count:
            at = bad.nonzero()[0].tolist()
            return f"{count:,} of {tensor.numel():,} elements, first {float(tensor[tuple(at)])} at {at}"
    return ""


class Diagnostician:
    """Explains overflows, but not all of a storm: at most `most` in any `per_steps` steps, which bounds the cost.

    The others are counted under the cause found last, and in the `count` of the next that is explained.
    """

    def __init__(self, most: int = 8, per_steps: int = 100) -> None:
        if most < 1 or per_steps < most:
            raise ValueError(f"of {per_steps} steps at least one and at most all can be explained, got {most}")
        self._recent: deque[int] = deque(maxlen=most)
        self._per_steps = per_steps
        self._unexplained = 0
        self.causes: dict[Cause, int] = {}
        self.last: Overflowed | None = None

    def explain(self, step: int, gather: Callable[[], Evidence]) -> Overflowed | None:
        """`step` counts steps tried. None when it is only counted, and then `gather` is not called, or was another rank's."""
        recent, last = self._recent, self.last
        if last is not None and len(recent) == recent.maxlen and step - recent[0] < self._per_steps:
            self._count(Cause(last.cause))
            self._unexplained += 1
            return None
        recent.append(step)
        found = diagnose(step, gather())
        if found is None:
            return None
        self._count(Cause(found.cause))
        if self._unexplained:
            text = f"{found.text} (and {self._unexplained:,} before it, not looked at one by one)"
            found = msgspec.structs.replace(found, count=1 + self._unexplained, text=text)
            self._unexplained = 0
        self.last = found
        return found

    def _count(self, cause: Cause) -> None:
        self.causes[cause] = self.causes.get(cause, 0) + 1
