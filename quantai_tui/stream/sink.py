"""Where trades go: what the stream asks of a store, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..market.conflicts import Conflict
from ..market.trades import AggTrade


class RecordedGap(Protocol):
    """A gap that the store has on record and that is still open."""

    @property
    def first_id(self) -> int: ...
    @property
    def last_id(self) -> int: ...
    @property
    def cause(self) -> str: ...
    @property
    def opened(self) -> float:
        """Unix time."""
        ...


class Position(Protocol):
    """How far the store has one symbol; `market.schema.LedgerPosition` is one. All None before the first trade."""

    @property
    def begin_id(self) -> int | None: ...
    @property
    def last_id(self) -> int | None: ...
    @property
    def complete_through_id(self) -> int | None: ...
    @property
    def stored(self) -> int: ...
    @property
    def gaps(self) -> Sequence[RecordedGap]: ...
    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """The id ranges up to `last_id` that are neither stored nor settled as lost."""
        ...

    @property
    def venue_holes(self) -> int:
        """Ids settled as never issued by the venue."""
        ...

    @property
    def unrecoverable(self) -> int:
        """Ids settled as past fetching."""
        ...

    @property
    def settled(self) -> Sequence[tuple[int, int, str]]:
        """Which ids were settled: first id, last id, and "venue_hole" or "unrecoverable"; if they are many, the highest."""
        ...

    @property
    def last_time_us(self) -> int | None:
        """When the trade `last_id` was, by the venue, in microseconds since 1970."""
        ...


class TradeSink(Protocol):
    """A store of trades. Every method may take its time: that is the back-pressure that slows the reading of the socket.

    Trades may come a second time, and gaps may be closed piece by piece; a sink tells both by their ids. A trade may come after
    its id was settled as lost: it is stored, and the id then closed once more, as "repaired". Ids are the venue's aggregate ids,
    ranges include both ends, `opened` is Unix seconds.
    """

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None: ...

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None: ...

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        """`outcome` is "repaired", "venue_hole" or "unrecoverable"."""
        ...

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        """The ledger of `symbol` begins here; called again with an earlier id when history before it is to be fetched."""
        ...

    async def position(self, symbol: str) -> Position: ...


@runtime_checkable
class ComparingSink(Protocol):
    """A sink with this method lets repeated trades be compared with stored ones."""

    async def find_conflicts(self, symbol: str, trades: Sequence[AggTrade]) -> Sequence[Conflict]:
        """Find trades that differ from the stored ones of the same ids, including all that were appended before."""
        ...
