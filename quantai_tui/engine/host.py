"""Running one engine as a process: signals, the report to whoever started it, and what it prints without a dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import msgspec

from ..masking import masked_deep
from ..output import json_line, safe_line, say
from ..private_files import open_private
from ..telemetry import EngineSnapshot, StreamState, TrainingState
from .engine import Engine
from .launch import Report
from .printer import Printer
from .starting import EXIT_STORE_FAILED, StartError, reason_of

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_STREAM_FAILED = 3
EXIT_WORKER_FAILED = 4

_STARVED_S = 5.0  # a worker that waits looks into the store twice a second


@contextlib.contextmanager
def _signals(stop: Callable[[], object], *, detached: bool) -> Iterator[None]:
    """SIGINT and SIGTERM ask for a stop. A detached engine has no terminal to lose and lets a hang-up pass."""
    loop = asyncio.get_running_loop()
    asked = [signal.SIGINT, signal.SIGTERM]
    if not detached and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored on purpose below nohup
        asked.append(signal.SIGHUP)
    for number in asked:
        loop.add_signal_handler(number, stop)
    if detached:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in asked:
            loop.remove_signal_handler(number)


def _stopper(engine: Engine, starting: asyncio.Task[None]) -> Callable[[], None]:
    """What a signal does, at any moment and however often: a second one must not cut short the cleaning up after the first."""

    def stop() -> None:
        engine.request_stop()
        if not starting.cancelling():
            starting.cancel()

    return stop


async def serve(build: Callable[[], Engine], ready_fd: int | None) -> int:
    """Run an engine until it is asked to stop. `ready_fd`: where its starter waits for a `Report`."""
    detached = ready_fd is not None
    try:
        engine = build()
        _tell_warnings(engine)
        starting = asyncio.create_task(engine.start())
        with _signals(_stopper(engine, starting), detached=detached):
            await starting
            try:
                if detached:
                    _redirect_output(engine.folder.path / "engine.out")
                _report(ready_fd, Report(engine.entry()))
                if not detached:
                    say(f"engine {engine.name} runs (pid {os.getpid()}); see it with 'quantai-tui attach {engine.name}'")
                await engine.wait_stop_requested()
            finally:
                await engine.stop()
    except StartError as error:
        _report(ready_fd, Report(error.entry, str(error), error.exit_code))
        say(*f"quantai-tui: {error}".split("\n"), err=True)
        return error.exit_code
    except asyncio.CancelledError:
        return EXIT_OK
    return _final_code(engine)


def _final_code(engine: Engine) -> int:
    """The exit code of an engine that was to end, and has; a failure of its store is told."""
    if not engine.failure:
        return EXIT_OK
    say(f"quantai-tui: {engine.failure}", err=True)
    return EXIT_STORE_FAILED


def _tell_warnings(engine: Engine) -> None:
    for warning in engine.desk.loaded.warnings:
        say(f"quantai-tui: warning: {warning}", err=True)


def _redirect_output(path: Path) -> None:
    """Redirect what libraries print to a file of the engine: the starter's output may be gone. Raises StartError."""
    try:
        handle = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as error:
        raise StartError(reason_of(error)) from error
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _report(ready_fd: int | None, report: Report) -> None:
    if ready_fd is None:
        return
    with contextlib.suppress(BrokenPipeError):  # the starter is gone: its dashboard was closed meanwhile
        os.write(ready_fd, report.encode())
    os.close(ready_fd)


async def headless(build: Callable[[], Engine], *, as_json: bool, for_s: float | None, out: TextIO) -> int:
    """Run an engine without a dashboard, a status line a second, until it is done, failed, timed out or told to stop."""
    out.flush()  # the printer bypasses this buffer
    try:
        engine = build()
        _tell_warnings(engine)
        starting = asyncio.create_task(engine.start())
        with _signals(_stopper(engine, starting), detached=False), contextlib.closing(Printer(out.fileno())) as printer:
            await starting
            try:
                code = await _print_until_done(engine, printer, _json_line if as_json else _text_line, for_s)
            finally:
                await engine.stop()
            return _final_code(engine) if code == EXIT_OK else code  # what came last may not have been stored
    except StartError as error:
        say(*f"quantai-tui: {error}".split("\n"), err=True)
        return error.exit_code
    except asyncio.CancelledError:
        return EXIT_OK


