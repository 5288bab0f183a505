"""The model behind the synthetic market, and how one block of it is drawn.

**Time** is cut into blocks of 900 s from Unix time 0 on. Everything about a block follows from (seed, symbol, block number), by
numpy's PCG64 seeded with a SeedSequence of them. (NEP 19 lets a numpy release change how such a stream becomes normals: then the
same seed is another market, as it would be with another seed.)

**Edges.** Trades before block k: k * 900 * 12 and a uniform jitter of up to a quarter of a block: 12 trades a second on average
and 6 to 18 in a block. Log-price at the edges: Brownian, by Levy's midpoint construction (P. Levy, 1948), between anchors 8192
blocks (85 days) apart that are drawn independently. So both are known for any k in 13 draws, and the price never wanders off
for good.

**Regimes** within a block are a Markov chain of calm, trending and volatile (`_REGIMES`: mean dwell, relative trade intensity,
volatility, drift), started from its stationary law. Intensity is multiplied by gamma noise and, in 1 % of the seconds, by 6:
bursts. A third of the trades share the millisecond and the taker of the one before and go a tick further: an order that sweeps
the book.

**Flow.** The log-odds of a taker buying are 1.2 z, with z an AR(1) of coefficient 0.85 a second and unit variance. Quantities are
log-normal (sigma 1.3), around 300 USD.

**Returns** of second s: sigma_s * (EDGE * i + sqrt(1 - EDGE^2) * t5) + drift, where i is the imbalance of the five seconds
before s, (bought - sold) / (bought + sold) by quantity, divided by its standard deviation and clipped at 2.5, and t5 is
Student's t with 5 degrees of freedom, scaled to unit variance. The sum is then bent to meet the block's edges in proportion to
the variance gone by: a Brownian bridge in business time. Trades print on the tick above (taker buys) or below the path.

**What can be learned.** The imbalance is in every bar (`buy_volume` against `volume`) and its effect is linear. By construction
its correlation with the return of the next second is EDGE, of which one-second closes show 0.10; since flow persists, it is
0.17 with the return of the next 5 to 15 s. The best classifier into three equally likely classes (down, flat, up) gains about
0.3 of a correlation on 1/3 (two jointly normal variables, terciles; numerically): 5 points here. That, a little momentum while
trending, and the clustering of volatility, which tells large moves from small ones but not up from down, is all: an accuracy
far above is a leak.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .columns import Ints

Floats = NDArray[np.float64]

BLOCK_S = 900  # divides the hour, so that bars up to 15 min lie within a block
MEAN_RATE = 12.0  # trades a second
EDGE = 0.12  # correlation of the imbalance with the return of the next second
IMBALANCE_WINDOW_S = 5

_BLOCK_TRADES = int(BLOCK_S * MEAN_RATE)
_JITTER = _BLOCK_TRADES // 4
_ANCHOR_BLOCKS = 8192
_ANCHOR_SD = 0.15
_SECOND_SD = 1.2e-4  # about 67 % a year: a usual figure for ETHUSDT
_IMBALANCE_SD = 0.51  # measured over the model itself
_FLOW_PERSISTENCE = 0.85
_FLOW_STRENGTH = 1.2
_TYPICAL_USD = 300.0
_QUANTITY_SIGMA = 1.3

# Mean dwell in seconds, relative intensity, volatility relative to `_SECOND_SD`, drift in volatilities a second (either sign).
_REGIMES = {"calm": (180.0, 0.6, 0.6, 0.0), "trending": (120.0, 1.2, 0.9, 0.05), "volatile": (60.0, 2.5, 1.9, 0.0)}
_DWELL, _INTENSITY, _VOLATILITY, _DRIFT = (np.array(column) for column in zip(*_REGIMES.values(), strict=True))

_USD = {
    "BTC": 67_000.0, "ETH": 2_456.0, "BNB": 590.0, "SOL": 148.0, "XRP": 0.52, "ADA": 0.38, "DOGE": 0.11, "LTC": 71.0,
    "LINK": 11.4, "AVAX": 27.0, "DOT": 4.3, "TRX": 0.16, "TON": 5.2, "BCH": 340.0, "UNI": 7.1, "ATOM": 4.5, "NEAR": 4.7,
    "USDT": 1.0, "USDC": 1.0, "FDUSD": 1.0, "TUSD": 1.0, "BUSD": 1.0, "EUR": 1.09, "GBP": 1.3, "TRY": 0.029, "BRL": 0.18,
}  # fmt: skip
_QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "GBP", "TRY", "BRL")


@dataclass(frozen=True, slots=True)
class Block:
    """The trades of one block in order of id, as columns of shape (trades,); `raw_id` has one entry more, the next trade's."""

    first_id: int
    time_ms: Ints
    price: Ints  # ticks
    quantity: Ints  # quantity steps
    buyer_is_taker: NDArray[np.bool_]
    raw_id: Ints  # id of the first raw trade in each aggregate trade


