"""Which engines run: a lock in each engine's folder, and an entry beside its socket by which others find it.

The lock decides. An entry whose lock is free is of a dead engine: it is passed over, and the folder's next engine removes it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from ..private_files import open_private
from ..telemetry import Clock, Mode
from ..whereabouts import Entry, is_alive, read_entry, running
from .places import EngineFolder, PlaceError, socket_folder

__all__ = [
    "AlreadyRunning",
    "Claim",
    "Entry",
    "control_socket",
    "entry_of",
    "guest_socket",
    "is_alive",
    "running",
    "worker_socket",
]

_PREDECESSOR_S = 15.0
_LOOKS, _LOOK_S = 6, 0.01


class AlreadyRunning(Exception):
    """Another engine holds this folder."""

    def __init__(self, name: str, entry: Entry | None) -> None:
        who = f" (pid {entry.pid})" if entry else ""
        super().__init__(
            f"{name} is running already{who}: see it with 'quantai-tui attach {name}', end it with 'quantai-tui stop {name}'"
        )
        self.entry = entry


class Claim:
    """The sole right to one engine folder, from `take` until `release` or the end of the process."""

    def __init__(self, folder: EngineFolder, handle: int) -> None:
        self._folder = folder
        self._handle: int | None = handle
        self._loss = ""
        self._published: Entry | None = None

    @classmethod
    def take(cls, folder: EngineFolder) -> Claim:
        """Raises AlreadyRunning, or PlaceError."""
        try:
            handle = open_private(folder.lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise PlaceError(f"{folder.lock} cannot be opened: {error.strerror or error}. Give another DATA_DIR.") from error
        try:
            _lock(handle)
        except BlockingIOError:
            os.close(handle)
            raise AlreadyRunning(folder.name, read_entry(_entry_path(folder))) from None
        except OSError as error:
            os.close(handle)
            raise PlaceError(f"{folder.lock} cannot be locked: {error.strerror or error}. Give another DATA_DIR.") from error
        _entry_path(folder).unlink(missing_ok=True)  # of an engine that was killed: its pid may be somebody else's by now
        return cls(folder, handle)

    @classmethod
    async def take_when_free(cls, folder: EngineFolder, clock: Clock) -> Claim:
        """The same, and a claim that is held but not announced is waited for: it is of an engine about to stop."""
        deadline = clock.monotonic() + _PREDECESSOR_S
        while True:
            try:
                return cls.take(folder)
            except AlreadyRunning as error:
                if error.entry is not None or clock.monotonic() >= deadline:
                    raise
            await clock.sleep(0.1)

    def publish(self, entry: Entry) -> None:
        """Let `ps`, `attach` and `stop` find this engine."""
        path = _entry_path(self._folder)
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb", opener=open_private) as file:
            file.write(msgspec.json.encode(entry))
        temporary.replace(path)
        self._published = entry

    def withdraw(self) -> None:
        """Nobody should find this engine any longer: it is about to stop."""
        path = _entry_path(self._folder)
        # If the folder was removed while this engine ran, another engine may be registered under the same name.
        if self._published is not None and read_entry(path) == self._published:
            path.unlink(missing_ok=True)
        self._published = None

    @property
    def loss(self) -> str:
        """Why the claim is lost: the folder or its lock was removed or replaced, so another engine may start. Empty otherwise."""
        if self._handle is not None and not self._loss:
            try:
                same = os.path.samestat(os.fstat(self._handle), self._folder.lock.stat())
            except (FileNotFoundError, NotADirectoryError):
                same = False
            except OSError:
                same = True  # the store reports a disk that does not answer
            if not same:
                self._loss = (
                    f"the data folder {self._folder.path} (or the file lock in it) was removed or replaced while the engine ran; "
                    "start it again to fetch what the venue still has"
                )
        return self._loss

    def release(self) -> None:
        self.withdraw()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _lock(handle: int) -> None:
    """Raises BlockingIOError when the lock is taken, by another engine or for a moment by a process that tests it."""
    for _ in range(_LOOKS - 1):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
    return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def control_socket(folder: EngineFolder) -> Path:
    return socket_folder() / f"{folder.key}.sock"


def worker_socket(folder: EngineFolder) -> Path:
    return socket_folder() / f"{folder.key}.worker"


def guest_socket(folder: EngineFolder) -> Path:
    """Where training scripts of the user report to: see `training.guests`."""
    return socket_folder() / f"{folder.key}.guests"


def entry_of(folder: EngineFolder, mode: Mode, started: float) -> Entry:
    """Of this process, as the engine of `folder`. `started` is Unix time."""
    return Entry(
        name=folder.name,
        mode=mode.value,
        pid=os.getpid(),
        socket=str(control_socket(folder)),
        folder=str(folder.path),
        log=str(folder.log),
        started=started,
        guests=str(guest_socket(folder)),
    )


def _entry_path(folder: EngineFolder) -> Path:
    return socket_folder() / f"{folder.key}.json"
