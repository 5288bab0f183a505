"""What is known of one symbol: its ledger, its last price and time, its rate, and what is wrong with its subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum

from ..market.trades import AggTrade
from ..telemetry import Clock, SymbolSnapshot
from .failures import Failure
from .gaps import GapCauses
from .ledger import Observed, SymbolLedger
from .rate_meter import RateMeter

log = logging.getLogger("quantai_tui.stream")

_SHOWN_GAPS = 5


class Numbering(Enum):
    """Whether a venue still counts on from the ids that we have, as far as one connection shows."""

    SOUND = "sound"
    IN_DOUBT = "in doubt"
    EXAMINED = "examined"


class SymbolFeed:
    """One symbol as it stands.

    `cause` is why the next gap, should one show, will have come about. Ids below `exempt_below` are history that was asked for:
    the age limit of repairs does not apply to them. `seeded` is False while the beginning of the ledger is still to be asked for.
    `refused` is why the venue does not serve this symbol, with the Unix time of its answer; `silent` says in words that it does,
    and that the stream brings nothing all the same. `numbering` is in doubt when the stream brings ids that are known with times
    that are not: `take_live` notices, and the repairer asks the venue, once per connection.
    """

    __slots__ = (
        "cause",
        "conflicts",
        "exempt_below",
        "gap_causes",
        "gap_note",
        "last_time_us",
        "ledger",
        "meter",
        "newest_gap",
        "numbering",
        "odd_times",
        "price",
        "quiet",
        "refused",
        "repeats",
        "seeded",
        "silent",
        "symbol",
        "writing",
        "wrong_times",
    )

    def __init__(self, symbol: str, ledger: SymbolLedger, clock: Clock, *, seeded: bool = True) -> None:
        self.symbol = symbol
        self.ledger = ledger
        self.meter = RateMeter(clock)
        self.price: str | None = None
        self.last_time_us: int | None = None
        self.odd_times = 0
        self.wrong_times = 0
        self.conflicts = 0
        self.cause = ""
        self.quiet = True  # no live trade on the present connection yet, or since it became silent
        self.exempt_below = 0
        self.seeded = seeded
        self.refused: tuple[Failure, float] | None = None
        self.silent = ""
        self.repeats = 0  # known ids in a row on the present connection, with no new one between
        self.numbering = Numbering.SOUND
        self.gap_causes = GapCauses()
        self.newest_gap: tuple[str, str] | None = None
        self.gap_note = ""
        self.writing = asyncio.Lock()

    @property
    def last_id(self) -> int | None:
        """The highest known id."""
        return self.ledger.last_id

    @property
    def subscription(self) -> str:
        """ "refused" or "silent" where the venue has been asked and it is so; else empty, and the connection knows."""
        return "refused" if self.refused else "silent" if self.silent else ""

    @property
    def subscription_note(self) -> str:
        """The same in words, with what can be done."""
        return f"{self.refused[0].message}: {self.refused[0].advice}" if self.refused else self.silent

    def fall_silent(self, why: str) -> None:
        """The present connection no longer brings it; `why` becomes the cause of its gaps."""
        self.quiet = True
        self.cause = why

    def name_silent(self, newest_id: int, *, fell: bool) -> None:
        """REST has trades up to `newest_id`, but the stream brings none; `fell` if it brought some before."""
        reason = (
            "it became silent on a connection that had delivered it; another connection is tried from time to time"
            if fell
            else "the symbol or the address is wrong; check SYMBOLS and EXCHANGE_WS_URL"
        )
        self.silent = (
            f"acknowledged and silent, although the venue trades it (id {newest_id} over REST): {reason}; "
            "until then its trades are fetched over REST, with a delay"
        )
        self.cause = "its subscription was silent"
        log.warning("%s: %s", self.symbol, self.silent)

    def doubt_numbering(self, trades: Sequence[AggTrade]) -> None:
        """The venue numbers on from these trades, far below known ids: ask for a check, unless they are old trades."""
        if self.numbering is Numbering.SOUND and self.is_newer(trades[-1]):
            self.numbering = Numbering.IN_DOUBT

    def note_newest(self, seen: Observed, undated: frozenset[int]) -> None:
        """Price and time are those of the highest known id: a trade that fills a gap is older.

        Times of `undated` ids are ignored. A later time counts too: the highest id may be wrong.
        """
        if not seen.accepted:
            return
        newest = seen.accepted[-1]
        if self.price is None or newest.id == self.ledger.last_id:
            self.price = newest.price
        if undated:
            dated = [trade for trade in seen.accepted if trade.id not in undated]
            if not dated:
                return
            newest = dated[-1]
        if self.is_newer(newest):
            self.last_time_us = newest.time_us
            self.price = newest.price

    def is_newer(self, trade: AggTrade) -> bool:
        return self.last_time_us is None or trade.time_us > self.last_time_us

    def snapshot(self) -> SymbolSnapshot:
        ledger = self.ledger
        return SymbolSnapshot(
            last_id=ledger.last_id if ledger.stored else None,
            complete_through_id=ledger.complete_through_id,
            stored=ledger.stored,
            missing=ledger.missing,
            repaired=ledger.repaired,
            duplicates=ledger.duplicates,
            venue_holes=ledger.venue_holes,
            unrecoverable=ledger.unrecoverable,
            gaps=len(ledger.gaps),
            gap_note=self.gap_note,
            price=self.price,
            last_trade_time=None if self.last_time_us is None else self.last_time_us / 1e6,
            trades_per_s=self.meter.per_second(),
            late=ledger.late,
            open_gaps=self.gap_causes.of(ledger.lowest_gaps(_SHOWN_GAPS)),
            subscription=self.subscription,
            subscription_note=self.subscription_note,
            wrong_times=self.wrong_times,
            conflicts=self.conflicts,
        )