def base_and_quote(symbol: str) -> tuple[str, str]:
    """`ETHUSDT` is ETH in USDT. A quote asset that is not known is taken to have three letters."""
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)], quote
    return (symbol[:-3], symbol[-3:]) if len(symbol) > 3 else (symbol, "USDT")


class SymbolTape:
    """All trades of one symbol of one seed, block by block. Numbers of blocks count from Unix time 0."""

    def __init__(self, seed: int, symbol: str, first_block: int) -> None:
        self._seed = seed
        self._key = int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8])
        self._first_block = first_block
        base, quote = base_and_quote(symbol)
        # An unknown base asset costs 10 cents to 100 dollars, by its name.
        base_usd = _USD.get(base, 10 ** (self._key % 1000 / 333 - 1))
        self._start_price = base_usd / _USD.get(quote, 1.0)
        self._start_id = 1_000_000_000 + self._key % 1_000_000_000 - self._trades_before(first_block)
        self._start_level = self._level(first_block)
        magnitude = math.log10(self._start_price)
        # 10^5 ticks to the price or more, so that one second's return is many ticks; at least cents, at most what is printed.
        price_decimals = min(8, max(2, 5 - math.floor(magnitude)))
        quantity_decimals = min(5, max(0, round(magnitude) + 1))
        self.decimals = (price_decimals, quantity_decimals)
        self._typical_quantity = _TYPICAL_USD / base_usd * 10**quantity_decimals

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, self._key, purpose, number))))

    def _trades_before(self, number: int) -> int:
        return number * _BLOCK_TRADES + int(self._rng(1, number).integers(-_JITTER, _JITTER + 1))

    def first_id(self, number: int) -> int:
        """The id of the first trade in a block."""
        return self._start_id + self._trades_before(number)

    def block_of(self, trade_id: int) -> int:
        """The number of the block that the trade lies in."""
        # The jitter is less than half a block: the right one is the nearest edge's, or the one before.
        number = round((trade_id - self._start_id) / _BLOCK_TRADES)
        return number if trade_id >= self.first_id(number) else number - 1

    def _level(self, number: int) -> float:
        """Log-price at a block's start, up to a constant: Brownian motion by midpoints between independent anchors."""
        low = number // _ANCHOR_BLOCKS * _ANCHOR_BLOCKS
        high = low + _ANCHOR_BLOCKS
        at_low, at_high = (_ANCHOR_SD * float(self._rng(2, edge).standard_normal()) for edge in (low, high))
        while number != low:
            middle = (low + high) // 2
            spread = _SECOND_SD * math.sqrt(BLOCK_S * (high - low) / 4)
            at_middle = (at_low + at_high) / 2 + spread * float(self._rng(3, middle).standard_normal())
            if number < middle:
                high, at_high = middle, at_middle
            else:
                low, at_low = middle, at_middle
        return at_low

    def block(self, number: int) -> Block:
        """Draw a block: some 4 ms for its 11,000 trades."""
        rng = self._rng(4, number)
        first_id = self.first_id(number)
        count = self.first_id(number + 1) - first_id
        regime, direction = _regimes(rng)
        time, leader = _times(rng, count, _INTENSITY[regime])
        second = time // 1000
        buyer_is_taker = (rng.random(count) < _buy_probability(rng)[second])[leader]
        lots = self._typical_quantity * np.exp(_QUANTITY_SIGMA * rng.standard_normal(count))
        quantity = np.maximum(1, np.rint(lots)).astype(np.int64)

        sigma = _SECOND_SD * _VOLATILITY[regime]
        noise = rng.standard_t(5, BLOCK_S) / math.sqrt(5 / 3)
        signal = np.clip(_imbalance(second, quantity, buyer_is_taker) / _IMBALANCE_SD, -2.5, 2.5)
        returns = sigma * (EDGE * signal + math.sqrt(1 - EDGE**2) * noise + direction * _DRIFT[regime])
        start = self._level(number) - self._start_level
        path = _bridge(start, self._level(number + 1) - self._start_level, returns, sigma**2)
        within = path[second] + (path[second + 1] - path[second]) * (time % 1000) / 1000
        ticks = np.floor(self._start_price * np.exp(within) * 10 ** self.decimals[0]).astype(np.int64)
        swept = np.arange(count) - leader
        price = np.maximum(1, ticks + np.where(buyer_is_taker, 1 + swept, -swept))

        # Two raw trades to an aggregate one on average: ids 2a and 2a + 1, the second of them sometimes counted with the one
        # before.
        raw_id = 2 * (first_id + np.arange(count + 1)) + np.append(rng.integers(0, 2, count), 0)
        raw_id[0] = 2 * first_id
        return Block(first_id, number * BLOCK_S * 1000 + time, price, quantity, buyer_is_taker, raw_id)


