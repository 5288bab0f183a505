"""Where values come from, strongest first: command line, environment, `.env`, `config.toml`, the mode's defaults, defaults.

Every value keeps its origin, so that a wrong one can be blamed on its line or variable, and so that the editor can say what
fixes a value. All problems of all sources are collected before anything is raised: one look mends one file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv.main import resolve_variables
from dotenv.parser import Binding, parse_stream
from pydantic import ValidationError

from .catalogue import as_text, describe, masked, names, shown
from .field import LARGEST_FLOAT, LARGEST_INT
from .model import Settings

_OURS = ("WS_", "GRAD_SCALER_")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from. `layer` is one of forced, command line, environment, .env, file, mode, default."""

    layer: str
    text: str  # in words, with file and line or the variable's name

    @property
    def locks_file(self) -> bool:
        """Whether editing the file could not change the value."""
        return self.layer in {"forced", "command line", "environment", ".env"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: key, value as it was given (passwords masked), the rule it breaks, and its source."""

    key: str
    value: str
    rule: str
    source: str

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return f"{self.key}{shown}: {self.rule} ({self.source})"


class SettingsProblems(Exception):
    """Settings that cannot be used; `problems` lists everything that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings with the origin of each value, and the file that saving would write."""

    settings: Settings
    origins: dict[str, Origin]
    config_path: Path


@dataclass(frozen=True, slots=True)
class Layers:
    """What `load` puts under and over the user's own sources."""

    overrides: tuple[str, ...] = ()  # --set NAME=VALUE
    mode_defaults: Mapping[str, str] | None = None  # defaults that suit demo or replay better; anything stronger wins
    forced: Mapping[str, str] | None = None  # what the embedded exchange dictates
    forced_by: str = "the embedded exchange"


def default_config_path() -> Path:
    """`config.toml` in the user's configuration folder of this system."""
    import platformdirs

    return platformdirs.user_config_path("quantai-tui", appauthor=False) / "config.toml"


def nearest_name(name: str) -> str:
    """`; did you mean X?` when a setting is spelt nearly so, else nothing."""
    near = difflib.get_close_matches(name.upper(), names(), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class Gathered:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.problems: list[Problem] = []

    def put(self, name: str, value: Any, origin: Origin) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def unknown(self, name: str, value: str, source: str) -> None:
        self.problems.append(Problem(name, shown(name, value), "there is no such setting" + nearest_name(name), source))


def line_of(text: str, key: str) -> int | None:
    """The 1-based line on which a top-level key of a TOML text stands; TOML libraries do not say."""
    pattern = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[=.]|^\s*\[\s*{re.escape(key)}\b""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return number
    return None


def _gather_toml(gathered: Gathered, path: Path, required: bool) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            gathered.problems.append(Problem(str(path), "", "there is no such file", "--config"))
        return
    except (OSError, UnicodeDecodeError) as error:
        gathered.problems.append(Problem(str(path), "", f"cannot be read: {error}", "configuration file"))
        return
    gather_toml_text(gathered, path, text)


def gather_toml_text(gathered: Gathered, path: Path, text: str) -> None:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        gathered.problems.append(Problem(str(path), "", f"is not valid TOML: {error}", "configuration file"))
        return
    known = set(names())
    for name, value in table.items():
        source = f"{path}, line {line_of(text, name) or '?'}"
        if name in known:
            gathered.put(name, value, Origin("file", source))
        else:
            gathered.unknown(name, "" if isinstance(value, dict) else as_text(value), source)


def _gather_dotenv(gathered: Gathered, path: Path) -> None:
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (FileNotFoundError, IsADirectoryError):  # some keep a virtual environment in .env
        return
    except (OSError, UnicodeDecodeError) as error:
        gathered.problems.append(Problem(str(path), "", f"cannot be read: {error}", ".env"))
        return
    known = set(names())
    pairs = [(binding.key, binding.value) for binding in bindings if binding.key is not None]
    values = resolve_variables(pairs, override=True)  # ${HOME} and the like, as in a bare `Settings()`
    for binding in bindings:
        source = f"{path}, line {_line_of_binding(binding)}"
        if binding.error:
            meant = next(
                (word for word in _WORD.findall(binding.original.string) if word in known or word.startswith(_OURS)), None
            )
            if meant is not None:
                gathered.problems.append(Problem(meant, "", "the line cannot be read; it must be NAME=VALUE", source))
            continue
        value = values.get(binding.key) if binding.key is not None else None
        if binding.key is None or value is None:
            continue
        if binding.key in known:
            gathered.put(binding.key, value, Origin(".env", source))
        elif binding.key.startswith(_OURS):
            gathered.unknown(binding.key, value, source)


def _line_of_binding(binding: Binding) -> int:
    """The line of the text itself: the parser counts the empty lines before it as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _gather_environment(gathered: Gathered, environment: Mapping[str, str]) -> None:
    known = set(names())
    for name, value in environment.items():
        if name in known:
            gathered.put(name, value, Origin("environment", f"environment variable {name}"))
        elif name.startswith(_OURS):
            gathered.unknown(name, value, "environment variable")


def _gather_overrides(gathered: Gathered, overrides: tuple[str, ...]) -> None:
    known = set(names())
    for text in overrides:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            gathered.problems.append(Problem(masked(text), "", "must be NAME=VALUE", "--set"))
        elif name in known:
            gathered.put(name, value.strip(), Origin("command line", f"--set {name}"))
        else:
            gathered.unknown(name, value, "--set")


_SAID_BY_THE_MODEL = {"symbol", "device", "retention", "address", "ca_file"}
_TYPE_RULES = {"int": "must be a whole number", "float": "must be a number", "bool": "must be True or False"}


def _rule_of(error: Any) -> tuple[str, str]:
    """(key, rule) of one pydantic error, in our own words."""
    if error["type"] == "cross_rule":
        return str(error["ctx"]["key"]), str(error["msg"])
    key = str(error["loc"][0])
    info = describe(key)
    if error["type"] in _SAID_BY_THE_MODEL:
        return key, str(error["msg"])
    if error["type"] == "finite_number":
        return key, "must be a finite number"
    if error["type"].endswith(("_parsing", "_type")) and info.kind in _TYPE_RULES:
        return key, _TYPE_RULES[info.kind] + (f" {info.rule}" if info.rule and info.kind != "bool" else "")
    if error["type"] == "less_than_equal" and error["ctx"]["le"] in (LARGEST_INT, LARGEST_FLOAT):
        return key, f"must be at most {error['ctx']['le']:.15g}"  # a bound that the rule leaves unsaid
    return key, f"must be {info.rule}" if info.rule else str(error["msg"])


def _source_text(key: str, origins: Mapping[str, Origin]) -> str:
    origin = origins.get(key)
    return origin.text if origin else "default"


class _Exactly(Settings):
    """Settings that read no source of their own."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *others: Any, **named: Any) -> Any:
        return (init_settings,)


def validate(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> tuple[Settings | None, list[Problem]]:
    """Settings made of exactly these values, or what is wrong with them."""
    try:
        checked = _Exactly(**values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key, rule = _rule_of(item)
            value = shown(key, values.get(key, Settings.model_fields[key].default))
            source = _source_text(key, origins)
            if item["type"] == "cross_rule":
                other = str(item["ctx"]["other"])
                present = shown(other, values.get(other, Settings.model_fields[other].default))
                source = f"{source}; {other} = {present}, {_source_text(other, origins)}"
            problems.append(Problem(key, value, rule, source))
        return None, problems
    return Settings.model_construct(**{name: getattr(checked, name) for name in names()}), []


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
        gather_toml_text(gathered, path, file_text)
    _gather_dotenv(gathered, dotenv_path or Path(".env"))
    _gather_environment(gathered, os.environ if environment is None else environment)
    _gather_overrides(gathered, layers.overrides)
    for name, value in (layers.forced or {}).items():
        gathered.put(name, value, Origin("forced", layers.forced_by))
    settings, problems = validate(gathered.values, gathered.origins)
    if gathered.problems or settings is None:
        raise SettingsProblems([*gathered.problems, *problems])
    origins = {name: gathered.origins.get(name, Origin("default", "default")) for name in names()}
    return Loaded(settings, origins, path)


def validate_file(path: Path) -> list[Problem]:
    """What is wrong with one configuration file, by itself and nothing else."""
    gathered = Gathered()
    _gather_toml(gathered, path, required=True)
    _, problems = validate(gathered.values, gathered.origins)
    return [*gathered.problems, *problems]
