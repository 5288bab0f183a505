"""A dashboard over a settings desk, on a real terminal. The first argument is a file for the text that the desk takes."""

from __future__ import annotations

import fcntl
import sys
import termios
from pathlib import Path
from typing import Any

from editor_support import SettingsLink
from ui_support import engine_snapshot

from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.ui.running import run_dashboard


class FileLink(SettingsLink):
    """Writes what it takes to a file, so that another process can read it."""

    async def command(self, name: CommandName, **args: Any) -> Ack:
        ack = await super().command(name, **args)
        if name is CommandName.SETTINGS_WRITE and ack.ok:
            Path(sys.argv[1]).write_text(self.text)
        return ack


def main() -> int:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    return run_dashboard(FileLink(engine_snapshot()), on_outcome=lambda outcome: print(f"outcome={outcome}", flush=True))


if __name__ == "__main__":
    sys.exit(main())
