"""Leaving cleanly whatever the terminal does: signals, a hang-up, a terminal that has stopped reading.

Textual's driver handles neither SIGTERM nor SIGHUP, takes the end of its input for 'nothing typed yet' and asks again
without pause, starts twice when it is continued without having been stopped, and its output queue blocks the event loop when
nobody reads the terminal. So the signals are handled here, output goes through an `Outlet`, a thread waits for the hang-up,
and a second one ends the process when the loop does not answer.
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
from typing import TYPE_CHECKING, Any

from textual import events
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size

from .echo import Echo
from .glyphs import locale_is_utf8, to_ascii
from .outlet import CUT, Outlet

if TYPE_CHECKING:
    from textual.app import App
    from textual.message import Message

log = logging.getLogger(__name__)

_RESTORE = (
    "\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?2048l\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h"
)
# tmux (3.2 and 3.3, its issue 3510) leaves rows of the alternate screen on the normal one when the window grew meanwhile.
_WIPE = "\x1b[2J"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.25
_HANGUP_POLL_S = 5.0  # a hang-up is told at once; this is how long the thread may outlive the dashboard
_CLOSE_S = 1.0
_ANSWER_S = 1.0
_FRAME_BEGINS = "\x1b[?2026h"  # a question with it would be answered before the frame is seen
_RESIZES_TOGETHER_S = 0.05


class TerminalDriver(LinuxDriver):
    """Textual's driver with an output that nothing waits for, proper job control, and a mouse that can be switched while running.

    A terminal that is gone is no crash. Where the locale is not UTF-8 everything is written in ASCII.
    """

    def __init__(self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._outlet: Outlet | None = None
        self._echo = Echo()
        self._asks = False  # only while the answer would come to us
        self._ascii = not locale_is_utf8(os.environ)
        self._stopping = False
        self._resize_due = False

    @property
    def lag_s(self) -> float:
        """How far the terminal is behind: with taking what was handed over, or with showing what it took."""
        return max(self._outlet.lag_s, self._echo.lag_s) if self._outlet is not None else 0.0

    def when_free(self, call: Callable[[], None]) -> None:
        """`call` once, on the loop, as soon as the terminal has taken and shown everything."""
        if self._outlet is not None:
            self._outlet.when_free(lambda: self._echo.when_answered(lambda: self._on_loop(call)))

    def write(self, data: str) -> None:
        if self._outlet is not None:  # else another program has the terminal
            question = self._echo.question() if self._asks and not data.startswith(_FRAME_BEGINS) else ""
            if not self._outlet.hand_over((to_ascii(data) if self._ascii else data) + question) and question:
                self._echo.forget()

    def ask_again(self) -> None:
        if self._outlet is not None and self._asks and (question := self._echo.question_again()):
            self._outlet.hand_over(question)

    def process_message(self, message: Message) -> None:
        """What the terminal says; from the thread that reads it."""
        if isinstance(message, events.CursorPosition):
            self._echo.answered()
            return
        if isinstance(message, events.Key | events.Paste):
            self._echo.heard()
        super().process_message(message)

    def start_application_mode(self) -> None:
        assert sys.__stderr__ is not None
        self._outlet = Outlet(sys.__stderr__.fileno())
        self._echo = Echo()
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._asks = True
        signal.signal(signal.SIGWINCH, self._on_window_change)

    def stop_application_mode(self) -> None:
        # What was to be painted is of no use any more, and on a slow line the shell would wait for it.
        answer_s = _ANSWER_S
        if self._outlet is not None:
            if self._outlet.lag_s:  # the question may be among what is dropped
                answer_s /= 2
            self._outlet.discard()
        self._asks = False
        self.write(_WIPE)
        self._echo.await_answer(answer_s)
        self._echo.forget()
        super().stop_application_mode()
        if self._mouse_pixels:
            self.write("\x1b[?1016l")
            self._mouse_pixels = False

    def close(self) -> None:
        super().close()
        if self._outlet is None:
            return
        if not self._outlet.close(_CLOSE_S):
            with contextlib.suppress(termios.error):
                termios.tcflush(self.fileno, termios.TCOFLUSH)
            self._outlet.hand_over(CUT + _RESTORE)
            self._outlet.close(_CLOSE_S)
        self._outlet = None

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing to do any more
            self._loop.call_soon_threadsafe(call, *arguments)

    def _sigtstp_application(self, *_: object) -> None:
        if self._auto_restart:
            self._on_loop(self.stop_process)
        else:  # while another program has the terminal, the loop may stand still
            os.kill(os.getpid(), signal.SIGSTOP)

    def _sigcont_application(self, *_: object) -> None:
        if self._auto_restart and not self._stopping:  # stopped by SIGSTOP: the terminal may have been used since
            self._on_loop(self._start_again)

    def stop_process(self) -> None:
        """Give the terminal back and stop, as ctrl-z does; returns when the process goes on and has the terminal again."""
        self._stopping = True
        try:
            self.suspend_application_mode()
            os.kill(os.getpid(), signal.SIGSTOP)
            while not self._in_foreground():  # continued by the shell's `bg`
                os.kill(os.getpid(), signal.SIGSTOP)
            self._must_signal_resume = True
            self.resume_application_mode()
        finally:
            self._stopping = False

    @property
    def has_shell(self) -> bool:
        """Whether somebody would notice that the process has stopped, and could continue it."""
        try:
            return os.getsid(os.getppid()) == os.getsid(0)
        except OSError:
            return False

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self.fileno) == os.getpgrp()
        except OSError:
            return True

    def _start_again(self) -> None:
        if self._outlet is not None:
            self.suspend_application_mode()
            self._must_signal_resume = True
            self.resume_application_mode()

    def _on_window_change(self, *_: object) -> None:
        if not self._in_band_window_resize and not self._resize_due:
            self._resize_due = True
            self._on_loop(self._loop.call_later, _RESIZES_TOGETHER_S, self._tell_size)

    def _tell_size(self) -> None:
        self._resize_due = False
        size = Size(*self._get_terminal_size())
        self.send_message(events.Resize(size, size))

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
            if _is_gone(self._fd, _HANGUP_POLL_S):
                if not self._removed.is_set():
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
            os.write(self._fd, (CUT + _RESTORE).encode())


def _is_gone(descriptor: int, within_s: float) -> bool:
    """Whether the other side of a terminal is closed, waiting for that at most `within_s` seconds."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hang-up and error are reported unasked; what is typed is the driver's
    return any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, mask in poll.poll(within_s * 1000))
