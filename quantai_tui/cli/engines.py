"""Commands about running engines: serve, attach, ps, stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..interrupts import end_at_once
from ..output import say
from .options import (
    RunOptions,
    Wanted,
    WholeNumber,
    check_speed,
    common_options,
    fail,
    faults_option,
    fresh_option,
    need_file,
    plain_option,
)
from .running import build_engine, need_terminal, show

if TYPE_CHECKING:
    from ..engine.engine import Engine


@click.command()
@click.argument("mode", type=click.Choice(["live", "demo", "replay"]), default="live")
@click.argument("file", type=click.Path(), default="")
@click.option("--seed", type=WholeNumber(0, 2**31 - 1), default=7, show_default=True)
@click.option("--speed", callback=check_speed, default="60", metavar="N|max", show_default=True)
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--overrides-fd", type=int, hidden=True)
@faults_option
@fresh_option
@common_options
def serve(
    mode: str, file: str, seed: int, speed: str, faults: str, ready_fd: int | None, overrides_fd: int | None, **values: Any
) -> None:
    """Run the engine alone, in the foreground; dashboards attach to it."""
    if (mode == "replay") != bool(file):
        raise click.UsageError("serve replay needs a FILE, and only replay takes one")
    if faults and mode != "demo":
        raise click.UsageError("--faults goes with demo: only the embedded exchange's synthetic market can be broken")
    if file:
        need_file(file)
    with end_at_once():
        from ..engine.host import serve as serve_engine

    if overrides_fd is not None:
        from ..engine.launch import receive_overrides

        values["overrides"] += receive_overrides(overrides_fd)
    wanted, options = Wanted(mode, file, seed, speed, faults), RunOptions(**values)

    def build() -> Engine:
        return build_engine(wanted, options, exit_on_failure=False)

    raise SystemExit(asyncio.run(serve_engine(build, ready_fd)))


@click.command()
@click.argument("name", required=False)
@plain_option
def attach(name: str | None, plain: bool) -> None:
    """Show a running engine. NAME as 'ps' lists it; not needed when only one runs."""
    if not plain:
        need_terminal()
    from ..engine.launch import NoSuchEngine, find_running, pick
    from ..engine.places import PlaceError
    from ..link import SocketLink

    try:
        entry = pick(name)
    except (NoSuchEngine, PlaceError) as error:
        fail(str(error))

    async def find() -> Path:
        return await find_running(entry)

    show(SocketLink(find), embedded=entry.mode != "live", entry=lambda: entry, plain=plain)


@click.command()
def ps() -> None:
    """List the engines that run."""
    import time

    from ..engine.places import PlaceError
    from ..engine.registry import running

    try:
        entries = running()
    except PlaceError as error:
        fail(str(error))
    if not entries:
        say("no engine runs")
        return
    width = max(len(entry.name) for entry in entries)
    say(f"{'NAME':{width}}  {'PID':>7}  {'MODE':6}  {'UP':>8}  FOLDER")
    for entry in entries:
        up = int(time.time() - entry.started)
        shown = f"{up // 3600}:{up // 60 % 60:02}:{up % 60:02}"
        say(f"{entry.name:{width}}  {entry.pid:>7}  {entry.mode:6}  {shown:>8}  {entry.folder}")


@click.command()
@click.argument("name", required=False)
def stop(name: str | None) -> None:
    """Stop a running engine: everything received is stored first."""
    from ..engine.launch import NoSuchEngine, pick
    from ..engine.places import PlaceError
    from ..engine.stopping import stop_engine

    try:
        entry = pick(name)
    except (NoSuchEngine, PlaceError) as error:
        fail(str(error))
    problem = asyncio.run(stop_engine(entry))
    if problem:
        fail(problem, exit_code=1)
    say(f"{entry.name} has stopped")
