"""A text in the operator's own editor: the terminal is lent to it, while link and engine go on.

The editor belongs to the dashboard's machine; the text may come from anywhere. It lies in a private folder meanwhile.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from textual.app import App, SuspendNotSupported

from ..textfile import UnusableFile, read_bytes

log = logging.getLogger(__name__)

_MAX_BYTES = 2**20  # the engine's limit
_HANG_UP_LIMIT_S = 2.0


class Edited(Struct, frozen=True):
    """What came back. `problem` says in words why it should not be used as it is; the text is there all the same."""

    text: str
    problem: str = ""


async def edit_text(app: App[Any], text: str, name: str) -> Edited:
    """Lend the terminal to $VISUAL, $EDITOR or vi with `text` in a file called `name`, and wait until it is given back.

    Where the dashboard is closed meanwhile, the editor is told so by SIGHUP; what it then leaves unsaved is not removed.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi") or ["vi"]
    if shutil.which(command[0]) is None:
        return Edited(text, f"the editor {command[0]!r} is not there: set EDITOR or VISUAL to one that is")
    folder = Path(tempfile.mkdtemp(prefix="quantai-tui-"))  # for its owner alone, and so is the file
    path = folder / name
    data = text.encode("utf-8", "surrogateescape")
    finished = False
    try:
        path.touch(0o600, exist_ok=False)
        path.write_bytes(data)
        # Without the batch a repaint would wait for a writer that has stopped, for good.
        with app.batch_update(), app.suspend(), _keyboard_signals_left_to_the_editor():
            code = await _run([*command, str(path)])
        finished = True
        return _read_back(path, text, Path(command[0]).name, code)
    except SuspendNotSupported:
        finished = True
        return Edited(text, "this terminal cannot be lent to an editor")
    except OSError as error:
        finished = True
        return Edited(text, f"the editor {command[0]!r} did not run: {error.strerror or error}")
    finally:
        if finished or not _holds_unsaved(folder, path, data):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            log.warning("the dashboard was closed under the editor; what was typed is in %s", folder)


def _read_back(path: Path, before: str, editor: str, code: int) -> Edited:
    try:
        data = read_bytes(path, _MAX_BYTES)
    except FileNotFoundError:
        return Edited(before, f"{editor} left no file")
    except UnusableFile as error:
        return Edited(before, f"the file from {editor} {error}; it was ignored")
    data = data.removeprefix(codecs.BOM_UTF8)  # some editors add it
    text = data.decode("utf-8", "surrogateescape")
    if code:
        cause = f"code {code}" if code > 0 else f"signal {-code}"
        return Edited(text, f"{editor} ended with {cause}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return Edited(text, f"line {line} is not UTF-8 text")
    return Edited(text)


def _holds_unsaved(folder: Path, path: Path, before: bytes) -> bool:
    """Whether the file was changed, or the editor has left something beside it to recover from."""
    try:
        return any(other != path for other in folder.iterdir()) or read_bytes(path, _MAX_BYTES) != before
    except (OSError, UnusableFile):
        return True


async def _run(command: list[str]) -> int:
    """The editor's exit code; negative where a signal ended it."""
    terminal = sys.__stderr__  # the dashboard draws there too, output may be piped elsewhere
    process = await asyncio.create_subprocess_exec(*command, stdin=sys.__stdin__, stdout=terminal, stderr=terminal)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
            try:
                async with asyncio.timeout(_HANG_UP_LIMIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        raise


@contextlib.contextmanager
def _keyboard_signals_left_to_the_editor() -> Iterator[None]:
    """Ctrl-C and Ctrl-\\ in the editor reach us as well. A handler, since what is ignored would be ignored in the editor too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
