"""What a market is to the servers in front of it, and how one is asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from quantai_tui.market.trades import AggTrade, Bar
from quantai_tui.symbols import SYMBOL_RULE, is_symbol

Speed = float | Literal["max"]


class ExchangeError(Exception):
    """The exchange cannot run as it was asked to: what is wrong, and what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Market(Protocol):
    """A market that goes on whether or not anybody listens.

    Every answer is a function of what the market was made from and of `now_s` (Unix seconds): a trade exists from its moment on,
    and its id, price and time never change. So a server that was killed and started again is the same exchange further on.
    Symbols are upper case; asking for one that is not in `symbols` raises `KeyError`. Methods may be called from several threads.
    """

    @property
    def mode(self) -> str:
        """`demo` or `replay`, as `telemetry.Mode` spells them."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that trade here."""
        ...

    def begin(self, now_s: float) -> None:
        """Somebody subscribes. Starts the play clock of a replay the first time; a synthetic market runs already."""
        ...

    def first_id(self, symbol: str) -> int:
        """The oldest id that is kept."""
        ...

    def final_id(self, symbol: str) -> int | None:
        """The last id there will ever be, or None for a market without an end."""
        ...

    def last_id_at(self, symbol: str, now_s: float) -> int:
        """The newest id that exists; `first_id - 1` before the first trade."""
        ...

    def next_trade_s(self, symbol: str, now_s: float) -> float | None:
        """Unix seconds at which the next trade comes into being, or None when none is to be expected as things are."""
        ...

    def trades(self, symbol: str, from_id: int, limit: int, now_s: float) -> list[AggTrade]:
        """At most `limit` existing trades from `from_id` on, in order of id. One that is too old starts at `first_id`."""
        ...

    def id_at_or_after(self, symbol: str, time_ms: int, now_s: float) -> int:
        """The first existing id whose trade time is at or after `time_ms`; one more than the newest id when there is none."""
        ...

    def klines(
        self, symbol: str, interval_s: int, start_ms: int | None, end_ms: int | None, limit: int, now_s: float
    ) -> list[Bar]:
        """At most `limit` bars whose open time lies in [start_ms, end_ms], the one in progress included.

        Without a start the newest ones. Intervals without a trade carry the last close with zero volume.
        """
        ...

    def decimals(self, symbol: str) -> tuple[int, int]:
        """Decimals of the price tick and of the quantity step."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """A synthetic market of these symbols. `history_h` hours of it exist at the first start, for warm-up."""

    seed: int = 1
    symbols: tuple[str, ...] = ("ETHUSDT",)
    history_h: int = 72

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ExchangeError(f"seed {self.seed} is out of range", "use a whole number from 0 to 2^63 - 1")
        if not self.symbols:
            raise ExchangeError("no symbols", "name at least one, such as ETHUSDT")
        for symbol in self.symbols:
            if not is_symbol(symbol):
                raise ExchangeError(f"{symbol!r} is not a symbol", f"use {SYMBOL_RULE}")
        if not 1 <= self.history_h <= 24 * 365:
            raise ExchangeError(f"history of {self.history_h} hours is out of range", "use 1 to 8760 hours")


@dataclass(frozen=True, slots=True)
class ReplaySpec:
    """The trades of one archive file, `speed` times as fast as they happened, or 10,000 a second for `max`.

    `symbol` is for files whose name does not say it.
    """

    path: Path
    speed: Speed = 1.0
    symbol: str | None = None

    def __post_init__(self) -> None:
        if self.symbol is not None and not is_symbol(self.symbol):
            raise ExchangeError(f"{self.symbol!r} is not a symbol", f"use {SYMBOL_RULE}")
        if self.speed != "max" and not 0.001 <= self.speed <= 1_000_000:
            raise ExchangeError(f"speed {self.speed} is out of range", "use a number from 0.001 to 1000000, or max")


MarketSpec = SyntheticSpec | ReplaySpec
