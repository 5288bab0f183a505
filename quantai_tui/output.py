"""All output of the program: standard output, standard error, log files and JSON lines.

This module removes control characters (`cleaning`) and passwords (`masking`) from all output; callers do
not. Only the dashboard writes to the terminal directly, and cleans each cell.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

import msgspec

from .cleaning import clean, clean_lines
from .masking import masked
from .textfile import escaped

_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_CONTINUED = "    "
_LONGEST_LINE = 8_000  # characters; a longer line quotes an argument or a value that is too long
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


def safe_line(text: str) -> str:
    """Return `text` as one clean and masked line."""
    return _shortened(masked(clean(text)))


def safe_lines(text: str) -> str:
    """Like `safe_line`, for text of several lines."""
    text = masked(clean_lines(text))
    return "\n".join(map(_shortened, text.split("\n"))) if len(text) > _LONGEST_LINE else text


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}… (shortened; it has {len(line)} characters)"


class SafeStream(io.TextIOBase):
    """Standard output or error for the whole process: tracebacks, warnings, libraries, usage errors."""

    def __init__(self, inner: TextIO) -> None:
        self.inner = inner

    def write(self, text: str) -> int:
        self.inner.write(safe_lines(text))
        return len(text)

    def flush(self) -> None:
        self.inner.flush()

    def fileno(self) -> int:
        return self.inner.fileno()

    def isatty(self) -> bool:
        return self.inner.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # writable in the base class, but nothing sets it
        return self.inner.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.inner.errors


def _open_closed() -> None:
    """Open /dev/null for closed standard streams. Call it before anything else is opened.

    Otherwise the first file or socket gets the descriptor of a closed stream and receives its output; and Python has None for
    the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def _stream(number: int, mode: str) -> TextIO:
    return cast(TextIO, open(number, mode, encoding="utf-8", errors="replace", closefd=False))


def guard_streams() -> None:
    """Make standard output and error of this process safe and open closed ones. Each program of ours calls this first."""
    _open_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, SafeStream):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # print a question mark for characters that the locale cannot encode
        setattr(sys, name, SafeStream(stream))
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter("%(message)s"))


def say(*lines: str, err: bool = False, bold: bool = False) -> None:
    """Print lines on standard output or error. Each argument is one line, whatever it contains. Raises OSError.

    Without that stream, nothing is printed. `bold` applies to terminals only.
    """
    stream = _unguarded(err)
    if stream is None:
        return
    begin, end = ("\x1b[1m", "\x1b[0m") if bold and stream.isatty() else ("", "")
    stream.write("".join(f"{begin}{safe_line(line)}{end}\n" for line in lines))
    stream.flush()


def say_json(value: object) -> None:
    """Print `json_line(value)` on standard output and flush. Raises OSError."""
    stream = _unguarded(err=False)
    if stream is not None:
        stream.write(json_line(value) + "\n")
        stream.flush()


def say_over(line: str) -> None:
    """Overwrite the current line of standard error's terminal; `say("", err=True)` starts a new line."""
    stream = _unguarded(err=True)
    if stream is not None:
        stream.write(f"\r{safe_line(line)}")
        stream.flush()


def _unguarded(err: bool) -> TextIO | None:
    stream = sys.stderr if err else sys.stdout
    return stream.inner if isinstance(stream, SafeStream) else stream


@contextmanager
def output_failures_told() -> Iterator[None]:
    """End the program with one message and exit code 1 when output cannot be written, usually because the disk is full.

    A closed pipe (EPIPE) is not a failure: click exits quietly.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _CANNOT_WRITE:
            raise
        with suppress(OSError):  # standard error itself may be unwritable
            say(f"quantai-tui: the output cannot be written: {error.strerror}", err=True)
        # The rest of the buffer would fail again at the interpreter's exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise SystemExit(1) from None


class LogFormatter(logging.Formatter):
    """The format of all our logs, in UTC. The further lines of a record are indented."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return safe_lines(super().format(record)).rstrip("\n").replace("\n", f"\n{_CONTINUED}")


def log_to_stderr(form: str) -> None:
    """Make the root logger write to standard error, from level INFO."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def json_line(value: object) -> str:
    """Encode `value` as one line of ASCII JSON. Nothing is masked, because programs may read it back."""
    text = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(value))).decode()
    return _NOT_PLAIN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _without_surrogates(value: object) -> object:
    """Replace lone surrogates, which a file name may have and msgspec refuses."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(part) for part in value]
    return value
