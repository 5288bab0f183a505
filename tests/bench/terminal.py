"""A program on a pseudo-terminal, as a modern terminal emulator would see it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

CELLS_OF_A_FRAME = 40  # so many printed cells are a picture, and not only a screen that was cleared
_CONTROL = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[P_][^\x1b]*\x1b\\|\x1b\[[0-9;:?<>=!$ ]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78cDEHMNOZ]",
    re.S,
)
# Textual asks whether the terminal can hold a frame back until it is whole; most can, and then each frame is 16 bytes longer.
_SYNC_QUESTION, _SYNC_ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"


def printable(output: bytes) -> int:
    """How many printable cells that are not blank these bytes paint."""
    return len(re.sub(r"\s", "", _CONTROL.sub(b"", output).decode("utf-8", "replace")))


class Terminal:
    """Runs `command` at once; a context manager, which kills it at the end. `size` is (columns, rows)."""

    def __init__(self, command: list[str], size: tuple[int, int] = (80, 24), changes: Mapping[str, str] | None = None) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8", **(changes or {})}
        window = struct.pack("HHHH", size[1], size[0], 0, 0)
        self.started = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, window)
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def read(self, timeout_s: float) -> bytes:
        """What was written, waiting for it so long; empty when nothing was. Raises OSError (EIO) when the program has ended."""
        if not select.select([self._fd], [], [], max(timeout_s, 0.0))[0]:
            return b""
        output = os.read(self._fd, 65536)
        if _SYNC_QUESTION in output:
            os.write(self._fd, _SYNC_ANSWER)
        return output

    def read_for(self, seconds: float) -> bytes:
        """All that is written in so many seconds."""
        deadline = time.monotonic() + seconds
        output = b""
        while (left := deadline - time.monotonic()) > 0:
            output += self.read(left)
        return output

    def read_until(self, condition: Callable[[bytes], object], within_s: float) -> tuple[bytes, float]:
        """Read until `condition` holds for all that has come; returns that, and the moment (monotonic) its last part came."""
        deadline = time.monotonic() + within_s
        output = b""
        while (left := deadline - time.monotonic()) > 0:
            output += self.read(left)
            at = time.monotonic()
            if condition(output):
                return output, at
        raise TimeoutError(f"not within {within_s:g} s; on the screen so far: {_CONTROL.sub(b'', output)[-300:]!r}")

    def press(self, key: bytes) -> float:
        """Type a key; returns the moment it was typed."""
        at = time.monotonic()
        os.write(self._fd, key)
        return at

    def cpu_s(self) -> float:
        """Processor time that the program (without children) has used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_frame_ms(command: list[str], size: tuple[int, int] = (80, 24)) -> float:
    """Milliseconds from starting a program to its first painted frame; then it is killed."""
    with Terminal(command, size) as terminal:
        _, at = terminal.read_until(lambda output: printable(output) >= CELLS_OF_A_FRAME, 60.0)
        return (at - terminal.started) * 1000
