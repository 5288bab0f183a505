"""Running a source of data with a dashboard, in process, or without a screen."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..interrupts import end_at_once
from .options import RunOptions, Wanted, fail

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.registry import Entry
    from ..link import EngineLink


def run(wanted: Wanted, options: RunOptions) -> None:
    if options.headless:
        run_headless(wanted, options)
    if not options.plain:
        need_terminal()
    if options.in_process:
        run_in_process(wanted, options)
    from ..engine.launch import EngineProcess
    from ..engine.places import PlaceError

    try:
        # Before the dashboard is imported: the other core starts the engine meanwhile.
        # A file comes last, behind its --.
        join = not (options.asks_for_its_own or wanted.faults)
        arguments = [*options.serve_arguments(), *wanted.serve_arguments()]
        process = EngineProcess(arguments, overrides=options.overrides, join=join)
    except PlaceError as error:
        fail(str(error))
    from ..link import SocketLink

    try:
        show(SocketLink(process.find), embedded=wanted.mode != "live", entry=lambda: process.entry, plain=options.plain)
    finally:
        process.forget()


def build_engine(wanted: Wanted, options: RunOptions, *, exit_on_failure: bool) -> Engine:
    from ..engine.engine import Engine

    return Engine(
        wanted.source(),
        config_path=Path(options.config) if options.config is not None else None,
        overrides=options.overrides,
        fresh=options.fresh,
        exit_on_failure=exit_on_failure,
    )


def run_headless(wanted: Wanted, options: RunOptions) -> NoReturn:
    with end_at_once():
        from ..engine.host import headless

    exits = True if options.exit_on_failure is None else options.exit_on_failure

    def build() -> Engine:
        return build_engine(wanted, options, exit_on_failure=exits)

    raise SystemExit(asyncio.run(headless(build, as_json=options.as_json, for_s=options.for_s, out=sys.stdout)))


def run_in_process(wanted: Wanted, options: RunOptions) -> NoReturn:
    if not options.plain:
        from ..ui.app import DashboardApp  # noqa: F401 - before the engine: the first frame must not wait for its imports

    async def build() -> Engine:
        # In a thread: imports, settings and a file's fingerprint would hold up the keys.
        return await asyncio.to_thread(build_engine, wanted, options, exit_on_failure=bool(options.exit_on_failure))

    from ..engine.local import LocalLink

    show(LocalLink(build), embedded=True, plain=options.plain)
    raise SystemExit(0)


def need_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("there is no terminal to draw on; with --headless the same runs without one")
    if os.environ.get("TERM", "") in {"", "dumb"}:
        fail("TERM says that this terminal cannot be drawn on; with --headless the same runs without it")


def show(link: EngineLink, *, embedded: bool, entry: Callable[[], Entry | None] = lambda: None, plain: bool = False) -> None:
    """Run a dashboard on this link, or tell of it in lines; ends the program with the exit code that fits.

    `entry` tells which engine it was. One that was told to stop is waited for: at the prompt that follows all is really over.
    """
    from ..engine.places import state_root

    outcomes: list[str] = []
    if plain:
        from ..ui.plain import run_plain

        code = run_plain(link, stop_on_quit=embedded, on_outcome=outcomes.append)
    else:
        from ..ui.running import run_dashboard

        code = run_dashboard(link, stop_on_quit=embedded, crash_log=state_root() / "dashboard.log", on_outcome=outcomes.append)
    if link.exit_code is not None:
        fail(*link.detail.split("\n"), exit_code=link.exit_code)
    stopped = entry() if outcomes == ["stop"] else None
    if stopped is not None:
        from ..engine.stopping import wait_gone

        problem = asyncio.run(wait_gone(stopped))
        if problem:
            fail(problem, exit_code=1)
    if code:
        raise SystemExit(code)
