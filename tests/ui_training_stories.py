"""Snapshots that tell a story of training: in full health on a big machine, paused by itself, slow and hot."""

from __future__ import annotations

from typing import Any

from ui_support import NOW, engine_snapshot, training_snapshot

from quantai_tui.telemetry import (
    TOO_HOT,
    Alert,
    CheckpointSnapshot,
    EngineSnapshot,
    GpuSnapshot,
    OverflowSnapshot,
    RankSnapshot,
    Severity,
    TrainingSnapshot,
    TrainingState,
)

STUCK = (
    "10 overflows in a row with the scale at its floor and finite losses: resets do not help; suspect the gradient itself "
    "(a square root or a logarithm at 0), or lower the floor or the learning rate"
)
REASON = "cuda:0 computes bf16 too; fp16 was asked for by TRAIN_PRECISION"


def gpu(index: int = 0, **changes: Any) -> GpuSnapshot:
    known: dict[str, Any] = {
        "uuid": f"GPU-{index}a2b3c4d-1111-2222-3333-444455556666",
        "name": "NVIDIA H100 80GB HBM3",
        "utilisation": 0.97,
        "memory_used_bytes": 61_200_000_000,
        "memory_total_bytes": 85_900_000_000,
        "temperature_c": 66.0,
        "power_w": 612.4,
        "power_limit_w": 700.0,
        "ecc_errors": 0,
        "used_by_worker": True,
    }
    return GpuSnapshot(**{**known, **changes})


def rank(number: int, **changes: Any) -> RankSnapshot:
    known: dict[str, Any] = {
        "rank": number,
        "host": "trainer-a" if number < 2 else "trainer-b",
        "pid": 5000 + number,
        "device": f"cuda:{number % 2}",
        "step": 11_340,
        "step_ms": 20.3,
        "overflow_count": 12,
    }
    return RankSnapshot(**{**known, **changes})


def explained(**changes: Any) -> TrainingSnapshot:
    """All that training tells of itself, and all is well."""
    known: dict[str, Any] = {
        "reason": REASON,
        "headroom_octaves": 3.24,
        "underflow_share": 0.00002,
        "overflow_causes": {"scale": 11, "data": 1},
        "last_overflow": OverflowSnapshot(
            NOW - 130,
            11_204,
            "scale",
            ("head.2.weight", "head.2.bias", "encoder.layers.1.linear2.weight"),
            "scale 131072 too high: gradients overflow first at head.2.weight, fit below 9.83e+04; it backs off by itself",
        ),
        "logistic_accuracy": 0.5117,
        "baseline_accuracy": 0.5117,
        "log_loss": 0.6891,
        "baseline_log_loss": 0.6931,
        "calibration_error": 0.021,
        "better_p": 0.0031,
        "checkpoint": CheckpointSnapshot("/data/live-spot/checkpoints/step-11000.pt", 11_000, NOW - 200),
        "gpus": (gpu(),),
    }
    return training_snapshot(**{**known, **changes})


def explained_snapshot(**changes: Any) -> EngineSnapshot:
    return engine_snapshot(training=explained(**changes))


def paused_snapshot() -> EngineSnapshot:
    """Resets did not help: it has paused, and says what it saw."""
    training = explained(
        state=TrainingState.PAUSED,
        paused_because=STUCK,
        samples_per_s=None,
        epoch_eta_s=None,
        scale=1.0,
        headroom_octaves=-2.5,
        consecutive_overflow=10,
        overflow_rate=0.31,
        overflow_count=160,
        overflow_causes={"scale": 11, "gradient": 149},
        last_overflow=OverflowSnapshot(
            NOW - 20,
            11_340,
            "gradient",
            ("norm.weight",),
            "gradient not finite at every scale, first at norm.weight; look for a square root, a logarithm or a division at 0 "
            "after it",
        ),
        better_p=0.41,
        gpus=(),
        gpu_note="n/a: no NVIDIA driver",
    )
    alert = Alert(
        "training-paused",
        Severity.CRITICAL,
        f"training has paused itself: {STUCK}",
        "act on it, then space goes on, R resets the scale; z on training shows all",
        NOW - 20,
    )
    return engine_snapshot(training=training, alerts=(alert,))


def many_ranks_snapshot() -> EngineSnapshot:
    """Four ranks on two machines, one of them slow on a hot card, one card with memory errors, one that fell off the bus."""
    training = explained(
        ranks=(rank(0), rank(1), rank(2, step_ms=41.7, straggler=True), rank(3)),
        gpus=(
            gpu(0),
            gpu(1, throttle=("power limit", f"{TOO_HOT} (hardware)"), temperature_c=91.0, utilisation=0.61),
            gpu(2, ecc_errors=2, used_by_worker=False, utilisation=0.0),
        ),
        gpu_note="GPU 3 fell off the bus",
        checkpoint=CheckpointSnapshot("/data/live-spot/checkpoints/step-11000.pt", 11_000, NOW - 4_000, resumed=True),
    )
    return engine_snapshot(training=training)
