"""What benchmarks have in common: interleaved rounds, statistics, and the table they end in."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_HEAD = ("benchmark", "what", "measured", "bare", "ratio", "bound", "met")


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` trades precision for time. `device` is where the training step runs.

    `archives` is what `learning` learns from, `picture` where `scaler` draws.
    """

    quick: bool = False
    device: str = "cpu"
    archives: tuple[Path, ...] = ()
    picture: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value in `unit` (None: it could not be measured), beside the same of the bare thing where there is one.

    `bound` is an upper limit, on the value or on its ratio to the bare one; None where the number is there to be known only.
    `paired` is the median of the rounds' own ratios. It takes the place of the medians' quotient: where the machine's speed
    changes from one second to the next, both sides of a round change with it.
    """

    benchmark: str
    what: str
    unit: str
    measured: float | None
    bare: float | None = None
    bound: float | None = None
    bound_on: Literal["value", "ratio"] = "value"
    note: str = ""
    paired: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.paired is not None:
            return self.paired
        return self.measured / self.bare if self.bare and self.measured is not None else None

    @property
    def met(self) -> bool | None:
        """None where there is no bound, or nothing to compare with it."""
        value = self.ratio if self.bound_on == "ratio" else self.measured
        return None if self.bound is None or value is None else value <= self.bound

    def as_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "unit": self.unit,
            "measured": self.measured,
            "bare": self.bare,
            "ratio": self.ratio,
            "bound": self.bound,
            "bound_on": self.bound_on if self.bound is not None else None,
            "met": self.met,
            "note": self.note,
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank). Raises ValueError when empty."""
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies above 0 and at most at 100, got {percent:g}")
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def interleaved(rounds: int, subjects: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure every subject once per round, in turn, so that a change in the machine's load meets all of them.

    The order is reversed every other round, and one round before the first is thrown away: it fills the caches.
    """
    results: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        names = list(subjects)
        for name in names if number % 2 else reversed(names):
            value = subjects[name]()
            if number:
                results[name].append(value)
    return results


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def paired(ours: Sequence[float], bare: Sequence[float]) -> float:
    """The median of the ratios, round by round."""
    return median([mine / other for mine, other in zip(ours, bare, strict=True)])


def spread(values: Sequence[float]) -> str:
    """The least and the greatest, as a remark."""
    return f"{min(values):.4g} to {max(values):.4g} in {len(values)} rounds"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, or a dash for what is not there."""
    if value is None:
        return "-"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {unit}".rstrip()


def table(rows: Sequence[Row]) -> str:
    """The rows in columns; the notes stand below, each under the row it belongs to."""
    cells = [
        (
            row.benchmark,
            row.what,
            number(row.measured, row.unit),
            number(row.bare, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.3f}x",
            "-" if row.bound is None else f"{row.bound:g}x" if row.bound_on == "ratio" else number(row.bound, row.unit),
            {True: "yes", False: "NO", None: "-"}[row.met],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (_HEAD, *cells)) for column in range(len(_HEAD))]
    lines = [_line(_HEAD, widths), _line(["-" * width for width in widths], widths)]
    for row, line in zip(rows, cells, strict=True):
        lines.append(_line(line, widths))
        if row.note:
            lines.append(f"    {row.note}")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def machine() -> dict[str, Any]:
    """Where this ran, and how busy it was: numbers from a loaded machine compare with each other only."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (None, None, None)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_1min": load[0],
    }
