"""Parts of a saved state, read as what they must be. A file that is whole may still hold anything. Free of torch.

All functions raise ValueError or TypeError, naming the part, for one that is wrong, and KeyError for one that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..arguments import check_number, check_whole

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_COUNT = 2**32 - 1  # of epochs and steps: a record of the scale keeps them in 32 bits
LARGEST_INT = 2**63 - 1

T = TypeVar("T")


def whole(state: Mapping[str, Any], name: str, *, at_least: int = 0, at_most: int = LARGEST_INT) -> int:
    value = state[name]
    check_whole(name, value, at_least=at_least, at_most=at_most)
    return int(value)


def number(state: Mapping[str, Any], name: str, **bounds: float) -> float:
    """Finite, and within what `check_number` is told."""
    value = state[name]
    check_number(name, value, **bounds)
    return float(value)


def one_of_type(state: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = state[name]
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {value!r:.60}")
    return value


def structured(state: Any, name: str, kind: type[T]) -> T:
    """A dataclass or struct, or a list of them, from plain dicts and lists."""
    try:
        return msgspec.convert(state, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error


def tensors_like(state: Any, name: str, wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless `state` has a finite tensor for each of `wanted`, of its shape and kind, and nothing else."""
    import torch

    if not isinstance(state, dict) or state.keys() != wanted.keys():
        raise ValueError(f"{name} must hold {', '.join(list(wanted)[:3])} and the like, {len(wanted)} tensors in all")
    for key, like in wanted.items():
        value = state[key]
        if not isinstance(value, torch.Tensor) or value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(f"{name}: {key} must be a {like.dtype} tensor of shape {tuple(like.shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: {key} holds NaN or Inf")


def generator_state(state: Any, name: str, device: str = "cpu") -> Tensor:
    """The state of a torch generator."""
    import torch

    try:
        torch.Generator(device).set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} is not the state of a random generator: {str(error).splitlines()[0]}") from error
    return state  # type: ignore[no-any-return]
