"""All public state, as frozen, serialisable values with units in the field names.

`None` means "not known yet" and is shown as such; it is never replaced by zero. Fields may be added, never renamed:
`SNAPSHOT_VERSION` rises when the meaning of a field changes. Times are Unix seconds in UTC, durations and ages are seconds
taken from a monotonic clock, rates are 0 to 1.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .series import SeriesSnapshot

SNAPSHOT_VERSION = 1


class StreamState(StrEnum):
    """States of the market-data stream; `LIVE` alone means that data is flowing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    STALLED = "stalled"
    ROTATING = "rotating"
    BACKOFF = "backoff"
    COOLING_DOWN = "cooling_down"
    FAILED = "failed"
    STOPPED = "stopped"


class TrainingState(StrEnum):
    """States of the training worker as its supervisor sees them."""

    IDLE = "idle"
    STARTING = "starting"
    WAITING = "waiting"  # the worker is up and there are too few bars yet
    TRAINING = "training"
    PAUSED = "paused"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class Mode(StrEnum):
    """Where the market data comes from."""

    LIVE = "live"
    DEMO = "demo"
    REPLAY = "replay"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class RttSnapshot(msgspec.Struct, frozen=True):
    """Round-trip time of our own pings in milliseconds, over the last pings of this connection."""

    last: float | None = None
    min: float | None = None
    p50: float | None = None
    p95: float | None = None
    ewma: float | None = None
    missed: int = 0


class ErrorSnapshot(msgspec.Struct, frozen=True):
    """The last failure: its `WebSocketErrorType` value, its finer kind, what happened, and what the operator can do."""

    type: str
    message: str
    advice: str
    kind: str = ""
    time: float = 0.0


class ReconnectSnapshot(msgspec.Struct, frozen=True):
    """One entry of the reconnect history."""

    time: float
    attempt: int
    success: bool
    error_type: str | None
    error_message: str | None
    delay_s: float
    connection_duration_s: float | None


class GapSnapshot(msgspec.Struct, frozen=True):
    """A gap that is open: its ids, why it came about, and since when (Unix time)."""

    first_id: int
    last_id: int
    cause: str
    since: float


class SymbolSnapshot(msgspec.Struct, frozen=True):
    """How far one symbol's trades are received, stored and whole.

    `missing` counts ids known to exist that have neither arrived nor been given up; `repaired` those fetched over REST;
    `venue_holes` ids the venue itself does not have; `unrecoverable` ids past what may be fetched.
    """

    last_id: int | None = None
    complete_through_id: int | None = None
    stored: int = 0
    missing: int = 0
    repaired: int = 0
    duplicates: int = 0
    venue_holes: int = 0
    unrecoverable: int = 0
    gaps: int = 0
    gap_note: str = ""  # the newest gap in words: what was missing, why, and how it ended
    price: str | None = None
    last_trade_time: float | None = None
    trades_per_s: float | None = None
    late: int = 0  # trades that came after a higher id; they were put in their place
    open_gaps: tuple[GapSnapshot, ...] = ()  # the lowest few of `gaps`
    silent_s: float | None = None  # since its last trade on the stream
    silence_limit_s: float | None = None  # from its own usual rate: beyond it the link is suspected
    subscription: str = ""  # wanted, pending, acknowledged, silent or refused
    subscription_note: str = ""  # in words, where it is not simply acknowledged
    held: int = 0  # received trades that wait for lower ids; only while the stream is iterated
    wrong_times: int = 0  # trades in quarantine because of an impossible time
    conflicts: int = 0  # trades with a known id but different content; the first one was kept
    doubtful: int = 0  # trades that wait because their ids are implausible
    implausible: int = 0  # trades in quarantine because of their ids


class BadFrame(msgspec.Struct, frozen=True):
    """A message that was not understood, or a trade in quarantine: when (Unix time), why, and its beginning or content."""

    time: float
    reason: str
    excerpt: str


class StateChangeSnapshot(msgspec.Struct, frozen=True):
    """One change of the stream's state; `time` is Unix seconds."""

    time: float
    state: StreamState
    cause: str


class RecordingSnapshot(msgspec.Struct, frozen=True):
    """A recording of the stream's raw frames under way, or the one that has just ended (`ended` says why)."""

    path: str
    size_bytes: int
    limit_bytes: int
    frames: int
    seconds: float
    ended: str = ""


