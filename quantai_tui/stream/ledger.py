"""One symbol's ledger: which aggregate ids have come, which are missing, and up to where the record is whole. Does no I/O.

The venue numbers a symbol's aggregate trades without holes, so that a jump in the ids is the only proof of loss there is, and a
sure one. Nothing here knows of sockets or time: trades go in, and what must be stored, fetched or noted comes out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter, le

from ..arguments import check_whole
from ..market.idranges import IdRanges
from ..market.trades import AggTrade
from .sink import Position

# Above this many separate stretches of settled ids the oldest are forgotten: a trade of theirs would count as a duplicate.
_MAX_SETTLED = 4096
# Above this many separate gaps the nearest are joined: what lies between them is fetched a second time, and memory stays bounded.
MAX_GAPS = 1024

_BY_ID = attrgetter("id")

Span = tuple[int, int]  # first and last id, both included


class Origin(StrEnum):
    """How trades came: on the stream, on a second link that delivers the same ones, or fetched over REST.

    They differ in what counts. A known id is a duplicate on the stream only: the others overlap with what is known by their
    nature. Only what was fetched is repaired, and only what the stream brings after a higher id is late.
    """

    LIVE = "live"
    OVERLAP = "overlap"
    FETCHED = "fetched"


class Outcome(StrEnum):
    """How a gap ended: its trades were fetched, the venue itself has no such ids, or they may not be had any more."""

    REPAIRED = "repaired"
    VENUE_HOLE = "venue_hole"
    UNRECOVERABLE = "unrecoverable"


@dataclass(slots=True)
class Observed:
    """The result of a batch: store `accepted` (by rising id); `opened` are new gaps; `filled` are parts of old ones.

    `repeated` are dropped trades with known ids.
    """

    accepted: Sequence[AggTrade]
    opened: list[Span] = field(default_factory=list)
    filled: list[Span] = field(default_factory=list)
    repeated: list[AggTrade] = field(default_factory=list)


class SymbolLedger:
    """Continuity of one symbol's aggregate ids.

    Counters only rise, but for `missing`, and for what was settled as lost when a trade of it comes after all.
    """

    __slots__ = (
        "_gaps",
        "_settled",
        "begin_id",
        "duplicates",
        "last_id",
        "late",
        "max_gaps",
        "missing",
        "repaired",
        "stored",
        "streamed_id",
        "unrecoverable",
        "venue_holes",
    )

    def __init__(self, position: Position | None = None, *, max_gaps: int = MAX_GAPS) -> None:
        check_whole("max_gaps", max_gaps, at_least=1)
        self.max_gaps = max_gaps
        self.begin_id = position.begin_id if position else None
        self.last_id = position.last_id if position else None
        self.stored = position.stored if position else 0
        self.streamed_id: int | None = None  # the highest id from a connection, not from REST
        self._gaps = IdRanges(position.missing if position else ())
        if self.begin_id is not None and self.last_id is None:
            self.last_id = self.begin_id - 1
        self.missing = sum(last - first + 1 for first, last in self._gaps)
        self.venue_holes = position.venue_holes if position else 0
        self.unrecoverable = position.unrecoverable if position else 0
        self.repaired = self.duplicates = self.late = 0
        self._settled = {Outcome.VENUE_HOLE: IdRanges(), Outcome.UNRECOVERABLE: IdRanges()}
        if position and self.begin_id is not None and self.last_id is not None:
            for first, last, outcome in position.settled:
                self._settled[Outcome(outcome)].add(max(first, self.begin_id), min(last, self.last_id))

    @property
    def complete_through_id(self) -> int | None:
        """Every id from the beginning to here has come or is settled as lost; None before the first."""
        if self.begin_id is None or self.last_id is None:
            return None
        through = self.last_id if self._gaps.first is None else self._gaps.first - 1
        return through if through >= self.begin_id else None

    @property
    def gaps(self) -> tuple[Span, ...]:
        """The open gaps, lowest ids first."""
        return tuple(self._gaps)

    @property
    def first_gap(self) -> Span | None:
        return next(iter(self._gaps), None)

    def lowest_gaps(self, most: int) -> list[Span]:
        """The open gaps with the lowest ids, so many of them."""
        return list(itertools.islice(self._gaps, most))

    def has(self, id: int) -> bool:
        """Whether this trade has come."""
        if self.begin_id is None or self.last_id is None or not self.begin_id <= id <= self.last_id:
            return False
        return not self._gaps.overlap(id, id) and not any(settled.overlap(id, id) for settled in self._settled.values())

    def lacks(self, id: int) -> bool:
        """Whether a trade with this id would be accepted, though higher ones are known: it is missing, or was given up."""
        return self.begin_id is not None and self.last_id is not None and self.begin_id <= id <= self.last_id and not self.has(id)

    def begin(self, first_id: int) -> Span | None:
        """Let the ledger begin at `first_id`. If it began later, the ids up to there become a gap, which is returned."""
        if self.begin_id is None:
            self.begin_id = first_id
            self.last_id = first_id - 1
            return None
        if first_id >= self.begin_id:
            return None
        gap = (first_id, self.begin_id - 1)
        self._open(gap)
        self.begin_id = first_id
        return gap

    def observe(self, trades: Sequence[AggTrade], origin: Origin = Origin.LIVE) -> Observed:
        """Take in trades of this symbol, in any order.

        A trade that fills a gap is accepted whenever it comes, even one whose id was given up: a verdict does not outweigh a
        trade. One that is known already is dropped. A batch is put in order first, so that a re-ordering within it opens no gap,
        and the ledger, should it begin with this batch, begins with the lowest id.
        """
        if trades and origin is not Origin.FETCHED:
            highest = max(map(_BY_ID, trades))
            self.streamed_id = highest if self.streamed_id is None else max(self.streamed_id, highest)
        if self.last_id is None and trades:
            self.begin(min(trades, key=_BY_ID).id)
        start = expected = 0 if self.last_id is None else self.last_id + 1
        for trade in trades:
            if trade.id != expected:
                break
            expected += 1
        else:
            if trades:
                self.last_id = expected - 1
                self._count(len(trades), origin)
            return Observed(trades)
        in_order = expected - start
        self.last_id = expected - 1
        return self._observe_disorder(trades, in_order, origin)

    def settle(self, first: int, last: int, outcome: Outcome) -> list[Span]:
        """Give up what is still missing between two ids, as `outcome`. Returns the stretches that this concerned."""
        spans = self._gaps.overlap(first, last)
        count = sum(b - a + 1 for a, b in spans)
        self._gaps.remove(first, last)
        self.missing -= count
        self._count_settled(outcome, count)
        settled = self._settled[outcome]
        for a, b in spans:
            settled.add(a, b)
        for a, b in list(settled)[:-_MAX_SETTLED]:
            settled.remove(a, b)
        return spans

    def still_missing(self, first: int, last: int) -> list[Span]:
        """The missing ids between two ids, as stretches."""
        return self._gaps.overlap(first, last)

    def _observe_disorder(self, trades: Sequence[AggTrade], in_order: int, origin: Origin) -> Observed:
        """The same for a batch of which only so many from the front join on to what is known."""
        accepted = list(trades[:in_order])
        rest, overtaken = _put_in_order(trades[in_order:])
        result = Observed(accepted)
        filled = IdRanges()
        assert self.last_id is not None
        last_id = highest_before = self.last_id
        for trade in rest:
            id = trade.id
            if id > last_id:
                if id > last_id + 1:
                    result.opened += self._open((last_id + 1, id - 1))
                last_id = id
            elif self._gaps.overlap(id, id):
                self._gaps.remove(id, id)
                self.missing -= 1
                filled.add(id, id)
            elif self._unsettle(id, id):
                filled.add(id, id)
            else:
                self.duplicates += origin is Origin.LIVE
                result.repeated.append(trade)
                continue
            accepted.append(trade)
            self.late += origin is Origin.LIVE and (id < highest_before or id in overtaken)
        if in_order and len(accepted) > in_order and accepted[in_order].id < accepted[in_order - 1].id:
            accepted.sort(key=_BY_ID)
        self.last_id = last_id
        result.filled = list(filled)
        self._count(len(accepted), origin)
        return result

    def _count(self, accepted: int, origin: Origin) -> None:
        self.stored += accepted
        if origin is Origin.FETCHED:
            self.repaired += accepted

    def _count_settled(self, outcome: Outcome, count: int) -> None:
        if outcome is Outcome.VENUE_HOLE:
            self.venue_holes += count
        else:
            self.unrecoverable += count

    def _unsettle(self, first: int, last: int) -> int:
        """Take back what was given up between two ids. Returns how many ids that concerned."""
        total = 0
        for outcome, settled in self._settled.items():
            count = sum(b - a + 1 for a, b in settled.overlap(first, last))
            if count:
                settled.remove(first, last)
                self._count_settled(outcome, -count)
                total += count
        return total

    def _open(self, gap: Span) -> list[Span]:
        self._gaps.add(*gap)
        self.missing += gap[1] - gap[0] + 1
        return [gap, *self._bridge()]

    def _bridge(self) -> list[Span]:
        """If the gaps are too many, declare what lies between the nearest missing again; a quarter at a time, to stay rare."""
        spans = list(self._gaps)
        if len(spans) <= self.max_gaps:
            return []
        between = sorted((b[0] - a[1], a[1] + 1, b[0] - 1) for a, b in itertools.pairwise(spans))
        bridged = [(first, last) for _, first, last in between[: max(1, self.max_gaps // 4)]]
        for first, last in bridged:
            self._gaps.add(first, last)
            self.missing += last - first + 1
            self.stored -= last - first + 1 - self._unsettle(first, last)
        return bridged


def _put_in_order(trades: Sequence[AggTrade]) -> tuple[Sequence[AggTrade], set[int]]:
    """The trades by rising id, and the ids that came first after a higher one."""
    ids = [trade.id for trade in trades]
    if all(map(le, ids, ids[1:])):
        return trades, set()
    overtaken: set[int] = set()
    came: set[int] = set()
    highest = -1
    for id in ids:
        if id > highest:
            highest = id
        elif id not in came:
            overtaken.add(id)
        came.add(id)
    return sorted(trades, key=_BY_ID), overtaken
