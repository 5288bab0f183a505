"""What two trainings must have in common to be the same one, and a loop that dies as by SIGKILL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quantai_tui.training.loop import TrainingLoop

_RECORD_BYTES, _STAMP_BYTES = 23, 8


def newest(folder: Path) -> Path:
    """The checkpoint written last."""
    return max(folder.glob("*.pt"), key=lambda path: path.name.split("-step-")[0])


def learnt(path: Path) -> dict[str, Any]:
    """A checkpoint without what a clock has put into it."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    del state["time"]
    monitor = state["stepper"].get("monitor")
    if monitor is not None:
        records = monitor["records"]
        records["packed"] = records["packed"].view(-1, _RECORD_BYTES)[:, :-_STAMP_BYTES]
    return state


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two states differ, to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [at]
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return [at]
        return [found for key in one for found in differences(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, list):
        if not isinstance(other, list) or len(one) != len(other):
            return [at]
        return [found for index, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{at}/{index}")]
    return [] if type(one) is type(other) and one == other else [at]


def spoilt_in_one_place(state: Any) -> Iterator[Any]:
    """Yield `state` repeatedly, each time with one part missing or of another kind."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield {name: part for name, part in state.items() if name != key}
            for spoilt in spoilt_in_one_place(value):
                yield {**state, key: spoilt}
    elif isinstance(state, list):
        yield {}
        for index in {0, len(state) - 1} if state else ():
            for spoilt in spoilt_in_one_place(state[index]):
                yield [*state[:index], spoilt, *state[index + 1 :]]
    elif isinstance(state, torch.Tensor):
        yield state.flatten()[:-1]
        yield state.to(torch.float64)
    for wrong in (None, {}, "x", -1, math.nan, 2**70):
        if type(wrong) is not type(state) or wrong != state:
            yield wrong


class Killed(BaseException):
    """Nothing in the loop catches it."""


def kill_after(loop: TrainingLoop, steps: int) -> None:
    """Have the loop end as by SIGKILL right after its `steps`-th step, before anything else is done about it."""
    step, taken = loop._stepper.step, 0

    def counting(*args: Any, **kwargs: Any) -> bool:
        nonlocal taken
        skipped = step(*args, **kwargs)
        taken += 1
        if taken == steps:
            raise Killed
        return skipped

    loop._stepper.step = counting  # type: ignore[method-assign]
