"""One symbol's ids in the store: which it holds, which it lacks, how far it is whole. Arithmetic on ids; no clock, no file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from .idranges import IdRanges


class CommittedLedger:
    """What is committed of one symbol's ids.

    A ledger begins where it was told to (`begin`), or, when nobody said, at the lowest id that has come. Trades below a beginning
    that was told are kept but lie outside, until they reach up to it without a hole (`extend_back`).
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.begin_id: int | None = None
        self.begin_given = False
        self.last_id: int | None = None
        self.stored = 0
        self.duplicates = 0
        self.pruned_to_id = 0
        self.missing = IdRanges()  # between begin and last: neither stored nor settled
        self.settled = IdRanges()  # lost for good: holes at the venue, and what is past fetching
        # Times belong to the ids above; whoever stores them fills them in.
        self.begin_time_us = 0
        self.last_time_us: int | None = None
        self.complete_through_time_us: int | None = None
        self.pruned_before_us = 0

    @property
    def complete_through_id(self) -> int | None:
        """The highest id up to which everything from the beginning on is stored or settled."""
        if self.begin_id is None or self.last_id is None:
            return None
        hole = self.missing.first
        through = self.last_id if hole is None else hole - 1
        return through if through >= self.begin_id else None

    def begin(self, first_id: int, time_us: int, stored: Iterable[tuple[int, int]]) -> None:
        """Begin at `first_id`. `stored` are the id ranges that are there, those outside the ledger included."""
        self.begin_id, self.begin_given, self.begin_time_us = first_id, True, time_us
        self.last_id, self.missing = None, IdRanges()
        for first, last in stored:
            if last >= first_id:
                self._arrive_run(max(first, first_id), last)

    def extend_back(self, first_id: int, time_us: int) -> None:
        """Everything from `first_id` up to the beginning is stored as well: begin there."""
        self.begin_id, self.begin_time_us = first_id, time_us

    def follows(self, id: int) -> bool:
        """Whether `id` lies above everything that has come, so that it cannot be stored yet."""
        if self.begin_id is None:
            return False
        return id >= self.begin_id and (self.last_id is None or id > self.last_id)

    def arrive(self, ids: Sequence[int]) -> None:
        """Some ids, rising and not known before, are stored."""
        self.stored += len(ids)
        if ids[-1] - ids[0] + 1 == len(ids):
            self._arrive_run(ids[0], ids[-1])
            return
        first = previous = ids[0]
        for id in ids[1:]:
            if id != previous + 1:
                self._arrive_run(first, previous)
                first = id
            previous = id
        self._arrive_run(first, previous)

    def settle(self, first_id: int, last_id: int) -> None:
        """These ids will never come: nobody waits for them any longer."""
        self.settled.add(first_id, last_id)
        self.missing.remove(first_id, last_id)

    def recover(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Of some rising ids that are stored now, those that had been settled, as ranges; they are settled no more."""
        came = IdRanges()
        for first, last in self.settled.overlap(ids[0], ids[-1]):
            for id in ids[bisect_left(ids, first) : bisect_right(ids, last)]:
                came.add(id, id)
        for first, last in came:
            self.settled.remove(first, last)
        return list(came)

    def _arrive_run(self, first: int, last: int) -> None:
        if self.begin_id is None:
            self.begin_id = first
        if first < self.begin_id:
            if self.begin_given:
                return
            if self.last_id is not None:
                self._miss(first, self.begin_id - 1)
            self.begin_id = first
        if self.last_id is None:
            self._miss(self.begin_id, first - 1)
            self.last_id = last
        elif first > self.last_id:
            self._miss(self.last_id + 1, first - 1)
            self.last_id = last
        else:
            self.missing.remove(first, last)

    def _miss(self, first: int, last: int) -> None:
        self.missing.add(first, last)
        for settled in self.settled.overlap(first, last):
            self.missing.remove(*settled)
