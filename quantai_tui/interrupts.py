"""Ctrl-C while the program is still being loaded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def end_at_once() -> Iterator[None]:
    """An interrupt ends the process here and now, without an exception: for the time of imports, when nothing was begun yet.

    Python drops what is raised in a callback of a weak reference, and its import system has such callbacks: a KeyboardInterrupt
    that falls into one is lost, and the program runs on as if nobody had pressed anything.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored on purpose, or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
