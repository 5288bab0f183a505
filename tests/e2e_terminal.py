"""A program in a pseudo-terminal with a screen behind it: what an operator sees, types, and does to the terminal itself."""

from __future__ import annotations

import copy
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyte

_ALTERNATE = 1049
_UNKNOWN_TO_PYTE = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1bP[^\x1b]*\x1b\\|\x1b\[\?[0-9;]*\$[a-z]")
_UNFINISHED = re.compile(rb"\x1b(?:\[[<>=?0-9;$]*|P[^\x1b]*\x1b?)?$")
POLL_S = 0.05


def wait_until(condition: Callable[[], Any], within: float, what: str | Callable[[], str]) -> Any:
    """The first truthy answer of `condition`; AssertionError with `what` when there is none `within` so many seconds."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what() if callable(what) else what}")
        time.sleep(POLL_S)


class _Screen(pyte.Screen):
    """pyte knows no alternate screen; here one is kept, so that what stands on the normal one afterwards can be read."""

    def __init__(self, columns: int, lines: int, say: Callable[[str], object]) -> None:
        super().__init__(columns, lines)
        self._say = say
        self._normal: tuple[Any, Any] | None = None

    @property
    def alternate(self) -> bool:
        return self._normal is not None

    def set_mode(self, *modes: int, **options: Any) -> None:
        if options.get("private") and _ALTERNATE in modes and self._normal is None:
            self._normal = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.erase_in_display(2)
        super().set_mode(*modes, **options)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if options.get("private") and _ALTERNATE in modes and self._normal is not None:
            kept, cursor = self._normal
            self._normal = None
            self.buffer.clear()
            self.buffer.update(kept)
            self.cursor.x, self.cursor.y = cursor.x, cursor.y

    def report_device_status(self, mode: int, **options: Any) -> None:
        """Only where the cursor is: what a program asks to know that its output has come this far."""
        if mode == 6:
            self._say(f"\x1b[{self.cursor.y + 1};{self.cursor.x + 1}R")


class Terminal:
    """A program in a pseudo-terminal of its own session, whose controlling terminal it is."""

    def __init__(self, command: tuple[str, ...], columns: int, rows: int, environment: Mapping[str, str]) -> None:
        self._screen = _Screen(columns, rows, self.press)
        self._stream = pyte.ByteStream(self._screen)
        self._pending = b""
        self._raw = bytearray()
        self._text: str | None = None
        self._lock = threading.Lock()
        self._reading = threading.Event()
        self._reading.set()
        self._emptied = 0  # how often the reader has found nothing to read
        self._closed = False
        self._master, slave = pty.openpty()
        self.resize(columns, rows)
        self._before = termios.tcgetattr(slave)
        # A session leader without a terminal gets the first one that it opens: so the hang-up of this one reaches the program.
        takes_terminal = ("/bin/sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(slave))
        self._process = subprocess.Popen(
            (*takes_terminal, *command), env=dict(environment), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self._slave = slave  # kept: the terminal's settings are looked at when the program has gone
        self._reader = threading.Thread(target=self._read, name="pty-reader", daemon=True)
        self._reader.start()

    # What the operator sees

    @property
    def text(self) -> str:
        with self._lock:
            if self._text is None:  # reading a whole screen is slow: once for everything that was written
                self._text = "\n".join(line.rstrip() for line in self._screen.display)
            return self._text

    @property
    def raw(self) -> bytes:
        """Every byte received so far."""
        return bytes(self._raw)

    @property
    def alternate(self) -> bool:
        with self._lock:
            return self._screen.alternate

    @property
    def cursor_shown(self) -> bool:
        with self._lock:
            return not self._screen.cursor.hidden

    @property
    def settings_restored(self) -> bool:
        """Echo, line editing and signals are as they were before the program started."""
        return self._slave >= 0 and termios.tcgetattr(self._slave)[:4] == self._before[:4]

    def wait_for(self, wanted: str | Callable[[str], Any], within: float = 30.0) -> str:
        """The screen's text as soon as it holds `wanted` (a text, or a predicate of the whole screen)."""
        holds = wanted if callable(wanted) else lambda text: wanted in text

        def shown() -> str:
            text = self.text
            return text if holds(text) else ""

        what = "a condition" if callable(wanted) else repr(wanted)
        return str(wait_until(shown, within, lambda: f"{what} on the screen; it showed:\n{self.text}\n(exit {self.exit_code})"))

    def wait_gone(self, wanted: str, within: float = 10.0) -> str:
        """The screen's text as soon as `wanted` is not on it any more."""
        return self.wait_for(lambda text: wanted not in text, within)

    # What the operator does

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        with self._lock:
            self._screen.resize(rows, columns)
            self._text = None
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def stop_reading(self) -> None:
        """The far end sleeps: nothing is taken from the terminal any more."""
        self._reading.clear()

    def hang_up(self) -> None:
        """Close the master: the kernel sends SIGHUP to the program, and its reads and writes fail."""
        self._close_fd("_slave")
        self._closed = True
        self._reading.set()
        self._reader.join(5)
        self._close_fd("_master")

    # The program

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_exit(self, within: float = 20.0) -> int:
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within:g} s; the screen:\n{self.text}") from None
        self._wait_drained()
        return code

    def _wait_drained(self) -> None:
        """What the program wrote last is on the screen. One read that finds nothing may have begun before it, a second not."""
        if self._reading.is_set() and not self._closed:
            wanted = self._emptied + 2
            wait_until(lambda: self._emptied >= wanted or not self._reader.is_alive(), 30, "all that the program wrote")

    def assert_restored(self) -> None:
        """The terminal is as a shell wants to find it."""
        assert not self.alternate, f"the alternate screen was not left:\n{self.text}"
        assert self.cursor_shown, "the cursor is still hidden"
        assert self.settings_restored, "echo or line editing are still off"

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.hang_up()

    def _close_fd(self, name: str) -> None:
        descriptor = getattr(self, name)
        setattr(self, name, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def _read(self) -> None:
        while True:
            self._reading.wait()
            if self._closed:
                return
            os.set_blocking(self._master, False)
            try:
                data = os.read(self._master, 65536)
            except BlockingIOError:
                self._emptied += 1
                time.sleep(0.01)
                continue
            except OSError:
                return
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._raw += data
        data = _UNKNOWN_TO_PYTE.sub(b"", self._pending + data)
        unfinished = _UNFINISHED.search(data)
        self._pending = data[unfinished.start() :] if unfinished else b""
        with self._lock:
            self._stream.feed(data[: len(data) - len(self._pending)])
            self._text = None
