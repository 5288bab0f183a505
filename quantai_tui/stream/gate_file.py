"""The file that all engines of a user share: who dialled when, and which bans are in force.

It is read, changed and replaced under a lock of the kernel, which a process that dies lets go of. A writer that is killed at any
moment leaves either the old content or the new one. Times in it are Unix seconds: they outlive a process and a restart of the
machine. Until such a restart the monotonic clock tells what they mean, whatever the wall clock is set to (`ScopeEntry.now`).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..private_files import make_folders, open_private

log = logging.getLogger("quantai_tui.stream")

# A holder needs about a millisecond. Only one that was stopped, or whose disk hangs, holds the lock for longer than this.
LOCK_WAIT_S = 5.0
_LOCK_POLL_S = 0.005
_MAX_BYTES = 1 << 20  # a full record has less than a quarter of it
# What is not a file of ours rather than a disk that fails: it is moved aside.
_NOT_OURS = frozenset({errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})


class BanEntry(msgspec.Struct, frozen=True):
    """A ban of `for_s` seconds that ends at `until`. `id` is its identity, however often its end is written anew."""

    id: str
    until: float
    for_s: float
    reason: str


class ScopeEntry(msgspec.Struct, frozen=True):
    """What one address counts at one venue: its latest dials, by identity, and the ban in force.

    `boot` names the run of the machine in which it was written, and `wall_offset` is by how much the wall clock was ahead of the
    monotonic one then.
    """

    dials: dict[str, float] = {}
    ban: BanEntry | None = None
    boot: str = ""
    wall_offset: float = 0.0

    def now(self, monotonic: float, wall: float) -> float:
        """The present in terms of these times: what the wall clock would show if nobody had set it since they were written.

        All processes of a machine read the same monotonic clock. Where the machine was restarted since, or is another, it is
        `wall`.
        """
        return monotonic + self.wall_offset if self.boot and self.boot == boot_id() else wall


Scopes = dict[str, ScopeEntry]


class _Content(msgspec.Struct, frozen=True):
    scopes: Scopes


class Damaged(Exception):
    """The file is none of ours, or broken. `changed` is when it was last written, in Unix seconds."""

    def __init__(self, why: str, changed: float) -> None:
        super().__init__(why)
        self.why = why
        self.changed = changed


class LockBusy(OSError):
    """Another process holds the lock and does not let go."""


class Abandoned(Exception):
    """Whoever wanted the change no longer waits for it; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a change comes to: the new content, None for none. `durable` asks that it survive a loss of power as well."""

    scopes: Scopes | None
    durable: bool = False


@functools.cache
def boot_id() -> str:
    """Names the present run of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class GateFile:
    """Locked and atomic changes of one small file. All methods block: `update` for `LOCK_WAIT_S` and what the disk takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(path.name + ".lock")
        self._beside = path.with_name(path.name + ".tmp")  # under the lock there is one writer, so one name does
        self._aside = path.with_name(path.name + ".damaged")

    def signature(self) -> tuple[int, int, int] | None:
        """Changes with every change of the file; None while there is none, or none that can be reached."""
        try:
            info = self.path.stat()
        except OSError:
            return None  # whoever writes next finds out why, and says so
        return info.st_ino, info.st_mtime_ns, info.st_size

    def read(self) -> Scopes:
        """The content; empty where there is no file yet. Needs no lock, since the file is only ever replaced whole.

        Raises:
            Damaged: it is there, but is not what we write.
            OSError: the disk fails.
        """
        try:
            # Without waiting: a pipe under this name would wait for a writer.
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise Damaged(error.strerror or str(error), self.path.lstat().st_mtime) from error
            raise
        try:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise Damaged("not a regular file", info.st_mtime)
            with os.fdopen(handle, "rb", closefd=False) as file:
                raw = file.read(_MAX_BYTES + 1)
        finally:
            os.close(handle)
        if len(raw) > _MAX_BYTES:
            raise Damaged(f"larger than {_MAX_BYTES} bytes", info.st_mtime)
        try:
            return msgspec.json.decode(raw, type=_Content).scopes
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Damaged(str(error), info.st_mtime) from error

    def update(self, change: Callable[[Scopes, float | None], Change], abandoned: threading.Event) -> None:
        """Under the lock: read, let `change` decide, write what it wants written.

        `change` gets the content, and None or the time at which a file was last written that had to be moved aside.

        Raises:
            Abandoned: the event was set before the turn came.
            OSError: folder or file cannot be used (LockBusy: since another holds the lock). If `change` was called, its
                decision could not be written.
        """
        make_folders(self.path.parent)
        handle = open_private(self._lock, os.O_RDWR | os.O_CREAT)
        try:
            self._take_lock(handle, abandoned)
            lost: float | None = None
            try:
                content = self.read()
            except Damaged as damage:
                self.path.replace(self._aside)
                log.warning(
                    "the record of dials and bans was damaged (%s): moved to %s, a new one is begun", damage.why, self._aside
                )
                content, lost = {}, damage.changed
            wanted = change(content, lost)
            if wanted.scopes is not None:
                self._write(wanted.scopes, durable=wanted.durable)
        finally:
            os.close(handle)  # lets go of the lock

    def _take_lock(self, handle: int, abandoned: threading.Event) -> None:
        # Polled: a thread that waits inside flock could neither be bounded nor called off.
        for _ in range(int(LOCK_WAIT_S / _LOCK_POLL_S)):
            if abandoned.is_set():
                raise Abandoned
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                abandoned.wait(_LOCK_POLL_S)
            else:
                return
        raise LockBusy(errno.EBUSY, f"another program has held it locked for {LOCK_WAIT_S:g} s")

    def _write(self, scopes: Scopes, *, durable: bool) -> None:
        with open(self._beside, "wb", opener=open_private) as file:
            file.write(msgspec.json.encode(_Content(scopes)))
            file.flush()
            if durable:
                os.fsync(file.fileno())
        self._beside.replace(self.path)
