"""Files and folders that belong to this user alone. In a folder that was open to others, they may have placed links or files:
these are refused. All functions raise OSError with a printable reason. Imports nothing of ours.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_OTHERS = 0o077


def make_folders(path: Path) -> None:
    """Make a folder and its missing parents, each private to its owner regardless of the umask."""
    if path.is_dir():
        return
    if path.exists() or path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_folders(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def make_private_folder(path: Path) -> None:
    """Make a folder, or take an existing one of this user, and make it private."""
    make_folders(path)
    check_owner(path)  # for a link: the owner of the link
    info = path.stat()
    _check(path, info)
    if info.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(info.st_mode) & ~_OTHERS)


def check_owner(path: Path) -> None:
    """Raise unless the path is free or belongs to this user; a link is not followed."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    _check(path, info)


def open_private(path: str | Path, flags: int) -> int:
    """`os.open` for a regular file of this user, mode 0600 when it is made; also the `opener` that `open` takes.

    Refuses a link as the last component, another user's file, and a pipe. A file that others can read or
    write is made private.
    """
    try:
        # Non-blocking, because a pipe would wait for its other end. Truncating waits until after the checks.
        handle = os.open(path, flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link; remove it", str(path)) from None
        raise
    try:
        info = os.fstat(handle)
        _check(path, info)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file; remove it", str(path))
        if info.st_mode & _OTHERS:
            os.fchmod(handle, stat.S_IMODE(info.st_mode) & ~_OTHERS)
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def identity(path: Path) -> tuple[int, int]:
    """Device and inode number. They are unique only while the file is open, as a bound socket is."""
    info = path.lstat()
    return info.st_dev, info.st_ino


def remove_if_same(path: Path, wanted: tuple[int, int] | None) -> None:
    """Remove a name if it still refers to the file with this `identity`."""
    try:
        if identity(path) == wanted:
            path.unlink()
    except FileNotFoundError:
        pass


def _check(path: str | Path, info: os.stat_result) -> None:
    if info.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, f"belongs to another user (uid {info.st_uid})", str(path))
