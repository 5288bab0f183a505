"""What the engine remembers of its past, so that a dashboard can be looked at as it was at 03:12. It ends with the engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from ..link import HistoryWindow, Moment
from ..telemetry import EngineSnapshot
from ..telemetry.happenings import Happening, happenings
from .history import Fold, History
from .moments import Moments

_MOST_EVENTS = 5_000
_MOST_TOLD = 200  # events in one answer, the newest

FOLDS = {
    "rtt_ms": Fold.PEAK,
    "trades_per_s": Fold.MEAN,
    "missing": Fold.PEAK,
    "store_lag_ms": Fold.PEAK,
    "loop_lag_ms": Fold.PEAK,
    "scale": Fold.PEAK,  # where it stood highest: the cap is what it must not pass
    "overflows": Fold.SUM,
    "loss": Fold.MEAN,
    "grad_norm": Fold.PEAK,
    "samples_per_s": Fold.MEAN,
    "accuracy": Fold.MEAN,
}

LogUntil = Callable[[float], tuple[str, ...]]


class Chronicle:
    """Series, moments and events of up to three days, in some 2 MB of series and at most 24 MB of moments."""

    def __init__(self, log_until: LogUntil = lambda when: ()) -> None:
        """`log_until`: the last lines of the log up to a time."""
        self._log_until = log_until
        self._history = History(FOLDS)
        self._moments = Moments()
        self._events = deque[Happening](maxlen=_MOST_EVENTS)
        self._before = EngineSnapshot()

    def record(self, snapshot: EngineSnapshot, values: Mapping[str, float | None]) -> None:
        """Take in one sample: a snapshot, and those numbers of it that are kept as series."""
        self._history.push(snapshot.time, values)
        self._moments.keep(snapshot)
        if snapshot.time < self._before.time:
            while self._events and self._events[-1].time > snapshot.time:
                self._events.pop()
        self._events.extend(happenings(self._before, snapshot))
        self._before = snapshot

    def window(self, names: list[str], span_s: float, points: int, until: float) -> HistoryWindow:
        """Raises ValueError, in words, for what cannot be told."""
        unknown = [name for name in names if name not in FOLDS]
        if unknown:
            raise ValueError(f"no history of {', '.join(map(repr, unknown))}; there is {', '.join(FOLDS)}")
        window = self._history.window(names, span_s, points, until)
        begin = window.until - window.period_s * max((len(values) for values in window.values.values()), default=0)
        events = [event for event in self._events if begin <= event.time <= window.until]
        return HistoryWindow(window.until, window.period_s, window.values, tuple(events[-_MOST_TOLD:]), self._moments.since)

    def moment(self, at: float) -> Moment | None:
        """How everything stood then; None for a time before the first moment that is kept."""
        snapshot = self._moments.at(at)
        if snapshot is None:
            return None
        return Moment(snapshot.time, msgspec.structs.replace(snapshot, log=()), self._log_until(at))

    @property
    def since(self) -> float | None:
        return self._moments.since

    @property
    def size_bytes(self) -> int:
        """Of the packed moments; the series are of a fixed size."""
        return self._moments.size_bytes
