"""Why each open gap came about, and since when: for people, beside the ledger, which knows neither time nor reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..telemetry import GapSnapshot
from .sink import RecordedGap

Span = tuple[int, int]

_MOST = 1024
_NOT_ON_RECORD = "no cause on record"


class GapCauses:
    """A bounded list of causes by id range. It may name ranges that are closed by now: what is open is asked for with `of`."""

    __slots__ = ("_records",)

    def __init__(self, recorded: Iterable[RecordedGap] = ()) -> None:
        """`recorded` is what the store has on record from before."""
        self._records = [GapSnapshot(gap.first_id, gap.last_id, gap.cause, gap.opened) for gap in recorded][:_MOST]

    def add(self, span: Span, cause: str, since: float, is_open: Callable[[int, int], Sequence[Span]]) -> None:
        """A gap has opened. `is_open` gives the parts of a range that still are; `since` is Unix time."""
        self._records.append(GapSnapshot(*span, cause, since))
        if len(self._records) > _MOST:
            still = sorted((one for one in self._records if is_open(one.first_id, one.last_id)), key=lambda one: one.first_id)
            # The lowest are repaired first, and shown first; half, so that this stays rare.
            self._records = still[: _MOST // 2]

    def clear(self) -> None:
        """No gap is open any more."""
        self._records.clear()

    def of(self, spans: Iterable[Span]) -> tuple[GapSnapshot, ...]:
        """These open gaps with their causes; where several were joined, that of the lowest ids."""
        spans = tuple(spans)
        lowest, highest = min((first for first, _ in spans), default=0), max((last for _, last in spans), default=-1)
        # One pass for all of them: this is asked for several times a second, for every symbol.
        near = [one for one in self._records if one.first_id <= highest and one.last_id >= lowest]
        return tuple(_of(span, near) for span in spans)


def _of(span: Span, records: Sequence[GapSnapshot]) -> GapSnapshot:
    first, last = span
    known = [one for one in records if one.first_id <= last and one.last_id >= first]
    if not known:
        return GapSnapshot(first, last, _NOT_ON_RECORD, 0.0)
    # Of records that overlap, as when a beginning was moved back, the older one saw it first.
    lowest = min(known, key=lambda one: (max(one.first_id, first), one.since))
    return GapSnapshot(first, last, lowest.cause, lowest.since)
