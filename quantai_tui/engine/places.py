"""Where things lie: one folder per source of data. The folder for the sockets of running engines is in `whereabouts`."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..private_files import check_owner, make_private_folder, open_private
from ..textfile import escaped
from ..user_folders import user_folder
from ..whereabouts import PlaceError, socket_folder, state_root

__all__ = ["EngineFolder", "PlaceError", "data_root", "dials_file", "socket_folder", "state_root"]

logger = logging.getLogger(__name__)

_PROBE_BYTES = 65_536


def data_root(setting: str) -> Path:
    """DATA_DIR, or the user's data folder of this system; absolute, since others find the engine from other folders.

    Raises PlaceError for the home of a user who does not exist.
    """
    try:
        chosen = Path(setting).expanduser() if setting else user_folder("data")
    except RuntimeError as error:
        raise PlaceError(f"DATA_DIR = {setting}: {error}") from error
    return chosen.absolute()


def dials_file() -> Path:
    """The record of dials and bans. One per user: the venue counts by address, whichever engine it was. Its folder is private."""
    root = state_root()
    try:
        make_private_folder(root)
    except OSError as error:
        # The gate that uses it meets the same, tells the operator, and goes on without the record.
        logger.debug("%s: %s", root, error)
    return root / "dials.json"


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """The folder of one engine; its name is the engine's name. Made by `prepare`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def store(self) -> Path:
        return self.path / "market.sqlite3"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "engine.log"

    @property
    def worker_log(self) -> Path:
        return self.path / "worker.log"

    @property
    def exchange(self) -> Path:
        return self.path / "exchange"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def recordings(self) -> Path:
        return self.path / "recordings"

    @property
    def key(self) -> str:
        """Short and the same for the same folder: sockets are named after it, since their paths have a limit."""
        return hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12]

    def prepare(self) -> None:
        """Make the folder, private to the user, and test that it can be written.

        Raises PlaceError: no permission, a full disk, or something in it that belongs to another user.
        """
        if escaped(str(self.path)) != str(self.path):  # neither the store nor a message can name it
            raise PlaceError(f"the name of {escaped(str(self.path))} is not UTF-8 text. Give another one, or another DATA_DIR.")
        probe = self.path / f".probe-{os.getpid()}"
        try:
            make_private_folder(self.path)
            for path in self._opened_by_others():
                check_owner(path)
            try:
                with open(probe, "wb", opener=open_private) as file:
                    file.write(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            what = f"{error.filename or self.path}: {error.strerror or error}"
            raise PlaceError(f"the data folder {self.path} cannot be written: {what}. Give another one with DATA_DIR.") from error

    def _opened_by_others(self) -> Iterator[Path]:
        """Paths not opened with `open_private`: SQLite follows links, and folders are entered."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            yield self.store.with_name(self.store.name + suffix)
        yield from (self.exchange, self.checkpoints, self.recordings)

    def new_recording(self, now_s: float) -> Path:
        """A name, not in use yet, for a recording that begins at this Unix time. Raises PlaceError."""
        try:
            make_private_folder(self.recordings)
        except OSError as error:
            raise PlaceError(f"{self.recordings} cannot be made: {error.strerror or error}") from error
        stem = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        names = (f"{stem}{f'-{number}' if number else ''}.qrec" for number in itertools.count())
        return next(path for name in names if not (path := self.recordings / name).exists())

    def clear(self) -> None:
        """Delete all that is stored in it. The lock, which the caller holds, and the operator's recordings stay.

        Raises PlaceError.
        """
        try:
            for path in self.path.iterdir():
                if path.is_dir():
                    if path != self.recordings:
                        shutil.rmtree(path)
                elif path != self.lock:
                    path.unlink()
        except OSError as error:
            raise PlaceError(f"{self.path} cannot be cleared: {error.strerror or error}") from error
