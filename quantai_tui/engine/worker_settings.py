"""Which settings the training worker is told, and under which names."""

from __future__ import annotations

from pathlib import Path

from ..market.trades import INTERVALS
from ..settings import Settings
from ..training.config import WorkerConfig


def worker_config(settings: Settings, symbol: str, store_path: Path, checkpoints: Path, demo: bool) -> WorkerConfig:
    """The worker's share of `settings`. Overflow bursts are planted in the demo alone.

    Valid settings never raise here: the ranges in the settings model lie within those of `WorkerConfig`.
    """
    needed = 8 * (settings.TRAIN_WINDOW + settings.TRAIN_HORIZON)
    return WorkerConfig(
        store_path=str(store_path),
        symbol=symbol,
        interval_s=INTERVALS[settings.BAR_INTERVAL],
        window=settings.TRAIN_WINDOW,
        horizon=settings.TRAIN_HORIZON,
        max_bars=max(settings.TRAIN_BARS, needed),
        min_bars=needed,
        batch_size=settings.TRAIN_BATCH_SIZE,
        accumulation=settings.TRAIN_ACCUMULATION,
        learning_rate=settings.TRAIN_LEARNING_RATE,
        lr_warmup_steps=settings.TRAIN_WARMUP_STEPS,
        schedule=settings.TRAIN_SCHEDULE,
        max_epochs=settings.TRAIN_EPOCHS,
        device=settings.TRAIN_DEVICE,
        precision=settings.TRAIN_PRECISION,
        model_size=settings.TRAIN_MODEL,
        seed=settings.TRAIN_SEED,
        steps_per_s=settings.TRAIN_STEPS_PER_S,
        plant_overflow_every_s=settings.DEMO_OVERFLOW_EVERY if demo else 0.0,
        growth_factor=settings.GRAD_SCALER_GROWTH_FACTOR,
        growth_interval=settings.GRAD_SCALER_GROWTH_INTERVAL,
        max_scale=settings.GRAD_SCALER_MAX_SCALE,
        min_scale=settings.GRAD_SCALER_MIN_SCALE,
        backoff_factor=settings.GRAD_SCALER_BACKOFF_FACTOR,
        power_of_two=settings.GRAD_SCALER_POWER_OF_TWO,
        policy=settings.GRAD_SCALER_POLICY,
        calibrate=settings.GRAD_SCALER_CALIBRATE,
        auto_reset=settings.GRAD_SCALER_AUTO_RESET,
        reset_threshold_epochs=settings.GRAD_SCALER_RESET_THRESHOLD_EPOCHS,
        max_consecutive_overflow=settings.GRAD_SCALER_MAX_CONSECUTIVE_OVERFLOW,
        checkpoint_dir=str(checkpoints),
        checkpoint_every_s=settings.TRAIN_CHECKPOINT_EVERY_S,
        checkpoints_kept=settings.TRAIN_CHECKPOINTS_KEPT,
        nproc=settings.TRAIN_NPROC,
        nnodes=settings.TRAIN_NNODES,
        rdzv_endpoint=settings.TRAIN_RDZV_ENDPOINT,
    )
