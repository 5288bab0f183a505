"""Why a worker has ended, in words for the operator. Free of torch."""

from __future__ import annotations

import re
import signal
from pathlib import Path

_HINTS = {
    signal.SIGKILL: "by hand, or by the kernel because memory ran out (see dmesg)",
    signal.SIGSEGV: "a crash in native code, often a torch build that does not fit this machine",
    signal.SIGILL: "an instruction this CPU does not have: the torch build does not fit this machine",
    signal.SIGBUS: "memory that could not be read: a full /dev/shm or a failing disk",
    signal.SIGABRT: "native code gave up, see the log",
    signal.SIGTERM: "by hand or by a service manager",
}
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_SMALLER = "choose a smaller model or batch"


def of_signal(number: int) -> str:
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"the worker was killed by signal {number}"
    hint = _HINTS.get(name)
    return f"the worker was killed by {name.name}" + (f": {hint}" if hint else "")


def of_error(error: BaseException) -> str:
    """Of an exception in the worker. Those of torch are told apart by name and text: this must not load it."""
    first = str(error).splitlines()[0] if str(error) else ""
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of GPU memory; {_SMALLER} ({first})"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory; {_SMALLER}" + (f" ({first})" if first else "")
    if isinstance(error, ImportError):
        return f"torch cannot be loaded: {first}; install it again, then start training"
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in first:
        return f"{first}; a new process may find the GPU sound, else see dmesg for Xid messages"
    return f"{type(error).__name__}: {error}"


class OomKills:
    """The kernel's counts of processes that it killed for want of memory: of our cgroup, and of the machine.

    A SIGKILL says nothing of who sent it. A count that has risen since this object was made does. Counts that a system does not
    have are not there, and nothing is claimed.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = self._counts()

    def risen(self) -> str:
        """Whose memory ran out, in words; empty when no count has risen."""
        now = self._counts()
        for whose, count in now.items():
            if count > self._before.get(whose, count):
                return whose
        return ""

    def _counts(self) -> dict[str, int]:
        places = [("this service or container", path) for path in self._of_cgroup()]
        places.append(("this machine, or of a part of it,", self._root / "proc/vmstat"))
        counts: dict[str, int] = {}
        for whose, path in places:
            try:
                match = _OOM_KILLS.search(path.read_text())
            except OSError:  # no such count here
                continue
            if match is not None:
                counts[whose] = counts.get(whose, 0) + int(match[1])
        return counts

    def _of_cgroup(self) -> list[Path]:
        try:
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers:
                found.append(self._root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(self._root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
        return found
