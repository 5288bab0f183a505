"""Batches of trades that `async for` yields, in the order of their ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..market.idranges import IdRanges
from ..market.trades import AggTrade

# Most ranges of skipped ids to remember per symbol. It exceeds what the ledger keeps open or settled, so that a
# trade that the ledger accepts is known here.
_MOST_PASSED = 16_384


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """Trades of one symbol, ids ascending; or, without trades, a gap that is skipped.

    `gap` is the first and the last id (inclusive) of a gap that is no longer awaited; None with trades. `late` says
    that these trades belong to a gap that was skipped before.
    """

    symbol: str
    trades: Sequence[AggTrade]
    gap: tuple[int, int] | None = None
    late: bool = False


class IdOrder:
    """Holds back trades until all lower ids of their symbol have arrived or are skipped.

    At most `most` trades wait, all symbols together; above that, the symbol with the most of them skips its lowest gap. No gap
    holds back a trade for more than `longest_s` seconds: call `expire`. `begin_id` is the id from which history was requested,
    0 for all of it, None for none. Every method returns what can be yielded now. No I/O and no clock: `now` is
    any non-decreasing number of seconds.
    """

    def __init__(self, most: int, longest_s: float, begin_id: int | None = None) -> None:
        self._most = most
        self._longest_s = longest_s
        self._begin_id = begin_id
        self._sequences: dict[str, _Sequence] = {}
        self._holding: dict[str, _Sequence] = {}  # the few that hold trades
        self.held = 0
        """Trades that wait behind a gap."""

    def held_of(self, symbol: str) -> int:
        sequence = self._sequences.get(symbol)
        return len(sequence.held) if sequence else 0

    @property
    def deadline(self) -> float | None:
        """When to skip the next gap; None while nothing waits."""
        return min((one.since + self._longest_s for one in self._holding.values()), default=None)

    def await_history(self, symbol: str, last_id: int) -> None:
        """History up to `last_id` was requested and its first id is unknown. Call before `begin`."""
        if self._begin_id is not None and self._begin_id <= last_id:
            self._of(symbol).await_history(self._begin_id)

    def begin(self, symbol: str, first_id: int) -> list[TradeBatch]:
        """The record begins at `first_id`; call again when that moves back."""
        return self._counted(self._of(symbol), self._of(symbol).begin(first_id))

    def take(self, symbol: str, trades: Sequence[AggTrade], now: float) -> list[TradeBatch]:
        """Take trades, ids ascending; known ones are dropped."""
        sequence = self._of(symbol)
        batches = self._counted(sequence, sequence.take(trades, now))
        while self.held > self._most:
            fullest = max(self._holding.values(), key=lambda one: len(one.held))
            batches += self._counted(fullest, fullest.pass_hole())
        return batches

    def give_up(self, symbol: str, first_id: int, last_id: int) -> list[TradeBatch]:
        """These ids will not arrive: stop waiting for them."""
        return self._counted(self._of(symbol), self._of(symbol).give_up(first_id, last_id))

    def expire(self, now: float) -> list[TradeBatch]:
        """Skip the gaps that have held back trades for `longest_s`."""
        batches: list[TradeBatch] = []
        for sequence in tuple(self._holding.values()):
            while sequence.held and sequence.since + self._longest_s <= now:
                batches += self._counted(sequence, sequence.pass_hole())
        return batches

    def flush(self) -> list[TradeBatch]:
        """Skip all gaps, because nothing more will arrive."""
        return self.expire(float("inf"))

    def _of(self, symbol: str) -> _Sequence:
        return self._sequences.setdefault(symbol, _Sequence(symbol))

    def _counted(self, sequence: _Sequence, batches: list[TradeBatch]) -> list[TradeBatch]:
        self.held += len(sequence.held) - sequence.counted
        sequence.counted = len(sequence.held)
        if sequence.held:
            self._holding[sequence.symbol] = sequence
        else:
            self._holding.pop(sequence.symbol, None)
        return batches


class _Sequence:
    """One symbol. All ids below `next_id` are yielded or skipped; the lowest of `held` is above it."""

    __slots__ = ("_awaited", "_begin_id", "_came", "_given_up", "_held_ids", "_next_id", "_passed", "counted", "held", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._begin_id: int | None = None
        self._next_id: int | None = None
        self._awaited = False  # history before the first trades, whose first id is unknown
        self._held_ids = IdRanges()
        self._given_up = IdRanges()  # from `next_id` on
        self._passed = IdRanges()  # below `next_id`, skipped and not arrived since
        self._came: deque[tuple[int, float]] = deque()  # each new highest held id, and its time of arrival
        self.held: dict[int, AggTrade] = {}
        self.counted = 0

    @property
    def since(self) -> float:
        """Since when the lowest gap holds back trades; valid only while it does."""
        return self._came[0][1]

    def await_history(self, begin_id: int) -> None:
        if self._next_id is None:
            self._next_id = begin_id
            self._awaited = True

    def begin(self, first_id: int) -> list[TradeBatch]:
        if self._begin_id is None:
            self._begin_id = first_id
            if self._next_id is None:
                self._next_id = first_id
            return []
        if self._awaited and self._next_id is not None:
            self._next_id = max(self._next_id, min(first_id, self._begin_id))
            self._awaited = False
        return self._advance()

    def take(self, trades: Sequence[AggTrade], now: float) -> list[TradeBatch]:
        if not trades:
            return []
        first, last = trades[0].id, trades[-1].id
        if self._next_id is None:
            self._next_id = first
        next_id = self._next_id
        if first == next_id and last - first + 1 == len(trades) and not self.held and self._given_up.first is None:
            self._next_id = last + 1
            return [TradeBatch(self.symbol, trades)]
        ahead = [trade for trade in trades if trade.id >= next_id and trade.id not in self.held]
        for trade in ahead:
            self.held[trade.id] = trade
            self._held_ids.add(trade.id, trade.id)
            self._given_up.remove(trade.id, trade.id)
        if ahead and (not self._came or ahead[-1].id > self._came[-1][0]):
            self._came.append((ahead[-1].id, now))
        return self._late(trade for trade in trades if trade.id < next_id) + self._advance()

    def give_up(self, first_id: int, last_id: int) -> list[TradeBatch]:
        if self._next_id is None:
            return []
        first_id = max(first_id, self._next_id)
        self._given_up.add(first_id, last_id)
        for held in self._held_ids.overlap(first_id, last_id):
            self._given_up.remove(*held)
        return self._advance()

    def pass_hole(self) -> list[TradeBatch]:
        """Skip the gap below the lowest held trade."""
        assert self._next_id is not None
        assert self._held_ids.first is not None
        gap = (self._next_id, self._held_ids.first - 1)
        return [self._pass(gap), *self._advance()]

    def _late(self, trades: Iterable[AggTrade]) -> list[TradeBatch]:
        late = [trade for trade in trades if self._passed.overlap(trade.id, trade.id)]
        for trade in late:
            self._passed.remove(trade.id, trade.id)
        return [TradeBatch(self.symbol, late, late=True)] if late else []

    def _pass(self, gap: tuple[int, int]) -> TradeBatch:
        self._passed.add(*gap)
        for forgotten in list(self._passed)[:-_MOST_PASSED]:
            self._passed.remove(*forgotten)
        self._given_up.remove(*gap)
        self._next_id = gap[1] + 1
        self._awaited = False
        return TradeBatch(self.symbol, (), gap=gap)

    def _advance(self) -> list[TradeBatch]:
        """Yield trades with no gap before them, and skip ids that were given up."""
        batches: list[TradeBatch] = []
        while self._next_id is not None:
            if self._held_ids.first == self._next_id:
                first, last = next(iter(self._held_ids))
                batches.append(TradeBatch(self.symbol, [self.held.pop(id) for id in range(first, last + 1)]))
                self._held_ids.remove(first, last)
                self._next_id = last + 1
            elif self._given_up.first == self._next_id:
                batches.append(self._pass(next(iter(self._given_up))))
            else:
                break
            while self._came and self._came[0][0] < self._next_id:
                self._came.popleft()
        return batches
