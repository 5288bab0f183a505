"""Fault scripts: a TOML file that says what goes wrong and when.

seed = 7            # of all chance: jitter, order, noise; 0 when left out

[[fault]]
at = 20.0           # seconds from the first subscription; 0 when left out
kind = "close"      # a name in `catalogue.FAULTS`
code = 1012         # a parameter of the kind
for = 10.0          # seconds
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..textfile import UnusableFile, decode, parse_toml, read_bytes
from .catalogue import parse_fault
from .fault import Fault, FaultError
from .markets import ExchangeError

_MOST_BYTES = 2**20
_MOST_FAULTS = 10_000
_LARGEST_SEED = 2**63 - 1
_ENTRY = re.compile(r"^[ \t]*\[\[\s*(?:fault|'fault'|\"fault\")\s*\]\]", re.MULTILINE)
_NAME_ONE = "name a fault script of at most 1 MiB"
_EXAMPLE = 'write entries such as: [[fault]] / at = 20.0 / kind = "close"'


class ScriptError(ExchangeError):
    """A fault script that cannot be played: which file, which entry and key, and what to write instead."""


@dataclass(frozen=True, slots=True)
class FaultScript:
    """What goes wrong, in the order of the file, and the seed of all chance in it."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0


def load_script(path: Path) -> FaultScript:
    """Read a script. Raises ScriptError."""
    try:
        content = read_bytes(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise ScriptError(f"{path}: there is no such file", _NAME_ONE) from error
    except UnusableFile as error:
        raise ScriptError(f"{path}: {error}", _NAME_ONE) from error
    return parse_script(content, str(path))


def parse_script(content: bytes, name: str) -> FaultScript:
    """A script out of a file's bytes; `name` is what errors call it. Raises ScriptError, and nothing else whatever the bytes."""
    try:
        text = decode(content)
        document = parse_toml(text)
    except UnusableFile as error:
        raise ScriptError(f"{name}: {error}", _EXAMPLE) from error
    for key in document:
        if key not in ("seed", "fault"):
            raise ScriptError(f"{name}: unknown key {key[:60]!r}", "use seed = <number> and [[fault]] entries")
    seed, entries = document.get("seed", 0), document.get("fault", [])
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _LARGEST_SEED:
        raise ScriptError(f"{name}: `seed` is no whole number from 0 to 2^63 - 1", "use one such as 7")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ScriptError(f"{name}: `fault` is no list of tables", _EXAMPLE)
    if len(entries) > _MOST_FAULTS:
        raise ScriptError(f"{name}: {len(entries)} faults are too many", f"use at most {_MOST_FAULTS}")
    lines = [text.count("\n", 0, match.start()) + 1 for match in _ENTRY.finditer(text)]
    faults: list[Fault] = []
    for number, entry in enumerate(entries):
        # Entries may be written in line too; then there is no line to name.
        where = f"{name}, line {lines[number]}" if len(lines) == len(entries) else name
        try:
            faults.append(parse_fault(entry))
        except FaultError as error:
            raise ScriptError(f"{where}, fault {number + 1}: {error}", error.remedy) from error
    return FaultScript(tuple(faults), seed)
