"""Stopping an engine that runs somewhere else on this machine, and waiting until it is really gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from ..link.frames import FrameError
from ..link.messages import CommandName
from .asking import ask
from .registry import Entry, is_alive

_ANSWER_WITHIN_S = 5.0
_GONE_WITHIN_S = 30.0


async def stop_engine(entry: Entry) -> str:
    """Ask over its socket, or by SIGTERM when it does not answer; returns what went wrong, empty when it is gone."""
    try:
        await asyncio.wait_for(ask(entry, CommandName.STOP, client="stop"), _ANSWER_WITHIN_S)
    except (OSError, asyncio.IncompleteReadError, FrameError, TimeoutError):
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.pid, signal.SIGTERM)
    return await wait_gone(entry)


async def wait_gone(entry: Entry) -> str:
    """Wait until the engine has let go of its folder; returns what is wrong when it does not."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while is_alive(entry):
        if time.monotonic() > deadline:
            return f"{entry.name} (pid {entry.pid}) has not stopped within {_GONE_WITHIN_S:.0f} s; see {entry.log}"
        await asyncio.sleep(0.05)
    return ""
