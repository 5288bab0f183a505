"""The command record: what a running engine's stream receives, put down in a file that can be replayed."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, NoReturn

import click

from ..output import say
from .options import Number, fail

if TYPE_CHECKING:
    from ..engine.registry import Entry
    from ..link import Ack, CommandName
    from ..telemetry import RecordingSnapshot

_ANSWER_WITHIN_S = 60.0


@click.command()
@click.argument("name", required=False)
@click.option("--stop", "stops", is_flag=True, help="End the recording under way.")
@click.option("--max-mb", type=Number(min=0, min_open=True), metavar="N", help="End at this size (WS_RECORD_MAX_MB).")
def record(name: str | None, stops: bool, max_mb: float | None) -> None:
    """Record what the stream of a running engine receives. NAME as 'ps' lists it; not needed when only one runs."""
    if stops and max_mb is not None:
        raise click.UsageError("--max-mb goes with the beginning of a recording, not with --stop")
    from ..engine.launch import NoSuchEngine, pick
    from ..engine.places import PlaceError
    from ..link import CommandName

    try:
        entry = pick(name)
    except (NoSuchEngine, PlaceError) as error:
        fail(str(error))
    if stops:
        answer = _ask(entry, CommandName.RECORD_STOP)
        if answer.ok:
            _tell_end(answer)
            return
    else:
        answer = _ask(entry, CommandName.RECORD_START, **({} if max_mb is None else {"max_mb": max_mb}))
        if answer.ok:
            say(f"{entry.name}: {answer.message}")
            say(f"end it with: quantai-tui record {entry.name} --stop")
            return
    _refuse(entry.name, answer, stops=stops)


def _ask(entry: Entry, command: CommandName, **args: float) -> Ack:
    from ..engine.asking import ask
    from ..link.frames import FrameError

    try:
        return asyncio.run(asyncio.wait_for(ask(entry, command, client="record", **args), _ANSWER_WITHIN_S))
    except TimeoutError:
        fail(f"{entry.name} has not answered within {_ANSWER_WITHIN_S:.0f} s; see {entry.log}", exit_code=1)
    except (OSError, asyncio.IncompleteReadError, FrameError) as error:
        fail(f"{entry.name} does not answer: {error}", exit_code=1)


def _recording(answer: Ack) -> RecordingSnapshot | None:
    import msgspec

    from ..telemetry import RecordingSnapshot

    return None if answer.data is None else msgspec.convert(answer.data, RecordingSnapshot)


def _tell_end(answer: Ack) -> None:
    done = _recording(answer)
    if done is None:
        fail(answer.message, exit_code=1)
    say(f"{done.path}: {_size(done.size_bytes)}, {done.frames} messages in {done.seconds:.0f} s")
    if done.ended != "stopped":
        say(f"the recording had already ended: {done.ended}")
    say(f"replay it with: quantai-tui replay {shlex.quote(done.path)}")


def _refuse(name: str, answer: Ack, *, stops: bool) -> NoReturn:
    last = _recording(answer)
    note = ""
    if last is not None and not last.ended:
        note = f" (so far {_size(last.size_bytes)}, {last.frames} messages, {last.seconds:.0f} s)"
    elif last is not None and stops:
        note = f"; the last recording, {last.path} of {_size(last.size_bytes)}, ended: {last.ended}"
    fail(f"{name}: {answer.message}{note}", exit_code=1)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
