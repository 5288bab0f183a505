"""How far the operator's screen is behind, asked of the terminal itself.

Over SSH a slow line fills buffers of megabytes before a writer feels it: minutes of frames that nobody has seen. So behind a
frame now and then stands a question that every terminal answers, the report of the cursor's place (DSR 6 of ECMA-48, 8.3.35;
tmux answers for the terminals behind it). As long as it is not answered, what was sent before has not been seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUESTION = "\x1b[6n"
_EVERY_S = 2.0
_NORMAL_S = 1.0  # SSH around the world takes less than half of it there and back
_LOST_S = 30.0


class Echo:
    """One terminal's answers. One question is under way at a time; threads may call what they like.

    A terminal that has never answered is believed to keep up. One whose answer seems lost is asked again; when that is not
    answered either and somebody types, it has to answer anew before its silence means anything.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._answers = False
        self._asked: float | None = None
        self._asked_last = -_LOST_S
        self._waiting: Callable[[], None] | None = None

    def question(self) -> str:
        """What to write behind a frame: the question, where it is time for one, or nothing."""
        with self._changed:
            now = self._monotonic()
            since = now - self._asked_last
            if since < _EVERY_S or (self._asked is not None and (self._answers or since < _LOST_S)):
                return ""
            self._asked = self._asked_last = now
            return QUESTION

    def question_again(self) -> str:
        """The question once more, when its answer seems lost: while nothing is painted, nothing else would ask."""
        with self._changed:
            now = self._monotonic()
            if not self._answers or self._asked is None or now - self._asked_last < _LOST_S:
                return ""
            self._asked_last = now
            return QUESTION

    def answered(self) -> None:
        """The terminal has answered: all that was sent before the question is on its screen."""
        with self._changed:
            self._answers = self._answers or self._asked is not None  # else it is a key that looks like an answer
        self._settle()

    def heard(self) -> None:
        """Something else was typed."""
        with self._changed:
            lost = self._answers and self._asked is not None and self._monotonic() - self._asked > 2 * _LOST_S + _EVERY_S
            self._answers = self._answers and not lost
        if lost:
            self._settle()

    def forget(self) -> None:
        """No answer will come any more: the question was not sent, or somebody else has the terminal."""
        self._settle()

    @property
    def lag_s(self) -> float:
        """How much longer than usual an answer has been under way; 0 when none is missed."""
        with self._changed:
            return self._lag_s()

    def when_answered(self, call: Callable[[], None]) -> None:
        """`call` once, as soon as no answer is missed; from the thread that finds it so."""
        with self._changed:
            missed = self._lag_s() > 0
            self._waiting = call if missed else None
        if not missed:
            call()

    def await_answer(self, within_s: float) -> None:
        """Wait for the answer that is under way: the program that has the terminal next would take it for something typed."""
        with self._changed:
            if self._answers:
                self._changed.wait_for(lambda: self._asked is None, within_s)

    def _lag_s(self) -> float:
        if self._asked is None or not self._answers:
            return 0.0
        return max(0.0, self._monotonic() - self._asked - _NORMAL_S)

    def _settle(self) -> None:
        with self._changed:
            self._asked = None
            call, self._waiting = self._waiting, None
            self._changed.notify_all()
        if call is not None:
            call()
