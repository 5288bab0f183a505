"""Where running engines announce themselves: one private folder per user, with an entry and the sockets of each.

Whoever looks for an engine (a command, a dashboard, a training script) reads the entries here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from pathlib import Path

import msgspec

from .private_files import make_private_folder
from .user_folders import APP, PlaceError, user_folder

__all__ = ["APP", "Entry", "PlaceError", "is_alive", "read_entry", "running", "socket_folder", "state_root"]

_MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included


def state_root() -> Path:
    """The folder shared by a user's engines: their registry, crash reports. Raises PlaceError."""
    return user_folder("state")


def _socket_folder_path() -> Path:
    wanted = state_root() / "run"
    if len(os.fsencode(wanted)) + len("/0123456789ab.worker") <= _MAX_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:8]
    try:
        return Path(tempfile.gettempdir()) / f"{APP}-{os.getuid()}-{digest}"
    except OSError as error:
        raise PlaceError(f"{wanted} is too long for sockets, and {error.strerror}. Set XDG_STATE_HOME or TMPDIR.") from error


def socket_folder() -> Path:
    """The private (0700) folder for sockets and the registry, made if need be. Raises PlaceError when it is somebody else's.

    Not below XDG_RUNTIME_DIR: that is removed at logout, and the engine outlives the session.
    """
    wanted = _socket_folder_path()
    try:
        make_private_folder(wanted)
    except OSError as error:
        raise PlaceError(f"the socket folder {wanted} cannot be used: {error.strerror or error}. Set XDG_STATE_HOME.") from error
    return wanted


class Entry(msgspec.Struct, frozen=True):
    """One running engine."""

    name: str
    mode: str
    pid: int
    socket: str
    folder: str
    log: str
    started: float  # Unix time
    guests: str = ""  # the socket that training scripts of the user report to


def read_entry(path: Path) -> Entry | None:
    """None where there is none, or a damaged one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Entry)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_alive(entry: Entry) -> bool:
    """Whether an engine holds the folder's lock; the kernel lets go of it however a process ends."""
    try:
        # For reading: the folder of a dead engine may be on a disk that is now read-only.
        handle = os.open(Path(entry.folder) / "lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return _listens(entry)
    try:
        # Shared: two who ask at once must not take each other for the engine.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return _listens(entry)
    finally:
        os.close(handle)
    return False


def _listens(entry: Entry) -> bool:
    """Whether the engine's socket is listening, for a folder that cannot be read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(entry.socket)
        except BlockingIOError:
            return True  # its backlog is full
        except (OSError, ValueError):
            return False
    return True


def running() -> list[Entry]:
    """All engines of this user that are alive, by name. Raises PlaceError. Looking makes nothing, not even the folder."""
    try:
        _socket_folder_path().lstat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        pass  # socket_folder meets the same, and says it
    entries = [entry for path in socket_folder().glob("*.json") if (entry := read_entry(path)) is not None and is_alive(entry)]
    return sorted(entries, key=lambda entry: entry.name)
