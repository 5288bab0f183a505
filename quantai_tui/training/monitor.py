"""Watches a GradScaler: keeps its scale within bounds, records it, and resets it when it has lost its way.

All of it happens on the host mirror of the scale; the device is only ever told (`clamp_`, `fill_`, `zero_`: queued, in place,
no sync), never asked. In-place matters: rebinding `_scale` would break held references and CUDA graphs.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..arguments import check_methods, check_number, check_type
from ..telemetry import SYSTEM_CLOCK, Clock, Severity
from .config import LARGEST_SCALE
from .headroom import AmaxHistory
from .records import CAPACITY, OverflowWindow, ScaleRecord, ScaleRecords
from .resets import EpochRecord, EventSink, ResetPolicy
from .saved_state import number, structured, whole
from .scaler import DynamicGradScalerConfig, ScaleMirror

if TYPE_CHECKING:
    import torch

__all__ = ["EventSink", "GradScalerMonitor", "LateOutcomes"]

_EPOCHS_KEPT, _STATE_VERSION = 64, 1
_COUNTS = ("checked", "overflow_count", "consecutive_overflow", "reset_count")


class LateOutcomes(Protocol):
    """Where the outcomes of steps come from that the host did not know when it went on: (skipped, the loss was finite)."""

    def arrived(self) -> list[tuple[bool, bool]]:
        """Those that have come in since the last call, in order."""

    def wait(self) -> list[tuple[bool, bool]]:
        """All that are still out, in order."""


class GradScalerMonitor:
    """Bounds, records, statistics and resets of one GradScaler. Not thread-safe: call it from the training thread.

    In a loop of your own call `check_overflow` after every `scaler.update()`, then `record_scale`. `update` does all three, and
    holds the scale on a step whose *loss* was not finite, since no scale cures that. After loading a checkpoint into the scaler
    call `load_state_dict`, or `resync` where the monitor's own state was not kept. Change the scale through the monitor alone:
    `GradScaler.update(value)` takes NaN, inf, 0 and negative numbers, and leaves the growth tracker where it was.

    An automatic reset follows `max_consecutive_overflow` overflows in a row or `reset_threshold_epochs` abnormal epochs in a row
    (`ResetPolicy`). It sets max(floor, min(scale, init / 2)) and the growth tracker to zero. It never raises the scale: a plain
    "back to half of the initial scale" does, and then skips every step of a model whose gradients only fit under init / 32.

    An epoch is abnormal when over 20 % of its steps overflowed with a finite loss, or when the scale was pressed against cap or
    floor: it stood there after every step, and at least one growth or backoff was cut off.
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
        check_methods("scaler", scaler, "torch.amp.GradScaler", ("is_enabled", "get_scale", "_get_growth_tracker"))
        if not scaler.is_enabled():
            raise ValueError("the gradient scaler is disabled: there is no scale to monitor")
        self._scaler = scaler
        self._now = clock.time
        self._on_event = on_event or (lambda severity, text: None)
        self._records = ScaleRecords(capacity)
        self._overflows = OverflowWindow(capacity)
        self._amax = AmaxHistory()
        self._resets = ResetPolicy(self._on_event)
        self._epoch = EpochRecord(-1)
        self._epochs: deque[EpochRecord] = deque(maxlen=_EPOCHS_KEPT)
        self.checked = 0
        self.overflow_count = 0
        self.consecutive_overflow = 0
        self.reset_count = 0
        self._late: LateOutcomes | None = None
        self._in_flight: deque[tuple[int, int]] = deque()  # epoch and batch of steps whose outcome is not known
        self._differs = False  # the mirror from what the device will be after the steps that are known
        self.mirror = ScaleMirror(scaler.get_scale(), scaler._get_growth_tracker())
        self.apply(config, auto_reset, max_consecutive_overflow, reset_threshold_epochs)

    def apply(
        self, config: DynamicGradScalerConfig, auto_reset: bool, max_consecutive_overflow: int, reset_threshold_epochs: int
    ) -> None:
        """Take over new settings, now. The scale is brought within the new bounds, the tracker within the new interval."""
        check_type("config", config, DynamicGradScalerConfig, "a DynamicGradScalerConfig")
        self.settle()
        self._resets.apply(auto_reset, max_consecutive_overflow, reset_threshold_epochs)
        self.config = config
        self._floor, self._cap, self._moves = config.floor, config.cap, config.moves
        self._interval = self._moves.growth_interval
        self._enforce()

    def _enforce(self) -> None:
        moves = self._moves
        self._scaler.set_growth_factor(moves.growth_factor)
        self._scaler.set_backoff_factor(moves.backoff_factor)
        self._scaler.set_growth_interval(moves.growth_interval)
        # The kernel compares tracker and interval for equality: a tracker already past the interval would never grow again.
        self._set(self.config.clamp(self.mirror.scale), min(self.mirror.tracker, moves.growth_interval - 1))

    def resync(self) -> float:
        """Follow the scaler from its present state on; return the scale. Call it after `scaler.load_state_dict`.

        A checkpoint brings its own scale, growth tracker, factors and interval. Scale and tracker are taken over, brought within
        the bounds of this monitor's config; factors and interval are those of the config again. Without this call the monitor
        would go on from the scale it knew, and write that back at the next change of settings. Costs a sync.
        """
        self.settle()
        self.mirror = ScaleMirror(self._scaler.get_scale(), self._scaler._get_growth_tracker())
        self.consecutive_overflow = 0
        self._resets.clean()
        self._enforce()
        return self.mirror.scale

    @property
    def scale(self) -> float:
        """The present scale, from the mirror: no sync. Of the last step known, where outcomes come late."""
        return self.mirror.scale

    @property
    def max_seen(self) -> float:
        return max(self._records.largest, self.mirror.scale)

    @property
    def stuck(self) -> str:
        """Not empty: resets do not help, so training is to pause; what was seen and what to try. See `ResetPolicy`."""
        return self._resets.stuck

    def clear_stuck(self) -> None:
        """The operator goes on: what led to `stuck` is counted anew."""
        self._resets.forgive()

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
        self._records.add(epoch, batch, self.mirror.scale, has_overflow, self.consecutive_overflow, self._now())

    def update_late(self, outcomes: LateOutcomes, epoch: int, batch: int) -> None:
        """`update` for a step whose outcome is not known yet: it and those before it are checked once `outcomes` has them.

        Meanwhile the device backs off and grows by itself, and is kept within the bounds. What it cannot know (a non-finite loss
        that was to leave the scale alone, a reset) is put right when the host knows, after waiting for what is still out.
        """
        self._late = outcomes
        self._scaler.update()
        device_scale = self._scaler._scale
        assert device_scale is not None
        device_scale.clamp_(self._floor, self._cap)
        self._in_flight.append((epoch, batch))
        self._learn(outcomes.arrived())
        if self._differs:
            self.settle()

    def settle(self) -> None:
        """Learn the outcome of every step so far, waiting for it, and put the device right; for those that come late."""
        if self._late is not None:
            self._learn(self._late.wait())
            if self._in_flight:
                raise RuntimeError(f"{len(self._in_flight)} steps were updated without an outcome ever being due")
        if self._differs:
            self._differs = False
            self._set(self.mirror.scale, self.mirror.tracker)

    def _learn(self, outcomes: list[tuple[bool, bool]]) -> None:
        for skipped, loss_finite in outcomes:
            epoch, batch = self._in_flight.popleft()
            # The device has backed off already.
            self._differs |= skipped and not loss_finite
            self._check(skipped, epoch, batch, loss_finite or not skipped)
            self._records.add(epoch, batch, self.mirror.scale, skipped, self.consecutive_overflow, self._now())

    def check_overflow(self, has_overflow: bool, epoch: int, batch: int) -> None:
        """Take note of one step after its `scaler.update()`: follow the scale, keep it in bounds, reset it when it is time to."""
        self._check(has_overflow, epoch, batch, True)
        if has_overflow:
            self._records.flag_newest(epoch, batch, self.consecutive_overflow)

    def _check(self, has_overflow: bool, epoch: int, batch: int, loss_finite: bool) -> None:
        mirror, record = self.mirror, self._epoch
        tracker = mirror.tracker + 1
        if has_overflow or tracker >= self._interval or epoch != record.epoch or self.consecutive_overflow:
            self._check_closely(has_overflow, epoch, loss_finite)
        else:  # all clean steps but one in thousands: the scale stays, and this is what the whole class costs
            mirror.tracker = tracker
            record.steps += 1
            self.checked += 1

    def _check_closely(self, has_overflow: bool, epoch: int, loss_finite: bool) -> None:
        before, cut = self.mirror.scale, 0.0
        if not has_overflow or loss_finite:
            cut = self._follow(has_overflow)
        if epoch != self._epoch.epoch:
            self._begin_epoch(epoch)
        self._count(has_overflow, loss_finite, cut)
        if not has_overflow:
            self._resets.clean()
            return
        if loss_finite and self.config.policy == "amax":
            self._amax.overflowed(before)
        self._reset_if(self._resets.overflowed(self.checked, loss_finite=loss_finite, cut_at_floor=cut < 0))

    def _follow(self, has_overflow: bool) -> float:
        """Move the mirror as the device has moved, and keep both in bounds. Below 0: the floor cut a backoff off; above: cap."""
        mirror, moves = self.mirror, self._moves
        grows = not has_overflow and mirror.tracker + 1 == moves.growth_interval
        before = mirror.scale
        mirror.advance(has_overflow, *moves)
        inside = min(max(mirror.scale, self._floor), self._cap)
        device_scale = self._scaler._scale
        if inside != mirror.scale and device_scale is not None and not self._in_flight:
            device_scale.clamp_(self._floor, self._cap)
        cut = mirror.scale - inside
        mirror.scale = inside
        refused = grows and inside == before == self._cap  # growth past fp32's largest is not even tried
        return cut or float(refused)

    def _count(self, has_overflow: bool, loss_finite: bool, cut: float) -> None:
        record, scale = self._epoch, self.mirror.scale
        record.steps += 1
        record.min_scale = min(record.min_scale, scale)
        record.max_scale = max(record.max_scale, scale)
        record.cut_at_cap += cut > 0
        record.cut_at_floor += cut < 0
        if has_overflow:
            self._overflows.overflowed(self.checked)
            record.overflow_count += 1
            record.nonfinite_losses += not loss_finite
            self.overflow_count += 1
            self.consecutive_overflow += 1
        else:
            self.consecutive_overflow = 0
        self.checked += 1

    def _begin_epoch(self, epoch: int) -> None:
        record, self._epoch = self._epoch, EpochRecord(epoch)
        if not record.steps:
            return
        kind = record.judge(self._floor, self._cap)
        record.abnormal = bool(kind)
        self._epochs.append(record)
        self._reset_if(self._resets.epoch_ended(self.checked, kind))

    def _reset_if(self, why: str) -> None:
        if not why:
            return
        before = self.mirror.scale
        after = max(self._floor, min(before, self.config.clamp(self.config.init_scale / 2)))
        self._set(after, 0)
        self._resets.has_reset(self.checked)
        self.reset_count += 1
        moved = f"scale {before:g} -> {after:g}" if after < before else f"scale stays at {before:g}"
        self._on_event(Severity.WARNING, f"automatic reset after {why}: {moved}, growth starts over")

    def reset_scale(self, reset_to_percent: float = 0.5) -> float:
        """By hand: set clamp(init * reset_to_percent, floor, cap) and the growth tracker to zero; return the new scale.

        `reset_to_percent` is a fraction, above 0 and at most 1. Unlike an automatic reset this may raise a collapsed scale.
        `stuck` is cleared.
        """
        check_number("reset_to_percent (a fraction: 0.5 is half)", reset_to_percent, above=0.0, at_most=1.0)
        self.set_scale(self.config.init_scale * reset_to_percent)
        self._resets.forgive()
        self._resets.has_reset(self.checked)
        self.consecutive_overflow = 0
        self.reset_count += 1
        return self.mirror.scale

    def set_scale(self, scale: float) -> float:
        """Set the scale next to `scale` that the config allows, and the growth tracker to zero; return it. Not a reset.

        Raises ValueError unless `scale` is finite and above 0: `GradScaler.update(value)` would take anything.
        """
        check_number("scale", scale, above=0.0)
        self.settle()
        self._set(self.config.clamp(scale), 0)
        return self.mirror.scale

    def _set(self, scale: float, tracker: int) -> None:
        scaler = self._scaler
        self.mirror.scale, self.mirror.tracker = ScaleMirror(scale).scale, tracker
        if self._in_flight:  # the device is further on: `settle` puts it right
            self._differs = True
        elif scaler._scale is None or scaler._growth_tracker is None:  # not made before the first scale(): it starts from these
            scaler._init_scale = self.mirror.scale
            scaler._init_growth_tracker = tracker
        else:
            scaler._scale.fill_(self.mirror.scale)
            scaler._growth_tracker.fill_(tracker)

    def observe_amax(self, amax: float) -> None:
        """The largest |unscaled gradient| of a clean step, after its `update`. With the policy amax it moves the scale.

        Raises ValueError unless it is finite and not negative.
        """
        self._amax.observe(amax)
        if self.config.policy == "amax":
            target = self._amax.target(self._floor, self._cap)
            if target is not None and target != self.mirror.scale:
                self.set_scale(target)

    @property
    def headroom_octaves(self) -> float | None:
        """log2 of the scale at which the largest gradient observed would overflow over the present one; None: not known."""
        return self._amax.octaves(self.mirror.scale)

    def record_scale(self, epoch: int, batch: int) -> None:
        """Keep the present scale as a record of this batch; the oldest of `capacity` records gives way."""
        overflowed = self.consecutive_overflow > 0
        self._records.add(epoch, batch, self.mirror.scale, overflowed, self.consecutive_overflow, self._now())

    def records(self) -> list[ScaleRecord]:
        """The records kept, oldest first."""
        return list(self._records)

    @property
    def overflow_rate(self) -> float | None:
        """Overflows per step, 0 to 1, over the last `capacity` steps: an old calm must not hide a new storm."""
        return self._overflows.rate(self.checked)

    @property
    def growth_rate(self) -> float | None:
        """Octaves per 1,000 steps, over the records kept; None before the second."""
        return self._records.growth_rate

    def get_statistics(self) -> dict[str, Any]:
        """Running statistics, at a cost that does not grow with the history. None: nothing recorded yet.

        `min_scale`, `max_scale`, `avg_scale` are over all records ever, `overflow_rate` over the last `capacity` steps;
        `epoch_records` is a list of dicts, one per epoch that has ended, the last 64.
        """
        records = self._records
        return {
            "current_scale": self.mirror.scale,
            "min_scale": records.smallest if records.count else None,
            "max_scale": records.largest if records.count else None,
            "avg_scale": records.mean,
            "overflow_count": self.overflow_count,
            "overflow_rate": self.overflow_rate,
            "consecutive_overflow": self.consecutive_overflow,
            "reset_count": self.reset_count,
            "epoch_records": [record.to_dict() for record in self._epochs],
        }

    def state_dict(self) -> dict[str, Any]:
        """All but the settings: numbers, strings, lists, dicts and one tensor, as `torch.load(weights_only=True)` takes."""
        self.settle()
        return {
            "version": _STATE_VERSION,
            "scale": self.mirror.scale,
            "growth_tracker": self.mirror.tracker,
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "records": self._records.state_dict(),
            "overflows": self._overflows.state_dict(),
            "amax": self._amax.state_dict(),
            "resets": self._resets.state_dict(),
            "epochs": [record.to_dict() for record in (*self._epochs, self._epoch)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the settings of this monitor: its bounds, factors, interval and capacity.

        The scaler gets scale and tracker from here, so it does not matter whether it was loaded before. Raises ValueError or
        TypeError when the state is not one of ours, and KeyError when a part is missing; then nothing has changed.
        """
        if (version := state["version"]) != _STATE_VERSION:
            raise ValueError(f"a monitor's state of version {version!r}; this release reads {_STATE_VERSION}")
        mirror = ScaleMirror(number(state, "scale", above=0.0, at_most=LARGEST_SCALE), whole(state, "growth_tracker"))
        counts = {name: whole(state["counts"], name) for name in _COUNTS}
        *ended, last = structured(state["epochs"], "epochs", list[EpochRecord])  # ValueError if it is empty
        records, overflows, amax = ScaleRecords(self._records.capacity), OverflowWindow(self._records.capacity), AmaxHistory()
        records.load_state_dict(state["records"])
        overflows.load_state_dict(state["overflows"])
        amax.load_state_dict(state["amax"])
        self.settle()
        self._resets.load_state_dict(state["resets"])  # the last step that can fail
        for name, count in counts.items():
            setattr(self, name, count)
        self._records, self._overflows, self._amax = records, overflows, amax
        self._epoch, self._epochs = last, deque(ended, _EPOCHS_KEPT)
        self.mirror = mirror
        self._enforce()
