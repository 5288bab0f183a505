"""The engine's log as far as it came by, or the lines of it that the filter lets through."""

from __future__ import annotations

from ..cells import Row, clip, row
from ..format import clean, count
from ..log_filter import level_of, shown
from ..view import View
from .states import NOT_KNOWN

_MOST_ON_A_PAGE = 1_000
_TOKENS = ("muted", "text", "alert-warning", "alert-critical", "alert-critical")


def draw_log(view: View, width: int, height: int) -> list[Row]:
    """The last lines, newest at the bottom."""
    if view.snapshot is None:
        return [row(NOT_KNOWN)]
    lines = shown(view.log_lines, view.log_filter)
    if not lines and view.log_filter is not None:
        return [row((clip("no line passes the filter; / changes it, / and esc clear it", width), "muted"))]
    return [row((clip(clean(line), width), _TOKENS[level_of(line)])) for line in lines[-height:]]


def log_page(view: View, width: int, height: int) -> list[Row]:
    """The last thousand lines to scroll in: more would cost a hundredth of a core, and `/` finds what is older."""
    return draw_log(view, width, _MOST_ON_A_PAGE)


def log_mark(view: View) -> str:
    """What the title says of the filter: a part of the log is never taken for the whole."""
    if view.log_filter is None:
        return ""
    passed = len(shown(view.log_lines, view.log_filter))
    return f" [{clip(clean(view.log_filter.text), 30)}] {count(passed)} of {count(len(view.log_lines))}"
