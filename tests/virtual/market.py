"""Trades that happen whether anybody listens or not: per symbol a Poisson process, seeded, with ids that rise by one."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping

from quantai_tui.market.trades import AggTrade

from .loop import VirtualClock

RATES: Mapping[str, float] = {"BTCUSDT": 0.8, "ETHUSDT": 0.5, "XRPETH": 0.2}  # trades per second


class Market:
    """Every trade of every symbol, from `start` on. What happens depends on the seed alone, never on who listens.

    `on_trade` is told of each. `holes` are ids that the venue has skipped: nobody can ever have them.
    """

    def __init__(self, seed: int, clock: VirtualClock, rates: Mapping[str, float] = RATES) -> None:
        self._rng = random.Random(f"market {seed}")
        self._clock = clock
        self._symbols = list(rates)
        self._weights = list(rates.values())
        self._rate = sum(rates.values())
        self._next = {symbol: self._rng.randrange(1_000, 900_000) for symbol in rates}
        self._timer: asyncio.TimerHandle | None = None
        self.issued: dict[str, list[AggTrade]] = {symbol: [] for symbol in rates}
        self.holes: dict[str, set[int]] = {symbol: set() for symbol in rates}
        self.halted_until = 0.0
        self.on_trade: Callable[[AggTrade], None] = lambda trade: None

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._symbols)

    @property
    def trading(self) -> bool:
        return self._clock.monotonic() >= self.halted_until

    def start(self) -> None:
        self._schedule(self._clock.monotonic())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def halt(self, seconds: float) -> None:
        """No trade for so long."""
        self.halted_until = max(self.halted_until, self._clock.monotonic() + seconds)

    def skip(self, symbol: str, count: int) -> None:
        """The venue leaves out so many ids."""
        first = self._next[symbol]
        self._next[symbol] = first + count
        self.holes[symbol].update(range(first, first + count))

    def issue(self, symbol: str) -> None:
        """A trade happens now, beside those of the process."""
        self._issue(symbol, 0)

    def from_id(self, symbol: str, id: int) -> int:
        """The index of the first trade whose id is not below."""
        return bisect_left(self.issued[symbol], id, key=_id)

    def ids(self, symbol: str, until_ms: float = float("inf")) -> set[int]:
        """The ids of all trades up to a time."""
        return {trade.id for trade in self.issued[symbol] if trade.time <= until_ms}

    def now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _schedule(self, after: float) -> None:
        at = after + self._rng.expovariate(self._rate)
        self._timer = asyncio.get_running_loop().call_at(at, self._happen, at)

    def _happen(self, at: float) -> None:
        symbol = self._rng.choices(self._symbols, self._weights)[0]
        tick = self._rng.randrange(100)
        if self.trading:
            self._issue(symbol, tick)
        self._schedule(at)

    def _issue(self, symbol: str, tick: int) -> None:
        id = self._next[symbol]
        self._next[symbol] = id + 1
        trade = AggTrade(id, f"{2000 + tick}.50", "0.25000000", id * 2, id * 2 + 1, self.now_ms(), tick % 2 == 0, symbol)
        self.issued[symbol].append(trade)
        self.on_trade(trade)


def _id(trade: AggTrade) -> int:
    return trade.id
