"""Where epochs come from: the newest bars of the store, or, after a restart, the very bars that one was begun with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..market import BarColumns, StoreError
from ..telemetry import Severity
from . import dataset
from .config import WorkerConfig
from .epoch import Epoch, Fence, checked_position, fence_of
from .saved_state import generator_state, whole

ReadBars = Callable[[str, str, int, int], BarColumns | None]
ReadBetween = Callable[[str, str, int, int, int], BarColumns | None]
Build = Callable[[BarColumns, int, int, int], dataset.Dataset]
Tell = Callable[[Severity, str], None]


class Epochs:
    """One epoch at a time, and what has to be known to make it again.

    `read` gives the newest bars, `read_between` those that open between two times. Bars that come in, are repaired or pruned
    while an epoch lasts have no part in it.
    """

    def __init__(
        self, seed: int, device: torch.device, read: ReadBars, read_between: ReadBetween, build: Build, tell: Tell
    ) -> None:
        self._device = device
        self._read = read
        self._read_between = read_between
        self._build = build
        self._tell = tell
        self._shuffle = torch.Generator().manual_seed(seed)
        self._validation_from_us = 0
        self._current: Epoch | None = None
        self._position: dict[str, Any] | None = None  # of a checkpoint's epoch, until it has been made again
        self._lost = False

    @property
    def within(self) -> bool:
        """Whether an epoch has begun and not ended, be it in the life before."""
        return self._current is not None or self._position is not None

    def end(self) -> None:
        self._current = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "validation_from_us": self._validation_from_us,
            "shuffle": self._shuffle.get_state(),
            "within": self._position if self._current is None else self._current.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, TypeError and KeyError, and then changes nothing."""
        validation_from_us = whole(state, "validation_from_us")
        shuffle = generator_state(state["shuffle"], "shuffle")
        position = None if state["within"] is None else checked_position(state["within"])
        self._validation_from_us = validation_from_us
        self._shuffle.set_state(shuffle)
        self._position = position

    def attempt(self, config: WorkerConfig) -> Epoch | str:
        """The epoch of a checkpoint, at the step it had come to, else a new one; or what has to be waited for, in words."""
        if self._position is not None and not self._lost:
            again = self._again(config, self._position)
            if again is not None:
                return again
        return self._new(config)

    def _new(self, config: WorkerConfig) -> Epoch | str:
        try:
            bars = self._read(config.store_path, config.symbol, config.interval_s, config.max_bars)
            have, trouble = 0 if bars is None else len(bars.close), ""
        except StoreError as error:  # not written to yet, or locked: the engine owns the store and reports its health
            bars, have, trouble = None, 0, f" ({error})"
        if bars is None or have < config.bars_needed:
            return f"waiting: {have} of {config.bars_needed} bars{trouble}"
        epoch = self._over(bars, Fence.around(bars, self._validation_from_us), config)
        # Never back: bars that were trained on come again once history is whole.
        self._validation_from_us = max(self._validation_from_us, epoch.data.validation_from_us)
        return epoch

    def _again(self, config: WorkerConfig, position: dict[str, Any]) -> Epoch | str | None:
        """None, and an event, when the epoch cannot be had any more: a new one is to begin in its place."""
        fence = fence_of(position)
        if position["step_size"] != step_size(config):
            self._lose(f"it was cut into steps of {position['step_size']} samples, and now they have {step_size(config)}")
            return None
        try:
            bars = self._read_between(config.store_path, config.symbol, config.interval_s, fence.first_us, fence.last_us)
        except StoreError as error:
            return f"waiting for the store, to go on within an epoch ({error})"
        if bars is None:
            return "waiting for the store, to go on within an epoch"
        if why := fence.differs(bars):
            self._lose(f"of the bars that it was begun with {why}")
            return None
        self._shuffle.set_state(position["shuffle"])
        epoch = self._over(bars, fence, config)
        epoch.taken = position["taken"]
        return epoch

    def _lose(self, why: str) -> None:
        self._lost = True
        self._tell(Severity.WARNING, f"the epoch begins again over the bars of now, with what was learnt so far: {why}")

    def _over(self, bars: BarColumns, fence: Fence, config: WorkerConfig) -> Epoch:
        data = self._build(bars, config.window, config.horizon, fence.not_before_us)
        self._current = Epoch(data, fence, self._shuffle, step_size(config), self._device)
        self._position, self._lost = None, False
        return self._current


def step_size(config: WorkerConfig) -> int:
    """Samples in one optimizer step."""
    return config.batch_size * config.accumulation
