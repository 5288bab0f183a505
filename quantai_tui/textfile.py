"""Reads the small files that people write: settings, themes, fault scripts.

A file is read once, whole, up to a limit. Only regular files are opened: a pipe would wait for its writer, and a device may have
no end.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class UnusableFile(ValueError):
    """Why a file cannot be used, as text that follows its name: "is a pipe, not a file"."""


class IsFolder(UnusableFile):
    """There is a folder of that name."""

    def __init__(self) -> None:
        super().__init__("is a folder, not a file")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """A regular file's content. Raises FileNotFoundError, IsFolder, and UnusableFile for every other problem."""
    try:
        _need_regular(path.stat().st_mode)  # before opening, which would wake the writer of a pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            _need_regular(os.fstat(descriptor).st_mode)  # the file may have been replaced
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableFile(f"cannot be read: {error.strerror or error}") from error
    except UnusableFile:
        raise
    except ValueError as error:
        raise UnusableFile("cannot be read: its name holds a zero byte") from error
    if len(content) > most_bytes:
        raise UnusableFile(f"is larger than {_size(most_bytes)}")
    return content


def read_text(path: Path, most_bytes: int) -> str:
    """A UTF-8 file's text with its line ends, without a byte order mark. Raises like `read_bytes`."""
    return decode(read_bytes(path, most_bytes))


def decode(content: bytes) -> str:
    """Decode UTF-8 without its byte order mark. Raises UnusableFile for anything else, including zero bytes."""
    if content.startswith(_UTF16_MARKS):
        raise UnusableFile("is UTF-16 text: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"is not UTF-8 text (line {_line(content, error.start)}): save it as UTF-8") from error
    zero = content.find(b"\0")
    if zero >= 0:
        raise UnusableFile(f"is not text: it has a zero byte in line {_line(content, zero)}")
    return text


def escaped(text: str) -> str:
    """Make a text encodable: bytes of a file's or a variable's name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises only UnusableFile, whatever the text."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnusableFile(f"is not valid TOML: {error}") from error
    except RecursionError:
        raise UnusableFile("is not valid TOML: its values are nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise UnusableFile(f"holds a TOML value that cannot be read: {error}") from error


def _need_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsFolder
    if not stat.S_ISREG(mode):
        raise UnusableFile(f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _size(most_bytes: int) -> str:
    mib, rest = divmod(most_bytes, 2**20)
    return f"{most_bytes // 1024} KiB" if rest else f"{mib} MiB"