class StreamSnapshot(msgspec.Struct, frozen=True):
    """The market-data stream."""

    state: StreamState = StreamState.IDLE
    state_since_s: float = 0.0
    cause: str = ""  # why it is in this state, in words
    uptime_s: float = 0.0  # of the present connection; 0 when there is none
    endpoint: str = ""
    tls_version: str | None = None
    rtt_ms: RttSnapshot = RttSnapshot()
    attempt: int = 0
    max_attempts: int = 0  # 0: unlimited
    backoff_remaining_s: float = 0.0
    backoff_total_s: float = 0.0
    messages: int = 0
    messages_per_s: float | None = None
    last_message_age_s: float | None = None
    reconnects: int = 0
    success_rate: float | None = None
    avg_delay_s: float | None = None
    attempts_total: int = 0
    error_counts: dict[str, int] = {}
    ssl_errors: int = 0
    failed_last_5min: int = 0
    last_error: ErrorSnapshot | None = None
    history: tuple[ReconnectSnapshot, ...] = ()
    repairing: bool = False
    repair_pending: int = 0  # trades known to be missing, over all symbols
    symbols: dict[str, SymbolSnapshot] = {}
    transport: str = ""
    tls_cipher: str | None = None
    tls_issuer: str | None = None
    certificate_days: float | None = None  # until the server's certificate expires
    banned_for_s: float = 0.0  # nothing may leave for so long, by the venue's word
    ban_reason: str = ""
    dials_left: int | None = None  # of the venue's budget of new connections per 5 min
    rest_weight: int | None = None  # used in this minute, by the venue's count
    rotations: int = 0  # connections replaced without a break
    rotates_in_s: float | None = None  # until the next planned one
    probes: int = 0  # second connections opened because the first was suspected
    successor: str = ""  # what a second connection is doing at the moment, in words
    consumer_lag_ms: float | None = None  # the longest that a received trade waited to be stored, lately
    loop_lag_ms: float | None = None  # the longest that the event loop was held up, lately
    paused_s: float = 0.0  # reading has been paused for so long because the store is behind
    suspends: int = 0  # times that the machine slept or its clock was set
    bad_frames: int = 0
    quarantine: tuple[BadFrame, ...] = ()  # the last of them
    changes: tuple[StateChangeSnapshot, ...] = ()  # the last changes of state, oldest first
    recording: RecordingSnapshot | None = None
    backoff_schedule_s: tuple[float, ...] = ()  # the waits to come if every dial failed, before jitter


class OverflowSnapshot(msgspec.Struct, frozen=True):
    """The overflow explained last. `culprits` are the first parameters whose gradient was not finite."""

    time: float  # Unix seconds
    step: int
    cause: str  # scale, data, target, forward or gradient
    culprits: tuple[str, ...] = ()
    text: str = ""


class CheckpointSnapshot(msgspec.Struct, frozen=True):
    """The checkpoint written last, or the one that training went on from (`resumed`)."""

    path: str
    step: int
    time: float  # Unix seconds
    resumed: bool = False


class RankSnapshot(msgspec.Struct, frozen=True):
    """One process of several that train together."""

    rank: int
    host: str
    pid: int
    device: str
    step: int
    step_ms: float | None = None  # mean of the recent steps
    overflow_count: int = 0
    straggler: bool = False  # far slower than the median of all


TOO_HOT = "too hot"  # begins the reasons of `GpuSnapshot.throttle` that are about heat


class GpuSnapshot(msgspec.Struct, frozen=True):
    """One GPU as its driver tells it. None: this driver or card does not say."""

    uuid: str
    name: str = ""
    utilisation: float | None = None  # 0 to 1
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_errors: int | None = None  # uncorrected, since the driver was loaded
    throttle: tuple[str, ...] = ()  # why the clocks are held down, in words
    used_by_worker: bool = False


