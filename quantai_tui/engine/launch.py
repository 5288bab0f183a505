"""Starting an engine as a process of its own, and finding one that runs. Imported by the dashboard's side: light on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..link import EngineUnavailable
from ..python_child import python_command, python_environment
from ..textfile import escaped
from .logs import last_lines
from .places import PlaceError
from .registry import Entry, is_alive, running

_TAIL_LINES = 12
_TAIL_BYTES = 16_384
_LONGEST_ERROR = 8_000  # characters; JSON needs at most 6 bytes for each
_LONGEST_REPORT = 2**20
_READY_WITHIN_S = 90.0  # the embedded exchange may have a large archive to read first


class Report(msgspec.Struct, frozen=True):
    """The startup report that an engine sends to its starter over a pipe: one line of JSON."""

    entry: Entry | None = None  # it runs, or another one already did
    error: str = ""
    exit_code: int = 0

    def encode(self) -> bytes:
        """At most 64 KiB, the capacity of a pipe: an engine must not wait for a starter that does not read."""
        error = escaped(self.error)
        if len(error) > _LONGEST_ERROR:
            error = f"{error[:_LONGEST_ERROR]}… (shortened; it has {len(error)} characters)"
        return msgspec.json.encode(msgspec.structs.replace(self, error=error)) + b"\n"


class EngineProcess:
    """An engine started by us, in a session of its own: a hang-up of our terminal does not reach it."""

    def __init__(self, serve_arguments: Sequence[str], *, overrides: Sequence[str] = (), join: bool = True) -> None:
        """Start the engine. `join` accepts a running engine of the same name. `overrides` are NAME=VALUE each; they
        go over a pipe, because every user can read a command line and they may hold passwords.

        Raises PlaceError when there is nowhere to write its first words to.
        """
        self._join = join
        try:
            self._first_words = tempfile.TemporaryFile()  # noqa: SIM115 - ours until `forget`; nameless, so it cannot be left behind
        except OSError as error:
            raise PlaceError(f"no temporary file can be made: {error.strerror or error}. Set TMPDIR.") from error
        read_end, write_end = os.pipe()
        overrides_end, hand_over_end = os.pipe()
        ends = ("--ready-fd", str(write_end), "--overrides-fd", str(overrides_end))
        command = python_command("quantai_tui", "serve", *ends, *serve_arguments)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._first_words,
            stderr=self._first_words,
            pass_fds=(write_end, overrides_end),
            start_new_session=True,
            env=python_environment(),
        )
        os.close(write_end)
        os.close(overrides_end)
        _hand_over(hand_over_end, overrides)
        self._report_end: int | None = read_end
        self._entry: Entry | None = None

    @property
    def entry(self) -> Entry | None:
        return self._entry

    async def find(self) -> Path:
        """The socket of this engine, once it is ready. Raises EngineUnavailable when it did not start or has ended."""
        if self._report_end is not None:
            await self._wait_ready()
        assert self._entry is not None
        self._process.poll()  # reaps it, so that its end can be seen
        return await find_running(self._entry)

    async def _wait_ready(self) -> None:
        assert self._report_end is not None
        pipe, self._report_end = os.fdopen(self._report_end, "rb"), None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            line = await asyncio.wait_for(_read_report(reader), _READY_WITHIN_S)
        except TimeoutError:
            raise EngineUnavailable(self._with_first_words(f"the engine was not ready within {_READY_WITHIN_S:.0f} s")) from None
        finally:
            transport.close()
        if not line.endswith(b"\n"):
            code = await asyncio.to_thread(self._process.wait)
            raise EngineUnavailable(self._with_first_words(f"the engine did not start (exit {code})"))
        try:
            report = msgspec.json.decode(line, type=Report)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise EngineUnavailable(self._with_first_words(f"the engine's report cannot be read: {error}")) from error
        if report.entry is None or (report.error and not self._join):
            raise EngineUnavailable(report.error, report.exit_code)
        self._entry = report.entry

    def _with_first_words(self, text: str) -> str:
        handle = self._first_words.fileno()
        # pread: the engine writes on at the position that we share with it.
        said = os.pread(handle, _TAIL_BYTES, max(0, os.fstat(handle).st_size - _TAIL_BYTES)).decode("utf-8", "replace")
        return "\n".join([text, *said.splitlines()[-_TAIL_LINES:]])

    def forget(self) -> None:
        """Let go of what belongs to starting; the engine goes on."""
        self._first_words.close()
        if self._report_end is not None:
            os.close(self._report_end)
            self._report_end = None
        self._process.poll()
        # A child that outlives us on purpose: without this Popen warns about it when it is collected.
        self._process.returncode = self._process.returncode if self._process.returncode is not None else 0


async def _read_report(reader: asyncio.StreamReader) -> bytes:
    """Read up to the end of the line, which may exceed the reader's own limit, or to the end of the pipe.

    Raises EngineUnavailable for a report that no engine sends.
    """
    line = b""
    while not line.endswith(b"\n"):
        part = await reader.read(65_536)
        if not part:
            break
        line += part
        if len(line) > _LONGEST_REPORT:
            raise EngineUnavailable(f"the engine's report has more than {_LONGEST_REPORT} bytes")
    return line


def _hand_over(descriptor: int, overrides: Sequence[str]) -> None:
    """Write the overrides; waits for the engine to read only past the 64 KiB that a pipe holds."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:  # the engine ended; its report says why
        pipe.write(b"\0".join(os.fsencode(override) for override in overrides))


def receive_overrides(descriptor: int) -> tuple[str, ...]:
    """In the engine: read the overrides from the starter. Closes the descriptor."""
    with os.fdopen(descriptor, "rb") as pipe:
        data = pipe.read()
    return tuple(os.fsdecode(override) for override in data.split(b"\0")) if data else ()


def _with_tail(text: str, log: Path) -> str:
    lines = last_lines(log, _TAIL_LINES)
    return "\n".join([text, f"last lines of {log}:", *lines]) if lines else text


class NoSuchEngine(Exception):
    """No engine of that name, or more than one to choose from; the text says which there are."""


def pick(name: str | None) -> Entry:
    """The running engine of this name; without a name the only one there is. Raises NoSuchEngine, PlaceError."""
    entries = running()
    if name is not None:
        entries = [entry for entry in entries if entry.name == name] or [e for e in entries if e.name.startswith(name)]
    if len(entries) == 1:
        return entries[0]
    known = ", ".join(entry.name for entry in running()) or "none"
    if not entries:
        wanted = f"no engine named {name} runs" if name else "no engine runs"
        raise NoSuchEngine(f"{wanted} (running: {known}); start one with 'quantai-tui' or 'quantai-tui demo'")
    raise NoSuchEngine(f"several engines run, name one of them: {', '.join(entry.name for entry in entries)}")


async def find_running(entry: Entry) -> Path:
    """The socket of an engine found in the registry. Raises EngineUnavailable once it has ended."""
    if is_alive(entry):
        return Path(entry.socket)
    raise EngineUnavailable(_with_tail(f"the engine {entry.name} has ended", Path(entry.log)))
