"""The way of bytes to the terminal: handed over at once and whole, written by a thread, never waited for.

Textual's own writer is a queue of thirty with a blocking put on the event loop: a terminal that stops reading stops the loop.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

LIMIT_BYTES = 262_144
_PIECE_BYTES = 1024  # a terminal that can be written to takes about that much without making the thread wait
_LOOK_S = 0.25
CUT = "\x18\x1b[?2026l\x1b[0m"
"""Ends what was cut off: a half-sent control sequence, a frame that is held back until it is whole, its colours."""


class Outlet:
    """One terminal's output. Hand-overs are written in order, each whole, unless they are discarded."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._sent = 0  # bytes of the first hand-over that the terminal has
        self._writing = False
        self._generation = 0
        self._closing = False
        self._gone = False
        self._when_free: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._write_all, name="terminal-output", daemon=True)
        self._thread.start()

    @property
    def lag_s(self) -> float:
        """Age of the oldest byte that the terminal has not taken, in seconds."""
        with self._changed:
            return time.monotonic() - self._waiting[0][0] if self._waiting else 0.0

    def hand_over(self, text: str) -> bool:
        """Take `text` for writing and return at once. False when so much waits already that it was refused, as a whole."""
        data = text.encode("utf-8", "replace")
        with self._changed:
            if self._gone or not data:
                return not data
            if self._waiting and self._size + len(data) > LIMIT_BYTES:
                log.warning("%d bytes wait for the terminal: %d more were refused", self._size, len(data))
                return False
            self._waiting.append((time.monotonic(), data))
            self._size += len(data)
            self._changed.notify()
        return True

    def when_free(self, call: Callable[[], None]) -> None:
        """`call`, once and from the writing thread, as soon as nothing waits."""
        with self._changed:
            free = not self._waiting
            self._when_free = None if free else call
        if free:
            call()

    def discard(self) -> None:
        """Drop what the terminal has not taken; what was cut off in the middle is ended properly."""
        with self._changed:
            torn = self._sent > 0 or self._writing
            self._waiting.clear()
            self._size = self._sent = 0
            self._generation += 1
            if torn:
                self._waiting.append((time.monotonic(), CUT.encode()))
                self._size = len(CUT)
            self._changed.notify()

    def close(self, within_s: float) -> bool:
        """Write what waits and end; False when the terminal has not taken all of it within that time. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _write_all(self) -> None:
        while (piece := self._next_piece()) is not None:
            generation, data = piece
            try:
                written = os.write(self._descriptor, data) if _can_take(self._descriptor) else 0
            except OSError as error:  # EIO: the other side is closed; the guard's watcher ends the app
                log.info("the terminal is gone: %s", error)
                self._give_up()
                return
            self._account(generation, written)

    def _next_piece(self) -> tuple[int, bytes] | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return None
            self._writing = True
            return self._generation, self._waiting[0][1][self._sent : self._sent + _PIECE_BYTES]

    def _account(self, generation: int, written: int) -> None:
        call = None
        with self._changed:
            self._writing = False
            if generation == self._generation:
                self._sent += written
                self._size -= written
                if self._sent == len(self._waiting[0][1]):
                    self._waiting.popleft()
                    self._sent = 0
            if not self._waiting:
                call, self._when_free = self._when_free, None
        if call is not None:
            call()

    def _give_up(self) -> None:
        with self._changed:
            self._gone = True
            self._writing = False
            self._waiting.clear()
            self._size = 0


def _can_take(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(_LOOK_S * 1000))
