"""The training worker: `python -m quantai_tui.training.worker --socket PATH`, with its token in QUANTAI_WORKER_TOKEN.

The main thread trains. A second thread listens to the engine and sees to it that this process never outlives it: at a stop, or at
the end of the socket, the loop is asked to leave, and what has not left within two seconds is ended. Torch is imported only after
Hello, so that the engine knows the process while its slow start goes on. Nothing is written but the log, which is stderr.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from ..telemetry import Severity
from .channel import ChannelClosed, WorkerChannel
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
    Ready,
    Start,
    SupervisorMessage,
)

if TYPE_CHECKING:
    from .loop import TrainingLoop

log = logging.getLogger(__name__)

_NICENESS = 10
_LEAVE_WITHIN_S = 2.0
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class _SocketReporter:
    """Reports over the channel; events also go to the log."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel

    def metrics(self, metrics: Metrics) -> bool:
        return self._channel.send_metrics(msgspec.structs.replace(metrics, dropped=self._channel.dropped))

    def send(self, message: Ready | EpochDone | Event) -> None:
        if isinstance(message, Event):
            log.log(_LEVELS[message.level], "%s", message.text)
        self._channel.send(message)


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
        self._leave()

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
                self._leave()
            elif self._loop is None:
                self._early.append(message)
            else:
                self._pass_on(self._loop, message)

    def _pass_on(self, loop: TrainingLoop, control: Control) -> None:
        def answer(ok: bool, text: str) -> None:
            self._channel.send(Ack(control.id, ok, text))

        match control.kind:
            case ControlKind.PAUSE:
                loop.request_pause(answer)
            case ControlKind.RESUME:
                loop.request_resume(answer)
            case ControlKind.RESET_SCALER:
                loop.request_reset_scale(answer)
            case ControlKind.SETTINGS if control.config is not None:
                loop.request_settings(control.config, answer)
            case _:
                answer(False, f"{control.kind} came without its config")

    def _leave(self) -> None:
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train(channel: WorkerChannel, listener: _Listener, start: Start) -> None:
    import torch

    from .loop import TrainingLoop

    torch.set_num_threads(max(1, _cores() - 1))
    loop = TrainingLoop(start.config, _SocketReporter(channel), paused=start.paused)
    log.info("torch %s, training on %s %s s bars", torch.__version__, start.config.symbol, start.config.interval_s)
    listener.attach(loop)
    if loop.run():
        channel.send(Finished(f"trained {start.config.max_epochs} epochs"))


def _reason(error: BaseException) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of GPU memory; choose a smaller model or batch ({str(error).splitlines()[0]})"
    if isinstance(error, MemoryError):
        return "out of memory; choose a smaller model or batch"
    return f"{type(error).__name__}: {error}"


def _listen(path: str) -> tuple[WorkerChannel, _Listener]:
    channel = WorkerChannel(path)
    channel.send(Hello(os.getpid(), os.environ.pop(TOKEN_VARIABLE, "")))
    listener = _Listener(channel)
    listener.start()
    return channel, listener


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quantai_tui.training.worker", description="Started by the engine, not by hand.")
    parser.add_argument("--socket", required=True, help="the engine's worker socket")
    path = parser.parse_args(arguments).socket
    logging.Formatter.converter = time.gmtime  # files are in UTC
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)sZ %(levelname)s %(message)s")
    os.nice(_NICENESS)
    try:
        channel, listener = _listen(path)
    except OSError as error:
        log.error("cannot reach the engine at %s: %s", path, error)
        return 1
    listener.started.wait()
    assert listener.start_message is not None
    try:
        _train(channel, listener, listener.start_message)
        channel.flush(1.0)
    except ChannelClosed as closed:
        log.info("leaving: %s", closed)
    except BaseException as error:
        log.exception("the worker has failed")
        # A value that is refused now will be refused again; anything else may have been a bad moment.
        return _report_failure(channel, Failed(_reason(error), lasting=isinstance(error, ValueError)))
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
    code = main()
    logging.shutdown()
    os._exit(code)
