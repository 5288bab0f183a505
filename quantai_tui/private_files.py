"""Files and folders that belong to this user alone. Others can place links, files and folders where a folder was open to them:
none of those is used. All functions raise OSError, with a reason that can be shown. Imports nothing of ours.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_OTHERS = 0o077


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner alone whatever the umask is."""
    if path.is_dir():
        return
    if path.exists() or path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_folders(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def make_private_folder(path: Path) -> None:
    """Make a folder, or take one that is there and owned by this user; nobody else can look into it from then on."""
    make_folders(path)
    check_owner(path)  # of a link: who has put it there
    info = path.stat()
    _check(path, info)
    if info.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(info.st_mode) & ~_OTHERS)


def check_owner(path: Path) -> None:
    """What has this name, if anything, must belong to this user; a link is not followed."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    _check(path, info)


def open_private(path: str | Path, flags: int) -> int:
    """`os.open` for a regular file of this user, mode 0600 when it is made; also the `opener` that `open` takes.

    A link in the last place is not followed, a file of somebody else and a pipe are refused, and a file that others can read or
    write is closed to them.
    """
    try:
        # Without waiting: a pipe under this name would wait for its other end. Nothing is cut off before the checks.
        handle = os.open(path, flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link; remove it", str(path)) from None
        raise
    try:
        info = os.fstat(handle)
        _check(path, info)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "is no regular file; remove it", str(path))
        if info.st_mode & _OTHERS:
            os.fchmod(handle, stat.S_IMODE(info.st_mode) & ~_OTHERS)
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def identity(path: Path) -> tuple[int, int]:
    """Device and inode number. They tell two files apart only while the first is held open, as a bound socket is."""
    info = path.lstat()
    return info.st_dev, info.st_ino


def remove_if_same(path: Path, wanted: tuple[int, int] | None) -> None:
    """Remove a name that still means the file with this `identity`; one that somebody else has put in its place stays."""
    try:
        if identity(path) == wanted:
            path.unlink()
    except FileNotFoundError:
        pass


def _check(path: str | Path, info: os.stat_result) -> None:
    if info.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, f"belongs to another user (uid {info.st_uid})", str(path))
