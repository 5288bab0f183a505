"""Trades and bars: Binance's wire format, the SQLite store, and import of Binance's public files."""

from .archive import Archive, ArchiveError, file_fingerprint, read_archive
from .damage import StoreError
from .importer import ImportResult, import_archive
from .reader import BarColumns, StoreReader
from .schema import Counts, Gap, LedgerPosition
from .store import TradeStore
from .trades import INTERVALS, AggTrade, Bar, to_us
from .wire import ControlReply, OtherEvent, RestError, ServerShutdown, WireError, decode_frame
from .writer import Written

__all__ = [
    "INTERVALS",
    "AggTrade",
    "Archive",
    "ArchiveError",
    "Bar",
    "BarColumns",
    "ControlReply",
    "Counts",
    "Gap",
    "ImportResult",
    "LedgerPosition",
    "OtherEvent",
    "RestError",
    "ServerShutdown",
    "StoreError",
    "StoreReader",
    "TradeStore",
    "WireError",
    "Written",
    "decode_frame",
    "file_fingerprint",
    "import_archive",
    "read_archive",
    "to_us",
]
