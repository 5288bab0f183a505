"""Stopping an engine that runs somewhere else on this machine, and waiting until it is really gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from ..link.frames import FrameError
from ..link.messages import CommandName
from .asking import ask
from .registry import Entry, is_alive

_ANSWER_WITHIN_S = 5.0
_GONE_WITHIN_S = 30.0


async def stop_engine(entry: Entry) -> str:
    """Ask over its socket, or by SIGTERM when it does not answer; returns what went wrong, empty when it is gone."""
    problem = ""
    try:
        await asyncio.wait_for(ask(entry, CommandName.STOP, client="stop"), _ANSWER_WITHIN_S)
    except (OSError, asyncio.IncompleteReadError, FrameError, TimeoutError):
        problem = await asyncio.to_thread(_terminate, entry)
    return problem or await wait_gone(entry)


def _terminate(entry: Entry) -> str:
    """Send SIGTERM to the process that holds the engine's lock. Returns why not; empty when sent, or when the process is gone.

    The entry's pid is not enough: if the engine runs in a container, that pid may be another process here.
    """
    refused = (
        f"{entry.name} does not answer, and process {entry.pid} cannot be verified as its process (the engine may run in another "
        f"container): stop it there; see {entry.log}"
    )
    if not hasattr(os, "pidfd_open"):  # not Linux: no pid namespaces
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.pid, signal.SIGTERM)
        return ""
    try:
        handle = os.pidfd_open(entry.pid)  # refers to this process only, even if its pid is reused
    except OSError:
        return refused if is_alive(entry) else ""
    try:
        if not _holds_lock(entry):
            return refused if is_alive(entry) else ""
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has ended
    finally:
        os.close(handle)
    return ""


def _holds_lock(entry: Entry) -> bool:
    """Whether the kernel names the entry's pid, in this namespace, as the owner of the lock in the engine's folder."""
    try:
        inode = str((Path(entry.folder) / "lock").stat().st_ino)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return False
    # "1: FLOCK ADVISORY WRITE 4711 fd:01:1835042 0 EOF". The device is ignored: some file systems show another one here.
    wanted = ["FLOCK", "ADVISORY", "WRITE", str(entry.pid), inode]
    return any([*fields[1:5], fields[5].rpartition(":")[2]] == wanted for fields in locks if len(fields) > 5)


async def wait_gone(entry: Entry) -> str:
    """Wait until the engine has let go of its folder; returns what is wrong when it does not."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while is_alive(entry):
        if time.monotonic() > deadline:
            return f"{entry.name} (pid {entry.pid}) has not stopped within {_GONE_WITHIN_S:.0f} s; see {entry.log}"
        await asyncio.sleep(0.05)
    return ""
