"""What the supervisor knows of training, as one snapshot, across all lives of the worker. Free of torch."""

from __future__ import annotations

import socket
import statistics

import msgspec

from ..telemetry import CheckpointSnapshot, Clock, GpuSnapshot, OverflowSnapshot, RankSnapshot, TrainingSnapshot, TrainingState
from .messages import EpochDone, Metrics, Overflowed, Ranks, Ready, Saved

# A rank this much slower than the median of all holds them up: each step waits for the last.
_STRAGGLER = 1.5


def _sum(before: int, now: int | None) -> int | None:
    return None if now is None else before + now


class TrainingView:
    """Collects messages; `snapshot` puts them together.

    Counts go on over a restart of the worker: from its checkpoint where there is one, else from where the life before ended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.state = TrainingState.IDLE
        self.detail = ""
        self.pid: int | None = None
        self.restarts = 0
        self.last_event = ""
        self.ready: Ready | None = None
        self.gpus: tuple[GpuSnapshot, ...] = ()
        self.gpu_note = ""
        self._checkpoint: CheckpointSnapshot | None = None
        self._overflow: OverflowSnapshot | None = None
        self._causes: dict[str, int] = {}
        self._ranks: tuple[RankSnapshot, ...] = ()
        self._metrics: Metrics | None = None
        self._epoch: EpochDone | None = None
        self._epochs_done = 0
        self._heard_at: float | None = None
        self._past = Metrics(TrainingState.IDLE, overflow_count=0, resets=0)  # sums over the lives that have ended

    def enter(self, state: TrainingState, detail: str) -> None:
        self.state, self.detail = state, detail

    def take_metrics(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._heard_at = self._clock.monotonic()
        self.enter(metrics.state, metrics.detail)

    def take_epoch(self, epoch: EpochDone) -> None:
        self._epoch = epoch
        self._epochs_done += 1

    def take_overflow(self, overflow: Overflowed) -> None:
        now = self._clock.time()
        self._overflow = OverflowSnapshot(now, overflow.step, overflow.cause, overflow.culprits, overflow.text)
        self._causes = {**self._causes, overflow.cause: self._causes.get(overflow.cause, 0) + overflow.count}

    def take_saved(self, saved: Saved) -> None:
        self._checkpoint = CheckpointSnapshot(saved.path, saved.step, saved.time, saved.resumed)
        if saved.resumed:
            # The counts of this life are those of the whole training up to here: what came after the checkpoint is done again.
            self._past = Metrics(TrainingState.IDLE, overflow_count=0, resets=0)
            self._epochs_done = saved.epochs_done

    def take_ranks(self, ranks: Ranks) -> None:
        times = [rank.step_ms for rank in ranks.ranks if rank.step_ms is not None]
        # The lower of two medians: of two ranks the slower one is never the measure.
        limit = statistics.median_low(times) * _STRAGGLER if len(times) > 1 else None
        self._ranks = tuple(
            RankSnapshot(
                rank.rank,
                rank.host,
                rank.pid,
                rank.device,
                rank.step,
                rank.step_ms,
                rank.overflow_count,
                straggler=limit is not None and rank.step_ms is not None and rank.step_ms > limit,
            )
            for rank in ranks.ranks
        )

    def local_pids(self) -> set[int]:
        """Of the worker and its ranks, those on this machine."""
        here = socket.gethostname()
        return {rank.pid for rank in self._ranks if rank.host == here} | ({self.pid} if self.pid is not None else set())

    def fold(self) -> None:
        """A life has ended: add its counts to the past, once. What it last measured is not known of the next one."""
        last, past = self._metrics, self._past
        if last is None:
            return
        self._past = msgspec.structs.replace(
            past,
            step=past.step + last.step,
            overflow_count=(past.overflow_count or 0) + (last.overflow_count or 0),
            resets=(past.resets or 0) + (last.resets or 0),
            nonfinite_loss=past.nonfinite_loss + last.nonfinite_loss,
        )
        self._ranks = ()
        none = None if last.overflow_count is None else 0
        self._metrics = Metrics(last.state, overflow_count=none, resets=none)

    def snapshot(self, symbol: str, log_tail: tuple[str, ...]) -> TrainingSnapshot:
        snapshot = TrainingSnapshot(
            state=self.state,
            detail=self.detail,
            age_s=None if self._heard_at is None else self._clock.monotonic() - self._heard_at,
            pid=self.pid,
            restarts=self.restarts,
            symbol=symbol,
            epochs_done=self._epochs_done,
            last_event=self.last_event,
            log_tail=log_tail,
            overflow_causes=self._causes,
            last_overflow=self._overflow,
            checkpoint=self._checkpoint,
            ranks=self._ranks,
            gpus=self.gpus,
            gpu_note=self.gpu_note,
        )
        return self._with_epoch(self._with_metrics(self._with_ready(snapshot)))

    def _with_ready(self, snapshot: TrainingSnapshot) -> TrainingSnapshot:
        ready = self.ready
        if ready is None:
            return snapshot
        return msgspec.structs.replace(
            snapshot,
            device=ready.device,
            precision=ready.precision,
            reason=ready.reason,
            parameters=ready.parameters,
            scale_floor=ready.scale_floor,
            scale_cap=ready.scale_cap,
            growth_interval=ready.growth_interval,
            planted=ready.planted,
        )

    def _with_metrics(self, snapshot: TrainingSnapshot) -> TrainingSnapshot:
        now, past = self._metrics, self._past
        if now is None:
            return snapshot
        return msgspec.structs.replace(
            snapshot,
            epoch=now.epoch or None,  # epochs count from 1
            step=past.step + now.step,
            epoch_step=now.epoch_step if now.epoch else None,
            steps_per_epoch=now.steps_per_epoch or None,
            loss=now.loss,
            grad_norm=now.grad_norm,
            learning_rate=now.learning_rate,
            samples_per_s=now.samples_per_s,
            scale=now.scale,
            scale_max_seen=now.scale_max_seen,
            growth_tracker=now.growth_tracker,
            scale_growth_rate=now.scale_growth_rate,
            overflow_count=_sum(past.overflow_count or 0, now.overflow_count),
            overflow_rate=now.overflow_rate,
            consecutive_overflow=now.consecutive_overflow,
            resets=_sum(past.resets or 0, now.resets),
            nonfinite_loss=past.nonfinite_loss + now.nonfinite_loss,
            paused_because=now.paused_because,
            headroom_octaves=now.headroom_octaves,
            underflow_share=now.underflow_share,
            epoch_eta_s=now.epoch_eta_s,
            memory_bytes=now.memory_bytes,
            processor_temperature_c=now.processor_temperature_c,
        )

    def _with_epoch(self, snapshot: TrainingSnapshot) -> TrainingSnapshot:
        epoch = self._epoch
        if epoch is None:
            return snapshot
        return msgspec.structs.replace(
            snapshot,
            accuracy=epoch.accuracy,
            baseline_accuracy=max(epoch.majority_accuracy, epoch.persistence_accuracy, epoch.logistic_accuracy or 0.0),
            logistic_accuracy=epoch.logistic_accuracy,
            log_loss=epoch.log_loss,
            baseline_log_loss=epoch.baseline_log_loss,
            calibration_error=epoch.calibration_error,
            better_p=epoch.better_p,
            majority_accuracy=epoch.majority_accuracy,
            persistence_accuracy=epoch.persistence_accuracy,
            validation_samples=epoch.validation_samples,
            data_bars=epoch.data_bars,
            data_through_time=epoch.data_through_time,
        )
