"""What the training thread has been asked to do, and has not done yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .config import WorkerConfig
from .messages import ControlKind

Answer = Callable[[bool, str], None]


def no_answer(ok: bool, text: str) -> None:
    """For callers who do not wait to hear."""


@dataclass(frozen=True, slots=True)
class Request:
    kind: ControlKind
    answer: Answer
    config: WorkerConfig | None = None


class Requests:
    """Put in from any thread, taken out by the training thread. `wake` alone ends its sleep too."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._wake = threading.Event()

    def put(self, request: Request) -> None:
        self._waiting.append(request)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    def sleep(self, seconds: float) -> None:
        """Wait, at most until the next request."""
        self._wake.wait(seconds)
        self._wake.clear()

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Iterator[Request]:
        while self._waiting:
            yield self._waiting.popleft()
