"""Bars made up for tests of training, and a reporter that keeps what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from quantai_tui.market import Bar, BarColumns, TradeStore
from quantai_tui.training.config import WorkerConfig
from quantai_tui.training.messages import EpochDone, Event, Metrics, Overflowed, Ready, Saved

START_US = 1_700_000_000_000_000 // 60_000_000 * 60_000_000
SYMBOL = "ETHUSDT"


def config(**changes: Any) -> WorkerConfig:
    """A worker on the CPU with a tiny model and a short window."""
    small = {"store_path": "none", "symbol": SYMBOL, "window": 8, "horizon": 2, "min_bars": 200, "max_bars": 5000}
    return WorkerConfig(**{**small, "device": "cpu", "precision": "fp16", "lr_warmup_steps": 10, **changes})


def random_bars(count: int, seed: int = 0, told: bool = False) -> BarColumns:
    """A random walk. With `told` the takers' imbalance of a bar says where the next bars go."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, 1e-3, count)
    volume = random.lognormal(1.0, 0.5, count)
    buy = volume * random.uniform(0, 1, count)
    if told:
        sign = random.choice((-1.0, 0.0, 1.0), count)
        buy = volume * (0.5 + 0.4 * sign)
        steps = steps * 0.1
        steps[1:] += 2e-3 * sign[:-1]
        steps[2:] += 1e-3 * sign[:-2]
    close = 2000.0 * np.exp(np.cumsum(steps))
    opened = np.concatenate(([2000.0], close[:-1]))
    high, low = np.maximum(opened, close) * 1.0001, np.minimum(opened, close) * 0.9999
    times = START_US + np.arange(count, dtype=np.int64) * 60_000_000
    trades = np.floor(random.uniform(1, 50, count))
    return BarColumns(times, opened, high, low, close, volume, volume * close, buy, trades)


async def store_of(bars: BarColumns, path: Path) -> None:
    """Write `bars` into a store, as fetched klines of one minute."""
    rows = [
        Bar(int(row[0]), 60, *(f"{value:.8f}" for value in row[1:8]), trades=int(row[8]), from_trades=False)
        for row in zip(*bars, strict=True)
    ]
    store = await TradeStore.open(path)
    try:
        await store.put_klines(SYMBOL, rows)
    finally:
        await store.close()


class Heard:
    """A reporter in memory. `on_metrics` may steer the loop from within, as a request from another thread would."""

    def __init__(self, on_metrics: Callable[[Metrics], None] | None = None) -> None:
        self.all_metrics: list[Metrics] = []
        self.epochs: list[EpochDone] = []
        self.events: list[Event] = []
        self.ready: list[Ready] = []
        self.overflowed: list[Overflowed] = []
        self.saved: list[Saved] = []
        self.on_metrics = on_metrics

    def metrics(self, metrics: Metrics) -> bool:
        self.all_metrics.append(metrics)
        if self.on_metrics is not None:
            self.on_metrics(metrics)
        return True

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved) -> None:
        kept: dict[type, list[Any]] = {
            Ready: self.ready,
            EpochDone: self.epochs,
            Event: self.events,
            Overflowed: self.overflowed,
            Saved: self.saved,
        }
        kept[type(message)].append(message)
