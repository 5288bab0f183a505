"""Which lines of the log are shown, and the lines themselves as far as this dashboard has seen them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

_LEVELS = ("DBUG", "INFO", "WARN", "FAIL", "CRIT")  # as the engine shortens them, the mildest first
_LEVEL_WORDS = {"debug": 0, "info": 1, "warning": 2, "warn": 2, "error": 3, "fail": 3, "critical": 4, "crit": 4}
_LONGEST_PATTERN = 200
_LONGEST_LINE = 500  # of a line, what a pattern is tried on: some patterns take for ever on long ones
_MOST_LINES = 5_000
MISSED = "… lines were missed here: the log was faster than this dashboard"
FORMS = "words  !without  /regex/  >=warning   enter keeps, esc clears"


class LogFilter(Struct, frozen=True):
    """A filter as it was typed."""

    text: str
    matches: Callable[[str], bool]

    @classmethod
    def parse(cls, text: str) -> LogFilter | None:
        """None for an empty text. Words must all occur, in any case; `!` before a word, or before /regex/, wants it absent.

        Raises ValueError with words for the operator.
        """
        wanted = text.strip()
        if not wanted:
            return None
        if len(wanted) > _LONGEST_PATTERN:
            raise ValueError(f"at most {_LONGEST_PATTERN} characters")
        inverse, rest = wanted.startswith("!/"), wanted.removeprefix("!")
        if rest.startswith("/"):
            return cls(wanted, _inverted(_regex(rest[1:].removesuffix("/")), inverse))
        tests = [_word(word) for word in wanted.split()]
        return cls(wanted, lambda line: all(test(line) for test in tests))


def level_of(line: str) -> int:
    """0 for debug to 4 for critical; a line without a level counts as information."""
    word = line[9:13]
    return _LEVELS.index(word) if word in _LEVELS else 1


def _regex(pattern: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if re.search(r"[*+}]\)?[*+{]", pattern):
        raise ValueError("a repetition of a repetition may never come to an end: write it with one")
    return lambda line: compiled.search(line[:_LONGEST_LINE]) is not None


def _word(word: str) -> Callable[[str], bool]:
    if word.startswith(">=") or word.startswith("level:"):
        name = word.removeprefix(">=").removeprefix("level:").lower()
        if name not in _LEVEL_WORDS:
            raise ValueError(f"{name!r} is no level; there are debug, info, warning, error and critical")
        least = _LEVEL_WORDS[name]
        return (lambda line: level_of(line) >= least) if word.startswith(">=") else (lambda line: level_of(line) == least)
    plain = word.removeprefix("!").lower()
    if not plain:
        raise ValueError("! wants a word behind it")
    return _inverted(lambda line: plain in line.lower(), word.startswith("!"))


def _inverted(test: Callable[[str], bool], inverse: bool) -> Callable[[str], bool]:
    return (lambda line: not test(line)) if inverse else test


class LogMemory:
    """The lines that have come with snapshots, each once. A snapshot has only the last of them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._last: tuple[str, ...] = ()
        self.lines: tuple[str, ...] = ()

    def take(self, tail: tuple[str, ...]) -> None:
        """Append what is new in the end of a log."""
        if tail == self._last:
            return
        before, self._last = self._last, tail
        known = next((count for count in range(min(len(before), len(tail)), 0, -1) if before[-count:] == tail[:count]), 0)
        if before and not known and tail:
            self._lines.append(MISSED)
        self._lines.extend(tail[known:])
        self.lines = tuple(self._lines)


def shown(lines: Iterable[str], chosen: LogFilter | None) -> list[str]:
    return list(lines) if chosen is None else [line for line in lines if chosen.matches(line)]
