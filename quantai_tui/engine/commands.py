"""What each command of a dashboard does to the engine, and what is answered."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..link import Ack, Command, CommandName
from ..stream.recording_file import RecordingError
from ..telemetry import StreamState
from ..training.supervisor import WorkerUnavailable
from .exchange_child import ExchangeFailed
from .places import PlaceError
from .settings_commands import SettingsCommands, plain

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger(__name__)

Answer = tuple[bool, str, Any]
Handler = Callable[..., Awaitable[Answer]]

_QUESTIONS = frozenset(
    {
        CommandName.SETTINGS_DESCRIBE,
        CommandName.SETTINGS_VALIDATE,
        CommandName.SETTINGS_PREVIEW,
        CommandName.SETTINGS_TEXT,
        CommandName.FAULT_LIST,
        CommandName.HISTORY,
        CommandName.MOMENT,
    }
)
_UP = frozenset({StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING})
_NOTHING_TO_BREAK = "faults are played by the embedded exchange only, and this engine listens to none"


class Commands:
    """A table from command names to what they do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.settings = SettingsCommands(engine)
        self._table: dict[CommandName, Handler] = {
            **self.settings.table(),
            CommandName.RECONNECT: self._reconnect,
            CommandName.DISCONNECT: self._disconnect,
            CommandName.CONNECT: self._connect,
            CommandName.ROTATE: self._rotate,
            CommandName.RESET_BACKOFF: self._reset_backoff,
            CommandName.FAULT: self._fault,
            CommandName.FAULT_LIST: self._fault_list,
            CommandName.TRAIN_START: self._train_start,
            CommandName.TRAIN_PAUSE: self._train_pause,
            CommandName.SCALER_RESET: self._scaler_reset,
            CommandName.CHECKPOINT: self._checkpoint,
            CommandName.HISTORY: self._history,
            CommandName.MOMENT: self._moment,
            CommandName.ALERT_ACK: self._acknowledge,
            CommandName.RECORD_START: self._record_start,
            CommandName.RECORD_STOP: self._record_stop,
            CommandName.STOP: self._stop,
        }

    async def execute(self, command: Command) -> Ack:
        quiet = command.name in _QUESTIONS
        if self._engine.stop_requested and command.name is not CommandName.STOP:
            return Ack(command.id, False, "the engine is stopping")
        handler = self._table.get(command.name)
        if handler is None:
            return Ack(command.id, False, f"this engine does not know {command.name.value}")
        try:
            inspect.signature(handler).bind(**command.args)
        except TypeError as error:
            logger.warning("command %s with arguments it does not take: %s", command.name.value, error)
            return Ack(command.id, False, f"{command.name.value} does not take these arguments")
        try:
            done, message, data = await handler(**command.args)
        except WorkerUnavailable as error:
            return Ack(command.id, False, str(error))
        except Exception as error:
            logger.exception("command %s failed", command.name.value)
            return Ack(command.id, False, f"failed: {error} (see the engine's log)")
        if not quiet:
            logger.info("command %s: %s", command.name.value, message)
        return Ack(command.id, done, message, data)

    async def _reconnect(self) -> Answer:
        return True, self._engine.stream.reconnect_now(), None

    async def _disconnect(self) -> Answer:
        return True, self._engine.stream.disconnect(), None

    async def _connect(self) -> Answer:
        return True, self._engine.stream.connect(), None

    async def _rotate(self) -> Answer:
        stream = self._engine.stream
        return stream.state in _UP, stream.rotate(), None

    async def _reset_backoff(self) -> Answer:
        return True, self._engine.stream.reset(), None

    async def _fault(self, kind: str, **parameters: Any) -> Answer:
        exchange = self._engine.exchange
        if exchange is None:
            return False, _NOTHING_TO_BREAK, None
        try:
            return True, await exchange.inject({"kind": kind, **parameters}), None
        except ExchangeFailed as error:
            return False, str(error), None

    async def _fault_list(self) -> Answer:
        exchange = self._engine.exchange
        if exchange is None:
            return False, _NOTHING_TO_BREAK, None
        if not exchange.faults:
            return False, "this exchange was not started to be broken: faults are for the demo", None
        return True, "", plain(exchange.faults)

    async def _train_start(self) -> Answer:
        training = self._engine.training
        if training.running:
            return True, await training.resume(), None
        await training.start()
        return True, "training starts", None

    async def _train_pause(self) -> Answer:
        return True, await self._engine.training.pause(), None

    async def _scaler_reset(self) -> Answer:
        return True, await self._engine.training.reset_scaler(), None

    async def _checkpoint(self) -> Answer:
        return True, await self._engine.training.checkpoint(), None

    async def _history(self, names: list[str], span_s: float, points: int, until: float | None = None) -> Answer:
        now = self._engine.clock.time()
        try:
            window = self._engine.vitals.chronicle.window(names, span_s, points, now if until is None else min(until, now))
        except (ValueError, TypeError, OverflowError) as error:
            return False, str(error), None
        return True, "", plain(window)

    async def _moment(self, at: float) -> Answer:
        moment = self._engine.vitals.chronicle.moment(at)
        if moment is not None:
            return True, "", plain(moment)
        since = self._engine.vitals.chronicle.since
        return False, "nothing is remembered yet" if since is None else f"the engine remembers nothing before {_utc(since)}", None

    async def _acknowledge(self, key: str = "") -> Answer:
        seen = self._engine.vitals.acknowledge(key)
        if seen:
            return True, "1 alert acknowledged" if seen == 1 else f"{seen} alerts acknowledged", None
        return False, f"no unseen alert {key!r} stands" if key else "no unseen alert stands", None

    async def _record_start(self, max_mb: float | None = None) -> Answer:
        engine = self._engine
        limit_mb = engine.desk.settings.WS_RECORD_MAX_MB if max_mb is None else max_mb
        if not 0 < limit_mb < math.inf:
            return False, f"{limit_mb:g} MB is no size to end at; give a number above 0", None
        try:
            path = await asyncio.to_thread(engine.folder.new_recording, engine.clock.time())
            engine.stream.start_recording(path, int(limit_mb * 1e6))
        except (PlaceError, RecordingError) as error:
            return False, str(error), plain(engine.stream.snapshot().recording)
        return True, f"recording into {path}, {limit_mb:g} MB at most", plain(engine.stream.snapshot().recording)

    async def _record_stop(self) -> Answer:
        stream = self._engine.stream
        before = stream.snapshot().recording
        if before is None or before.ended:
            return False, "nothing is being recorded", plain(before)
        await stream.stop_recording()
        return True, f"recorded into {before.path}", plain(stream.snapshot().recording)

    async def _stop(self) -> Answer:
        self._engine.request_stop()
        return True, "the engine stops", None


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
