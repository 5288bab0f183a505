"""The protocol between engine and dashboards: every message that may cross the socket, and its version.

Frames are a 4-byte big-endian length and a msgpack body. A client says `Hello`; the engine answers `Welcome`, or `Refused` when
the versions differ. After `Watch` the engine sends a `Sample` every period, always the newest, and never queues more than one per
client. Each `Command` is answered by exactly one `Ack` with its id.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from ..telemetry import EngineSnapshot
from ..telemetry.happenings import Happening

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 4 * 1024 * 1024


class CommandName(StrEnum):
    """What a dashboard may ask of an engine. Arguments are keyword arguments of plain types."""

    RECONNECT = "reconnect"  # skip the backoff, or drop the present connection and dial again
    DISCONNECT = "disconnect"
    CONNECT = "connect"
    ROTATE = "rotate"  # replace the connection by a fresh one, without a break in the data
    RESET_BACKOFF = "reset"  # forget the failed attempts
    FAULT = "fault"  # demo and replay: kind=..., and the parameters of that kind -> played by the embedded exchange
    FAULT_LIST = "fault_list"  # -> Ack.data: list of FaultOffer as builtins
    TRAIN_START = "train_start"  # start or resume
    TRAIN_PAUSE = "train_pause"
    SCALER_RESET = "scaler_reset"
    CHECKPOINT = "checkpoint"  # have the worker save one now
    SETTINGS_DESCRIBE = "settings_describe"  # -> Ack.data: SettingsForm as builtins
    SETTINGS_VALIDATE = "settings_validate"  # values={NAME: text} -> Ack.data: list of SettingProblem
    SETTINGS_SAVE = "settings_save"  # values={NAME: text}, revision=... -> Ack.data: SaveResult
    SETTINGS_PREVIEW = "settings_preview"  # values={NAME: text} -> Ack.data: SettingsPreview; nothing is written
    SETTINGS_CONFIRM = "settings_confirm"  # save=id -> keep what was saved on trial
    SETTINGS_ROLLBACK = "settings_rollback"  # save=id -> undo it now -> Ack.data: SaveResult
    SETTINGS_UNDO = "settings_undo"  # undo the newest save that is not undone yet -> Ack.data: SaveResult
    SETTINGS_TEXT = "settings_text"  # -> Ack.data: SettingsText, the raw file
    SETTINGS_WRITE = "settings_write"  # text=..., revision=... -> Ack.data: SaveResult
    HISTORY = "history"  # names=[...], span_s=..., points=..., until=<Unix s, or None for now> -> Ack.data: HistoryWindow
    MOMENT = "moment"  # at=<Unix s> -> Ack.data: Moment, the newest that is not after it
    ALERT_ACK = "alert_ack"  # key=..., "" for all that stand: seen, and no longer pressed upon the operator
    RECORD_START = "record_start"  # max_mb=... (WS_RECORD_MAX_MB) -> Ack.data: RecordingSnapshot as builtins
    RECORD_STOP = "record_stop"  # -> Ack.data: RecordingSnapshot
    STOP = "stop"  # stop the engine itself


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    version: int
    client: str


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    version: int
    name: str
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    period_s: float


class Sample(msgspec.Struct, frozen=True, tag="sample"):
    snapshot: EngineSnapshot


class Command(msgspec.Struct, frozen=True, tag="command"):
    id: int
    name: CommandName
    args: dict[str, Any] = {}


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """The answer to one command: done or not, and one line that says what happened or why not."""

    id: int
    ok: bool
    message: str = ""
    data: Any = None


class FaultOffer(msgspec.Struct, frozen=True):
    """A kind of fault that the embedded exchange can play, and what happens then in a few words."""

    kind: str
    text: str


ClientMessage = Hello | Watch | Command
EngineMessage = Welcome | Refused | Sample | Ack


class SettingField(msgspec.Struct, frozen=True):
    """One setting as the editor shows it. `value` and `default` are text as it would stand in a file."""

    name: str
    title: str
    description: str
    group: str
    unit: str
    rule: str  # the allowed range in words
    kind: str  # "bool", "int", "float", "text", "list", "choice"
    choices: tuple[str, ...]
    applies: str  # "live", "reconnect" or "restart"
    value: str
    default: str
    source: str  # where the present value comes from, in words
    locked: str = ""  # not empty: a stronger source fixes it, and this says which


class SettingsForm(msgspec.Struct, frozen=True):
    path: str  # the file that saving writes
    revision: str  # fingerprint of that file as the engine read it; saving quotes it
    fields: tuple[SettingField, ...]


class SettingProblem(msgspec.Struct, frozen=True):
    name: str
    message: str


class SaveResult(msgspec.Struct, frozen=True):
    """What came of a save. On a conflict nothing is written and both texts are shown."""

    saved: bool
    problems: tuple[SettingProblem, ...] = ()
    applied: dict[str, str] = {}  # NAME -> what was done: "live now", "stream reconnects", "at the next start"
    conflict_text: str = ""  # the file as it is on disk now
    proposed_text: str = ""  # the file as it would have been written
    trial_id: int = 0  # not 0: undone by itself unless SETTINGS_CONFIRM names it in time
    trial_s: float = 0.0  # seconds left for that


class SettingChange(msgspec.Struct, frozen=True):
    """One change that a save would make: the text in force now and after it, and what it does to the running engine."""

    name: str
    old: str
    new: str
    effect: str  # "live now", "stream reconnects", "worker takes it over", "at the next start"


class SettingsPreview(msgspec.Struct, frozen=True):
    """What a save would do. `diff` is of the file, a line each: "+ new", "- old", "  as it is"; secrets masked."""

    problems: tuple[SettingProblem, ...] = ()
    changes: tuple[SettingChange, ...] = ()
    diff: tuple[str, ...] = ()
    on_trial: bool = False  # it touches stream or worker: undone by itself unless confirmed


class SettingsText(msgspec.Struct, frozen=True):
    """The settings file as it is on the engine's machine; empty where there is none."""

    path: str
    text: str
    revision: str


class HistoryWindow(msgspec.Struct, frozen=True):
    """Series over a stretch of the past, `period_s` seconds a point, the newest at `until` (Unix time); None: not known."""

    until: float
    period_s: float
    series: dict[str, tuple[float | None, ...]] = {}
    events: tuple[Happening, ...] = ()  # oldest first, those within the stretch
    since: float | None = None  # where the engine's memory begins


class Moment(msgspec.Struct, frozen=True):
    """How everything stood at `time`, the newest moment kept that is not after the one asked for. The snapshot has no series."""

    time: float
    snapshot: EngineSnapshot
    log: tuple[str, ...] = ()  # the lines up to then
