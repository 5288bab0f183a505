"""Watches a GradScaler: keeps its scale within bounds, records it, and resets it when it has lost its way.

All of it happens on the host mirror of the scale; the device is only ever told (`clamp_`, `fill_`, `zero_`: queued, in place,
no sync), never asked. In-place matters: rebinding `_scale` would break held references and CUDA graphs.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..telemetry import SYSTEM_CLOCK, Clock, Severity
from .config import check_number
from .scaler import DynamicGradScalerConfig, ScaleMirror, ScaleRecord

if TYPE_CHECKING:
    import torch

CAPACITY = 4096
_PACKED = struct.Struct("<IIf?Hd")  # 23 bytes: the whole ring is 94 kB, for ever
_LARGEST_COUNT = 0xFFFF
_EPOCHS_KEPT = 64
# Plain numbers of a monitor that a checkpoint carries as they are.
_STATE = (
    "_recorded", "_flagged", "_scale_sum", "_scale_min", "_scale_max", "checked", "overflow_count", "consecutive_overflow",
    "reset_count", "_blamed", "_reset_at", "_warned_at", "_last_flag", "_abnormal_in_a_row",
)  # fmt: skip
# A second reset this soon says that the scale is not the cause: resetting again would only hide that.
_STEPS_BETWEEN_RESETS = 200
_ABNORMAL_OVERFLOW_RATE = 0.2

EventSink = Callable[[Severity, str], None]


@dataclass(slots=True)
class EpochRecord:
    """What the scale did in one epoch. `min_scale` and `max_scale` are taken after each step."""

    epoch: int
    steps: int = 0
    overflow_count: int = 0
    overflows_at_floor: int = 0  # with a finite loss
    nonfinite_losses: int = 0  # of the overflows, those that say nothing about the scale
    min_scale: float = math.inf
    max_scale: float = 0.0
    abnormal: bool = False


class GradScalerMonitor:
    """Bounds, records, statistics and resets of one GradScaler. Not thread-safe: call it from the training thread.

    In a loop of your own call `check_overflow` after every `scaler.update()`, then `record_scale`. `update` does all three, and
    holds the scale on a step whose *loss* was not finite, since no scale cures that. After loading a checkpoint into the scaler
    call `resync`.

    An automatic reset follows `max_consecutive_overflow` overflows in a row or `reset_threshold_epochs` abnormal epochs in a row.
    It sets max(floor, min(scale, init / 2)) and the growth tracker to zero. It never raises the scale: a plain "back to half of
    the initial scale" does, and then skips every step of a model whose gradients only fit under init / 32.

    An epoch is abnormal when over 20 % of its steps overflowed with a finite loss, or when the scale stood at the floor
    throughout and overflowed there, where backing off has nothing left to give. Standing at the cap without overflows is normal:
    2^16, where models under 1M parameters start, is the largest power of two under the default cap.
    """

    def __init__(
        self,
        scaler: torch.amp.GradScaler,
        config: DynamicGradScalerConfig,
        *,
        auto_reset: bool = True,
        max_consecutive_overflow: int = 5,
        reset_threshold_epochs: int = 3,
        capacity: int = CAPACITY,
        clock: Clock = SYSTEM_CLOCK,
        on_event: EventSink | None = None,
    ) -> None:
        if not scaler.is_enabled():
            raise ValueError("the gradient scaler is disabled: there is no scale to monitor")
        check_number("capacity", capacity, at_least=1)
        self._scaler = scaler
        self._capacity = capacity
        self._clock = clock
        self._on_event = on_event or (lambda severity, text: None)
        self._ring = bytearray(_PACKED.size * capacity)
        self._recorded = 0
        self._flags = bytearray(capacity)  # overflow or not, of the last `capacity` checked steps
        self._flagged = 0
        self._scale_sum = 0.0
        self._scale_min = math.inf
        self._scale_max = 0.0
        self.checked = 0
        self.overflow_count = 0
        self.consecutive_overflow = 0
        self.reset_count = 0
        self._blamed = 0  # of the overflows in a row, those that the scale may be blamed for
        self._reset_at: int | None = None
        self._warned_at: int | None = None
        self._last_flag = False
        self._epoch: EpochRecord | None = None
        self._epochs: deque[EpochRecord] = deque(maxlen=_EPOCHS_KEPT)
        self._abnormal_in_a_row = 0
        self.mirror = ScaleMirror(scaler.get_scale(), scaler._get_growth_tracker())
        self.apply(config, auto_reset, max_consecutive_overflow, reset_threshold_epochs)

    def apply(
        self, config: DynamicGradScalerConfig, auto_reset: bool, max_consecutive_overflow: int, reset_threshold_epochs: int
    ) -> None:
        """Take over new settings, now. The scale is brought within the new bounds, the tracker within the new interval."""
        check_number("max_consecutive_overflow", max_consecutive_overflow, at_least=1)
        check_number("reset_threshold_epochs", reset_threshold_epochs, at_least=1)
        self.config = config
        self._floor, self._cap = config.floor, config.cap
        self._auto_reset = auto_reset
        self._max_consecutive = max_consecutive_overflow
        self._threshold_epochs = reset_threshold_epochs
        self._enforce()

    def _enforce(self) -> None:
        config = self.config
        self._scaler.set_growth_factor(config.growth_factor)
        self._scaler.set_backoff_factor(config.backoff_factor)
        self._scaler.set_growth_interval(config.growth_interval)
        # The kernel compares tracker and interval for equality: a tracker already past the interval would never grow again.
        self._set(config.clamp(self.mirror.scale), min(self.mirror.tracker, config.growth_interval - 1))

    def resync(self) -> float:
        """Follow the scaler from its present state on; return the scale. Call it after `scaler.load_state_dict`.

        A checkpoint brings its own scale, growth tracker, factors and interval. Scale and tracker are taken over, brought within
        the bounds of this monitor's config; factors and interval are those of the config again. Without this call the monitor
        would go on from the scale it knew, and write that back at the next change of settings. Costs a sync.
        """
        self.mirror = ScaleMirror(self._scaler.get_scale(), self._scaler._get_growth_tracker())
        self.consecutive_overflow = self._blamed = 0
        self._enforce()
        return self.mirror.scale

    @property
    def scale(self) -> float:
        """The present scale, from the mirror: no sync."""
        return self.mirror.scale

    @property
    def max_seen(self) -> float:
        return max(self._scale_max, self.mirror.scale)

    def update(self, has_overflow: bool, epoch: int, batch: int, *, loss_finite: bool = True) -> None:
        """`GradScaler.update()`, then check and record the step. Call it after `GradScaler.step()`.

        A non-finite loss (bad data, NaN weights, overflow in the forward pass) is no statement about the scale: scale and growth
        tracker stay as they are, and no reset follows from it.
        """
        if has_overflow and not loss_finite:
            scale = self._scaler._scale
            assert scale is not None  # scale() has been called: a step was tried
            self._scaler.update(scale)  # clears the per-step state, and copies the scale onto itself
        else:
            self._scaler.update()
        self._check(has_overflow, epoch, batch, loss_finite)
        self.record_scale(epoch, batch)

    def check_overflow(self, has_overflow: bool, epoch: int, batch: int) -> None:
        """Take note of one step after its `scaler.update()`: follow the scale, keep it in bounds, reset it when it is time to."""
        self._check(has_overflow, epoch, batch, loss_finite=True)

    def _check(self, has_overflow: bool, epoch: int, batch: int, loss_finite: bool) -> None:
        config, mirror = self.config, self.mirror
        before = mirror.scale
        if not has_overflow or loss_finite:
            mirror.advance(has_overflow, config.growth_factor, config.backoff_factor, config.growth_interval)
            mirror.scale = min(max(mirror.scale, self._floor), self._cap)
            device_scale = self._scaler._scale
            if device_scale is not None:
                device_scale.clamp_(self._floor, self._cap)
        self._count(has_overflow, loss_finite)
        self._count_epoch(epoch, has_overflow, loss_finite, before)
        if self._recorded and has_overflow:
            self._flag_record(epoch, batch)
        if has_overflow and loss_finite and self._blamed % self._max_consecutive == 0:
            self._reset_automatically(f"{self._blamed} overflows in a row")

    def _count(self, has_overflow: bool, loss_finite: bool) -> None:
        slot = self.checked % self._capacity
        self._flagged += has_overflow - self._flags[slot]
        self._flags[slot] = has_overflow
        self.checked += 1
        self._last_flag = has_overflow
        if has_overflow:
            self.overflow_count += 1
            self.consecutive_overflow += 1
            self._blamed += loss_finite
        else:
            self.consecutive_overflow = self._blamed = 0

    def _count_epoch(self, epoch: int, has_overflow: bool, loss_finite: bool, scale_before: float) -> None:
        record = self._epoch
        if record is None or record.epoch != epoch:
            if record is not None:
                self._close_epoch(record)
            record = self._epoch = EpochRecord(epoch)
        record.steps += 1
        scale = self.mirror.scale
        record.min_scale = min(record.min_scale, scale)
        record.max_scale = max(record.max_scale, scale)
        if has_overflow:
            record.overflow_count += 1
            record.overflows_at_floor += loss_finite and scale_before <= self._floor
            record.nonfinite_losses += not loss_finite

    def _close_epoch(self, record: EpochRecord) -> None:
        stuck_at_floor = record.max_scale <= self._floor and record.overflows_at_floor > 0
        blamed = record.overflow_count - record.nonfinite_losses
        record.abnormal = stuck_at_floor or blamed > _ABNORMAL_OVERFLOW_RATE * record.steps
        self._epochs.append(record)
        self._abnormal_in_a_row = self._abnormal_in_a_row + 1 if record.abnormal else 0
        if record.abnormal and self._abnormal_in_a_row % self._threshold_epochs == 0:
            self._reset_automatically(f"{self._abnormal_in_a_row} abnormal epochs in a row")

    def _reset_automatically(self, why: str) -> None:
        if not self._auto_reset:
            return
        now = self.checked
        if self._reset_at is not None and now - self._reset_at < _STEPS_BETWEEN_RESETS:
            if self._warned_at is None or now - self._warned_at >= _STEPS_BETWEEN_RESETS:
                self._warned_at = now
                advice = "pause and inspect: with a finite loss, suspect the gradient itself (a square root or a logarithm at 0)"
                self._on_event(Severity.CRITICAL, f"{why}, {now - self._reset_at} steps after a reset; {advice}")
            return
        before = self.mirror.scale
        after = max(self._floor, min(before, self.config.init_scale / 2))
        self._set(after, 0)
        self._reset_at = now
        self.reset_count += 1
        moved = f"scale {before:g} -> {after:g}" if after < before else f"scale stays at {before:g}"
        self._on_event(Severity.WARNING, f"automatic reset after {why}: {moved}, growth starts over")

    def reset_scale(self, reset_to_percent: float = 0.5) -> float:
        """By hand: set clamp(init * reset_to_percent, floor, cap) and the growth tracker to zero; return the new scale.

        `reset_to_percent` is a fraction, above 0 and at most 1. Unlike an automatic reset this may raise a collapsed scale.
        """
        check_number("reset_to_percent (a fraction: 0.5 is half)", reset_to_percent, above=0.0, at_most=1.0)
        self._set(self.config.clamp(self.config.init_scale * reset_to_percent), 0)
        self._reset_at = self.checked
        self.consecutive_overflow = self._blamed = 0
        self.reset_count += 1
        return self.mirror.scale

    def _set(self, scale: float, tracker: int) -> None:
        scaler = self._scaler
        self.mirror = ScaleMirror(scale, tracker)
        if scaler._scale is None or scaler._growth_tracker is None:  # not made before the first scale(): it starts from these
            scaler._init_scale = self.mirror.scale
            scaler._init_growth_tracker = tracker
        else:
            scaler._scale.fill_(self.mirror.scale)
            scaler._growth_tracker.fill_(tracker)

    def record_scale(self, epoch: int, batch: int) -> None:
        """Keep the present scale as a record of this batch; the oldest of `capacity` records gives way."""
        offset = self._recorded % self._capacity * _PACKED.size
        scale, count = self.mirror.scale, min(self.consecutive_overflow, _LARGEST_COUNT)
        _PACKED.pack_into(self._ring, offset, epoch, batch, scale, self._last_flag, count, self._clock.time())
        self._recorded += 1
        self._scale_sum += scale
        self._scale_min = min(self._scale_min, scale)
        self._scale_max = max(self._scale_max, scale)

    def _flag_record(self, epoch: int, batch: int) -> None:
        """The newest record belongs to this very batch when it was recorded before it was checked: put the overflow into it."""
        offset = (self._recorded - 1) % self._capacity * _PACKED.size
        of_epoch, of_batch, scale, _, _, stamp = _PACKED.unpack_from(self._ring, offset)
        if (of_epoch, of_batch) == (epoch, batch):
            count = min(self.consecutive_overflow, _LARGEST_COUNT)
            _PACKED.pack_into(self._ring, offset, epoch, batch, scale, True, count, stamp)

    def records(self) -> list[ScaleRecord]:
        """The records kept, oldest first."""
        kept = min(self._recorded, self._capacity)
        return [self._record(index) for index in range(self._recorded - kept, self._recorded)]

    def _record(self, index: int) -> ScaleRecord:
        return ScaleRecord(*_PACKED.unpack_from(self._ring, index % self._capacity * _PACKED.size))

    @property
    def overflow_rate(self) -> float | None:
        """Overflows per step, 0 to 1, over the last `capacity` steps: an old calm must not hide a new storm."""
        return self._flagged / min(self.checked, self._capacity) if self.checked else None

    @property
    def growth_rate(self) -> float | None:
        """Octaves per 1,000 steps, over the records kept; None before the second."""
        kept = min(self._recorded, self._capacity)
        if kept < 2:
            return None
        first, last = self._record(self._recorded - kept), self._record(self._recorded - 1)
        return math.log2(last.scale_value / first.scale_value) / (kept - 1) * 1000

    def get_statistics(self) -> dict[str, Any]:
        """Running statistics, at a cost that does not grow with the history. None: nothing recorded yet.

        `min_scale`, `max_scale`, `avg_scale` are over all records ever, `overflow_rate` over the last `capacity` steps;
        `epoch_records` is a list of dicts, one per epoch that has ended, the last 64.
        """
        recorded = self._recorded
        return {
            "current_scale": self.mirror.scale,
            "min_scale": self._scale_min if recorded else None,
            "max_scale": self._scale_max if recorded else None,
            "avg_scale": self._scale_sum / recorded if recorded else None,
            "overflow_count": self.overflow_count,
            "overflow_rate": self.overflow_rate,
            "consecutive_overflow": self.consecutive_overflow,
            "reset_count": self.reset_count,
            "epoch_records": [asdict(record) for record in self._epochs],
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the monitor knows beside its settings, in plain numbers and tensors, for a checkpoint."""
        import torch

        return {
            "numbers": {name: getattr(self, name) for name in _STATE},
            "scale": self.mirror.scale,
            "tracker": self.mirror.tracker,
            "ring": torch.frombuffer(bytearray(self._ring), dtype=torch.uint8),
            "flags": torch.frombuffer(bytearray(self._flags), dtype=torch.uint8),
            "epoch": None if self._epoch is None else asdict(self._epoch),
            "epochs": [asdict(record) for record in self._epochs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of a monitor of the same capacity, within the bounds of the present settings."""
        ring, flags = state["ring"].numpy().tobytes(), state["flags"].numpy().tobytes()
        if (len(ring), len(flags)) != (len(self._ring), len(self._flags)):
            raise ValueError(f"the records of {len(flags)} steps were saved, this monitor keeps {self._capacity}")
        self._ring[:], self._flags[:] = ring, flags
        for name in _STATE:
            setattr(self, name, state["numbers"][name])
        self._epoch = None if state["epoch"] is None else EpochRecord(**state["epoch"])
        self._epochs = deque((EpochRecord(**record) for record in state["epochs"]), maxlen=_EPOCHS_KEPT)
        self.mirror = ScaleMirror(state["scale"], state["tracker"])
        self._enforce()
