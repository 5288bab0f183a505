"""Reads and checks the parts of a saved state: a complete file may still hold anything. Free of torch.

All functions raise ValueError or TypeError, naming the part, for a wrong part, and KeyError for a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..arguments import check_number, check_whole

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_COUNT = 2**32 - 1  # of epochs and steps: scale records have 32 bits for them
LARGEST_INT = 2**63 - 1

T = TypeVar("T")


def whole(state: Mapping[str, Any], name: str, *, at_least: int = 0, at_most: int = LARGEST_INT) -> int:
    value = state[name]
    check_whole(name, value, at_least=at_least, at_most=at_most)
    return int(value)


def number(state: Mapping[str, Any], name: str, **bounds: float) -> float:
    """A finite number within the bounds of `check_number`."""
    value = state[name]
    check_number(name, value, **bounds)
    return float(value)


def one_of_type(state: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = state[name]
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {value!r:.60}")
    return value


def structured(state: Any, name: str, kind: type[T]) -> T:
    """Convert plain dicts and lists to a dataclass or struct, or a list of them."""
    try:
        return msgspec.convert(state, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error


def tensors_like(state: Any, name: str, wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless `state` has exactly the tensors of `wanted`, finite, with their shapes and dtypes."""
    import torch

    if not isinstance(state, dict) or state.keys() != wanted.keys():
        raise ValueError(f"{name} must hold {', '.join(list(wanted)[:3])} and so on, {len(wanted)} tensors in all")
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
