"""Import of Binance's public files into the store. Repeating an import, or importing in any order, changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from .archive import read_archive
from .conflicts import Conflict
from .store import TradeStore
from .times import AHEAD_US
from .trades import FIRST_UNSAFE_INTEGER

_BATCH = 5_000
_EXAMPLES = 5


class ImportResult(msgspec.Struct, frozen=True):
    """Result of an import; ids are the file's lowest and highest.

    `ahead` trades are ahead of this machine's clock: their times are ignored. `conflicts` duplicates differ
    from the stored trade with the same id; `examples` has the first of them. `unordered` trades followed one with the same or a
    higher id.
    """

    symbol: str
    read: int
    stored: int
    duplicates: int
    first_id: int
    last_id: int
    ahead: int = 0
    conflicts: int = 0
    examples: tuple[Conflict, ...] = ()
    unordered: int = 0


async def import_archive(
    path: Path, store: TradeStore, symbol: str | None = None, progress: Callable[[int, int], None] | None = None
) -> ImportResult:
    """Store every trade of an aggTrades file that is not stored yet.

    `progress` is called with bytes read and bytes in all. Raises ArchiveError (what was read before the bad line stays stored)
    and StoreError.
    """
    archive = await asyncio.to_thread(read_archive, path, symbol)
    read = stored = duplicates = ahead = conflicts = unordered = 0
    examples: list[Conflict] = []
    first_id, last_id = FIRST_UNSAFE_INTEGER, -1
    batches = archive.batches(_BATCH)
    try:
        while batch := await asyncio.to_thread(next, batches, None):
            for trade in batch:
                unordered += trade.id <= last_id
                first_id, last_id = min(first_id, trade.id), max(last_id, trade.id)
            read += len(batch)
            latest_us = store.now_us + AHEAD_US
            ahead += sum(trade.time_us > latest_us for trade in batch)
            written = await store.write(archive.symbol, batch)
            stored += written.stored
            duplicates += written.duplicates
            conflicts += len(written.conflicts)
            examples += written.conflicts[: _EXAMPLES - len(examples)]
            if progress is not None:
                progress(archive.bytes_read, archive.bytes_total)
    finally:
        batches.close()
    told = tuple(examples)
    return ImportResult(archive.symbol, read, stored, duplicates, first_id, last_id, ahead, conflicts, told, unordered)
