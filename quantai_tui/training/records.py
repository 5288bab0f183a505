"""What the loss scale did: one packed record a step in a ring that never grows, with running statistics. Free of torch."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..arguments import check_whole
from .saved_state import number, one_of_type, structured, whole

CAPACITY = 4096
_PACKED = struct.Struct("<IIf?Hd")  # 23 bytes: the whole ring is 94 kB, for ever
_SIZE = _PACKED.size
_pack_into, _unpack_from = _PACKED.pack_into, _PACKED.unpack_from
_LARGEST_COUNT = 0xFFFF


@dataclass(frozen=True, slots=True)
class ScaleRecord:
    """The loss scale after one batch. `timestamp` is Unix time in seconds."""

    epoch: int
    batch: int
    scale_value: float
    has_overflow: bool
    consecutive_overflow_count: int
    timestamp: float


class ScaleRecords:
    """The last `capacity` records, and smallest, largest and mean scale over all there ever were.

    Not thread-safe. `add` is on the path of every training step: what could be derived is not kept.
    """

    __slots__ = ("_end", "_last", "_offset", "_ring", "_sum", "capacity", "count", "largest", "smallest")

    def __init__(self, capacity: int = CAPACITY) -> None:
        check_whole("capacity", capacity, at_least=1)
        self.capacity = capacity
        self._ring = bytearray(_SIZE * capacity)
        self._end = len(self._ring)
        self._offset = 0
        self._last = math.nan
        self.count = 0
        self._sum = 0.0
        self.smallest = math.inf
        self.largest = 0.0

    def add(self, epoch: int, batch: int, scale: float, has_overflow: bool, consecutive: int, timestamp: float) -> None:
        if consecutive:
            consecutive = min(consecutive, _LARGEST_COUNT)
        offset = self._offset
        _pack_into(self._ring, offset, epoch, batch, scale, has_overflow, consecutive, timestamp)
        offset += _SIZE
        self._offset = offset if offset < self._end else 0
        self.count += 1
        self._sum += scale
        if scale != self._last:
            self._last = scale
            self.smallest = min(self.smallest, scale)
            self.largest = max(self.largest, scale)

    def flag_newest(self, epoch: int, batch: int, consecutive: int) -> None:
        """Put an overflow into the newest record, if it is of this very batch: it was recorded before it was checked."""
        if not self.count:
            return
        offset = (self.count - 1) % self.capacity * _SIZE
        of_epoch, of_batch, scale, _, _, stamp = _unpack_from(self._ring, offset)
        if (of_epoch, of_batch) == (epoch, batch):
            _pack_into(self._ring, offset, epoch, batch, scale, True, min(consecutive, _LARGEST_COUNT), stamp)

    @property
    def kept(self) -> int:
        return min(self.count, self.capacity)

    @property
    def mean(self) -> float | None:
        return self._sum / self.count if self.count else None

    @property
    def growth_rate(self) -> float | None:
        """Octaves per 1,000 records, over those kept; None before the second."""
        kept = self.kept
        if kept < 2:
            return None
        first, last = self._at(self.count - kept), self._at(self.count - 1)
        return math.log2(last.scale_value / first.scale_value) / (kept - 1) * 1000

    def __iter__(self) -> Iterator[ScaleRecord]:
        """The records kept, oldest first."""
        return map(self._at, range(self.count - self.kept, self.count))

    def _at(self, index: int) -> ScaleRecord:
        return ScaleRecord(*_unpack_from(self._ring, index % self.capacity * _SIZE))

    def state_dict(self) -> dict[str, Any]:
        """`packed` is a uint8 tensor of the records kept, oldest first."""
        import torch

        end = self._offset if self.count > self.capacity else 0
        kept = self._ring[end:] + self._ring[:end]
        kept = kept[: self.kept * _SIZE]
        # Not torch.tensor, which would go through 94,000 numbers one by one and hold up a checkpoint for 9 ms.
        packed = torch.frombuffer(kept, dtype=torch.uint8) if kept else torch.empty(0, dtype=torch.uint8)
        return {"packed": packed, "count": self.count, "sum": self._sum, "smallest": self.smallest, "largest": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; from a ring of another capacity as many records as fit, newest first.

        Raises ValueError, TypeError and KeyError, and then changes nothing.
        """
        import torch

        told = one_of_type(state, "packed", torch.Tensor)
        if told.dtype != torch.uint8 or told.dim() != 1:
            raise ValueError(f"packed must be bytes, got a {told.dtype} tensor of shape {tuple(told.shape)}")
        size, count = len(told), whole(state, "count")
        if size % _SIZE or count < size // _SIZE or (count and not size):
            raise ValueError(f"{size} bytes are not the last of {count} records of {_SIZE} bytes")
        packed = bytes(told[-len(self._ring) :].tolist())
        if not all(0.0 < scale < math.inf for _, _, scale, *_ in _PACKED.iter_unpack(packed)):
            raise ValueError("a record holds a scale that is not a finite number above 0")
        total, largest = number(state, "sum", at_least=0.0), number(state, "largest", at_least=0.0)
        smallest = number(state, "smallest", above=0.0) if count else math.inf
        first = count - len(packed) // _SIZE
        for each in range(len(packed) // _SIZE):
            at = (first + each) % self.capacity * _SIZE
            self._ring[at : at + _SIZE] = packed[each * _SIZE : (each + 1) * _SIZE]
        self.count, self._offset = count, count % self.capacity * _SIZE
        self._sum, self.smallest, self.largest = total, smallest, largest


class OverflowWindow:
    """How many of the last `capacity` steps overflowed: an old calm must not hide a new storm. A clean step costs nothing."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._steps: deque[int] = deque(maxlen=capacity)

    def overflowed(self, step: int) -> None:
        """Step number `step`, counted from 0, overflowed."""
        self._steps.append(step)

    def rate(self, steps: int) -> float | None:
        """Overflows per step, 0 to 1, after `steps` steps; None before the first."""
        while self._steps and self._steps[0] < steps - self._capacity:
            self._steps.popleft()
        return len(self._steps) / min(steps, self._capacity) if steps else None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError, TypeError and KeyError, and then changes nothing."""
        self._steps = deque(structured(state["steps"], "steps", list[int]), self._capacity)
