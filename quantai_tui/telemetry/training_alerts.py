"""Alert rules about training, its processes and its GPUs."""

from __future__ import annotations

from .causes import cause_name
from .rules import Lasting, Rule, Thresholds
from .snapshots import TOO_HOT, EngineSnapshot, GpuSnapshot, Severity, TrainingState

# The causes for which the data or the model is to blame and not the scale.
_NO_SCALE_HELPS = frozenset({"data", "target", "forward"})


def training_rules(limits: Thresholds) -> tuple[Rule, ...]:
    """Whether it trains at all, and how its scale fares."""

    def worker_failed(snap: EngineSnapshot, stands: str) -> str | None:
        return f"training failed: {snap.training.detail}" if snap.training.state is TrainingState.FAILED else None

    def paused(snap: EngineSnapshot, stands: str) -> str | None:
        why = snap.training.paused_because
        return f"training has paused itself: {why}" if why else None

    def at_cap(snap: EngineSnapshot, stands: str) -> str | None:
        training = snap.training
        if training.scale is None or not training.scale_cap:
            return None
        if training.scale < training.scale_cap * limits.cap_share[bool(stands)]:
            return None
        below = training.scale < training.scale_cap
        return f"loss scale was at its cap, {training.scale:g} now" if below else f"loss scale {training.scale:g} is at its cap"

    def overflow_rate(snap: EngineSnapshot, stands: str) -> str | None:
        rate = snap.training.overflow_rate
        return f"{rate:.0%} of steps overflow" if rate is not None and rate > limits.overflow_rate[bool(stands)] else None

    def in_a_row(snap: EngineSnapshot, stands: str) -> str | None:
        run = snap.training.consecutive_overflow or 0
        return f"{run} overflows in a row" if run >= limits.consecutive_overflow[bool(stands)] else None

    def nonfinite(snap: EngineSnapshot, stands: str) -> str | None:
        count, last = snap.training.nonfinite_loss, snap.training.last_overflow
        if not count:
            return None
        blamed = f"; the last: {cause_name(last.cause)}" if last is not None and last.cause in _NO_SCALE_HELPS else ""
        return f"{count} steps with NaN or Inf in loss or data{blamed}"

    warning, critical = Severity.WARNING, Severity.CRITICAL
    return (
        Rule("worker-failed", critical, "read the worker's log; space starts it again", worker_failed),
        Rule("training-paused", critical, "act on it, then space goes on, R resets the scale; z on training shows all", paused),
        Rule("scale-at-cap", Severity.INFO, "fine while nothing overflows; GRAD_SCALER_MAX_SCALE is the cap", at_cap),
        Rule("overflow-rate", warning, "lower the learning rate, or reset the scaler with R", overflow_rate),
        Rule("overflow-run", critical, "an automatic reset follows; if it does not help, look for bad data", in_a_row),
        Rule("nonfinite", critical, "look for bad data or a diverged model; the scale is not the cause", nonfinite),
    )


def machine_rules(limits: Thresholds) -> tuple[Rule, ...]:
    """Ranks that hold the others up, cards that are too hot or whose memory fails."""
    slow = Lasting(*limits.straggler_s)
    hot = Lasting(*limits.too_hot_s)
    ecc_before: dict[str, int] = {}

    def straggler(snap: EngineSnapshot, stands: str) -> str | None:
        ranks = snap.training.ranks
        lasting = slow.of({(rank.rank, rank.host) for rank in ranks if rank.straggler}, snap)
        told = [f"rank {rank.rank} on {rank.host}" for rank in ranks if (rank.rank, rank.host) in lasting]
        return f"{_some(told)} {'hold' if len(told) > 1 else 'holds'} the other ranks up" if told else None

    def too_hot(snap: EngineSnapshot, stands: str) -> str | None:
        gpus = snap.training.gpus
        lasting = hot.of({gpu.uuid for gpu in gpus if any(reason.startswith(TOO_HOT) for reason in gpu.throttle)}, snap)
        told = [_gpu(gpu) for gpu in gpus if gpu.uuid in lasting]
        return f"{_some(told)} {'are' if len(told) > 1 else 'is'} too hot and slowed down" if told else None

    def ecc(snap: EngineSnapshot, stands: str) -> str | None:
        if not snap.training.gpus:  # the driver is not heard for a moment
            return stands or None
        told = []
        for gpu in snap.training.gpus:
            if gpu.ecc_errors is None:
                continue
            # A driver that was loaded anew counts from 0 again.
            before = ecc_before[gpu.uuid] = min(gpu.ecc_errors, ecc_before.get(gpu.uuid, gpu.ecc_errors))
            if gpu.ecc_errors > before:
                told.append(f"{gpu.ecc_errors - before} on {_gpu(gpu)}")
        return f"uncorrected memory errors since the start: {_some(told)}" if told else None

    return (
        Rule("straggler", Severity.WARNING, "z on training shows the ranks: heat, another job there, a slow link?", straggler),
        Rule("gpu-too-hot", Severity.WARNING, "check its fans and air, or lower its power limit", too_hot),
        Rule("gpu-ecc", Severity.WARNING, "results may be wrong: go back to a checkpoint, reset or replace the card", ecc),
    )


def _some(told: list[str]) -> str:
    return ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")


def _gpu(gpu: GpuSnapshot) -> str:
    return f"{gpu.name or 'GPU'} ({gpu.uuid.removeprefix('GPU-')[:8]})"
