"""The command import: archive files into a store, with a progress bar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from .options import RunOptions, common_options, fail, need_file


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


async def _import_all(files: list[Path], into: str, symbol: str | None, options: RunOptions) -> None:
    from ..engine.desk import SettingsDesk
    from ..engine.places import EngineFolder, PlaceError, data_root
    from ..engine.registry import AlreadyRunning, Claim
    from ..market.archive import ArchiveError
    from ..market.store import StoreError, TradeStore
    from ..settings import Layers, SettingsProblems

    try:
        desk = SettingsDesk(Path(options.config) if options.config else None, Layers(overrides=options.overrides))
        folder = EngineFolder(data_root(desk.settings.DATA_DIR) / into)
        folder.prepare()
        claim = Claim.take(folder)
    except (SettingsProblems, PlaceError, AlreadyRunning) as error:
        fail(str(error))
    try:
        if options.fresh:
            folder.clear()
        store = await TradeStore.open(folder.store)
        try:
            for file in files:
                await _import_one(file, store, symbol)
        finally:
            await store.close()
    except (ArchiveError, StoreError, PlaceError) as error:
        fail(str(error))
    finally:
        claim.release()
