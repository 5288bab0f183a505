"""A dashboard on this process's terminal, from its first frame until the terminal is as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..link.base import EngineLink
from ..output import say
from ..telemetry import SYSTEM_CLOCK, Clock
from .app import DashboardApp
from .leaving import Outcome
from .themes import few_colors

_SSH_PANES_FLOOR_S = 0.25


def run_dashboard(
    link: EngineLink,
    *,
    clock: Clock = SYSTEM_CLOCK,
    stop_on_quit: bool = False,
    mouse: bool | None = None,
    theme: str | None = None,
    crash_log: Path | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> int:
    """Show the dashboard until the operator leaves it; returns the process's exit code.

    0 when left (also by hang-up or signal), 1 when the dashboard failed, 2 when there is no terminal to show it on. `on_outcome`
    is told "stop" or "detach" after the terminal has been restored. `mouse` defaults to on, except over SSH, where the panes
    are also painted at most four times a second.
    """
    from .terminal import TerminalDriver, TerminalGuard

    if sys.__stdin__ is None or sys.__stderr__ is None or not (sys.__stdin__.isatty() and sys.__stderr__.isatty()):
        say("The dashboard needs a terminal on standard input and standard error; without one use --headless.", err=True)
        return 2
    for name in ("COLUMNS", "LINES"):  # believed before the window itself, they would hold its first size for good
        os.environ.pop(name, None)
    over_ssh = bool(os.environ.get("SSH_CONNECTION"))
    guard = TerminalGuard()
    app = DashboardApp(
        link,
        clock=clock,
        stop_on_quit=stop_on_quit,
        theme=theme,
        few_colors=few_colors(os.environ),
        crash_log=crash_log,
        guard=guard,
        driver_class=TerminalDriver,
        panes_floor_s=_SSH_PANES_FLOOR_S if over_ssh else 0.0,
    )
    guard.remember_terminal()
    try:
        app.run(mouse=not over_ssh if mouse is None else mouse)
    finally:
        guard.remove()
        guard.let_go()
    if app.return_code:
        return 1
    outcome: Outcome = app.return_value or "detach"
    if on_outcome is not None:
        on_outcome(outcome)
    return 0
