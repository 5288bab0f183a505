"""A market whose past can be given holes and whose present can be hurried, for streams and REST alike.

Both are inputs of the market like its seed: they are kept with it, so that after a restart it is the same market again.

**A burst** is more of the same market in less time. What comes into being is ruled by market time, which follows the wall clock
along a broken line: during a burst it runs as much faster as the rate asks for, and goes on at its old pace afterwards, ahead by
what it gained. The trades of a synthetic market are stamped with the wall's time at which they come into being, so ids rise by
one and times never fall; a replay's trades keep the stamps of their file.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import msgspec

from quantai_tui.market.bars import Candle, fold, quiet_bar, roll_up
from quantai_tui.market.trades import AggTrade, Bar

from .fault import FaultError
from .markets import Market

_MOST_BURSTS = 100
_MOST_HOLES = 20_000
_CHUNK = 20_000
# In a burst the clock's last digit is a millisecond of the market: so many trades around an edge may lie on either side of it.
_EDGE = 100
_LONGEST_REACH_S = 10 * 365 * 86400.0


class Pace(msgspec.Struct, frozen=True):
    """From Unix second `wall` on, market time is `market + (now - wall) * rate`."""

    wall: float
    market: float
    rate: float


class Alterations(msgspec.Struct, frozen=True):
    """What was done to a market: the paces in order of time, and per symbol the ids that the venue lost."""

    paces: tuple[Pace, ...] = ()
    lost: dict[str, tuple[int, ...]] = {}


class AlterableMarket:
    """A `Market` that is `inner`, but for what was done to it. `keep` is called with the whole after each change."""

    def __init__(
        self, inner: Market, made: Alterations | None = None, keep: Callable[[Alterations], None] = lambda _: None
    ) -> None:
        self._inner = inner
        self._keep = keep
        made = made or Alterations()
        self._paces = list(made.paces)
        self._lost = {symbol: set(ids) for symbol, ids in made.lost.items()}
        self._restamps = inner.mode == "demo"
        self.mode = inner.mode
        self.symbols = inner.symbols

    def speed_up(self, now_s: float, seconds: float, rate: float) -> int:
        """Let `rate` trades a second happen for so long, all symbols together; how many that will be. Raises FaultError."""
        if len(self._paces) >= 2 * _MOST_BURSTS:
            raise FaultError(f"this market has had {_MOST_BURSTS} bursts", "begin another one in a new folder")
        self.calm_down(now_s)
        start = self._market_s(now_s)
        stop = self._reach(start, start + seconds, round(rate * seconds))
        end = now_s + seconds
        self._paces += [Pace(now_s, start, (stop - start) / seconds), Pace(end, stop, 1.0)]
        self._save()
        return self._count(stop) - self._count(start)

    def calm_down(self, now_s: float) -> None:
        """End a burst that is going on."""
        if self._paces and now_s < self._paces[-1].wall:
            self._paces[-1] = Pace(now_s, self._market_s(now_s), 1.0)
            self._save()

    def require_room(self, count: int) -> None:
        """Raises FaultError when this market cannot lose so many trades more."""
        if sum(map(len, self._lost.values())) + count > _MOST_HOLES:
            raise FaultError(f"this market has lost {_MOST_HOLES} trades", "begin another one in a new folder")

    def lose(self, symbol: str, trade_id: int) -> None:
        """The trade has never been: an id without one. `save` follows."""
        self._lost.setdefault(symbol, set()).add(trade_id)

    def save(self) -> None:
        """Keep what `lose` did."""
        self._save()

    def _save(self) -> None:
        lost = {symbol: tuple(sorted(ids)) for symbol, ids in self._lost.items()}
        self._keep(Alterations(tuple(self._paces), lost))

    def _count(self, market_s: float) -> int:
        return sum(self._inner.last_id_at(symbol, market_s) for symbol in self.symbols)

    def _reach(self, start: float, at_least: float, trades: int) -> float:
        """The market time at which so many trades have happened since `start`; a replay's file may end before."""
        goal, step = self._count(start) + trades, 60.0
        low = high = max(start, at_least)
        while self._count(high) < goal and high - start < _LONGEST_REACH_S:
            low, high, step = high, high + step, step * 2
        while high - low > 0.01:
            middle = (low + high) / 2
            low, high = (middle, high) if self._count(middle) < goal else (low, middle)
        return high

    def _market_s(self, wall_s: float) -> float:
        index = bisect_right(self._paces, wall_s, key=lambda pace: pace.wall) - 1
        if index < 0:
            return wall_s
        pace = self._paces[index]
        return pace.market + (wall_s - pace.wall) * pace.rate

    def _wall_s(self, market_s: float) -> float:
        index = bisect_right(self._paces, market_s, key=lambda pace: pace.market) - 1
        if index < 0:
            return market_s
        pace = self._paces[index]
        return pace.wall + (market_s - pace.market) / pace.rate

    def begin(self, now_s: float) -> None:
        self._inner.begin(self._market_s(now_s))

    def first_id(self, symbol: str) -> int:
        return self._inner.first_id(symbol)

    def final_id(self, symbol: str) -> int | None:
        return self._inner.final_id(symbol)

    def last_id_at(self, symbol: str, now_s: float) -> int:
        return self._inner.last_id_at(symbol, self._market_s(now_s))

    def next_trade_s(self, symbol: str, now_s: float) -> float | None:
        due = self._inner.next_trade_s(symbol, self._market_s(now_s))
        return None if due is None else self._wall_s(due)

    def trades(self, symbol: str, from_id: int, limit: int, now_s: float) -> list[AggTrade]:
        market_s = self._market_s(now_s)
        trades = self._inner.trades(symbol, from_id, limit, market_s)
        if lost := self._lost.get(symbol):
            kept = [trade for trade in trades if trade.id not in lost]
            while len(kept) < limit and len(trades) == limit:
                trades = self._inner.trades(symbol, trades[-1].id + 1, limit, market_s)
                kept += [trade for trade in trades if trade.id not in lost]
            trades = kept[:limit]
        if not self._paces or not self._restamps or not trades or trades[-1].time <= self._paces[0].market * 1000:
            return trades
        return [self._restamped(trade) for trade in trades]

    def _restamped(self, trade: AggTrade) -> AggTrade:
        time_ms = math.floor(self._wall_s(trade.time / 1000) * 1000 + 1e-3)  # the sum of two floats must not fall a ms short
        t = trade
        return AggTrade(t.id, t.price, t.quantity, t.first_id, t.last_id, time_ms, t.buyer_is_maker, t.symbol)

    def id_at_or_after(self, symbol: str, time_ms: int, now_s: float) -> int:
        if self._restamps and self._paces and time_ms > self._paces[0].wall * 1000:
            time_ms = math.ceil(self._market_s(time_ms / 1000) * 1000 - 1e-3)
        return self._inner.id_at_or_after(symbol, time_ms, self._market_s(now_s))

    def klines(
        self, symbol: str, interval_s: int, start_ms: int | None, end_ms: int | None, limit: int, now_s: float
    ) -> list[Bar]:
        if not self._restamps or not self._paces:
            return self._inner.klines(symbol, interval_s, start_ms, end_ms, limit, self._market_s(now_s))
        newest = int(now_s) // interval_s
        last = newest if end_ms is None else min(newest, end_ms // 1000 // interval_s)
        first = last - limit + 1 if start_ms is None else -(-start_ms // (interval_s * 1000))
        last = min(last, first + limit - 1)
        # Up to the first burst the two times are one; from there on bars are made of the trades.
        turn = int(self._paces[0].wall) // interval_s
        bars: list[Bar] = []
        if first < turn:
            before = (min(last, turn - 1) + 1) * interval_s
            bars = self._inner.klines(symbol, interval_s, first * interval_s * 1000, before * 1000 - 1, limit, before)
        if last >= turn:
            bars += self._bars_of_trades(symbol, interval_s, max(first, turn), last, now_s)
        return bars

    def _bars_of_trades(self, symbol: str, interval_s: int, first: int, last: int, now_s: float) -> list[Bar]:
        from_id = self.id_at_or_after(symbol, first * interval_s * 1000, now_s) - _EDGE
        stop_id = self.id_at_or_after(symbol, (last + 1) * interval_s * 1000, now_s) + _EDGE
        from_id, stop_id = max(from_id, self.first_id(symbol)), min(stop_id, self.last_id_at(symbol, now_s) + 1)
        before = self.trades(symbol, from_id - 1, 1, now_s)
        candles: list[Candle] = []
        while from_id < stop_id:
            trades = self.trades(symbol, from_id, min(_CHUNK, stop_id - from_id), now_s)
            if not trades:
                break
            candles += fold(trades)
            from_id = trades[-1].id + 1
        traded = {candle.open_time_us: candle.bar(interval_s) for candle in roll_up(candles, interval_s)}
        earlier = [bar.close for at, bar in traded.items() if at < first * interval_s * 1_000_000]
        close = earlier[-1] if earlier else before[0].price if before else None
        bars: list[Bar] = []
        for number in range(first, last + 1):
            open_time_us = number * interval_s * 1_000_000
            bar = traded.get(open_time_us)
            if bar is None and close is None:
                continue
            bars.append(bar or quiet_bar(open_time_us, interval_s, close or "0"))
            close = bars[-1].close
        return bars

    def decimals(self, symbol: str) -> tuple[int, int]:
        return self._inner.decimals(symbol)
