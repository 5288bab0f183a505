"""Starts the training worker, listens to it, starts it again when it dies, and ends it. Runs in the engine; free of torch."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import signal
from pathlib import Path

import msgspec

from ..arguments import check_number, check_type, check_whole, path_from
from ..python_child import PYTHON
from ..telemetry import SYSTEM_CLOCK, Clock, GpuSnapshot, Severity, TrainingSnapshot, TrainingState
from .child import WorkerLife, WorkerLog
from .config import LIVE_FIELDS, SHAPING_FIELDS, WorkerConfig, changed_fields
from .guests import Guests
from .messages import (
    Ack,
    Control,
    ControlKind,
    EpochDone,
    Event,
    Failed,
    Finished,
    Hello,
    Metrics,
    Overflowed,
    Ranks,
    Ready,
    Saved,
    Start,
    WorkerMessage,
)
from .samples import FlushSample, FlushSamples
from .view import TrainingView
from .worker_socket import WorkerSocket

log = logging.getLogger(__name__)

_POLL_S = 0.5
_ANSWER_S = 5.0
_LONGEST_DELAY_S = 30.0
# A worker that has trained for so long was sound: what killed it starts a new count of failures.
_SOUND_AFTER_S = 60.0


class WorkerUnavailable(RuntimeError):
    """A command could not be carried out; the text says why, and is fit for the operator."""


class TrainingSupervisor:
    """The training worker as the engine sees it. All methods belong to the event loop that called `start`.

    `socket_path` and `guest_socket` must lie in a folder that only this user may enter (0700). While no worker runs, a training
    script of the user may report at `guest_socket` in its place (`Guests`). The worker's stderr is appended to `log_path`. A
    worker that dies is started again after 1, 2, 4 .. 30 s and goes on from its last checkpoint, `max_restarts` times in a row;
    then the state is FAILED with the reason, and `wait_failed` returns. Silence of `grace_s` before the worker is ready, or of
    `silence_s` after, counts as death.
    """

    def __init__(
        self,
        config: WorkerConfig,
        *,
        socket_path: Path,
        log_path: Path,
        guest_socket: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
        python: str = PYTHON,
        grace_s: float = 120.0,  # torch from a network disk takes a minute and more
        silence_s: float = 30.0,
        max_restarts: int = 5,
    ) -> None:
        check_type("config", config, WorkerConfig, "a WorkerConfig")
        socket_path, log_path = path_from("socket_path", socket_path), path_from("log_path", log_path)
        guest_socket = None if guest_socket is None else path_from("guest_socket", guest_socket)
        check_number("grace_s", grace_s, above=0.0)
        check_number("silence_s", silence_s, above=0.0)
        check_whole("max_restarts", max_restarts, at_least=0)
        self._config = config
        self._socket = WorkerSocket(socket_path, admit=self._admit, take=self._take, lost=self._lost)
        self._clock = clock
        self._python = python
        self._grace_s = grace_s
        self._silence_s = silence_s
        self._max_restarts = max_restarts
        self._log = WorkerLog(log_path)
        self._view = TrainingView(clock)
        self._samples = FlushSamples()
        self._guests = Guests(guest_socket, clock, engine_trains=lambda: self.running, on_metrics=self._samples.keep)
        self._ids = itertools.count(1)
        self._paused = False
        self._life: WorkerLife | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._changing = asyncio.Lock()  # of start and stop: two starts at once would be two workers on one socket
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a worker is up, or is about to be."""
        return self._task is not None and not self._task.done()

    async def listen(self) -> None:
        """Let training scripts of the user report here, until `close`. Raises OSError."""
        await self._guests.open()

    async def start(self) -> None:
        """Start a worker in the background; returns once its socket is there. Does nothing when there is a worker.

        Raises OSError for the socket, and WorkerUnavailable after `close`.
        """
        async with self._changing:
            if self._closed:
                raise WorkerUnavailable("the engine is stopping")
            if self.running:
                return
            self._guests.dismiss()
            self._failed.clear()
            self._paused = False
            self._view.fold()
            self._view.enter(TrainingState.STARTING, "starting the worker")
            await self._socket.open()
            self._task = asyncio.create_task(self._supervise(), name="training supervisor")

    async def stop(self) -> None:
        """End the worker, within 3 s at any moment of its life. Idempotent."""
        async with self._changing:
            task = self._task
            if task is None:
                return
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            self._socket.close()  # a task that was cancelled before it began has closed nothing
            self._task = None
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
            self._view.enter(TrainingState.STOPPED, "stopped by the operator")

    async def close(self) -> None:
        """Stop for good: no `start` succeeds from now on, not even one that is already waiting for its turn. Idempotent."""
        self._closed = True
        await self._guests.close()
        await self.stop()

    async def wait_failed(self) -> str:
        """Return the reason, in words, once the worker has failed for good."""
        await self._failed.wait()
        return self._view.detail

    async def pause(self) -> str:
        """Pause between two steps; returns what happened. A worker that is not up yet will come up paused."""
        return await self._set_paused(True, ControlKind.PAUSE, "will come up paused")

    async def resume(self) -> str:
        return await self._set_paused(False, ControlKind.RESUME, "will train as soon as it is up")

    async def _set_paused(self, paused: bool, kind: ControlKind, otherwise: str) -> str:
        if not self.running:
            if self._guests.reporting:
                raise WorkerUnavailable(f"{self._guests.reporting} is not the engine's to pause: pause it where it runs")
            raise WorkerUnavailable("no training worker is running: start it first")
        self._paused = paused
        life = self._life
        if life is None or life.ready_at is None:
            if life is not None and life.connected:
                life.send(Control(next(self._ids), kind))
            return otherwise
        return await self._ask(life, Control(next(self._ids), kind))

    async def reset_scaler(self) -> str:
        """The manual reset, acknowledged by the worker: "scale 4096 -> 32768". Raises WorkerUnavailable."""
        if self._guests.reporting:
            ack = await self._guests.reset_scaler()
            if not ack.ok:
                raise WorkerUnavailable(ack.text)
            return ack.text
        life = self._life
        if life is None or life.ready_at is None or not life.connected:
            raise WorkerUnavailable("the training worker is not up: there is no scale to reset")
        return await self._ask(life, Control(next(self._ids), ControlKind.RESET_SCALER))

    async def checkpoint(self) -> str:
        """Have the worker save a checkpoint between two steps: "step 812 saved in PATH". Raises WorkerUnavailable."""
        life = self._life
        if life is None or life.ready_at is None or not life.connected:
            raise WorkerUnavailable("the training worker is not up: there is nothing to save")
        return await self._ask(life, Control(next(self._ids), ControlKind.CHECKPOINT))

    async def apply(self, config: WorkerConfig) -> str:
        """Take over a new config: at once where that is possible, else by a new worker. Returns what is done about it."""
        changed = changed_fields(self._config, config)
        self._config = config
        life = self._life
        if not changed:
            return "nothing changed"
        if life is None or not life.alive:
            return "at the next start of the worker"
        if changed <= LIVE_FIELDS and life.ready_at is not None and life.connected:
            return await self._ask(life, Control(next(self._ids), ControlKind.SETTINGS, config))
        life.replaced = True
        await life.end(Control(next(self._ids), ControlKind.STOP))
        text = f"the worker starts again with new {', '.join(sorted(changed))}"
        if not config.checkpoint_dir:
            return text
        return f"{text}: another model, from the beginning" if changed & SHAPING_FIELDS else f"{text}, from its checkpoint"

    async def _ask(self, life: WorkerLife, control: Control) -> str:
        answer = life.acks[control.id] = asyncio.get_running_loop().create_future()
        life.send(control)
        done, _ = await asyncio.wait({answer}, timeout=_ANSWER_S)
        life.acks.pop(control.id, None)
        if not done:
            raise WorkerUnavailable(f"the worker has not answered in {_ANSWER_S:g} s; it will do it after its present step")
        if answer.cancelled():
            raise WorkerUnavailable("the worker ended before it could answer")
        ack: Ack = answer.result()
        if not ack.ok:
            raise WorkerUnavailable(ack.text)
        return ack.text

    def worker_pids(self) -> set[int]:
        """The processes of the training that is shown, on this machine: a script of the user, or the worker and its ranks."""
        return self._view.local_pids() | self._guests.pids

    def take_gpus(self, gpus: tuple[GpuSnapshot, ...], note: str) -> None:
        """What is watched beside the worker; `note` says why there is nothing to tell of GPUs."""
        self._view.gpus, self._view.gpu_note = gpus, note

    def snapshot(self) -> TrainingSnapshot:
        """Of the worker; of a script of the user where one reports, or reported last, and no worker was started since."""
        guest = self._guests.snapshot()
        if guest is None:
            return self._view.snapshot(self._config.symbol, self._log.tail)
        return msgspec.structs.replace(guest, gpus=self._view.gpus, gpu_note=self._view.gpu_note)

    def drain_samples(self) -> list[FlushSample]:
        """The reports since the last call, oldest first; at most the last 4096."""
        return self._samples.drain()

    # Lives

    async def _supervise(self) -> None:
        try:
            failure = await self._live_on()
        except Exception as error:
            log.exception("the supervisor of training has failed")
            failure = f"the supervisor of training has failed: {type(error).__name__}: {error}"
        finally:
            life, self._life = self._life, None
            if life is not None:
                await life.end(Control(next(self._ids), ControlKind.STOP))
                life.hang_up()
            self._log.refresh()
            self._socket.close()
        # Last of all: whoever hears of it may start anew at once.
        if failure is not None:
            self._fail(failure)

    async def _live_on(self) -> str | None:
        """Life after life; returns why it has failed for good, or None when the worker has done all its epochs."""
        failures = 0
        while True:
            try:
                life = self._life = await WorkerLife.spawn(self._config, self._python, self._socket.path, self._log, self._clock)
            except OSError as error:
                return f"the worker could not be started: {error}"
            await self._watch(life)
            if life.finished is not None:
                self._view.enter(TrainingState.STOPPED, life.finished.text)
                return None
            self._view.fold()
            if life.replaced:
                self._view.enter(TrainingState.STARTING, "starting the worker with new settings")
                continue
            sound = life.ready_at is not None and self._clock.monotonic() - life.ready_at >= _SOUND_AFTER_S
            failures = 1 if sound else failures + 1
            reason = life.why_it_ended()
            if failures > self._max_restarts:
                return f"{reason}; given up after {failures} failures in a row"
            if life.failed is not None and life.failed.lasting:
                return reason
            delay = min(2.0 ** (failures - 1), _LONGEST_DELAY_S)
            log.warning("%s; starting again in %g s", reason, delay)
            self._view.restarts += 1
            self._view.last_event = reason
            text = f"{reason}; starting again in {delay:g} s, attempt {failures} of {self._max_restarts}"
            self._view.enter(TrainingState.RESTARTING, text)
            await self._clock.sleep(delay)

    def _fail(self, reason: str) -> None:
        last = next((line for line in reversed(self._log.tail) if line.strip()), "")
        log.error("training has failed: %s", reason)
        self._view.last_event = reason
        self._view.enter(TrainingState.FAILED, f"{reason}; last in the log: {last.strip()}" if last else reason)
        self._failed.set()

    async def _watch(self, life: WorkerLife) -> None:
        """Until the process has ended; a silent one is killed."""
        self._view.pid = life.process.pid
        ended = asyncio.ensure_future(life.process.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=_POLL_S)
                await asyncio.to_thread(self._log.refresh)
                limit = self._grace_s + life.extra_grace_s if life.ready_at is None else self._silence_s
                if life.alive and not life.replaced and life.silent_s() > limit:
                    life.ended_because = f"the worker gave no sign of life for {limit:g} s and was killed"
                    life.signal(signal.SIGKILL)
            # Its last words may still be in the socket.
            if life.writer is not None:
                await asyncio.wait({asyncio.ensure_future(life.disconnected.wait())}, timeout=1.0)
            await asyncio.to_thread(self._log.refresh)
        finally:
            ended.cancel()
            self._view.pid = None
        life.hang_up()

    # What comes over its socket

    def _admit(self, message: WorkerMessage, writer: asyncio.StreamWriter) -> WorkerLife:
        """Raises ValueError for a stranger."""
        life = self._life
        taken = life is not None and life.writer is not None and not (life.ranks and life.disconnected.is_set())
        if life is None or taken or not isinstance(message, Hello):
            raise ValueError("a connection that no worker was started for")
        if not hmac.compare_digest(message.token.encode(), life.token.encode()):
            raise ValueError("a worker with a wrong token")
        life.connect(writer)
        self._view.enter(TrainingState.STARTING, "loading torch")
        life.send(Start(self._config, self._paused))
        return life

    def _lost(self, life: WorkerLife, writer: asyncio.StreamWriter) -> None:
        """A worker's connection has ended; where it was the leader of several ranks, their agent starts all of them anew."""
        life.disconnect(writer)
        if life.ranks and life.alive and not life.replaced and life.finished is None and life is self._life:
            self._view.fold()
            self._view.restarts += 1
            why = life.failed.reason if life.failed is not None else "a process of this training has ended"
            self._view.last_event = why
            self._view.enter(TrainingState.RESTARTING, f"{why}; all are starting anew")

    def _take(self, life: WorkerLife, message: WorkerMessage) -> None:
        life.heard_at = self._clock.monotonic()
        match message:
            case Metrics():
                self._view.take_metrics(message)
                self._samples.keep(message)
            case Ready():
                life.ready_at = life.ready_at or life.heard_at
                self._view.ready = message
            case EpochDone():
                self._view.take_epoch(message)
            case Overflowed():
                self._view.take_overflow(message)
            case Saved():
                self._view.take_saved(message)
            case Ranks():
                self._view.take_ranks(message)
            case Event():
                self._view.last_event = message.text
                if message.level is not Severity.INFO:
                    log.warning("training: %s", message.text)
            case Ack():
                waiting = life.acks.pop(message.id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Finished():
                life.finished = message
            case Failed():
                life.failed = message
                if life.ranks and message.lasting:  # their agent would try again
                    life.signal(signal.SIGTERM)
            case Hello():
                raise ValueError("a second Hello")