async def _print_until_done(
    engine: Engine, printer: Printer, line_of: Callable[[EngineSnapshot], str], for_s: float | None
) -> int:
    begun = time.monotonic()
    deadline = None if for_s is None else begun + for_s
    line_at = begun
    starving_since: float | None = None
    while True:
        snapshot = engine.snapshot()
        starving_since = (starving_since or time.monotonic()) if _is_starving(snapshot) else None
        code = _verdict(engine, snapshot, deadline, starving_since)
        if code is not None or time.monotonic() >= line_at:
            printer.put(line_of(snapshot))
            line_at += 1.0
        if code is not None:
            return code
        if isinstance(printer.error, BrokenPipeError):
            return EXIT_OK  # whoever read our lines has left
        if printer.error is not None:
            say(f"quantai-tui: the status lines cannot be written: {printer.error}", err=True)
            return 1
        until = line_at if deadline is None else min(line_at, deadline)
        # Five looks a second: a replay should not sit there finished for a whole second.
        wait = min(0.2, max(0.0, until - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.wait_stop_requested(), wait)


def _is_starving(snapshot: EngineSnapshot) -> bool:
    """A replay that is stored whole and still too short to train on: no more bars will come."""
    stored = snapshot.replay_progress == 1.0 and not snapshot.store.queued
    return stored and snapshot.training.state is TrainingState.WAITING


def _verdict(engine: Engine, snapshot: EngineSnapshot, deadline: float | None, starving_since: float | None) -> int | None:
    """The exit code when it is time to leave, else None."""
    if engine.failure:
        return _final_code(engine)
    if snapshot.stream.state is StreamState.FAILED and engine.exits_on_failure:
        error = snapshot.stream.last_error
        reason = f"{error.message}. {error.advice}" if error else snapshot.stream.cause
        say(f"quantai-tui: the stream failed for good: {reason}", err=True)
        return EXIT_STREAM_FAILED
    if snapshot.training.state is TrainingState.FAILED and engine.exits_on_failure:
        say(f"quantai-tui: training failed for good: {snapshot.training.detail}", err=True)
        return EXIT_WORKER_FAILED
    if starving_since is not None and time.monotonic() - starving_since > _STARVED_S:
        say(
            f"quantai-tui: the file is too short to train on ({snapshot.training.detail}); everything in it is stored. "
            "Set a shorter BAR_INTERVAL or TRAIN_WINDOW, or TRAIN_AUTOSTART=False to replay without training",
            err=True,
        )
        return EXIT_BAD_INPUT
    over = deadline is not None and time.monotonic() >= deadline
    return EXIT_OK if snapshot.finished or engine.stop_requested or over else None


def _json_line(snapshot: EngineSnapshot) -> str:
    """The public form: everything but what only a screen needs."""
    fields = msgspec.to_builtins(snapshot)
    for name in ("series", "log", "theme", "keys"):
        del fields[name]
    return json_line(masked_deep(fields))


def _number(value: float | None, form: str = "g") -> str:
    return "n/a" if value is None else format(value, form)


def _text_line(snapshot: EngineSnapshot) -> str:
    stream, training = snapshot.stream, snapshot.training
    parts = [time.strftime("%H:%M:%SZ", time.gmtime(snapshot.time)), stream.state.value]
    if stream.state is StreamState.BACKOFF:
        parts.append(
            f"attempt {stream.attempt} of {stream.max_attempts or 'any'} in {stream.backoff_remaining_s:.0f} s ({stream.cause})"
        )
    for name, symbol in stream.symbols.items():
        state = "no trade yet" if symbol.last_id is None else f"missing {symbol.missing}" if symbol.missing else "whole"
        parts.append(f"{name} id {_number(symbol.last_id, 'd')} stored {symbol.stored} {state}")
    parts.append(f"rtt {_number(stream.rtt_ms.last, '.1f')} ms")
    if snapshot.replay_progress is not None:
        parts.append(f"played {snapshot.replay_progress:.0%}")
    parts.append(f"training {training.state.value}" + (f" ({training.detail})" if training.detail else ""))
    if training.step is not None:
        parts.append(
            f"epoch {_number(training.epoch, 'd')} step {training.step} loss {_number(training.loss, '.4f')} "
            f"scale {_number(training.scale)} overflows {_number(training.overflow_count, 'd')}"
        )
    if training.accuracy is not None:
        parts.append(f"accuracy {training.accuracy:.3f} (baseline {_number(training.baseline_accuracy, '.3f')})")
    parts.extend(f"ALERT {alert.text}" for alert in snapshot.alerts)
    return safe_line(" | ".join(parts))