class TrainingSnapshot(msgspec.Struct, frozen=True):
    """The training worker, as last heard. `age_s` is the time since its last message."""

    state: TrainingState = TrainingState.IDLE
    detail: str = ""  # in words: what it waits for, why it stopped
    age_s: float | None = None
    pid: int | None = None
    restarts: int = 0
    device: str | None = None
    precision: str | None = None
    symbol: str | None = None
    parameters: int | None = None
    epoch: int | None = None
    epochs_done: int = 0
    step: int | None = None  # optimizer steps tried since the worker's first start, skipped ones included
    epoch_step: int | None = None
    steps_per_epoch: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    samples_per_s: float | None = None
    accuracy: float | None = None  # walk-forward validation of the last whole epoch
    baseline_accuracy: float | None = None  # the better of the two below
    majority_accuracy: float | None = None
    persistence_accuracy: float | None = None
    validation_samples: int | None = None
    data_bars: int | None = None
    data_through_time: float | None = None  # close of the newest bar that the last whole epoch has seen
    scale: float | None = None
    scale_floor: float | None = None
    scale_cap: float | None = None
    scale_max_seen: float | None = None
    growth_tracker: int | None = None
    growth_interval: int | None = None
    scale_growth_rate: float | None = None  # octaves per 1,000 steps over the recent records
    overflow_count: int | None = None
    overflow_rate: float | None = None
    consecutive_overflow: int | None = None
    resets: int | None = None
    nonfinite_loss: int = 0
    planted: str = ""  # demo only: says that an overflow burst is planted, and when
    paused_because: str = ""  # why training has paused by itself: what was seen, and what to try
    reason: str = ""  # why this device and precision
    headroom_octaves: float | None = None  # between the scale and the one at which the largest recent gradient would overflow
    underflow_share: float | None = None  # of the gradient elements, those that fp16 flushes to zero at this scale; 0 to 1
    overflow_causes: dict[str, int] = {}  # cause -> how many overflows since the engine's start
    last_overflow: OverflowSnapshot | None = None
    logistic_accuracy: float | None = None  # a logistic regression on the same windows
    log_loss: float | None = None  # nats per sample, validation
    baseline_log_loss: float | None = None  # of the best of the baselines
    calibration_error: float | None = None  # expected calibration error, 0 to 1
    better_p: float | None = None  # the chance to be so much better than the best baseline by luck
    checkpoint: CheckpointSnapshot | None = None
    ranks: tuple[RankSnapshot, ...] = ()  # of several processes; empty for one
    gpus: tuple[GpuSnapshot, ...] = ()
    gpu_note: str = ""  # why there is nothing to tell of GPUs
    last_event: str = ""
    log_tail: tuple[str, ...] = ()
    epoch_eta_s: float | None = None  # until the end of the epoch, at the pace of the last seconds
    memory_bytes: int | None = None  # resident, of the worker's process
    processor_temperature_c: float | None = None  # of the hottest on the worker's machine


class StoreSnapshot(msgspec.Struct, frozen=True):
    path: str = ""
    size_bytes: int | None = None
    queued: int = 0  # trades handed over and not committed yet
    paused: bool = False  # back-pressure: the socket is read more slowly because the disk is behind
    held_by: str = ""  # description of the program that locks the store now
    prune_refused: str = ""  # description of the deletion that the last prune refused


class Alert(msgspec.Struct, frozen=True):
    key: str
    severity: Severity
    text: str
    remedy: str
    since: float  # Unix time
    acknowledged: bool = False  # an operator has seen it


class TrialSnapshot(msgspec.Struct, frozen=True):
    """Settings that were saved and are undone by themselves unless somebody confirms them."""

    id: int
    left_s: float
    names: tuple[str, ...]


class EngineSnapshot(msgspec.Struct, frozen=True):
    """Everything a dashboard may know, at one moment."""

    version: int = SNAPSHOT_VERSION
    time: float = 0.0
    name: str = ""
    mode: Mode = Mode.LIVE
    pid: int = 0
    uptime_s: float = 0.0
    note: str = ""  # one line in words: demo market, replay progress, linger warning
    replay_progress: float | None = None
    finished: bool = False  # replay only: played, stored and trained on
    stream: StreamSnapshot = StreamSnapshot()
    training: TrainingSnapshot = TrainingSnapshot()
    store: StoreSnapshot = StoreSnapshot()
    alerts: tuple[Alert, ...] = ()
    # rtt_ms, trades_per_s, scale (latest in each period), overflows (count in each period), loss
    series: dict[str, SeriesSnapshot] = {}
    log: tuple[str, ...] = ()
    theme: str = ""
    keys: tuple[str, ...] = ()  # those that the operator has moved, as action=key
    trial: TrialSnapshot | None = None
