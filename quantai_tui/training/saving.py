"""When checkpoints are written, by whom, and who hears of it.

A step boundary gives a copy of everything, and a thread writes it: on a slow disk training goes on meanwhile. What came of it is
told by the training thread, at its next boundary.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..telemetry import Clock, Severity
from .checkpoint import CheckpointFolder, Tell, all_finite, skipped, snapshot
from .config import WorkerConfig
from .fellows import share_state
from .messages import EpochDone, Saved
from .ranks import Ranks
from .requests import Answer, no_answer
from .saved_state import number, one_of_type


@dataclass(frozen=True, slots=True)
class _Order:
    state: dict[str, Any]
    step: int
    epochs_done: int
    time: float
    best: bool
    keep: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Outcome:
    order: _Order
    path: Path | None
    error: str = ""


class Checkpoints:
    """The checkpoints of one training loop. All methods are for the training thread; `wake` may be called from another one."""

    def __init__(
        self,
        config: WorkerConfig,
        fingerprint: dict[str, Any],
        clock: Clock,
        *,
        send: Callable[[Saved], None],
        tell: Tell,
        wake: Callable[[], None],
    ) -> None:
        self._folder = CheckpointFolder(Path(config.checkpoint_dir), fingerprint)
        self._clock = clock
        self._send = send
        self._tell = tell
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._outcomes: deque[_Outcome] = deque()
        self._saved_at = clock.monotonic()
        self._best: dict[str, Any] = {"measure": "", "value": 0.0}
        self.apply(config)

    def apply(self, config: WorkerConfig) -> None:
        self._every_s = config.checkpoint_every_s
        self._keep = config.checkpoints_kept

    @property
    def due(self) -> bool:
        """Whether it is time for the next one. Not while one is being written: a slow disk gets fewer of them."""
        return (
            self._every_s > 0
            and self._clock.monotonic() - self._saved_at >= self._every_s
            and (self._thread is None or not self._thread.is_alive())
        )

    def save(self, state: dict[str, Any], step: int, epochs_done: int, *, best: bool = False, answer: Answer = no_answer) -> None:
        """Begin to write a copy of `state`; waits for the one before. `answer` is given when it is done."""
        self.finish()
        copy = snapshot({**state, "loop": {**state["loop"], "best": self._best}})
        order = _Order(copy, step, epochs_done, self._clock.time(), best, self._keep, answer)
        self._saved_at = self._clock.monotonic()
        self._thread = threading.Thread(target=self._write, args=(order,), name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self, order: _Order) -> None:
        if not all_finite(order.state["stepper"]["model"]):
            self._outcomes.append(
                _Outcome(order, None, "the weights hold NaN or Inf, and the last good checkpoint is worth more")
            )
            self._wake()
            return
        try:
            path = self._folder.write(order.state, order.step, order.time, best=order.best, keep=order.keep)
            self._outcomes.append(_Outcome(order, path))
        except OSError as error:
            self._outcomes.append(_Outcome(order, None, str(error)))
        self._wake()

    def finish(self) -> None:
        """Wait until nothing is being written, and tell of what was."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.collect()

    def collect(self) -> None:
        """Tell of what has been written since the last call. Costs nothing when there is nothing."""
        while self._outcomes:
            outcome = self._outcomes.popleft()
            order = outcome.order
            if outcome.path is None:
                text = f"no checkpoint could be written at step {order.step}: {outcome.error}; training goes on without it"
                self._tell(Severity.WARNING, text)
                order.answer(False, text)
                continue
            self._send(Saved(str(outcome.path), order.step, order.time, order.best, epochs_done=order.epochs_done))
            order.answer(True, f"step {order.step} saved in {outcome.path}")

    def is_best(self, epoch: EpochDone) -> bool:
        """Whether no epoch before was better: by the log loss on validation, else by accuracy. A hint: the data have gone on."""
        measure, value = ("accuracy", epoch.accuracy) if epoch.log_loss is None else ("log loss", -epoch.log_loss)
        if self._best["measure"] == measure and value <= self._best["value"]:
            return False
        self._best = {"measure": measure, "value": value}
        return True

    def newest_first(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield readable checkpoints and report skipped ones."""
        return self._folder.newest_first(self._tell)

    def take_best(self, state: dict[str, Any]) -> None:
        """Restore the best epoch's measure. Raises ValueError, TypeError and KeyError, and then changes nothing."""
        self._best = {"measure": one_of_type(state, "measure", str), "value": number(state, "value")}

    def skip(self, path: Path, why: str) -> None:
        """Report that training does not resume from this checkpoint."""
        self._tell(Severity.WARNING, skipped(path, why))

    def resumed(self, path: Path, state: dict[str, Any], epochs_done: int) -> None:
        """Training goes on from this one: say so."""
        step = state["step"]
        self._send(Saved(str(path), step, state["time"], resumed=True, epochs_done=epochs_done))
        self._tell(Severity.INFO, f"training goes on from step {step}, epoch {state['loop']['epoch']} ({path.name})")


def resume(
    ranks: Ranks,
    checkpoints: Checkpoints | None,
    state: Callable[[], dict[str, Any]],
    take: Callable[[dict[str, Any]], None],
) -> tuple[Path, dict[str, Any]] | None:
    """Make all ranks `take` the newest state that each of them can take; return it, or None without one.

    Only the leader has `checkpoints`; the others get None back. A file may be complete but wrong: a partial `take` is
    then undone with the earlier `state`, and an older file is tried. Running out of memory or a failing GPU says nothing
    about the file, and is raised.
    """
    candidates = iter(()) if checkpoints is None else checkpoints.newest_first()
    beginning: dict[str, Any] | None = None
    while True:
        path, found = next(candidates, (None, None))
        shared = share_state(ranks, found)
        if shared is None:
            return None
        beginning = beginning or snapshot(state())
        trouble = ""
        try:
            take(shared)
            if checkpoints is not None:
                checkpoints.take_best(shared["loop"]["best"])
        except (ValueError, LookupError, TypeError) as error:
            trouble = f"its part {error} is missing" if isinstance(error, KeyError) else str(error)
        if not ranks.any(bool(trouble)):
            return None if path is None else (path, shared)
        take(beginning)
        if checkpoints is not None and path is not None:
            checkpoints.skip(path, trouble or "another process of this training could not resume from it")
