"""One pass over a fenced stretch of the market: which samples in which order, and how far it has come.

The market goes on while an epoch lasts. What the epoch is made of was settled at its beginning: the bars between two open times,
the shuffle, where validation may begin. That is little, it travels in a checkpoint, and the very same epoch is built from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..market import BarColumns, StoreReader
from .dataset import Dataset
from .saved_state import LARGEST_COUNT, generator_state, structured, whole


@dataclass(frozen=True, slots=True)
class Fence:
    """The bars that a data set was built from: open times (us) of the first and the last, and what was in them."""

    first_us: int
    last_us: int
    not_before_us: int  # as it was given to `dataset.build`
    digest: str

    @classmethod
    def around(cls, bars: BarColumns, not_before_us: int) -> Fence:
        return cls(int(bars.open_time_us[0]), int(bars.open_time_us[-1]), not_before_us, digest(bars))

    def differs(self, bars: BarColumns) -> str:
        """What has become of the bars within the fence, in words; empty when `bars` are they, to the last bit."""
        if not len(bars.close):
            return "the store has none any more"
        if (int(bars.open_time_us[0]), int(bars.open_time_us[-1])) != (self.first_us, self.last_us):
            return f"the store has {len(bars.close)} left"
        return "" if digest(bars) == self.digest else "some have changed"


def digest(bars: BarColumns) -> str:
    total = hashlib.sha256()
    for column in bars:
        total.update(column.tobytes())
    return total.hexdigest()


def read_between(store_path: str, symbol: str, interval_s: int, first_us: int, last_us: int) -> BarColumns | None:
    """The whole bars that open from `first_us` to `last_us`; None while there is no store. Raises StoreError."""
    if not Path(store_path).exists():
        return None
    with StoreReader(Path(store_path)) as reader:
        return reader.bar_columns(symbol, interval_s, since_us=first_us, until_us=last_us + interval_s * 1_000_000)


class Epoch:
    """The samples of one epoch, shuffled and cut into steps of `step_size`; `taken` of its `steps` have been taken."""

    def __init__(self, data: Dataset, fence: Fence, shuffle: torch.Generator, step_size: int, device: torch.device) -> None:
        self.data = data
        self.fence = fence
        self._shuffled_from = shuffle.get_state()
        self._step_size = step_size
        order = torch.randperm(len(data.train), generator=shuffle)
        self.features = torch.from_numpy(data.features).to(device)
        self._at = torch.from_numpy(data.train.at)[order].to(device)
        self._labels = torch.from_numpy(data.train.labels)[order].to(device)
        self.steps = max(1, len(data.train) // step_size)
        self.taken = 0

    def samples(self, size: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Positions and labels of the next step: of its `part`-th batch of `size`, where a step is made of several."""
        batch = filled(self.taken * self._step_size + part * size, size, len(self._at), self._at.device)
        return self._at[batch], self._labels[batch]

    def state_dict(self) -> dict[str, Any]:
        return {**asdict(self.fence), "shuffle": self._shuffled_from, "step_size": self._step_size, "taken": self.taken}


def checked_position(state: dict[str, Any]) -> dict[str, Any]:
    """Check a state of `Epoch.state_dict` from a checkpoint. Raises ValueError, TypeError and KeyError."""
    return {
        **asdict(structured(state, "the epoch's bars", Fence)),
        "shuffle": generator_state(state["shuffle"], "the epoch's shuffle"),
        "step_size": whole(state, "step_size", at_least=1),
        "taken": whole(state, "taken", at_most=LARGEST_COUNT),
    }


def fence_of(state: dict[str, Any]) -> Fence:
    return Fence(state["first_us"], state["last_us"], state["not_before_us"], state["digest"])


def filled(start: int, size: int, count: int, device: torch.device) -> Tensor:
    """`size` indices from `start` on, going round at `count`: every batch has the same shape.

    The CPU backend keeps a compiled kernel for each shape it has seen, up to a thousand of them. With data that grows by a window
    a second, batches of what is left over took a worker from 330 MB to 1.2 GB within the hour.
    """
    return torch.arange(start, start + size, device=device) % count
