"""Small text files that people write are read whole, up to a limit, without blocking."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.textfile import IsFolder, UnusableFile, parse_toml, read_bytes, read_text

LIMIT = 100


def make(path: Path, kind: str) -> Path:
    """Make a file of a kind that must not be read."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(path.parent)  # a test's folder may exceed the limit of a socket's path
            listener.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle of links":
        path.symlink_to(path)
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate(2**40)  # sparse; only the limit is read
    elif kind == "UTF-16":
        path.write_bytes("a = 1\n".encode("utf-16"))
    elif kind == "UTF-16 without a mark":
        path.write_bytes("a = 1\n".encode("utf-16-le"))
    elif kind == "Latin-1":
        path.write_bytes(b"a = 1\n# caf\xe9\n")
    return path


HOSTILE = {
    "folder": "is a folder, not a file",
    "pipe": "is a pipe, not a file",
    "socket": "is a socket, not a file",
    "device": "is a device, not a file",
    "circle of links": "cannot be read: Too many levels of symbolic links",
    "too large": "is larger than",
    "UTF-16": "is UTF-16 text: save it as UTF-8",
    "UTF-16 without a mark": "is not text: it has a zero byte in line 1",
    "Latin-1": "is not UTF-8 text (line 2): save it as UTF-8",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_but_a_text_file_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnusableFile) as refused:
        read_text(make(tmp_path / "file", kind), LIMIT)
    assert str(refused.value).startswith(HOSTILE[kind])
    assert isinstance(refused.value, IsFolder) == (kind == "folder")


def test_a_file_up_to_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * LIMIT)
    assert read_bytes(path, LIMIT) == b"x" * LIMIT
    path.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(UnusableFile, match="is larger than 0 KiB"):
        read_bytes(path, LIMIT)


def test_missing_file_differs_from_an_unusable_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", LIMIT)
    with pytest.raises(UnusableFile, match="zero byte"):
        read_text(tmp_path / "a\0b", LIMIT)


def test_byte_order_mark_is_removed_and_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\n")
    assert read_text(path, LIMIT) == "a = 1\r\nb = 2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 1000, "nested too deeply"),
        ("a = " + "{a=" * 1000, "nested too deeply"),
        ("a = 1" + "0" * 5000, "holds a TOML value that cannot be read"),
        ("a = = 1", "is not valid TOML: Invalid value (at line 1, column 5)"),
    ],
)
def test_invalid_toml_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(UnusableFile) as refused:
        parse_toml(text)
    assert said in str(refused.value)


@given(st.text(alphabet="a=[]{}\"'.,#\n1T:-\\u \x00", max_size=60))
def test_any_text_is_toml_or_refused(text: str) -> None:
    with contextlib.suppress(UnusableFile):
        assert isinstance(parse_toml(text), dict)
