"""What a pane is given: the newest snapshot, how fresh it is, and how the link stands."""

from __future__ import annotations

from dataclasses import dataclass

from ..link.base import EngineLink, LinkState
from ..telemetry import Clock, EngineSnapshot, SeriesSnapshot, StreamState, TrainingState

_STREAM_OFF = (StreamState.IDLE, StreamState.STOPPED, StreamState.FAILED)
_TRAINING_ON = (TrainingState.TRAINING, TrainingState.WAITING, TrainingState.STARTING, TrainingState.RESTARTING)
_EMPTY_SERIES = SeriesSnapshot(1.0)


@dataclass(frozen=True, slots=True)
class Chart:
    """What a sparkline draws: samples `period_s` seconds apart, oldest first, None where nothing was known.

    `until` is the Unix time of the newest sample, `cursor` that of the time cursor, where there is one.
    """

    values: tuple[float | None, ...] = ()
    period_s: float = 1.0
    until: float = 0.0
    cursor: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The line above the keys: what the last key did."""

    text: str = ""
    token: str = "muted"


@dataclass(frozen=True, slots=True)
class View:
    """One moment as the dashboard shows it. `snapshot` is None until an engine has sent one."""

    snapshot: EngineSnapshot | None
    link: LinkState
    detail: str = ""
    name: str = ""
    age_s: float | None = None
    stale: bool = False
    now: float = 0.0
    waited_s: float = 0.0
    status: Status = Status()

    @property
    def shape(self) -> tuple[object, ...]:
        """What must reach the screen at once; everything else waits for the next second."""
        snapshot = self.snapshot
        if snapshot is None:
            return (self.link, self.detail, self.stale, self.status)
        alerts = tuple(alert.key for alert in snapshot.alerts)
        trial = snapshot.trial.id if snapshot.trial is not None else 0
        states = (snapshot.stream.state, snapshot.training.state, snapshot.finished, alerts, trial)
        return (self.link, self.detail, self.stale, self.status, states)

    @property
    def broken(self) -> bool:
        """The engine is not there and will not come by itself."""
        return self.link in (LinkState.FAILED, LinkState.REFUSED)

    @property
    def stream_is_off(self) -> bool:
        """Whether the stream would have to be connected: it is neither up nor on its way."""
        return self.snapshot is not None and self.snapshot.stream.state in _STREAM_OFF

    @property
    def training_is_on(self) -> bool:
        return self.snapshot is not None and self.snapshot.training.state in _TRAINING_ON

    def chart(self, name: str) -> Chart:
        if self.snapshot is None:
            return Chart()
        series = self.snapshot.series.get(name, _EMPTY_SERIES)
        return Chart(series.values, series.period_s, self.snapshot.time)


def look(link: EngineLink, clock: Clock, started: float, stale_after_s: float, status: Status) -> View:
    """Sample the link. `started` is the monotonic moment at which the dashboard began to wait for it."""
    age = link.snapshot_age_s
    snapshot = link.snapshot
    stale = snapshot is not None and (link.state is not LinkState.ATTACHED or (age is not None and age > stale_after_s))
    return View(
        snapshot=snapshot,
        link=link.state,
        detail=link.detail,
        name=link.engine_name or (snapshot.name if snapshot else ""),
        age_s=age,
        stale=stale,
        now=clock.time(),
        waited_s=clock.monotonic() - started,
        status=status,
    )
