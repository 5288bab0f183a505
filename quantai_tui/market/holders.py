"""Which other process locks a database, if the system tells."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
# Where SQLite puts its locks: a writer's byte in the shared memory (walformat.html, "WAL-Index File Format"), and the lock bytes
# of the file itself for an exclusive lock (fileformat2.html, "The Lock-Byte Page").
_WAL_WRITE_BYTE = 120
_FIRST_LOCK_BYTE = 2**30
_LAST_BYTE = 2**63 - 1
_MOST_NAMED = 3


def who_holds(path: Path) -> str:
    """Describe the processes that block writing to the database; "another program" when they are unknown.

    Reads Linux's table of locks, or else the open files of the accessible processes.
    """
    pids = list(_lockers(path)) or list(_openers(path))
    if not pids:
        return "another program"
    named = ", ".join(f"{_name(pid)} (pid {pid})" for pid in pids[:_MOST_NAMED])
    return named + (f" and {len(pids) - _MOST_NAMED} more" if len(pids) > _MOST_NAMED else "")


def _lockers(path: Path) -> Iterator[int]:
    """Processes with a lock on the file that blocks writers, each once."""
    first_byte: dict[int, int] = {}  # inode -> the first byte that a writer would have to lock
    for file, byte in ((path, _FIRST_LOCK_BYTE), (path.with_name(f"{path.name}-shm"), _WAL_WRITE_BYTE)):
        try:
            first_byte[file.stat().st_ino] = byte
        except OSError:
            continue
    try:
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return
    seen = {os.getpid()}
    for line in lines:
        # 1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 120 120
        fields = line.split()
        if len(fields) != 8 or fields[3] != "WRITE" or not fields[4].isdecimal():
            continue
        inode, pid = int(fields[5].rpartition(":")[2]), int(fields[4])
        if inode not in first_byte or pid in seen:
            continue
        byte = first_byte[inode]
        end = _LAST_BYTE if fields[7] == "EOF" else int(fields[7])
        begin = byte if byte == _FIRST_LOCK_BYTE else int(fields[6])
        if begin <= byte <= end:
            seen.add(pid)
            yield pid


def _openers(path: Path) -> Iterator[int]:
    """Other processes that have the file open."""
    wanted = str(path.resolve())
    for pid in _pids():
        if pid != os.getpid() and wanted in _open_files(pid):
            yield pid


def _pids() -> Iterable[int]:
    try:
        return sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    except OSError:
        return ()


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for link in (_PROC / str(pid) / "fd").iterdir():
            found.add(str(link.readlink()))
    except OSError:
        return found  # it has ended, or belongs to another user
    return found


def _name(pid: int) -> str:
    try:
        name = (_PROC / str(pid) / "comm").read_text()
    except OSError:
        return "a process"
    return "".join(char for char in name.strip() if char.isprintable()) or "a process"
