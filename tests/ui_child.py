"""A dashboard over a made-up engine, run as a process of its own by the tests that need a real terminal.

Arguments: seconds for which the numbers move, then any of `stop-on-quit`, `crash`, `job` (as a job of a shell). The last line
says how it was left. What the engine is told stands in `heard` in the work folder.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from pathlib import Path
from typing import Any

from ui_moving import MovingLink

from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.ui.running import run_dashboard


class Heard(MovingLink):
    """Writes down at once what it is told, since the screen may be the thing that hangs."""

    async def command(self, name: CommandName, **args: Any) -> Ack:
        with Path("heard").open("a") as file:
            file.write(f"{name.value}\n")
        return await super().command(name, **args)


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


def lead_a_job() -> None:
    """Go on in a child that has the foreground; the parent is the shell, and says when it has stopped."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            os._exit(os.waitstatus_to_exitcode(status))
        os.write(1, f"stopped {child};".encode())


def main() -> int:
    if sys.stdin.isatty():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as in a login shell: a hang-up then brings SIGHUP too
    options = sys.argv[2:]
    if "job" in options:
        lead_a_job()
    moving_for_s = float(sys.argv[1])
    link = Crashing(moving_for_s) if "crash" in options else Heard(moving_for_s)
    return run_dashboard(
        link,
        stop_on_quit="stop-on-quit" in options,
        crash_log=Path("crash.log") if "crash" in options else None,
        on_outcome=lambda outcome: print(f"outcome={outcome} closed={link.closed}", flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
