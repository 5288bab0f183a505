"""What a single value must be where no range says it. Each takes the value, returns it, and raises in our own words."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from ..masking import is_cut_short
from ..symbols import SYMBOL_RULE, is_symbol

LONGEST_TEXT = 4096  # characters, the limit of a Linux path
MOST_CA_BYTES = 2**24  # the system's own bundle has a quarter of a MiB
_KEY = re.compile(r"[a-z0-9-]{1,40}=[^\s,]{1,60}")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
RETENTION_RULE = "0, or from 1/24 (one hour) to 36500"


def usable_text(value: object) -> object:
    """Refuse text that files, sockets or the store cannot take, for all settings."""
    for text in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(text, str):
            continue
        if "\0" in text:
            raise PydanticCustomError("text", "must be text without zero bytes")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("text", "must be UTF-8 text") from None
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise PydanticCustomError("text", "must be at most {limit} characters long", {"limit": LONGEST_TEXT})
    return value


def upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def split_list(value: object) -> object:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return value


def symbols(value: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.upper() for name in value)
    for name in names:
        if not is_symbol(name):
            raise PydanticCustomError("symbol", "each symbol must be {rule}", {"rule": SYMBOL_RULE})
    if len(set(names)) != len(names):
        raise PydanticCustomError("symbol", "each symbol at most once")
    return names


def moved_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    """Which actions and keys there are the dashboard knows, and says."""
    if not all(_KEY.fullmatch(pair) for pair in value):
        raise PydanticCustomError("keys", "must be action=key, comma-separated, as in rotate=ctrl+r,quit=x")
    if len({pair.partition("=")[0] for pair in value}) != len(value):
        raise PydanticCustomError("keys", "each action at most once")
    return value


def symbol_or_none(value: str) -> str:
    if value and not is_symbol(value.upper()):
        raise PydanticCustomError("symbol", "must be {rule}", {"rule": SYMBOL_RULE})
    return value.upper()


def device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise PydanticCustomError("device", "must be auto, cpu, cuda or cuda:N")
    return value


def retention(value: float) -> float:
    if value != 0 and value < 1 / 24:  # what has just arrived must outlive the repair that may still need it
        raise PydanticCustomError("retention", "must be {rule}", {"rule": RETENTION_RULE})
    return value


def whole_address(value: object) -> object:
    """Runs before the pattern check, to explain how to write a password with special characters."""
    if isinstance(value, str) and is_cut_short(value):
        raise PydanticCustomError("address", "must have no #, / or ? in its user and password: write them as %23, %2F and %3F")
    return value


def no_credentials(value: object) -> object:
    """Before the pattern, which would say less of a password that has special characters."""
    if isinstance(value, str) and "@" in value:
        raise PydanticCustomError("address", "must be an address without user and password")
    return value


def address(value: str) -> str:
    try:
        usable = value in ("", "none") or (urlsplit(value).hostname and urlsplit(value).port != 0)
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("address", "must name a host, and a port from 1 to 65535 if any")
    return value


def endpoint(value: str) -> str:
    """host:port at which this program listens for other machines, at one address of this machine."""
    host, _, port = value.rpartition(":")
    if value and not 0 < int(port) <= 65535:
        raise PydanticCustomError("endpoint", "must have a port from 1 to 65535")
    try:
        everywhere = bool(value) and socket.inet_aton(host) == bytes(4)  # 0, 0.0 and 0x0 are spellings of 0.0.0.0
    except OSError:  # a name
        everywhere = False
    if everywhere:
        raise PydanticCustomError("endpoint", "must be one address of this machine, not all: anyone who connects can run code")
    return value


def readable_file(value: str) -> str:
    if value and (reason := unreadable(Path(value))):
        raise PydanticCustomError("ca_file", "must be a file that can be read: {reason}", {"reason": reason})
    return value


def unreadable(path: Path) -> str:
    """Why a file cannot be read; empty when it can."""
    try:
        if not path.is_file():  # asked first, since opening a FIFO would wait for its writer
            return "it is not a regular file" if path.exists() else "there is none"
        if path.stat().st_size > MOST_CA_BYTES:
            return f"it is larger than {MOST_CA_BYTES // 2**20} MiB"
        with path.open("rb"):
            return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
