"""The command import: archive files into a store, with a progress bar."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..output import say, say_over
from .options import RunOptions, common_options, fail, need_file, tell_warnings

if TYPE_CHECKING:
    from ..market.store import TradeStore


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--into", default="live-spot", show_default=True, metavar="NAME", help="The engine folder whose store takes the trades."
)
@click.option("--symbol", help="Needed when the file's name does not say it.")
@common_options
def import_files(files: tuple[str, ...], into: str, symbol: str | None, **values: Any) -> None:
    """Load Binance's public aggTrades files into the store. What is there already is left alone."""
    for file in files:
        need_file(file)
    asyncio.run(_import_all([Path(file) for file in files], into, symbol, RunOptions(**values)))


class _Progress:
    """A bar of 40 cells on a terminal, rewritten in place; one line a file where there is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._drawn = -1
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        cells = 40 * done // total if total else 40
        if self._live and cells != self._drawn:
            self._drawn = cells
            say_over(f"{self._name} [{'#' * cells}{'.' * (40 - cells)}] {done * 100 // max(total, 1):3}%")

    def end(self) -> None:
        if self._live and self._drawn >= 0:
            say("", err=True)


async def _import_one(file: Path, store: TradeStore, symbol: str | None) -> None:
    from ..market.importer import import_archive

    progress = _Progress(file.name)
    try:
        result = await import_archive(file, store, symbol, progress)
    finally:
        progress.end()
    say(
        f"{file.name}: {result.read} trades of {result.symbol}, ids {result.first_id} to {result.last_id}: "
        f"{result.stored} stored, {result.duplicates} were there already"
        + (f"; {result.unordered} were out of id order" if result.unordered else "")
    )
    if result.conflicts:
        say(f"{file.name}: {result.conflicts} of those differ from the stored trade with the same id, which was kept. The first:")
        for conflict in result.examples:
            say(f"  {conflict.text}")
    if result.ahead:
        say(f"{file.name}: {result.ahead} trades are ahead of this machine's clock; their times are not used")


def _tell_held(held_by: str) -> None:
    say(f"waiting: the store is held by {held_by}; close it there" if held_by else "the store is free again", err=True)


async def _import_all(files: list[Path], into: str, symbol: str | None, options: RunOptions) -> None:
    from ..engine.desk import SettingsDesk
    from ..engine.places import EngineFolder, PlaceError, data_root
    from ..engine.registry import AlreadyRunning, Claim
    from ..engine.starting import EXIT_STORE_FAILED
    from ..market.archive import ArchiveError, NamelessArchiveError
    from ..market.store import StoreError, TradeStore
    from ..settings import Layers, SettingsProblems

    try:
        desk = SettingsDesk(Path(options.config) if options.config else None, Layers(overrides=options.overrides))
        tell_warnings(desk.loaded.warnings)
        folder = EngineFolder(data_root(desk.settings.DATA_DIR) / into)
        folder.prepare()
        claim = Claim.take(folder)
    except SettingsProblems as problems:
        fail(*map(str, problems.problems))
    except (PlaceError, AlreadyRunning) as error:
        fail(str(error))
    try:
        store = await TradeStore.open(folder.store)
        store.on_held = _tell_held
        try:
            for file in files:
                await _import_one(file, store, symbol)
        finally:
            await store.close()
    except NamelessArchiveError as error:
        fail(f"{error}, or name the symbol with --symbol")
    except (ArchiveError, PlaceError) as error:
        fail(str(error))
    except StoreError as error:
        fail(str(error), exit_code=EXIT_STORE_FAILED)
    finally:
        claim.release()
