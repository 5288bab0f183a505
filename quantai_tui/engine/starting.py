"""Why an engine did not start, and what its process then ends with."""

from __future__ import annotations

import errno

from .registry import Entry

EXIT_STORE_FAILED = 5

_REMEDIES = {
    errno.ENOSPC: "free some space, or give another DATA_DIR",
    errno.EDQUOT: "your quota is used up: free some space, or give another DATA_DIR",
    errno.EROFS: "give another DATA_DIR",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class StartError(Exception):
    """The engine did not start; the text says why and what to do. `entry` is set when another engine holds the folder."""

    def __init__(self, message: str, exit_code: int = 2, entry: Entry | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.entry = entry


def reason_of(error: Exception) -> str:
    """The text of an error that ended a start; an error of the system also names the file and the remedy."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    remedy = _REMEDIES.get(error.errno or 0, "")
    return f"{where}{error.strerror}" + (f"; {remedy}" if remedy else "")
