"""Error messages and remedies for a store's file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .holders import who_holds

_PRIMARY_CODE = 0xFF  # the higher bits are the extended code
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class StoreError(Exception):
    """The store cannot be opened, read or written; the text names the file, what happened, and what can be done."""


def is_held(error: BaseException) -> bool:
    """Whether another program has locked the file, which can be waited for."""
    return _code(error) in _HELD


def is_damaged(error: BaseException) -> bool:
    """Whether the file is not a database or is corrupt: neither waiting nor free disk space helps."""
    return _code(error) in _DAMAGED


def store_error(path: Path, doing: str, error: Exception) -> StoreError:
    """Convert any error into one that says what to do. `doing` is a verb such as "writing"."""
    if isinstance(error, StoreError):
        return error
    found = StoreError(f"{doing} the store {path} failed: {error or type(error).__name__}; {_remedy(path, error)}")
    found.__cause__ = error
    return found


def _code(error: BaseException) -> int | None:
    # Errors of the sqlite3 module itself, such as use of a closed connection, have no code.
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return None if code is None else code & _PRIMARY_CODE


def _remedy(path: Path, error: Exception) -> str:
    if is_held(error):
        return f"it is held by {who_holds(path)}: close it there, then start again"
    if is_damaged(error):
        return (
            f"the database is damaged: move {path.name} and the files beside it ({path.name}-wal, {path.name}-shm) away and "
            "start again; sqlite3's .recover may rescue its content, and import and BACKFILL_START restore trades"
        )
    if _code(error) in _FORBIDDEN:
        return "choose a data folder that you may write to; trades not yet stored are fetched again after a restart"
    return "check the disk's free space and health; trades not yet stored are fetched again after a restart"
