"""What a pane is given: the newest snapshot, how fresh it is, and how the link stands."""

from __future__ import annotations

from msgspec import Struct

from ..link.base import EngineLink, LinkState
from ..link.messages import HistoryWindow
from ..telemetry import Alert, Clock, EngineSnapshot, SeriesSnapshot, StreamState, TrainingState
from .cells import Pace
from .log_filter import LogFilter

ALL_PACES = frozenset(Pace)

_STREAM_OFF = (StreamState.IDLE, StreamState.STOPPED, StreamState.FAILED)
_STREAM_DOWN = (StreamState.BACKOFF, StreamState.COOLING_DOWN, StreamState.FAILED)
_STREAM_DIALLING = (StreamState.CONNECTING, StreamState.HANDSHAKING, StreamState.SUBSCRIBING)
_TRAINING_ON = (TrainingState.TRAINING, TrainingState.WAITING, TrainingState.STARTING, TrainingState.RESTARTING)
_EMPTY_SERIES = SeriesSnapshot(1.0)


class Chart(Struct, frozen=True):
    """What a sparkline draws: samples `period_s` seconds apart, oldest first, None where nothing was known.

    `until` is the Unix time of the newest sample, `cursor` that of the time cursor, where there is one.
    """

    values: tuple[float | None, ...] = ()
    period_s: float = 1.0
    until: float = 0.0
    cursor: float | None = None


class Status(Struct, frozen=True):
    """The line above the keys: what the last key did."""

    text: str = ""
    token: str = "muted"


class OverAlert(Struct, frozen=True):
    """An alert that does not stand any more, and when it ended (Unix time)."""

    alert: Alert
    ended: float


class Past(Struct, frozen=True):
    """How what is shown differs from the present. Times are Unix seconds.

    `cursor` is where the time cursor stands, `moment` the moment that is shown for it, `waiting` whether another is on its way.
    `span` names the stretch of the charts where it is not the usual one.
    """

    cursor: float | None = None
    moment: float | None = None
    ago_s: float = 0.0
    waiting: bool = False
    span: str = ""
    frozen_s: float | None = None
    changes: int = 0


class View(Struct, frozen=True):
    """One moment as the dashboard shows it. `snapshot` is None until an engine has sent one.

    `now` is the time that ages count from, that of the moment shown; `clock` is the time at the operator's wall. `line` tells of
    a slow terminal. `due`: the paces of the rows that are taken from it; what else is drawn may be left empty.
    """

    snapshot: EngineSnapshot | None
    link: LinkState
    detail: str = ""
    name: str = ""
    age_s: float | None = None
    stale: bool = False
    now: float = 0.0
    waited_s: float = 0.0
    status: Status = Status()
    clock: float = 0.0
    line: str = ""
    charts: HistoryWindow | None = None
    past: Past | None = None
    log: tuple[str, ...] = ()  # as far back as this dashboard has seen it
    log_filter: LogFilter | None = None
    over: tuple[OverAlert, ...] = ()
    due: frozenset[Pace] = ALL_PACES

    @property
    def log_lines(self) -> tuple[str, ...]:
        """Of the moment that is shown."""
        if self.snapshot is None:
            return ()
        return self.log if self.log and (self.past is None or self.past.moment is None) else self.snapshot.log

    @property
    def shape(self) -> tuple[object, ...]:
        """What must reach the screen at once; everything else waits for the next second."""
        snapshot = self.snapshot
        if snapshot is None:
            return (self.link, self.detail, self.stale, self.status, self.line)
        alerts = tuple((alert.key, alert.acknowledged) for alert in snapshot.alerts)
        trial = snapshot.trial.id if snapshot.trial is not None else 0
        states = (snapshot.stream.state, snapshot.training.state, snapshot.finished, alerts, trial)
        past = self.past and (self.past.cursor, self.past.moment, self.past.waiting, self.past.span, self.past.frozen_s is None)
        chosen = self.log_filter and self.log_filter.text
        return (self.link, self.detail, self.stale, self.status, states, past, chosen, self.line)

    @property
    def broken(self) -> bool:
        """The engine is not there and will not come by itself."""
        return self.link in (LinkState.FAILED, LinkState.REFUSED)

    @property
    def stream_is_off(self) -> bool:
        """Whether the stream would have to be connected: it is neither up nor on its way."""
        return self.snapshot is not None and self.snapshot.stream.state in _STREAM_OFF

    @property
    def stream_is_down(self) -> bool:
        """Whether it has lost its connection, or may not have one. It stays so from one failed dial to the next."""
        if self.snapshot is None:
            return False
        stream = self.snapshot.stream
        return (
            stream.state in _STREAM_DOWN or stream.banned_for_s > 0 or (stream.state in _STREAM_DIALLING and stream.attempt > 0)
        )

    @property
    def training_is_on(self) -> bool:
        return self.snapshot is not None and self.snapshot.training.state in _TRAINING_ON

    def chart(self, name: str) -> Chart:
        if self.snapshot is None:
            return Chart()
        cursor = self.past.cursor if self.past is not None else None
        if self.charts is not None:
            return Chart(self.charts.series.get(name, ()), self.charts.period_s, self.charts.until, cursor)
        series = self.snapshot.series.get(name, _EMPTY_SERIES)
        return Chart(series.values, series.period_s, self.snapshot.time, cursor)


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
        now=(wall := clock.time()),
        clock=wall,
        waited_s=clock.monotonic() - started,
        status=status,
    )
