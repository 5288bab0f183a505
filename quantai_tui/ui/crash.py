"""A crash without secrets: Textual would print the traceback with all local variables onto the scrollback."""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path

from ..masking import masked
from ..output import safe_lines
from ..private_files import make_folders, open_private
from .cells import clip
from .format import clean

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20  # past it the reports so far move to `.1`


def report_crash(error: BaseException | None, path: Path | None) -> str:
    """Keep the report of what ended the dashboard; what to tell the operator: what, what to do, where the traceback is."""
    where = keep_report(error, path)
    what = f"{type(error).__name__}: {clip(masked(clean(str(error))), 200)}" if error is not None else "unknown error"
    return (
        f"The dashboard failed: {what}\n"
        f"The engine was not touched: 'quantai-tui attach' shows it again, 'quantai-tui ps' lists what runs.\n"
        f"The traceback is in {where}; please send it to those who make this program."
    )


def keep_report(error: BaseException | None, path: Path | None) -> str:
    """Put the traceback, without local variables, into `path` (mode 0600) or the log; returns where it is."""
    report = safe_lines("".join(traceback.format_exception(error))) if error is not None else "no traceback\n"
    stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}\n{report}\n"
    if path is not None and _append(path, stamped):
        return str(path)
    log.error("the dashboard failed:\n%s", report)
    return "its log"


def _append(path: Path, text: str) -> bool:
    try:
        make_folders(path.parent)
        if path.exists() and path.stat().st_size > _LARGEST_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        with open(path, "a", encoding="utf-8", opener=open_private) as file:
            file.write(text)
    except OSError as error:
        log.warning("the crash report could not be written: %s", error)
        return False
    return True
