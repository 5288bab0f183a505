"""Whether the model learns a market: walk-forward folds with fresh models, beside what needs no training loop.

On the synthetic market, whose planted signal is known, it has to win. On archives (`--archive PATH`, or paths separated by colons
in QUANTAI_BENCH_ARCHIVES) the answer is whatever it is. Settings are the same for all markets of a kind, and it is the last epoch
that counts, not the best one.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from quantai_tui.exchange.markets import SyntheticSpec
from quantai_tui.exchange.synthetic import SyntheticMarket
from quantai_tui.market import Bar, BarColumns
from quantai_tui.market.archive import read_archive
from quantai_tui.market.bars import bars_of
from quantai_tui.training import dataset
from quantai_tui.training.config import WorkerConfig
from quantai_tui.training.folds import Fold, walk_forward
from quantai_tui.training.loop import TrainingLoop
from quantai_tui.training.messages import EpochDone, Metrics

from .report import Options, Row

FOLDS = 3
SIGNIFICANT = 0.01
_SEEDS = (1, 2, 3)
_SYNTHETIC_BARS = 120_000
_EPOCH_S = 1_700_000_000  # no particular day
_US = 1_000_000
_CANDLES = ["t", "open", "high", "low", "close", "volume"]
_ARCHIVE_INTERVAL_S = 60

# Most of the planted signal is gone after a few seconds: of horizons of 3, 5, 10 and 20 bars the shortest was learnt best.
SYNTHETIC = WorkerConfig(
    store_path="none", symbol="ETHUSDT", interval_s=1, window=8, horizon=3, max_bars=1_000_000, batch_size=256,
    learning_rate=6e-3, lr_warmup_steps=50, device="cpu", precision="fp32", model_size="tiny", max_epochs=3,
)  # fmt: skip
ARCHIVE = msgspec.structs.replace(
    SYNTHETIC, interval_s=60, window=16, horizon=5, batch_size=32, learning_rate=1e-3, lr_warmup_steps=50
)


class Epochs:
    """A reporter that keeps what was found after each epoch."""

    def __init__(self) -> None:
        self.done: list[EpochDone] = []

    def metrics(self, metrics: Metrics) -> bool:
        return True

    def send(self, message: object) -> None:
        if isinstance(message, EpochDone):
            self.done.append(message)


def synthetic_bars(count: int, seed: int, interval_s: int = 1) -> BarColumns:
    """The first `count` bars of the demo's market, as a store would give them."""
    symbol = SYNTHETIC.symbol
    market = SyntheticMarket(SyntheticSpec(seed=seed, symbols=(symbol,)), _EPOCH_S)
    start_s = market.epoch_s
    bars: list[Bar] = []
    while len(bars) < count:
        next_ms = (start_s + len(bars) * interval_s) * 1000
        bars += market.klines(symbol, interval_s, next_ms, None, 1000, start_s + count * interval_s)
    return columns_of(bars[:count], interval_s)


def columns_of(bars: Sequence[Bar], interval_s: int) -> BarColumns:
    """Bars in order of time as arrays; where one is missing, a quiet one carries the last close."""
    prices = np.array([[float(bar.open), float(bar.high), float(bar.low), float(bar.close)] for bar in bars])
    amounts = np.array([[float(bar.volume), float(bar.quote_volume), float(bar.buy_volume), bar.trades] for bar in bars])
    opened = np.array([bar.open_time_us for bar in bars])
    times = np.arange(opened[0], opened[-1] + 1, interval_s * _US)
    source = np.searchsorted(opened, times, side="right") - 1
    quiet = (opened[source] != times)[:, None]
    dense = (np.where(quiet, prices[source, 3:], prices[source]), np.where(quiet, 0.0, amounts[source]))
    return BarColumns(times, *dense[0].T.copy(), *dense[1].T.copy())


def archive_bars(path: Path) -> tuple[BarColumns, int]:
    """The bars in an archive of aggregate trades, or in one of candles (a gzipped CSV with t,open,high,low,close,volume; ms), and
    their length in seconds. Candles do not tell who took: their imbalance is 0. Raises ArchiveError.
    """
    if path.suffix == ".gz":
        with gzip.open(path, "rt", newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) == _CANDLES:
                return _candle_bars(lines)
    trades = [trade for batch in read_archive(path).batches() for trade in batch]
    return columns_of(bars_of(trades, _ARCHIVE_INTERVAL_S), _ARCHIVE_INTERVAL_S), _ARCHIVE_INTERVAL_S


