"""A dashboard over a made-up engine, run as a process of its own by the tests that need a real terminal.

Arguments: seconds for which the numbers move, then any of `stop-on-quit`, `crash`. The last line says how it was left.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from pathlib import Path

from ui_moving import MovingLink

from quantai_tui.ui.running import run_dashboard


class Crashing(MovingLink):
    """Fails on its third look, with a secret at hand."""

    looks = 0

    @property
    def detail(self) -> str:
        password = "hunter2"
        self.looks += 1
        if self.looks > 3 and password:
            raise RuntimeError("a [/broken] look")
        return ""

    @detail.setter
    def detail(self, value: str) -> None:
        pass


def main() -> int:
    if sys.stdin.isatty():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as in a login shell: a hang-up then brings SIGHUP too
    options = sys.argv[2:]
    moving_for_s = float(sys.argv[1])
    link = Crashing(moving_for_s) if "crash" in options else MovingLink(moving_for_s)
    return run_dashboard(
        link,
        stop_on_quit="stop-on-quit" in options,
        crash_log=Path("crash.log") if "crash" in options else None,
        on_outcome=lambda outcome: print(f"outcome={outcome} closed={link.closed}", flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
