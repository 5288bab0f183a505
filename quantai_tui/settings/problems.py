"""Values with their origins, and the problems with some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..output import safe_line
from ..textfile import escaped
from .catalogue import masked, nearest_name, shown

_LONGEST_SHOWN = 200  # characters
_MOST_UNKNOWN = 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from. `layer` is one of forced, command line, environment, .env, file, mode, default."""

    layer: str
    text: str  # in words, with file and line or the variable's name
    shared: bool = False  # a plain name in a shared source: it may be another program's

    @property
    def locks_file(self) -> bool:
        """Whether editing the file could not change the value."""
        return self.layer in {"forced", "command line", "environment", ".env"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: key, value as given (passwords masked), the rule it breaks, and its source.

    Key and value are shortened to 200 characters; bytes that are not UTF-8 become escapes.
    """

    key: str
    value: str
    rule: str
    source: str

    def __post_init__(self) -> None:
        for name in ("key", "value", "rule", "source"):
            object.__setattr__(self, name, escaped(getattr(self, name)))
        for name in ("key", "value"):
            text = getattr(self, name)
            if len(text) > _LONGEST_SHOWN:
                object.__setattr__(self, name, f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)")

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return safe_line(f"{self.key}{shown}: {self.rule} ({self.source})")


class SettingsProblems(Exception):
    """Settings that cannot be used; `problems` lists everything that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Gathered:
    """What the sources have given so far. `warnings` are about harmless values that are ignored."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._unknown = 0

    def put(self, name: str, value: Any, origin: Origin) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def unknown(self, name: str, value: object, source: str, near: str | None = None) -> None:
        """Record an unknown name; `near` replaces the suggestion. At most 20 are listed."""
        self._unknown += 1
        if self._unknown <= _MOST_UNKNOWN:
            near = nearest_name(name) if near is None else near
            self.problems.append(Problem(masked(name), shown(name, value), f"there is no such setting{near}", source))
        elif self._unknown == _MOST_UNKNOWN + 1:
            self.problems.append(Problem("…", "", f"more than {_MOST_UNKNOWN} names are not settings; fix these first", source))
