"""The store's tables, how the file is opened and recognised, and the values in which the store is spoken of."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from ..private_files import make_folders
from .damage import StoreError, is_damaged, is_held, store_error

# Together they say whose file it is (SQLite keeps both in the header): ours, and which shape of tables.
APPLICATION_ID = 0x51414954
SCHEMA_VERSION = 1

# How long opening waits for a lock of another program. Writers then retry.
_OPEN_WITHIN_S = 30.0
_WRITE_TRY_MS = 1000
_READ_WITHIN_S = 2.0  # the worker says what it waits for, and asks again

_TABLES = """
CREATE TABLE trades (
    symbol TEXT NOT NULL,
    id INTEGER NOT NULL,
    price TEXT NOT NULL,              -- as received
    quantity TEXT NOT NULL,           -- as received
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    buyer_is_maker INTEGER NOT NULL,
    PRIMARY KEY (symbol, id)
) WITHOUT ROWID;

CREATE TABLE bars (
    symbol TEXT NOT NULL,
    interval_s INTEGER NOT NULL,
    open_time_us INTEGER NOT NULL,
    open TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, close TEXT NOT NULL,
    volume TEXT NOT NULL, quote_volume TEXT NOT NULL, buy_volume TEXT NOT NULL,
    trades INTEGER NOT NULL,
    first_id INTEGER NOT NULL,        -- lowest and highest aggregate id in the bar: whose prices are its open and its close
    last_id INTEGER NOT NULL,
    PRIMARY KEY (symbol, interval_s, open_time_us)
) WITHOUT ROWID;

CREATE TABLE klines (
    symbol TEXT NOT NULL,
    interval_s INTEGER NOT NULL,
    open_time_us INTEGER NOT NULL,
    open TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, close TEXT NOT NULL,
    volume TEXT NOT NULL, quote_volume TEXT NOT NULL, buy_volume TEXT NOT NULL,
    trades INTEGER NOT NULL,
    PRIMARY KEY (symbol, interval_s, open_time_us)
) WITHOUT ROWID;

CREATE TABLE gaps (
    symbol TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    cause TEXT NOT NULL,
    opened REAL,                      -- Unix time; NULL when it was closed without having been recorded as open
    outcome TEXT,                     -- NULL while open; repaired, venue_hole, unrecoverable
    closed REAL,
    before_us INTEGER,                -- times of the trades next to it on both sides, written down when these are removed by age
    after_us INTEGER,
    PRIMARY KEY (symbol, first_id, last_id)
) WITHOUT ROWID;

-- A long repair leaves a row for each page that was fetched; what is open or given up must be found without reading them.
CREATE INDEX unrepaired_gaps ON gaps (symbol, first_id) WHERE outcome IS NOT 'repaired';

