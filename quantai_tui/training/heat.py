"""How hot this machine's processors are, as the kernel tells it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_HWMON = Path("/sys/class/hwmon")
_DRIVERS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal"})  # Intel, AMD (two), ARM
_WHOLE = ("Package", "Tctl", "Tdie")  # labels of what is meant for the whole chip; single cores say less and cost more to ask


class ProcessorHeat:
    """The sensors of Linux' hwmon interface (kernel documentation, hwmon/sysfs-interface), looked up once."""

    def __init__(self, root: Path = _HWMON) -> None:
        self._inputs = list(_inputs(root))

    def celsius(self) -> float | None:
        """Of the hottest processor; None where no sensor tells, as in most virtual machines."""
        known: list[float] = []
        for path in self._inputs:
            with contextlib.suppress(OSError, ValueError):  # a sensor may be asleep, or gone with its driver
                known.append(int(path.read_text("ascii")) / 1000)
        return max(known, default=None)


def _inputs(root: Path) -> Iterator[Path]:
    for chip in sorted(root.glob("hwmon*")):
        if _text(chip / "name") in _DRIVERS:
            inputs = sorted(chip.glob("temp*_input"))
            whole = [path for path in inputs if _text(path.with_name(path.name.replace("input", "label"))).startswith(_WHOLE)]
            yield from whole or inputs[:1]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""
