"""The protocol between supervisor and worker, over a Unix stream socket. Free of torch.

Frames are a 4-byte big-endian length and a msgpack body. The worker says `Hello` with the token from its environment, the
supervisor answers `Start`; after that the worker reports and the supervisor steers. Every `Control` is answered by one `Ack` with
its id.
`Metrics` may be lost when nobody reads (they are counted in `dropped`); everything else arrives or the connection ends. Both
ends are the same release, so the worker's messages are packed as arrays, without names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from ..telemetry import Severity, TrainingState
from .config import WorkerConfig

TOKEN_VARIABLE = "QUANTAI_WORKER_TOKEN"
MAX_FRAME_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")


class ControlKind(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    RESET_SCALER = "reset_scaler"
    CHECKPOINT = "checkpoint"  # save one now
    SETTINGS = "settings"  # take over the live fields of `config`


class Start(msgspec.Struct, frozen=True, tag="start"):
    config: WorkerConfig
    paused: bool = False  # come up paused: the operator paused a worker that has died since


class Control(msgspec.Struct, frozen=True, tag="control"):
    id: int
    kind: ControlKind
    config: WorkerConfig | None = None


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    pid: int
    token: str


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    """Torch is loaded, the model built: what does not change from step to step. Scales are None where nothing is scaled."""

    device: str
    precision: str
    reason: str
    parameters: int
    scale_floor: float | None
    scale_cap: float | None
    growth_interval: int | None
    planted: str


class Metrics(msgspec.Struct, frozen=True, tag="m", array_like=True):
    """The recent past, packed. `overflows`, `scale_max` and `loss` are about the steps since the last Metrics that was sent:
    how many of them were skipped, the largest scale, the mean of the finite losses (without any, the mean before). Everything
    else is the present state.
    """

    state: TrainingState
    detail: str = ""
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    steps_per_epoch: int = 0
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    samples_per_s: float | None = None
    scale: float | None = None
    scale_max: float | None = None
    scale_max_seen: float | None = None
    growth_tracker: int | None = None
    scale_growth_rate: float | None = None
    overflows: int = 0
    overflow_count: int | None = None
    overflow_rate: float | None = None
    consecutive_overflow: int | None = None
    resets: int | None = None
    nonfinite_loss: int = 0
    dropped: int = 0  # Metrics lost since the worker's start because nobody read
    headroom_octaves: float | None = None  # between the scale and the one at which the largest recent gradient would overflow
    paused_because: str = ""  # why training has paused by itself: what was seen, and what to try
    underflow_share: float | None = None  # of the gradient elements, those that fp16 flushes to zero at this scale; 0 to 1
    epoch_eta_s: float | None = None  # at the pace of the last seconds
    memory_bytes: int | None = None  # resident, of this process
    processor_temperature_c: float | None = None  # of the hottest on this machine


class EpochDone(msgspec.Struct, frozen=True, tag="epoch", array_like=True):
    epoch: int
    accuracy: float
    majority_accuracy: float
    persistence_accuracy: float
    validation_samples: int
    data_bars: int
    data_through_time: float
    logistic_accuracy: float | None = None  # a logistic regression on the same windows
    log_loss: float | None = None  # nats per sample
    baseline_log_loss: float | None = None  # of the best of the baselines
    calibration_error: float | None = None  # expected calibration error, 0 to 1
    better_p: float | None = None  # the chance to be so much better than the best baseline by luck


class Event(msgspec.Struct, frozen=True, tag="event", array_like=True):
    level: Severity
    text: str


class Overflowed(msgspec.Struct, frozen=True, tag="overflow", array_like=True):
    """One overflow, explained: `cause` is a Cause, `culprits` the first parameters whose gradient was not finite."""

    step: int
    cause: str
    culprits: tuple[str, ...]
    text: str  # one line for the operator
    count: int = 1  # how many it stands for: in a storm not every one is looked at


class Saved(msgspec.Struct, frozen=True, tag="saved", array_like=True):
    """A checkpoint has been written, or found at the start (`resumed`)."""

    path: str
    step: int
    time: float  # Unix seconds
    best: bool = False
    resumed: bool = False
    epochs_done: int = 0


class RankReport(msgspec.Struct, frozen=True, tag="rank", array_like=True):
    """One process of several: the mean time of its recent steps, and how many of its own gradients overflowed so far."""

    rank: int
    host: str
    pid: int
    device: str
    step: int
    step_ms: float | None
    overflow_count: int


class Ranks(msgspec.Struct, frozen=True, tag="ranks", array_like=True):
    ranks: tuple[RankReport, ...]


class Ack(msgspec.Struct, frozen=True, tag="ack", array_like=True):
    """The answer to one Control: done or not, and one line that says what happened or why not."""

    id: int
    ok: bool
    text: str


class Finished(msgspec.Struct, frozen=True, tag="finished", array_like=True):
    """The configured number of epochs is done; the worker leaves."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """The worker leaves because of an error; its traceback is in the log. `lasting`: another start would fail the same way."""

    reason: str
    lasting: bool = False


SupervisorMessage = Start | Control
WorkerMessage = Hello | Ready | Metrics | EpochDone | Event | Overflowed | Saved | Ranks | Ack | Finished | Failed

_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: msgspec.Struct) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into message bodies. Raises ValueError at a frame over MAX_FRAME_BYTES: the other side is not ours."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes on the worker socket, at most {MAX_FRAME_BYTES} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
