"""From bars to windows and labels. Plain numpy.

Nothing looks ahead: a feature uses its own bar and older ones, every number that is fitted (normalisation, dead zone) is fitted
on the training part of a fold, and `folds` keeps that part's labels out of the windows that validate it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..market import BarColumns, StoreReader
from .folds import Fold, walk_forward

Floats = NDArray[np.float64]

DOWN, FLAT, UP = 0, 1, 2
CLASSES = 3
FEATURES = ("log return", "log range", "log volume", "log volume change", "taker imbalance", "log trades", "day sin", "day cos")
_NORMALISED = 6  # the first so many; the time of day is within [-1, 1] as it is, and a short history's mean of it would mislead
_CLIP = 8.0  # standard deviations: a flash crash stays an outlier and does not become an fp16 overflow of its own
_FLAT_PART = 1 / 3  # the dead zone is as wide as makes so much of the training part flat
_DAY_US = 86_400_000_000
# A time of day that has not come round yet is a date: it tells training samples apart, and validation lies beyond all of them.
_DAYS_FOR_TIME_OF_DAY = 2


def read_bars(store_path: str, symbol: str, interval_s: int, limit: int) -> BarColumns | None:
    """The newest `limit` whole bars, none past complete-through; None while there is no store. Raises StoreError.

    Opened anew each time: a reader that stays open would keep the store's write-ahead log from being folded in when it closes.
    """
    if not Path(store_path).exists():
        return None
    with StoreReader(Path(store_path)) as reader:
        return reader.bar_columns(symbol, interval_s, limit)


@dataclass(frozen=True, slots=True)
class Part:
    """Samples as positions of their newest bar, with their labels (DOWN, FLAT or UP).

    `persisted` is what is known at each of them: the class of the horizon that has just ended.
    """

    at: NDArray[np.int64]
    labels: NDArray[np.int64]
    persisted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class Dataset:
    """`features[t - window + 1 : t + 1]` is the input of the sample at t."""

    features: NDArray[np.float32]  # [bars, len(FEATURES)]; row 0 has no return and is in no window
    window: int
    horizon: int
    train: Part
    validation: Part
    bars: int
    through_us: int  # close of the newest bar
    validation_from_us: int  # open of the first validation sample's bar


def same(one: Dataset, other: Dataset) -> bool:
    """Whether two data sets train and validate on the same numbers."""
    return (
        one.window == other.window
        and one.horizon == other.horizon
        and np.array_equal(one.features, other.features)
        and all(
            np.array_equal(mine.at, theirs.at) and np.array_equal(mine.labels, theirs.labels)
            for mine, theirs in ((one.train, other.train), (one.validation, other.validation))
        )
    )


def raw_features(bars: BarColumns) -> Floats:
    """[bars, len(FEATURES)]: row t from bars t - 1 and t alone. Row 0 has zeros where a previous bar is needed."""
    log_close = np.log(bars.close)
    log_volume = np.log1p(bars.volume)
    imbalance = np.zeros_like(bars.volume)
    np.divide(2 * bars.buy_volume - bars.volume, bars.volume, out=imbalance, where=bars.volume > 0)
    angle = (bars.open_time_us % _DAY_US) * (2 * np.pi / _DAY_US)
    columns = (
        np.diff(log_close, prepend=log_close[:1]),
        np.log(bars.high / bars.low),
        log_volume,
        np.diff(log_volume, prepend=log_volume[:1]),
        imbalance,
        np.log1p(bars.trades),
        np.sin(angle),
        np.cos(angle),
    )
    return np.stack(columns, axis=1)


def trailing_volatility(log_return: Floats, window: int) -> Floats:
    """Root mean square of the last `window` one-bar returns, at each bar; of fewer at the beginning."""
    total = np.cumsum(np.concatenate(([0.0], log_return**2)))
    end = np.arange(1, len(log_return) + 1)
    begin = np.maximum(end - window, 0)
    # Differences of a running sum can fall a rounding error below zero.
    volatility: Floats = np.sqrt(np.maximum(total[end] - total[begin], 0.0) / (end - begin))
    return volatility


def _check_prices(bars: BarColumns) -> None:
    good = np.isfinite(bars.close) & (bars.low > 0) & np.isfinite(bars.high) & (bars.close > 0) & np.isfinite(bars.volume)
    if not good.all():
        bad = int(np.argmin(good))
        raise ValueError(
            f"the bar opened at {int(bars.open_time_us[bad])} us has close {bars.close[bad]}, low {bars.low[bad]}, volume "
            f"{bars.volume[bad]}: prices must be positive and finite; rebuild the bars of this store"
        )


def _classify(move: Floats, dead_zone: Floats) -> NDArray[np.int64]:
    return np.where(np.abs(move) <= dead_zone, FLAT, np.where(move > 0, UP, DOWN)).astype(np.int64)


def build(bars: BarColumns, window: int, horizon: int, not_before_us: int = 0) -> Dataset:
    """The newest fold of `bars`: what a worker trains and validates on now.

    `not_before_us` is the `validation_from_us` of the epoch before: when a repair adds old bars, the newest part would reach
    back into bars that the model has been trained on, so the validation part never begins earlier than it once did. Where no bar
    is left from then on (older history is being fetched, and what follows it is not whole yet) it does not count.

    Raises ValueError when the bars leave no training or no validation sample, or hold a price that is none.
    """
    not_before = int(np.searchsorted(bars.open_time_us, not_before_us))
    return build_fold(bars, window, horizon, walk_forward(len(bars.close), window, horizon, not_before=not_before)[-1])


def build_fold(bars: BarColumns, window: int, horizon: int, fold: Fold) -> Dataset:
    """Features and labels of `bars`, fitted on the training part of `fold`.

    A label is the direction of the log return over the next `horizon` bars, FLAT within `k * volatility * sqrt(horizon)`, with
    the trailing volatility at the sample and k the quantile that makes a third of the training part flat. The time of day is 0
    until the training part has seen two days of it.

    Raises ValueError when a bar holds a price that is none.
    """
    _check_prices(bars)
    raw = raw_features(bars)
    log_close = np.log(bars.close)
    volatility = trailing_volatility(raw[:, 0], window)
    train = np.arange(fold.train.start, fold.train.stop)
    fitted_on = slice(1, fold.train.stop)
    # An hour without trades has no volatility, and any later tick would be a move: a tenth of the usual is the least.
    volatility = np.maximum(volatility, 0.1 * np.median(volatility[fitted_on]))
    unit = volatility * np.sqrt(horizon)
    in_units = np.abs(log_close[train + horizon] - log_close[train]) / np.where(unit[train] > 0, unit[train], 1.0)
    dead_zone = np.quantile(in_units, _FLAT_PART) * unit

    def part(at: NDArray[np.int64]) -> Part:
        ahead = log_close[at + horizon] - log_close[at]
        behind = log_close[at] - log_close[np.maximum(at - horizon, 0)]
        return Part(at, _classify(ahead, dead_zone[at]), _classify(behind, dead_zone[at]))

    features = _normalise(raw, fitted_on)
    if bars.open_time_us[fold.train[-1]] - bars.open_time_us[1] < _DAYS_FOR_TIME_OF_DAY * _DAY_US:
        features[:, _NORMALISED:] = 0.0
    return Dataset(
        features=features,
        window=window,
        horizon=horizon,
        train=part(train),
        validation=part(np.arange(fold.validation.start, fold.validation.stop)),
        bars=len(bars.close),
        through_us=int(bars.open_time_us[-1] + np.diff(bars.open_time_us).min()),
        validation_from_us=int(bars.open_time_us[fold.validation.start]),
    )


def _normalise(raw: Floats, fitted_on: slice) -> NDArray[np.float32]:
    scaled = raw.copy()
    part = raw[fitted_on, :_NORMALISED]
    spread = part.std(axis=0)
    scaled[:, :_NORMALISED] = (raw[:, :_NORMALISED] - part.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    return np.clip(scaled, -_CLIP, _CLIP).astype(np.float32)
