"""Errors of the dashboard's own that it outlives: a key, a pane or a piece of work that failed. Each is told once, and kept."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from ..masking import masked
from .cells import clip
from .format import clean

if TYPE_CHECKING:
    from .app import DashboardApp

_MOST_TOLD = 20


class Troubles:
    """Shows an error with what to do about it, and puts its traceback, without local variables, into the report file."""

    def __init__(self, app: DashboardApp, report: Path | None) -> None:
        self._app = app
        self._report = report
        self._told: set[str] = set()

    def take(self, error: BaseException, what: str) -> None:
        """`what` failed with `error`. The same error at the same place is not told again: it might come with every paint."""
        place = "".join(traceback.format_tb(error.__traceback__)[-1:])
        mark = f"{what} {type(error).__name__} {place}"
        if mark in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(mark)
        from .crash import keep_report
        from .dialogs import Answer, Question

        where = keep_report(error, self._report)
        text = (
            f"{type(error).__name__}: {clip(masked(clean(str(error))), 300)}\n\n"
            f"The engine was not touched, and the rest of the dashboard goes on. The traceback is in {where}; "
            "please send it to those who make this program."
        )
        answers = (
            Answer("leave", "l", "leave; the engine goes on, 'quantai-tui attach' shows it again"),
            Answer("on", "esc", "go on"),
        )
        self._app.push_screen(Question(f"An error: {what} failed", text, answers, preferred="on"), self._answered)

    def _answered(self, answer: str | None) -> None:
        if answer == "leave":
            self._app.exit("detach")
        else:
            self._app.tick()
