"""The training worker: `python -m quantai_tui.training.worker --socket PATH`, with its token in QUANTAI_WORKER_TOKEN.

The main thread trains. A second thread listens to the engine and sees to it that this process never outlives it: at a stop, or at
the end of the socket, the loop is asked to leave, with a last checkpoint, and what has not left within two seconds is ended. A
third waits for SIGTERM, which a service manager sends to everybody, and does the same. Torch is imported only after Hello, so
that the engine knows the process while its slow start goes on. Nothing is written but the log, which is stderr, and checkpoints.

Under torchrun the first rank of the engine's machine leads: it is the worker of which the engine knows. The others (`--join`, or
any other rank of the engine's machine) have no socket, are told everything by the leader, and end with their agent.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..output import guard_streams, log_to_stderr
from ..telemetry import Severity
from . import reasons
from .channel import ChannelClosed, WorkerChannel
from .launcher import AGENT_VARIABLE, threads_per_rank
from .lifeline import die_with_parent
from .messages import (
    TOKEN_VARIABLE,
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
    SupervisorMessage,
)

if TYPE_CHECKING:
    from .loop import TrainingLoop
    from .ranks import Ranks as Fellows

log = logging.getLogger(__name__)

_NICENESS = 10
_LEAVE_WITHIN_S = 2.0
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class _SocketReporter:
    """Reports over the channel; events also go to the log. `on_closed` is for leaving in good order when nobody hears."""

    def __init__(self, channel: WorkerChannel, on_closed: Callable[[], None]) -> None:
        self._channel = channel
        self._on_closed = on_closed

    def metrics(self, metrics: Metrics) -> bool:
        try:
            return self._channel.send_metrics(msgspec.structs.replace(metrics, dropped=self._channel.dropped))
        except ChannelClosed:
            self._on_closed()
            return False

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved | Ranks) -> None:
        _log_event(message)
        try:
            self._channel.send(message)
        except ChannelClosed:
            self._on_closed()


class _Mute:
    """Of a rank that does not lead: what it would say is what the leader says."""

    def metrics(self, metrics: Metrics) -> bool:
        return True

    def send(self, message: Ready | EpochDone | Event | Overflowed | Saved | Ranks) -> None:
        _log_event(message)


def _log_event(message: object) -> None:
    if isinstance(message, Event):
        log.log(_LEVELS[message.level], "%s", message.text)


class _Listener(threading.Thread):
    """Reads the socket: the Start, then controls, then its end."""

    def __init__(self, channel: WorkerChannel) -> None:
        super().__init__(name="listener", daemon=True)
        self._channel = channel
        self._decoder = msgspec.msgpack.Decoder(SupervisorMessage)
        self._lock = threading.Lock()
        self._loop: TrainingLoop | None = None
        self._early: list[Control] = []
        self._leaving = False
        self.start_message: Start | None = None
        self.started = threading.Event()

    def run(self) -> None:
        try:
            while True:
                for body in self._channel.receive():
                    self._take(self._decoder.decode(body))
        except ChannelClosed as closed:
            log.info("leaving: %s", closed)
        except (msgspec.MsgspecError, ValueError):
            log.exception("leaving: the engine sent what this worker does not understand")
        self.leave()

    def attach(self, loop: TrainingLoop) -> None:
        """From now on controls go to this loop; those that came before it do first."""
        with self._lock:
            self._loop = loop
            for control in self._early:
                self._pass_on(loop, control)
            self._early.clear()

    def _take(self, message: SupervisorMessage) -> None:
        if isinstance(message, Start):
            self.start_message = message
            self.started.set()
            return
        with self._lock:
            if message.kind is ControlKind.STOP:
                self._channel.send(Ack(message.id, True, "stopping"))
                self.leave()
            elif self._loop is None:
                self._early.append(message)
            else:
                self._pass_on(self._loop, message)

    def _pass_on(self, loop: TrainingLoop, control: Control) -> None:
        def answer(ok: bool, text: str) -> None:
            try:
                self._channel.send(Ack(control.id, ok, text))
            except ChannelClosed:
                self.leave()

        match control.kind:
            case ControlKind.PAUSE:
                loop.request_pause(answer)
            case ControlKind.RESUME:
                loop.request_resume(answer)
            case ControlKind.RESET_SCALER:
                loop.request_reset_scale(answer)
            case ControlKind.CHECKPOINT:
                loop.request_checkpoint(answer)
            case ControlKind.SETTINGS if control.config is not None:
                loop.request_settings(control.config, answer)
            case _:
                answer(False, f"{control.kind} came without its config")

    def leave(self) -> None:
        """Ask the loop to end, and end the process when it has not. Before there is a loop, there is nothing to lose."""
        if self._leaving:
            return
        self._leaving = True
        if self._loop is None:
            os._exit(0)
        self._loop.request_stop()
        timer = threading.Timer(_LEAVE_WITHIN_S, os._exit, (0,))
        timer.daemon = True
        timer.start()


def _leave_when_told(channel: WorkerChannel, listener: _Listener) -> None:
    """A signal handler may not take the locks that leaving takes: a thread waits for the signal instead."""

    def wait() -> None:
        number = signal.sigwait({signal.SIGTERM})
        log.warning("leaving: %s", signal.Signals(number).name)
        try:
            channel.send(Failed(reasons.of_signal(number)))
        except ChannelClosed:
            log.info("nobody was there to hear of it")
        listener.leave()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _join(*, lead: bool) -> Fellows:
    """The ranks that torchrun has started with this one, or nobody. Raises RanksLost, ValueError."""
    import torch

    from .joining import Place
    from .ranks import Group, Solo

    # Only now: on a busy machine a nice process takes minutes to load torch, and would be taken for dead.
    os.nice(_NICENESS)
    torch.set_num_threads(threads_per_rank(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    place = Place.of()
    return Solo() if place is None else Group(place, lead=lead)


def _train(channel: WorkerChannel, listener: _Listener, start: Start) -> None:
    import torch

    from .loop import TrainingLoop

    ranks = _join(lead=True)
    ranks.tell(msgspec.msgpack.encode(start))
    loop = TrainingLoop(start.config, _SocketReporter(channel, listener.leave), paused=start.paused, ranks=ranks)
    log.info("torch %s, training on %s %s s bars", torch.__version__, start.config.symbol, start.config.interval_s)
    listener.attach(loop)
    if loop.run():
        channel.send(Finished(f"trained {start.config.max_epochs} epochs"))
    ranks.leave()


def _follow() -> int:
    """A rank that does not lead. What goes wrong is in the log; the agent starts all ranks anew."""
    from .joining import RanksLost
    from .loop import TrainingLoop

    try:
        ranks = _join(lead=False)
        start = msgspec.msgpack.decode(ranks.tell(b""), type=Start)
        TrainingLoop(start.config, _Mute(), paused=start.paused, ranks=ranks).run()
        ranks.leave()
    except RanksLost as lost:
        log.warning("leaving: %s", lost)
        return 1
    except Exception:
        log.exception("the worker has failed")
        return 1
    return 0


def _listen(path: str) -> tuple[WorkerChannel, _Listener]:
    channel = WorkerChannel(path)
    channel.send(Hello(os.getpid(), os.environ.pop(TOKEN_VARIABLE, "")))
    listener = _Listener(channel)
    listener.start()
    return channel, listener


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quantai_tui.training.worker", description="Started by the engine, not by hand.")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--socket", help="the engine's worker socket")
    whose.add_argument("--join", action="store_true", help="a rank on another machine")
    path = parser.parse_args(arguments).socket
    rank = f"rank {os.environ['RANK']} " if "TORCHELASTIC_RUN_ID" in os.environ else ""
    log_to_stderr(f"%(asctime)sZ {rank}%(levelname)s %(message)s")
    if AGENT_VARIABLE in os.environ:
        die_with_parent(int(os.environ[AGENT_VARIABLE]))
    if path is None or int(os.environ.get("LOCAL_RANK", "0")) > 0:
        return _follow()
    return _lead(path)


def _lead(path: str) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before the first thread: all of them inherit it
    try:
        channel, listener = _listen(path)
    except OSError as error:
        log.error("cannot reach the engine at %s: %s", path, error)
        return 1
    _leave_when_told(channel, listener)
    listener.started.wait()
    assert listener.start_message is not None
    try:
        _train(channel, listener, listener.start_message)
        channel.flush(1.0)
    except ChannelClosed as closed:
        log.info("leaving: %s", closed)
    except BaseException as error:
        log.exception("the worker has failed")
        # What is refused now, or cannot be loaded, will not be better in a moment; anything else may have been a bad moment.
        return _report_failure(channel, Failed(reasons.of_error(error), lasting=isinstance(error, (ValueError, ImportError))))
    return 0


def _report_failure(channel: WorkerChannel, failed: Failed) -> int:
    try:
        channel.send(failed)
        channel.flush(1.0)
    except ChannelClosed:
        log.info("nobody was there to hear of it")
    return 1


if __name__ == "__main__":
    # Not sys.exit: a listener in recv and torch's threads must not hold up the end.
    guard_streams()
    code = main()
    logging.shutdown()
    os._exit(code)
