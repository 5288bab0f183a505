"""The environment and `.env`, which other programs share; some of our names are common.

A name with the prefix `QUANTAI_` is ours alone. It wins over the plain name in either source, and wrong names and values
with it are errors. An unknown plain name is an error if it nearly matches a setting, otherwise a warning.
"""

from __future__ import annotations

import difflib
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from ..textfile import IsFolder, UnusableFile, read_text
from .catalogue import names, nearest_name
from .problems import Gathered, Origin, Problem
from .validation import broken_rule

PREFIX = "QUANTAI_"
_MOST_BYTES = 2**17  # of .env

_BEGINNINGS = ("WS_", "GRAD_SCALER_")
_YIELDING = frozenset({"KEYS", "LOG_LEVEL", "THEME"})  # other programs use these names too, and their defaults are safe
_NOT_SETTINGS = frozenset(
    {
        "QUANTAI_AGENT_PID",
        "QUANTAI_ENGINE",
        "QUANTAI_NOTIFY",
        "QUANTAI_RANKS_ROUND",
        "QUANTAI_RANKS_STORE",
        "QUANTAI_WORKER_TOKEN",
    }
)
_NEAR_MISS = 0.9  # difflib's ratio: one or two wrong letters in a name of 15
_MOST_LISTED = 20
_LONGEST_VALUE = 2**14  # characters of a value in .env with its variables expanded
_WORD = re.compile(r"\w+")
_UNREADABLE = "the line cannot be read; it must be NAME=VALUE"


class _Given(NamedTuple):
    """One variable as found."""

    variable: str
    value: str
    origin: Origin


def gather_shared(gathered: Gathered, environment: Mapping[str, str], dotenv_path: Path) -> None:
    """Add the values of the environment and `.env` to `gathered`."""
    bindings = _read_dotenv(gathered, dotenv_path)
    given = [
        *_given_by_dotenv(bindings, environment, dotenv_path),
        *(_Given(name, value, Origin("environment", f"environment variable {name}")) for name, value in environment.items()),
    ]  # the weaker source first
    ours_alone = [one for one in given if one.variable.startswith(PREFIX) and one.variable not in _NOT_SETTINGS]
    settled = {one.variable.removeprefix(PREFIX) for one in ours_alone}
    foreign: list[Problem] = []
    for one in given:
        if one.variable in _KNOWN and one.variable not in settled:
            _take(gathered, one)
        elif one.variable.startswith(_BEGINNINGS) and one.variable not in _KNOWN:
            _tell_unknown(gathered, foreign, one, settled)
    gathered.warnings += foreign[:_MOST_LISTED]
    if len(foreign) > _MOST_LISTED:
        rule = f"{len(foreign) - _MOST_LISTED} more names that begin with WS_ or GRAD_SCALER_ are not settings; they are ignored"
        gathered.warnings.append(Problem("…", "", rule, "environment and .env"))
    _tell_unreadable(gathered, bindings, dotenv_path, settled)
    for one in ours_alone:
        _take_prefixed(gathered, one)


_KNOWN = frozenset(names())


def _take(gathered: Gathered, one: _Given) -> None:
    rule = broken_rule(one.variable, one.value) if one.variable in _YIELDING else ""
    if rule:
        rule = f"{rule}; it is ignored, because it may be another program's. {PREFIX}{one.variable} is for this program only"
        gathered.warnings.append(Problem(one.variable, "", rule, one.origin.text))
    else:
        gathered.put(one.variable, one.value, replace(one.origin, shared=True))


def _take_prefixed(gathered: Gathered, one: _Given) -> None:
    name = one.variable.removeprefix(PREFIX)
    if name in _KNOWN:
        text = one.origin.text if one.origin.layer == "environment" else f"{one.origin.text}, {one.variable}"
        gathered.put(name, one.value, Origin(one.origin.layer, text))
    else:  # without its value, which may be a secret of another program
        gathered.unknown(one.variable, "", one.origin.text, nearest_name(name, PREFIX))


def _tell_unknown(gathered: Gathered, foreign: list[Problem], one: _Given, settled: Iterable[str]) -> None:
    near = _near_miss(one.variable)
    if near and near not in settled:
        remedy = f"; did you mean {near}? If another program uses the name, set {PREFIX}{near} as well"
        gathered.unknown(one.variable, one.value, one.origin.text, remedy)
    else:  # without its value, which may be a secret of another program
        hint = nearest_name(one.variable) if len(foreign) < _MOST_LISTED else ""
        foreign.append(Problem(one.variable, "", f"it is ignored, because there is no such setting{hint}", one.origin.text))


def _tell_unreadable(gathered: Gathered, bindings: Iterable[Binding], path: Path, settled: Iterable[str]) -> None:
    told = 0
    for binding in bindings:
        meant = _meant_by(binding) if binding.error else ""
        if not meant:
            continue
        told += 1
        source = f"{path}, line {_line_of(binding)}"
        if told > _MOST_LISTED:
            gathered.warnings.append(Problem("…", "", "this line cannot be read; the lines after it were not checked", source))
            return
        name = meant if meant in _KNOWN else _near_miss(meant)
        if meant.startswith(PREFIX) or (name and name not in settled and name not in _YIELDING):
            gathered.problems.append(Problem(meant, "", _UNREADABLE, source))
        else:
            gathered.warnings.append(Problem(meant, "", f"{_UNREADABLE}. It is ignored", source))


def _meant_by(binding: Binding) -> str:
    """The first name in a line that looks like a setting, or nothing."""
    words = [word for word in _WORD.findall(binding.original.string) if word not in _NOT_SETTINGS]
    return next((word for word in words if word in _KNOWN or word.startswith((PREFIX, *_BEGINNINGS))), "")


def _near_miss(name: str) -> str:
    """The setting that the name nearly matches, or nothing."""
    candidates = [known for known in _KNOWN if known.startswith(_BEGINNINGS)]
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=_NEAR_MISS)
    return near[0] if near else ""


def _read_dotenv(gathered: Gathered, path: Path) -> list[Binding]:
    try:
        return list(parse_stream(StringIO(read_text(path, _MOST_BYTES), newline=None)))
    except (FileNotFoundError, IsFolder):  # some users keep a virtual environment in .env
        return []
    except UnusableFile as error:
        gathered.problems.append(Problem(str(path), "", str(error), "settings are read from it"))
        return []


def _given_by_dotenv(bindings: Iterable[Binding], environment: Mapping[str, str], path: Path) -> list[_Given]:
    """The variables of `.env` with references expanded, as python-dotenv does."""
    resolved: dict[str, str | None] = {}
    variables: ChainMap[str, str | None] = ChainMap(resolved, {**environment})
    given = []
    for binding in bindings:
        if binding.key is None:
            continue
        if binding.value is None:
            resolved[binding.key] = None
            continue
        value = ""
        for part in parse_variables(binding.value):
            value += part.resolve(variables)
            if len(value) > _LONGEST_VALUE:  # longer than any setting: references can multiply the length of a value
                value = value[:_LONGEST_VALUE]
                break
        resolved[binding.key] = value
        given.append(_Given(binding.key, value, Origin(".env", f"{path}, line {_line_of(binding)}")))
    return given


def _line_of(binding: Binding) -> int:
    """The line of the text itself: the parser counts the empty lines before it as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
