"""Two connections at once: what the second one brings is held until it joins on to what the first has brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .ledger import SymbolLedger
from .liveness import Liveness

# So long both links are listened to before a symbol without trades may be moved, and before a trade that only the second has
# brought is held against the first: far longer than anything can still be on its way on either.
SETTLE_S = 2.0
_PATIENCE_S = 15.0  # with a rotation in which the links do not agree
_LEAST_PROBE_S, _LONGEST_PROBE_S = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why a second connection is wanted; `suspects` are the symbols whose silence it is to explain, none for a plain rotation."""

    why: str
    suspects: tuple[str, ...] = ()


class Verdict(Enum):
    WAIT = "not clear yet"
    TAKE_OVER = "the successor takes over"
    KEEP = "the present link stays: it is in order"
    USELESS = "the present link stays: the successor brings less"


class Standing(Enum):
    """One symbol, as the two links have it since the second one subscribed."""

    QUIET = "neither link has brought a trade"
    JOINED = "both have brought the same trade: nothing lies between them"
    AHEAD = "the second link brings trades, and the first has not reached them"
    BEHIND = "the first link brings trades, and the second has brought none"


def _probe_s(usual_silence_s: float) -> float:
    """For how long a second connection must be as silent as the first, before that says something of the market."""
    return min(max(usual_silence_s, _LEAST_PROBE_S), _LONGEST_PROBE_S)


class Overlap:
    """What a successor has delivered beside the present link.

    The present link's trades go into the ledgers as ever. The successor's are held here, less those that the ledgers have, until
    it takes over or is dropped; `limit` bounds them, beyond it the successor is not read.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        ledger_of: Callable[[str], SymbolLedger | None],
        limit: int,
        clock: Clock = SYSTEM_CLOCK,
        is_plausible: Callable[[AggTrade], bool] = lambda trade: True,
    ) -> None:
        self._is_plausible = is_plausible
        self._symbols = tuple(symbols)
        self._ledger_of = ledger_of
        self._limit = limit
        self._clock = clock
        self._began = clock.monotonic()
        self._first: dict[str, int] = {}
        self._first_at: dict[str, float] = {}
        self._before = {symbol: self._last_id(symbol) for symbol in self._symbols}
        self._settled = self._before  # the same, a moment later
        self._held: list[AggTrade] = []
        self.looked = asyncio.Event()
        """Set after every batch, for whoever decides to look again."""

    @property
    def has_room(self) -> bool:
        return len(self._held) < self._limit

    @property
    def waiting(self) -> int:
        return len(self._held)

    def absorb(self, trades: Sequence[AggTrade]) -> list[AggTrade]:
        """Hold trades of the successor. Returns those released because the ledgers have them from the present link.

        A trade with an implausible id is held too, but does not count as the successor's position.
        """
        for trade in trades:
            first = self._first.get(trade.symbol)
            if (first is None or trade.id < first) and self._is_plausible(trade):
                self._first[trade.symbol] = trade.id
                self._first_at.setdefault(trade.symbol, self._clock.monotonic())
        known: list[AggTrade] = []
        held: list[AggTrade] = []
        for trade in (*self._held, *trades):
            (held if self._is_new(trade) else known).append(trade)
        self._held = held
        return known

    def release(self) -> list[AggTrade]:
        """All that is held: the successor takes over."""
        held, self._held = self._held, []
        return held

    def standing(self, symbol: str) -> Standing:
        first, last = self._first.get(symbol), self._last_id(symbol)
        if first is None:
            return Standing.QUIET if last == self._before.get(symbol) else Standing.BEHIND
        return Standing.JOINED if last is not None and last >= first else Standing.AHEAD

    def symbols(self, *standings: Standing) -> list[str]:
        """The symbols that stand so."""
        return [symbol for symbol in self._symbols if self.standing(symbol) in standings]

    def explained(self, liveness: Liveness) -> list[str]:
        """The symbols that the market is silent of, not the link: both were listened to for as long as a probe of each takes."""
        elapsed = self._clock.monotonic() - self._began
        return [symbol for symbol in self.symbols(Standing.QUIET) if elapsed >= _probe_s(liveness.limit_s(symbol) or 0.0)]

    def verdict(self, occasion: Occasion, liveness: Liveness) -> Verdict:
        """What the two links say together. `liveness` knows what is usual for a symbol, and what the first link has brought."""
        elapsed = self._clock.monotonic() - self._began
        return self._on_suspicion(occasion.suspects, liveness, elapsed) if occasion.suspects else self._on_rotation(elapsed)

    def _on_rotation(self, elapsed: float) -> Verdict:
        if elapsed < SETTLE_S:
            self._settled = {symbol: self._last_id(symbol) for symbol in self._symbols}
        disagree = self.symbols(Standing.AHEAD, Standing.BEHIND)
        if not disagree and (elapsed >= SETTLE_S or not self.symbols(Standing.QUIET)):
            return Verdict.TAKE_OVER
        if elapsed < _PATIENCE_S:
            return Verdict.WAIT
        return Verdict.USELESS if self._is_useless() else Verdict.TAKE_OVER

    def _is_useless(self) -> bool:
        """Whether the successor lacks trades. What the first link brought in the beginning may have been on its way before."""
        behind = [symbol for symbol in self.symbols(Standing.BEHIND) if self._last_id(symbol) != self._settled[symbol]]
        return bool(behind) and not self.symbols(Standing.AHEAD)

    def _on_suspicion(self, suspects: Iterable[str], liveness: Liveness, elapsed: float) -> Verdict:
        standings = {symbol: self.standing(symbol) for symbol in suspects}
        now = self._clock.monotonic()
        ahead = [symbol for symbol, standing in standings.items() if standing is Standing.AHEAD]
        if any(now - self._first_at[symbol] >= SETTLE_S for symbol in ahead):
            return Verdict.TAKE_OVER
        if ahead:
            return Verdict.WAIT
        suspected = liveness.suspects()  # less what the first link has brought while the second was still dialled
        quiet = [symbol for symbol, standing in standings.items() if standing is Standing.QUIET and symbol in suspected]
        if not quiet:
            return Verdict.KEEP  # they trade again on the present link
        usual = max(liveness.limit_s(symbol) or 0.0 for symbol in quiet)
        return Verdict.WAIT if elapsed < _probe_s(usual) else Verdict.KEEP

    def _last_id(self, symbol: str) -> int | None:
        """Trades from connections only, not those fetched over REST."""
        ledger = self._ledger_of(symbol)
        return ledger.streamed_id if ledger is not None else None

    def _is_new(self, trade: AggTrade) -> bool:
        ledger = self._ledger_of(trade.symbol)
        if ledger is None or ledger.last_id is None or trade.id > ledger.last_id:
            return True
        return bool(ledger.still_missing(trade.id, trade.id))
