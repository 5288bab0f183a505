"""A process that must not outlive the one that started it, however that one ends. Free of torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """From now on this process ends when process `parent`, which started it, has ended; at once when that has happened already.

    The kernel sees to it on Linux: it sends SIGKILL, which reaches a process that is stopped or hangs in native code. It does so
    at the end of the *thread* that started us: start such processes from a thread that lives as long as they may. Elsewhere a
    thread of our own looks twice a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the kernel knew of our wish
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)
