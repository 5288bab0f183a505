"""A crash without secrets: Textual would print the traceback with all local variables onto the scrollback."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from .cells import clip
from .format import clean

log = logging.getLogger(__name__)


def report_crash(error: BaseException | None, path: Path | None) -> str:
    """Put the traceback, without local variables, into `path` (mode 0600) or the log; returns what to tell the operator."""
    report = "".join(traceback.format_exception(error)) if error is not None else "no traceback\n"
    where = "its log"
    if path is not None and _append(path, report):
        where = str(path)
    else:
        log.error("the dashboard failed:\n%s", report)
    what = f"{type(error).__name__}: {clip(clean(str(error)), 200)}" if error is not None else "unknown error"
    return f"The dashboard failed: {what}\nThe engine was not touched. The traceback is in {where}."


def _append(path: Path, text: str) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        log.warning("the crash report could not be written: %s", error)
        return False
    return True
