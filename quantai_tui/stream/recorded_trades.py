"""The trades of a recording, by symbol and id: the position of each, and which ones the venue had issued at any moment."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from .id_runs import IdPace, IdRun

# Most runs of implausible ids to examine at a time, and most trades of one: a foreign file cannot fill the memory.
_MOST_RUNS = 4
_MOST_IN_RUN = 1000


class _Found(NamedTuple):
    id: int
    at: float
    offset: int
    streamed: bool


class _Run(IdRun):
    """Trades with implausible ids near each other."""

    __slots__ = ("found",)

    def __init__(self, found: _Found) -> None:
        super().__init__(found.id)
        self.found = [found]


class TradeIndex:
    """The trades of one symbol, streamed and fetched: in which block each stands, and how far they were known at any moment.

    Nearly every trade has a higher id than all before it. Those lie in arrays that rise in id and in time, at 25 bytes a trade.

    A streamed or fetched trade with an implausible id counts only if others confirm it, as in a stream (`id_jumps`): the
    same run of ids over the stream and over REST, or many consecutive ids. Otherwise one such trade would end the venue's
    history for the whole replay.
    """

    def __init__(self) -> None:
        self._ids = array("q")
        self._ats = array("d")
        self._offsets = array("q")
        self._streamed = bytearray()  # 1 for those that came over a connection
        self._strays: dict[int, int] = {}  # id -> offset: repaired, or out of order
        self._stray_ids: list[int] = []
        self._pace = IdPace()
        self._last_at = 0.0
        self._runs: list[_Run] = []

    def add(self, id: int, at: float, offset: int, *, streamed: bool) -> None:
        """Add a trade at `at` seconds. Trades from REST may have any lower id, because history is fetched."""
        found = _Found(id, at, offset, streamed)
        ids = self._ids
        if not ids:
            self._doubt(found)
            return
        reach = self._pace.reach(at - self._last_at)
        if id > ids[-1] + reach or (streamed and id < ids[-1] - reach and not self._has(id)):
            self._doubt(found)
            return
        self._put(found)
        if streamed:
            self._pace.note(1, at)

    def complete(self) -> None:
        """All are in."""
        if not self._ids and self._runs:
            # Too few to confirm each other: prefer the most frequent ids, then the first.
            self._accept(max(self._runs, key=lambda run: len(run.found)))
        for run in self._runs:
            if self._ids and self._ids[0] <= run.first and run.last <= self._ids[-1]:
                self._accept(run)  # between trades accepted later
        self._runs.clear()
        self._stray_ids = sorted(self._strays)

    def _put(self, found: _Found) -> None:
        ids, id = self._ids, found.id
        self._last_at = found.at
        if not ids or id > ids[-1]:
            ids.append(id)
            self._ats.append(found.at)
            self._offsets.append(found.offset)
            self._streamed.append(found.streamed)
        elif ids[bisect_left(ids, id)] != id:
            self._strays.setdefault(id, found.offset)

    def _has(self, id: int) -> bool:
        return self._ids[bisect_left(self._ids, id)] == id or id in self._strays

    def _doubt(self, found: _Found) -> None:
        run = next((run for run in self._runs if run.is_near(found.id)), None)
        if run is None:
            self._runs = [*self._runs[-_MOST_RUNS + 1 :], _Run(found)]
            return
        run.add(found.id)
        run.found.append(found)
        both = len({one.streamed for one in run.found}) == 2
        agreed = not self._ids and run.first < run.last
        if both or agreed or run.is_sequence or len(run.found) >= _MOST_IN_RUN:
            self._runs.remove(run)
            self._accept(run)

    def _accept(self, run: _Run) -> None:
        for found in run.found:
            self._put(found)

    def highest_known(self, at: float) -> int | None:
        """The highest id that the venue had issued, as far as the recording shows.

        What was fetched counts from the last streamed trade before it on: a stream that plays this in another rhythm must find
        by REST what it found then, and nothing that the venue was still to stream.
        """
        following = self._streamed.find(1, bisect_right(self._ats, at))
        end = len(self._ids) if following < 0 else following
        return self._ids[end - 1] if end else None

    def places(self, from_id: int, to_id: int, limit: int) -> list[tuple[int, int]]:
        """Up to `limit` ids between the two, which count, each with the offset of its block, in order."""
        begin, stray = bisect_left(self._ids, from_id), bisect_left(self._stray_ids, from_id)
        found = list(zip(self._ids[begin : begin + limit], self._offsets[begin : begin + limit], strict=True))
        found += [(id, self._strays[id]) for id in self._stray_ids[stray : stray + limit]]
        return [place for place in sorted(found)[:limit] if place[0] <= to_id]

    def last(self, to_id: int, limit: int) -> list[tuple[int, int]]:
        """The same for the last `limit` ids up to `to_id`."""
        end, stray = bisect_right(self._ids, to_id), bisect_right(self._stray_ids, to_id)
        begin, first = max(0, end - limit), max(0, stray - limit)
        found = list(zip(self._ids[begin:end], self._offsets[begin:end], strict=True))
        found += [(id, self._strays[id]) for id in self._stray_ids[first:stray]]
        return sorted(found)[-limit:]