def _candle_bars(lines: Iterator[list[str]]) -> tuple[BarColumns, int]:
    rows = np.array([[float(field) for field in line] for line in lines])
    interval_s = int(np.diff(rows[:, 0]).min()) // 1000
    bars = [
        Bar(int(t) * 1000, interval_s, *map(repr, (o, h, lo, c, v, v * c, v / 2)), trades=0)
        for t, o, h, lo, c, v in rows.tolist()
    ]
    return columns_of(bars, interval_s), interval_s


def train_fold(bars: BarColumns, fold: Fold, config: WorkerConfig) -> EpochDone:
    """What a fresh model is worth on `fold` after its last epoch, trained by the worker's own loop."""
    heard = Epochs()
    loop = TrainingLoop(
        config,
        heard,
        read=lambda path, symbol, interval_s, limit: bars,
        build=lambda all_bars, window, horizon, not_before_us: dataset.build_fold(all_bars, window, horizon, fold),
    )
    loop.run()
    return heard.done[-1]


def together(ps: Sequence[float]) -> float:
    """One p for independent ones: minus twice the sum of their logarithms is chi-squared with 2 degrees of freedom each (R. A.
    Fisher, "Statistical Methods for Research Workers", 1932), whose upper tail is a sum of Poisson terms.
    """
    half = -sum(math.log(max(p, 1e-300)) for p in ps)
    if not half:
        return 1.0
    return min(1.0, sum(math.exp(number * math.log(half) - half - math.lgamma(number + 1)) for number in range(len(ps))))


def verdict(log_loss: float, baseline: float, p: float | None) -> str:
    if p is None:
        return "too few samples to tell"
    if p < SIGNIFICANT and log_loss < baseline:
        return "better than every baseline"
    return "lower log loss than every baseline, which may be luck" if log_loss < baseline else "NOT better than the best baseline"


@dataclass(frozen=True, slots=True)
class Market:
    name: str
    bars: BarColumns
    config: WorkerConfig
    has_signal: bool


def markets(options: Options) -> Iterator[Market]:
    count = _SYNTHETIC_BARS // 2 if options.quick else _SYNTHETIC_BARS
    for seed in _SEEDS[:1] if options.quick else _SEEDS:
        yield Market(f"synthetic, seed {seed}", synthetic_bars(count, seed), SYNTHETIC, True)
    for path in options.archives:
        bars, interval_s = archive_bars(path)
        config = msgspec.structs.replace(ARCHIVE, interval_s=interval_s)
        yield Market(path.name.split(".")[0], bars, config, False)


def run(options: Options) -> list[Row]:
    torch.set_num_threads(1)  # ten thousand parameters are not worth a second one
    return [row for market in markets(options) for row in _rows(market)]


def _rows(market: Market) -> Iterator[Row]:
    config, name = market.config, f"{market.name}, {len(market.bars.close):,} bars of {market.config.interval_s} s"
    folds = walk_forward(len(market.bars.close), config.window, config.horizon, FOLDS)
    found = [train_fold(market.bars, fold, config) for fold in folds]
    for number, done in enumerate(found, start=1):
        yield Row(
            "learning",
            f"{market.name}, fold {number}",
            "nats",
            _told(done.log_loss),
            _told(done.baseline_log_loss),
            note=_note(done),
        )
    samples = [done.validation_samples for done in found]
    ours, theirs = (
        float(np.average([_told(each) for each in losses], weights=samples))
        for losses in ([done.log_loss for done in found], [done.baseline_log_loss for done in found])
    )
    ps = [done.better_p for done in found if done.better_p is not None]
    p = together(ps) if len(ps) == len(found) else None
    chance = "" if p is None else f" (p {p:.2g} over {len(found)} folds)"
    said = f"{ours:.4f} against {theirs:.4f}: {verdict(ours, theirs, p)}{chance}"
    yield Row("learning", f"{name}: all folds", "nats", ours, theirs, 1.0 if market.has_signal else None, "ratio", said)


def _told(log_loss: float | None) -> float:
    return math.inf if log_loss is None else log_loss


def _note(done: EpochDone) -> str:
    error = "-" if done.calibration_error is None else f"{done.calibration_error:.3f}"
    p = "-" if done.better_p is None else f"{done.better_p:.2g}"
    ours, theirs = _told(done.log_loss), _told(done.baseline_log_loss)
    simple = f"majority {done.majority_accuracy:.3f}, persistence {done.persistence_accuracy:.3f}"
    return (
        f"{ours:.4f} against {theirs:.4f}, accuracy {done.accuracy:.3f} ({simple}, logistic {done.logistic_accuracy or 0:.3f}), "
        f"ECE {error}, p {p}, {done.validation_samples:,} samples: {verdict(ours, theirs, done.better_p)}"
    )