CREATE TABLE symbols (
    symbol TEXT PRIMARY KEY,
    begin_id INTEGER NOT NULL,        -- where the ledger begins
    begin_time_us INTEGER NOT NULL,
    begin_given INTEGER NOT NULL,     -- 0: begins with the lowest id that has come so far
    last_id INTEGER,                  -- the highest stored id
    last_time_us INTEGER,
    complete_through_id INTEGER,      -- every id from begin_id to here is stored or settled
    complete_through_time_us INTEGER, -- time of the last trade stored up to there
    stored INTEGER NOT NULL,          -- trades ever stored, those removed by age since then included
    pruned_to_id INTEGER NOT NULL,    -- trades below this id were removed by age
    pruned_before_us INTEGER NOT NULL -- one-second bars before this time were removed by age
) WITHOUT ROWID;
"""

# Added later. Older releases ignore it, so the schema version stays.
_LATER_TABLES = """
CREATE TABLE IF NOT EXISTS prunes (
    symbol TEXT PRIMARY KEY,
    max_age_us INTEGER NOT NULL       -- the age limit of the last prune, or the first one planned
) WITHOUT ROWID;
"""

# Stretches of settled ids that a position names: beyond it the lowest are left out, so that it stays small.
MAX_SETTLED = 4096

# To be continued with AND. Not left to the planner, which knows nothing of how few they are.
UNREPAIRED = "gaps INDEXED BY unrepaired_gaps WHERE outcome IS NOT 'repaired'"

# Columns of `gaps`: the times `low` and `high` of the trades next to a gap, from the gap or else from the trades. Times rise
# with the ids: the earliest time of the three following trades is that of the first, unless that one is wrong.
TIMES_BESIDE = (
    "coalesce(before_us, (SELECT time_us FROM trades t WHERE t.symbol = gaps.symbol AND t.id < gaps.first_id "
    "ORDER BY t.id DESC LIMIT 1)) AS low, "
    "coalesce(after_us, (SELECT min(time_us) FROM (SELECT time_us FROM trades t WHERE t.symbol = gaps.symbol "
    "AND t.id > gaps.last_id ORDER BY t.id LIMIT 3))) AS high"
)


class Gap(msgspec.Struct, frozen=True):
    """Ids known to exist that have not arrived: `first_id` to `last_id`, noticed at `opened` (Unix time)."""

    first_id: int
    last_id: int
    cause: str
    opened: float


class LedgerPosition(msgspec.Struct, frozen=True):
    """How far one symbol's ledger goes; all None before its first trade.

    Every id from `begin_id` to `complete_through_id` is stored, or settled as lost for good. `missing` holds the id ranges up to
    `last_id` which are neither, recorded as gap or not; `gaps` the recorded ones that are still open. `venue_holes` and
    `unrecoverable` count the ids that were settled so; one that comes after all counts as stored instead. `settled` names them by
    rising id, as first id, last id and outcome: the highest `MAX_SETTLED` stretches of them.
    """

    begin_id: int | None = None
    last_id: int | None = None
    complete_through_id: int | None = None
    stored: int = 0
    gaps: tuple[Gap, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    begin_time_us: int | None = None
    complete_through_time_us: int | None = None
    last_time_us: int | None = None
    venue_holes: int = 0
    unrecoverable: int = 0
    settled: tuple[tuple[int, int, str], ...] = ()


class Counts(msgspec.Struct, frozen=True):
    """`stored` trades since the ledger began; `duplicates` that came again since the store was opened."""

    stored: int = 0
    duplicates: int = 0


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The store's file, created when it is not there. To be used by the thread that opens it. Raises StoreError."""
    try:
        make_folders(path.parent)
        connection = sqlite3.connect(path, timeout=_OPEN_WITHIN_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"cannot open or create the store {path}: {error}; choose a data folder that you may write to"
        ) from error
    try:
        _recognise(connection, path, create=True)
        connection.execute("PRAGMA journal_mode = WAL")
        # Fail now, not at the first trade, if the store cannot be written.
        connection.executescript(f"BEGIN IMMEDIATE; {_LATER_TABLES} COMMIT;")
        # WAL with NORMAL: a crash of the program loses nothing, a power cut at most the last transactions, whole ones.
        # The ledger's position is in the same transactions, so that what is lost is noticed and fetched again.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute(f"PRAGMA busy_timeout = {_WRITE_TRY_MS}")
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_use(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """The same file, read-only. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"there is no store at {path}; the engine creates it when it starts")
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_READ_WITHIN_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StoreError(f"cannot open the store {path} for reading: {error}") from error
    try:
        _recognise(connection, path, create=False)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot_use(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _cannot_use(path: Path, error: sqlite3.Error) -> StoreError:
    if "not a database" in str(error):
        return StoreError(f"{path} is not a SQLite database; move it away, or choose another data folder")
    if is_held(error) or is_damaged(error):
        return store_error(path, "opening", error)
    return StoreError(f"cannot use the store {path}: {error}; choose a data folder that you may write to, with space left")


def _recognise(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {path} was written by a newer quantai-tui (schema {version}, this one knows {SCHEMA_VERSION}); "
                "update quantai-tui, or choose another data folder"
            )
        return
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != 0 or version != 0 or not empty:
        raise StoreError(f"{path} is a database of another program; choose another data folder")
    if not create:
        raise StoreError(f"the store {path} is empty; the engine fills it when it starts")
    connection.executescript(
        f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


def read_open_gaps(connection: sqlite3.Connection, symbol: str) -> tuple[Gap, ...]:
    rows = connection.execute(
        f"SELECT first_id, last_id, cause, opened FROM {UNREPAIRED} AND outcome IS NULL AND symbol = ? ORDER BY first_id",
        (symbol,),
    )
    return tuple(Gap(first, last, cause, opened or 0.0) for first, last, cause, opened in rows)


def read_settled(connection: sqlite3.Connection, symbol: str) -> tuple[tuple[int, int, str], ...]:
    """The ids of a symbol that were settled, with their outcome: the highest `MAX_SETTLED` stretches, by rising id."""
    rows = connection.execute(
        f"SELECT first_id, last_id, outcome FROM {UNREPAIRED} AND outcome IS NOT NULL AND symbol = ? "
        "ORDER BY first_id DESC LIMIT ?",
        (symbol, MAX_SETTLED),
    ).fetchall()
    return tuple(reversed(rows))


def read_settled_counts(connection: sqlite3.Connection, symbol: str) -> tuple[int, int]:
    """How many ids of a symbol were settled as holes at the venue, and how many as unrecoverable."""
    counts = dict(
        connection.execute(
            f"SELECT outcome, sum(last_id - first_id + 1) FROM {UNREPAIRED} AND symbol = ? AND outcome IS NOT NULL "
            "GROUP BY outcome",
            (symbol,),
        )
    )
    return counts.get("venue_hole", 0), counts.get("unrecoverable", 0)


def read_position(connection: sqlite3.Connection, symbol: str) -> LedgerPosition:
    """The position as it was committed last; `missing` is not in the file and stays empty."""
    row = connection.execute(
        "SELECT begin_id, last_id, complete_through_id, stored, begin_time_us, complete_through_time_us, last_time_us "
        "FROM symbols WHERE symbol = ?",
        (symbol,),
    ).fetchone()
    gaps = read_open_gaps(connection, symbol)
    holes, lost = read_settled_counts(connection, symbol)
    settled = read_settled(connection, symbol)
    if row is None:
        return LedgerPosition(gaps=gaps, venue_holes=holes, unrecoverable=lost, settled=settled)
    begin_id, last_id, through_id, stored, begin_us, through_us, last_us = row
    return LedgerPosition(begin_id, last_id, through_id, stored, gaps, (), begin_us, through_us, last_us, holes, lost, settled)
