"""Leaving cleanly whatever the terminal does: signals, a hang-up, a terminal that has stopped reading.

Textual's driver handles neither SIGTERM nor SIGHUP, takes the end of its input for 'nothing typed yet' and asks again
without pause, and its output queue blocks the event loop when nobody reads the terminal. So the signals are handled here,
a thread waits for the hang-up, and a second one ends the process when the loop does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

log = logging.getLogger(__name__)

_RESTORE = b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.25


class TerminalDriver(LinuxDriver):
    """Textual's driver, except that a terminal that is gone is no crash, and that the mouse can be switched while running."""

    def run_input_thread(self) -> None:
        try:
            super().run_input_thread()
        except OSError as error:  # EIO: the other side of the terminal is closed; the guard's watcher ends the app
            log.info("the terminal is gone: %s", error)

    def switch_mouse(self) -> bool:
        """Turn mouse reporting on or off; returns whether it is on now."""
        if self._mouse:
            self._disable_mouse_support()
            self._mouse = False
        else:
            self._mouse = True
            self._enable_mouse_support()
        return self._mouse


class TerminalGuard:
    """Turns signals and hang-up into one call of `on_leave(reason)` on the loop, and ends the process should the loop be stuck.

    `reason` is "interrupt", "terminate" or "hang-up". Call `install` on the loop's thread, and `remove` when the terminal has
    been restored.
    """

    def __init__(self, *, grace_s: float = 2.0, exit_process: Callable[[int], None] = os._exit) -> None:
        self._on_leave: Callable[[str], None] = lambda reason: None
        self._grace_s = grace_s
        self._exit_process = exit_process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: dict[int, Any] = {}
        self._removed = threading.Event()
        self._armed = False
        self._fd = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        self._attributes: list[Any] | None = None

    def remember_terminal(self) -> None:
        """Note the terminal's settings before anything changes them."""
        with contextlib.suppress(termios.error):
            self._attributes = termios.tcgetattr(self._fd)

    def install(self, on_leave: Callable[[str], None]) -> None:
        self._on_leave = on_leave
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._await_hangup, name="terminal-watch", daemon=True).start()

    def remove(self) -> None:
        self._removed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def let_go(self) -> None:
        """When the terminal is gone, let what is still printed go nowhere: a farewell that fails would be taken for a failure."""
        if not _is_gone(self._fd, 0.0):
            return
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Runs between two byte codes of the main thread, even where that waits for the full output queue.
        self._leave({signal.SIGINT: "interrupt", signal.SIGTERM: "terminate"}.get(signal.Signals(number), "hang-up"))

    def _await_hangup(self) -> None:
        while not self._removed.is_set():
            if _is_gone(self._fd, _POLL_S):
                self._leave("hang-up")
                return

    def _leave(self, reason: str) -> None:
        if not self._armed:
            self._armed = True
            threading.Thread(target=self._end_if_stuck, name="terminal-watchdog", daemon=True).start()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the program is past the point of leaving
                self._loop.call_soon_threadsafe(self._on_leave, reason)

    def _end_if_stuck(self) -> None:
        """A loop that answers may take its time to close; one that does not for `grace_s` is waiting for the terminal."""
        answered = time.monotonic()

        def answer() -> None:
            nonlocal answered
            answered = time.monotonic()

        while not self._removed.wait(_POLL_S):
            with contextlib.suppress(RuntimeError):
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(answer)
            if time.monotonic() - answered > self._grace_s:
                self._give_up()
                return

    def _give_up(self) -> None:
        """Put the terminal back as far as it lets us, and end. The engine sees its socket close, as at any other detach."""
        with contextlib.suppress(termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)
        writer = threading.Thread(target=self._write_restore, daemon=True)
        writer.start()
        writer.join(0.3)
        if self._attributes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._attributes)
        self._exit_process(0)

    def _write_restore(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, _RESTORE)


def _is_gone(descriptor: int, within_s: float) -> bool:
    """Whether the other side of a terminal is closed, waiting for that at most `within_s` seconds."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hang-up and error are reported unasked; what is typed is the driver's
    return any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, mask in poll.poll(within_s * 1000))
