"""What each command of a dashboard does to the engine, and what is answered."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..link import Ack, Command, CommandName
from ..settings import describe
from ..training.supervisor import WorkerUnavailable
from .desk import WORKER_GROUPS

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger(__name__)

Answer = tuple[bool, str, Any]


class Commands:
    """A table from command names to what they do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one_save = asyncio.Lock()  # the second of two saves must see what the first has written
        self._table: dict[CommandName, Callable[..., Awaitable[Answer]]] = {
            CommandName.RECONNECT: self._reconnect,
            CommandName.DISCONNECT: self._disconnect,
            CommandName.CONNECT: self._connect,
            CommandName.TRAIN_START: self._train_start,
            CommandName.TRAIN_PAUSE: self._train_pause,
            CommandName.SCALER_RESET: self._scaler_reset,
            CommandName.SETTINGS_DESCRIBE: self._describe,
            CommandName.SETTINGS_VALIDATE: self._validate,
            CommandName.SETTINGS_SAVE: self._save,
            CommandName.STOP: self._stop,
        }

    async def execute(self, command: Command) -> Ack:
        quiet = command.name in {CommandName.SETTINGS_DESCRIBE, CommandName.SETTINGS_VALIDATE}
        if self._engine.stop_requested and command.name is not CommandName.STOP:
            return Ack(command.id, False, "the engine is stopping")
        handler = self._table[command.name]
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

    async def _describe(self) -> Answer:
        return True, "", _plain(self._engine.desk.form())

    async def _validate(self, values: dict[str, str]) -> Answer:
        return True, "", _plain(self._engine.desk.check(values))

    async def _save(self, values: dict[str, str], revision: str) -> Answer:
        async with self._one_save:
            # In a thread: four calls of fsync, 24 ms on a good disk, are not the event loop's to wait for.
            result, changed = await asyncio.to_thread(self._engine.desk.save, values, revision)
            if not result.saved:
                return False, "nothing was written", _plain(result)
            done = await self._apply(changed)
        return True, "saved", _plain(msgspec.structs.replace(result, applied=result.applied | done))

    async def _apply(self, changed: frozenset[str]) -> dict[str, str]:
        """Bring the running engine up to the saved settings; returns what was done, where only doing it could tell."""
        if "LOG_LEVEL" in changed:
            self._engine.apply_log_level()
        done: dict[str, str] = {}
        of_stream = [name for name in changed if describe(name).applies == "reconnect"]
        if of_stream:
            done |= dict.fromkeys(of_stream, self._engine.apply_stream_settings())
        of_worker = [name for name in changed if describe(name).group in WORKER_GROUPS]
        if of_worker:
            done |= dict.fromkeys(of_worker, await self._engine.apply_worker_settings())
        return done

    async def _stop(self) -> Answer:
        self._engine.request_stop()
        return True, "the engine stops", None


def _plain(value: Any) -> Any:
    """As it comes out at the other end of a socket, lists for tuples and all, so that a LocalLink gives the same."""
    return msgspec.json.decode(msgspec.json.encode(value))
