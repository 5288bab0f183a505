"""Why an engine did not start, and what its process then ends with."""

from __future__ import annotations

from .registry import Entry

EXIT_STORE_FAILED = 5


class StartError(Exception):
    """The engine did not start; the text says why and what to do. `entry` is set when another engine holds the folder."""

    def __init__(self, message: str, exit_code: int = 2, entry: Entry | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.entry = entry
