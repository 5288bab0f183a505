"""The record of settings on trial, beside the file they were saved to: it outlives the engine that wrote it.

An engine that is killed while its settings are on trial cannot undo them. Whoever starts next finds the record, and does. The
owner holds a lock on it for as long as the trial lasts: a killed owner holds none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from pathlib import Path

import msgspec

from ..private_files import make_folders
from ..settings import ConfigFile, target_of, write_atomically
from ..textfile import UnusableFile, read_bytes

logger = logging.getLogger(__name__)

_MOST_BYTES = 2**23  # a configuration file of the largest size with every character escaped


class _Record(msgspec.Struct, frozen=True):
    before: str | None  # the whole text; None where there was no file
    after: str  # fingerprint of the text on trial


class TrialRecord:
    """What stood in `path` before the trial. Made before the file is written, removed when the trial is over."""

    def __init__(self, path: Path, before: str | None, after: str) -> None:
        """Raises OSError when it cannot be kept; then there must be no trial."""
        target = _beside(path)
        make_folders(target.parent)
        _refuse_if_owned(target)
        text = msgspec.json.encode(_Record(before, fingerprint(after))).decode()
        write_atomically(target, text, 0o600)  # it may hold a proxy's password, as the file may
        self._path = target
        self._lock = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """The trial is over, either way. Raises OSError; the record then stays locked, and no later start acts on it."""
        self._path.unlink(missing_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.let_go()

    def let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _refuse_if_owned(target: Path) -> None:
    """Several engines may share a file: the record of one that lives is not another's to replace."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError("settings in it are on trial in another engine") from error
    finally:
        os.close(descriptor)


def settle_abandoned(path: Path) -> str:
    """Undo a trial whose engine is gone; returns what was done, in words for the operator, or nothing.

    Where the file has been edited since, it is left as it is. Where the owner still runs, nothing is touched.
    """
    target = _beside(path)
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe would wait for its writer
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"the record of settings on trial cannot be read: {target}: {error}"
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"settings in {path} are on trial in another engine"
        return _settle(path, target)
    finally:
        os.close(descriptor)


def _settle(path: Path, target: Path) -> str:
    try:
        record = msgspec.json.decode(read_bytes(target, _MOST_BYTES), type=_Record)
        file = ConfigFile.read(path)
        if fingerprint(file.text) != record.after:
            said = f"settings on trial were not confirmed, and {path} was edited since: it stays as it is"
        else:
            put_back(file, record.before)
            said = f"settings on trial were not confirmed before their engine ended: {path} is as it was before"
        target.unlink()
    except (msgspec.DecodeError, OSError, UnusableFile, UnicodeDecodeError) as error:
        with contextlib.suppress(OSError):
            target.replace(target.with_name(f"{target.name}.broken"))
        return f"settings on trial could not be undone: {target}: {error}"
    return said


def put_back(file: ConfigFile, before: str | None) -> None:
    """Raises OSError."""
    if before is None:
        file.remove()
    else:
        file.write(before)


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _beside(path: Path) -> Path:
    target = target_of(path)
    return target.with_name(f"{target.name}.trial")