def _regimes(rng: np.random.Generator) -> tuple[Ints, Floats]:
    """The regime in each second of a block, and the sign of its drift. Each regime is followed by either other one alike."""
    regime = int(rng.choice(len(_DWELL), p=_DWELL / _DWELL.sum()))
    regimes, directions = np.empty(BLOCK_S, dtype=np.int64), np.empty(BLOCK_S)
    second = 0
    while second < BLOCK_S:
        stop = second + int(rng.geometric(1 / _DWELL[regime]))
        regimes[second:stop] = regime
        directions[second:stop] = rng.choice((-1.0, 1.0))
        regime = (regime + int(rng.integers(1, len(_DWELL)))) % len(_DWELL)
        second = stop
    return regimes, directions


def _times(rng: np.random.Generator, count: int, intensity: Floats) -> tuple[Ints, Ints]:
    """Milliseconds into the block, in order, and for each trade the first one of its sweep (itself, mostly)."""
    weight = intensity * rng.gamma(4.0, 0.25, BLOCK_S) * np.where(rng.random(BLOCK_S) < 0.01, 6.0, 1.0)
    second = np.repeat(np.arange(BLOCK_S), rng.multinomial(count, weight / weight.sum()))
    time = np.sort(second * 1000 + rng.integers(0, 1000, count))
    follows = rng.random(count) < 1 / 3
    follows[1:] &= second[1:] == second[:-1]
    follows[0] = False
    leader = np.maximum.accumulate(np.where(follows, 0, np.arange(count)))
    return time[leader], leader


def _buy_probability(rng: np.random.Generator) -> Floats:
    """The chance that a taker buys, for each second."""
    shocks = (math.sqrt(1 - _FLOW_PERSISTENCE**2) * rng.standard_normal(BLOCK_S)).tolist()
    state, states = float(rng.standard_normal()), []
    for shock in shocks:
        state = _FLOW_PERSISTENCE * state + shock
        states.append(state)
    return np.asarray(1 / (1 + np.exp(-_FLOW_STRENGTH * np.array(states))))


def _imbalance(second: Ints, quantity: Ints, buyer_is_taker: NDArray[np.bool_]) -> Floats:
    """Taker imbalance by quantity over the window before each second; it does not look across the block's start."""
    signed = np.bincount(second, np.where(buyer_is_taker, quantity, -quantity), BLOCK_S)
    total = np.bincount(second, quantity, BLOCK_S)
    before = np.arange(BLOCK_S)
    since = np.maximum(0, before - IMBALANCE_WINDOW_S)
    sums = [np.concatenate(([0.0], np.cumsum(column))) for column in (signed, total)]
    numerator, denominator = (column[before] - column[since] for column in sums)
    return np.asarray(numerator / np.maximum(denominator, 1.0))


def _bridge(start: float, stop: float, returns: Floats, variance: Floats) -> Floats:
    """The path of shape (BLOCK_S + 1,) from `start` to `stop`: steps of `returns`, corrected in proportion to `variance`."""
    walked = np.concatenate(([0.0], np.cumsum(returns)))
    gone_by = np.concatenate(([0.0], np.cumsum(variance))) / variance.sum()
    return np.asarray(start + walked + gone_by * (stop - start - walked[-1]))
