"""What the engine's sparklines are made of: one sample for each report of training. Free of torch."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..telemetry import TrainingState
from .messages import Metrics

_KEPT = 4096


class FlushSample(NamedTuple):
    """About the steps of one report while training: how many overflowed, the largest scale, the mean loss. None: not known."""

    overflows: int
    scale: float | None
    loss: float | None


class FlushSamples:
    """The last 4,096 samples that nobody has taken yet."""

    def __init__(self) -> None:
        self._samples: deque[FlushSample] = deque(maxlen=_KEPT)

    def keep(self, metrics: Metrics) -> None:
        """Of a pause or a wait there is nothing to sample."""
        if metrics.state is TrainingState.TRAINING:
            scale = metrics.scale if metrics.scale_max is None else metrics.scale_max
            self._samples.append(FlushSample(metrics.overflows, scale, metrics.loss))

    def drain(self) -> list[FlushSample]:
        """Those since the last call, oldest first."""
        samples = list(self._samples)
        self._samples.clear()
        return samples
