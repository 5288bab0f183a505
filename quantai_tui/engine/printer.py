"""Status lines on standard output, from a thread of their own: a reader that stops reading must not stop the engine."""

from __future__ import annotations

import os
import threading

from ..cleaning import clean

_LAST_WORDS_S = 1.0


class Printer:
    """Prints the newest line; one that could not be written before the next came is left out.

    It writes to the file descriptor itself: a thread that hangs in a buffered stream would hold that stream's lock, and with it
    the interpreter's exit.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._line: str | None = None
        self._closing = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    @property
    def error(self) -> OSError | None:
        """Why nothing can be written any longer: the reader has left, or the disk is full."""
        return self._error

    def put(self, line: str) -> None:
        with self._changed:
            self._line = line
            self._changed.notify()

    def close(self) -> None:
        """Give the last line a moment to get out."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_LAST_WORDS_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line is not None or self._closing)
                line, self._line = self._line, None
            if line is None:
                return
            data = memoryview(clean(line).encode() + b"\n")
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                self._error = error
                return
