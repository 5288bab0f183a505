"""Where values come from, strongest first: command line, environment, `.env`, `config.toml`, the mode's defaults, defaults.

Every value keeps its origin, so that a wrong one can be blamed on its line or variable, and so that the editor can say what
fixes a value. All problems of all sources are collected before anything is raised: one look mends one file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..masking import masked_value
from ..textfile import UnusableFile, parse_toml, read_text
from ..user_folders import user_folder
from .catalogue import names
from .model import Settings
from .problems import Gathered, Origin, Problem, SettingsProblems
from .shared import gather_shared
from .validation import validate

MOST_CONFIG_BYTES = 2**20

_KEY = re.compile(r"""\s*\[?\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*[=.\]]""")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings with the origin of each value, and the file that saving would write.

    `warnings` are about names and values in shared sources that were ignored.
    """

    settings: Settings
    origins: dict[str, Origin]
    config_path: Path
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Layers:
    """What `load` puts under and over the user's own sources."""

    overrides: tuple[str, ...] = ()  # --set NAME=VALUE
    mode_defaults: Mapping[str, str] | None = None  # defaults that suit demo or replay better; anything stronger wins
    forced: Mapping[str, str] | None = None  # what the embedded exchange dictates
    forced_by: str = "the embedded exchange"


def default_config_path() -> Path:
    """`config.toml` in the user's configuration folder of this system. Raises PlaceError."""
    return user_folder("config") / "config.toml"


def _lines_of(text: str) -> dict[str, int]:
    """The 1-based line of each top-level key of a TOML text; TOML libraries do not tell."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if match := _KEY.match(line):
            lines.setdefault(match[1] or match[2] or match[3], number)
    return lines


def _gather_toml(gathered: Gathered, path: Path, required: bool) -> None:
    try:
        str(path).encode()  # links and logs that name it cannot take other bytes
        text = read_text(path, MOST_CONFIG_BYTES)
    except UnicodeEncodeError:
        gathered.problems.append(Problem(str(path), "", "its name must be UTF-8 text", "configuration file"))
    except FileNotFoundError:
        if required:
            gathered.problems.append(Problem(str(path), "", "there is no such file", "configuration file"))
    except UnusableFile as error:
        gathered.problems.append(Problem(str(path), "", str(error), "configuration file"))
    else:
        _gather_toml_text(gathered, path, text)


def _gather_toml_text(gathered: Gathered, path: Path, text: str) -> None:
    try:
        if len(text.encode()) > MOST_CONFIG_BYTES:  # an edited text: the saved file could not be read again
            raise UnusableFile(f"is larger than {MOST_CONFIG_BYTES // 2**20} MiB")
        table = parse_toml(text)
    except UnusableFile as error:
        gathered.problems.append(Problem(str(path), "", str(error), "configuration file"))
        return
    known, lines = set(names()), _lines_of(text)
    for name, value in table.items():
        source = f"{path}, line {lines.get(name, '?')}"
        if name in known:
            gathered.put(name, value, Origin("file", source))
        else:
            gathered.unknown(name, value, source)


def _gather_overrides(gathered: Gathered, overrides: tuple[str, ...]) -> None:
    known = set(names())
    for text in overrides:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            gathered.problems.append(Problem(masked_value(text, text), "", "must be NAME=VALUE", "--set"))
        elif name in known:
            gathered.put(name, value.strip(), Origin("command line", f"--set {name}"))
        else:
            gathered.unknown(name, value, "--set")


def load(
    config_path: Path | None = None,
    *,
    layers: Layers | None = None,
    environment: Mapping[str, str] | None = None,
    dotenv_path: Path | None = None,
    file_text: str | None = None,
) -> Loaded:
    """Read all sources and merge them; raises `SettingsProblems` with everything that is wrong.

    `file_text` stands in for what the configuration file holds: so an edit is tried before it is written.
    """
    layers = layers or Layers()
    gathered = Gathered()
    for name, value in (layers.mode_defaults or {}).items():
        gathered.put(name, value, Origin("mode", "default of this mode"))
    path = config_path or default_config_path()
    if file_text is None:
        _gather_toml(gathered, path, required=config_path is not None)
    else:
        _gather_toml_text(gathered, path, file_text)
    gather_shared(gathered, os.environ if environment is None else environment, dotenv_path or Path(".env"))
    _gather_overrides(gathered, layers.overrides)
    for name, value in (layers.forced or {}).items():
        gathered.put(name, value, Origin("forced", layers.forced_by))
    return _settled(gathered, path)


def load_file(path: Path) -> Loaded:
    """Load one configuration file and no other source; raises `SettingsProblems`."""
    gathered = Gathered()
    _gather_toml(gathered, path, required=True)
    return _settled(gathered, path)


def check_text(path: Path, text: str) -> None:
    """Raise `SettingsProblems` unless a text is valid by itself as the configuration file `path`."""
    gathered = Gathered()
    _gather_toml_text(gathered, path, text)
    _settled(gathered, path)


def _settled(gathered: Gathered, path: Path) -> Loaded:
    settings, problems = validate(gathered.values, gathered.origins)
    if gathered.problems or settings is None:
        raise SettingsProblems([*gathered.problems, *problems])
    origins = {name: gathered.origins.get(name, Origin("default", "default")) for name in names()}
    return Loaded(settings, origins, path, tuple(gathered.warnings))
