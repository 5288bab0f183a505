"""What the commands about settings do to the engine. A trial that nobody confirms ends here, whoever began it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..link import CommandName
from ..settings import describe
from ..telemetry import TrialSnapshot
from ..training.supervisor import WorkerUnavailable
from .desk import WORKER_GROUPS, Outcome

if TYPE_CHECKING:
    from .commands import Handler
    from .engine import Engine

logger = logging.getLogger(__name__)

Answer = tuple[bool, str, Any]


class SettingsCommands:
    """One save at a time: the second must see what the first has written."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one_save = asyncio.Lock()
        self._deadline = 0.0
        self._ending: asyncio.Task[None] | None = None

    def table(self) -> dict[CommandName, Handler]:
        return {
            CommandName.SETTINGS_DESCRIBE: self._describe,
            CommandName.SETTINGS_VALIDATE: self._validate,
            CommandName.SETTINGS_PREVIEW: self._preview,
            CommandName.SETTINGS_SAVE: self._save,
            CommandName.SETTINGS_CONFIRM: self._confirm,
            CommandName.SETTINGS_ROLLBACK: self._roll_back,
            CommandName.SETTINGS_UNDO: self._undo,
            CommandName.SETTINGS_TEXT: self._text,
            CommandName.SETTINGS_WRITE: self._write,
        }

    def trial(self) -> TrialSnapshot | None:
        """What is on trial, with the time that is left."""
        trial = self._engine.desk.trial
        if trial is None:
            return None
        return TrialSnapshot(trial.id, max(0.0, self._deadline - self._engine.clock.monotonic()), trial.names)

    async def close(self) -> None:
        """The engine ends: a trial that is not over ends with it, and undone."""
        task, self._ending = self._ending, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with self._one_save:
            await asyncio.to_thread(self._engine.desk.close)

    async def _describe(self) -> Answer:
        return True, "", plain(self._engine.desk.form())

    async def _validate(self, values: dict[str, str | None]) -> Answer:
        return True, "", plain(self._engine.desk.check(values))

    async def _preview(self, values: dict[str, str | None]) -> Answer:
        return True, "", plain(await asyncio.to_thread(self._engine.desk.preview, values))

    async def _text(self) -> Answer:
        return True, "", plain(await asyncio.to_thread(self._engine.desk.text))

    async def _save(self, values: dict[str, str | None], revision: str) -> Answer:
        return await self._change(lambda: self._engine.desk.save(values, revision), "saved")

    async def _write(self, text: str, revision: str) -> Answer:
        return await self._change(lambda: self._engine.desk.write(text, revision), "written")

    async def _undo(self) -> Answer:
        return await self._change(self._engine.desk.undo, "undone")

    async def _confirm(self, save: int) -> Answer:
        async with self._one_save:
            trial = self._engine.desk.trial
            if trial is None or trial.id != save:
                return False, "these settings are not on trial any more", None
            await asyncio.to_thread(self._engine.desk.confirm)
            self._end_countdown()
        return True, f"kept: {', '.join(trial.names)}", None

    async def _roll_back(self, save: int) -> Answer:
        trial = self._engine.desk.trial
        if trial is None or trial.id != save:
            return False, "these settings are not on trial any more", None
        return await self._change(self._engine.desk.roll_back, "undone")

    async def _change(self, change: Callable[[], Outcome], word: str) -> Answer:
        """Carry out one change of the file and bring the engine up to it."""
        async with self._one_save:
            before = self._engine.desk.trial
            # In a thread: several calls of fsync, 24 ms on a good disk, are not the event loop's to wait for.
            result, changed = await asyncio.to_thread(change)
            if not result.saved:
                return False, result.problems[0].message if result.problems else "nothing was written", plain(result)
            done = await self._apply(changed)
            trial = self._engine.desk.trial
            if trial is None:
                self._end_countdown()
            elif trial is not before:
                self._deadline = self._engine.clock.monotonic() + trial.limit_s
                self._ending = asyncio.create_task(self._end_unless_confirmed(trial.id, trial.limit_s), name="settings-trial")
        result = msgspec.structs.replace(result, applied=result.applied | done)
        return True, word, plain(result)

    async def _end_unless_confirmed(self, number: int, limit_s: float) -> None:
        await self._engine.clock.sleep(limit_s)
        self._ending = None
        if self._engine.desk.trial is None:
            return
        done, message, _ = await self._roll_back(number)
        if done:
            logger.warning("the settings on trial were not confirmed within %g s and are undone", limit_s)
        else:
            logger.warning("the settings on trial could not be undone: %s", message)

    def _end_countdown(self) -> None:
        task, self._ending = self._ending, None
        if task is not None:
            task.cancel()

    async def _apply(self, changed: frozenset[str]) -> dict[str, str]:
        """Bring the running engine up to the settings in force; returns what was done, where only doing it could tell."""
        if "LOG_LEVEL" in changed:
            self._engine.apply_log_level()
        done: dict[str, str] = {}
        of_stream = [name for name in changed if describe(name).applies == "reconnect"]
        if of_stream:
            done |= dict.fromkeys(of_stream, self._engine.apply_stream_settings())
        of_worker = [name for name in changed if describe(name).group in WORKER_GROUPS]
        if of_worker:
            try:
                done |= dict.fromkeys(of_worker, await self._engine.apply_worker_settings())
            except WorkerUnavailable as error:  # saved they are all the same
                done |= dict.fromkeys(of_worker, f"saved; {error}")
        return done


def plain(value: Any) -> Any:
    """As it comes out at the other end of a socket, lists for tuples and all, so that a LocalLink gives the same."""
    return msgspec.json.decode(msgspec.json.encode(value))
