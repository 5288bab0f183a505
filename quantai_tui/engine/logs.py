"""The engine's log: one format, rotated, and its last lines kept for the dashboard without any stack trace."""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from collections import deque
from io import TextIOWrapper
from pathlib import Path

from ..output import LogFormatter, safe_line
from ..private_files import open_private

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_MAX_BYTES = 5_000_000
_BACKUPS = 4
_ROOT = "quantai_tui"
_SHORT = {logging.DEBUG: "DBUG", logging.WARNING: "WARN", logging.ERROR: "FAIL", logging.CRITICAL: "CRIT"}


class LogTail(logging.Handler):
    """The last lines for the screen: time, level and message; stack traces stay in the file."""

    def __init__(self, lines: int = 40, kept: int = 5_000) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=lines)
        self._kept: deque[tuple[float, str]] = deque(maxlen=kept)

    def emit(self, record: logging.LogRecord) -> None:
        message = safe_line(record.getMessage().partition("\n")[0])
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{stamp} {_SHORT.get(record.levelno, 'INFO')} {message[:300]}"
        self._lines.append(line)
        self._kept.append((record.created, line))

    def snapshot(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def until(self, when: float) -> tuple[str, ...]:
        """The last lines up to a moment of the past (Unix seconds), as far as the memory goes back."""
        return tuple(line for created, line in tuple(self._kept) if created <= when)[-(self._lines.maxlen or 0) :]


class _LogFile(logging.handlers.RotatingFileHandler):
    """A private file. `tell` gets one message when writing fails, and another only after writing has worked again."""

    def __init__(self, path: Path, tell: logging.Handler) -> None:
        self._tell = tell
        self._failed = self._told = False
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        self._told = self._told and self._failed

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
        if not self._told:
            self._told = True
            # logging would print a traceback to standard error, over a dashboard
            text = f"the log {self.baseFilename} cannot be written: {sys.exc_info()[1]}"
            self._tell.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None))

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            self.handleError(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "", None, None))

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=open_private)


class EngineLog:
    """Handlers on the package's logger from `open` until `close`."""

    def __init__(self, path: Path, level: str) -> None:
        self.tail = LogTail()
        self._file = _LogFile(path, self.tail)
        self._file.setFormatter(LogFormatter(_FORMAT, "%Y-%m-%dT%H:%M:%S"))
        self._logger = logging.getLogger(_ROOT)
        self._logger.addHandler(self._file)
        self._logger.addHandler(self.tail)
        self._propagated = self._logger.propagate
        self._logger.propagate = False  # nothing of ours may reach stderr, where a dashboard's terminal may be
        self.set_level(level)

    def set_level(self, level: str) -> None:
        self._logger.setLevel(level)

    def close(self) -> None:
        self._logger.removeHandler(self._file)
        self._logger.removeHandler(self.tail)
        self._logger.propagate = self._propagated
        self._file.close()


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log file; empty when there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 16_384))
            return stream.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
