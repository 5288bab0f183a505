"""What the dashboard sends to the terminal in steady state, what of it remains when nothing changes, and what drawing costs.

Beside it, in the same run and at the same sizes: an empty Textual app, and btop and htop where they are installed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from quantai_tui.engine.registry import Entry
from quantai_tui.link.messages import CommandName

from .monitors import NAMES, Size, monitors
from .report import Options, Row, number
from .surroundings import attached, engine, module, program
from .terminal import Terminal, printable

BOUNDS = {(80, 24): 2000.0, (200, 50): 3000.0}  # bytes/s
CPU_BOUND = 1.5  # percent of a core
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Sent:
    """What one program sent in `seconds`, and the processor time that it used for it."""

    output: bytes
    cpu_s: float
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.output) / self.seconds

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.seconds


def run(options: Options) -> list[Row]:
    # In full long enough for one of the demo's planted overflow bursts, which come every 45 s, and for the sparklines to run out.
    settle_s, steady_s, stop_s, still_s = (4.0, 6.0, 2.0, 3.0) if options.quick else (15.0, 46.0, 125.0, 20.0)
    with engine("demo") as entry, ExitStack() as stack:
        # All at once: they are idle most of the time, and processor time is counted for each process.
        ours = {size: stack.enter_context(Terminal(program("attach"), size)) for size in BOUNDS}
        bare = {size: stack.enter_context(Terminal(module("empty_app"), size)) for size in BOUNDS}
        few_colors = stack.enter_context(Terminal(program("attach"), (80, 24), {"COLORTERM": ""}))
        others = stack.enter_context(monitors(BOUNDS))
        every = [*ours.values(), *bare.values(), few_colors, *others.values()]
        watch(every, settle_s)
        steady = watch(every, steady_s)
        asyncio.run(hold_still(entry))
        watch(every, stop_s)
        still = watch(every, still_s)
    rows = []
    for size, bound in BOUNDS.items():
        sent, beside = steady[ours[size].pid], steady[bare[size].pid]
        where = f"{size[0]}x{size[1]}"
        rows.append(Row("bytes", f"{where} steady", "B/s", sent.rate, beside.rate, bound))
        rows.append(Row("bytes", f"{where} cpu", "%", sent.cpu_percent, beside.cpu_percent, CPU_BOUND))
        rest, beside = still[ours[size].pid], still[bare[size].pid]
        rows.append(Row("bytes", f"{where} nothing changes", "B/s", rest.rate, beside.rate, 0.0, note=_remains(rest, stop_s)))
    rows.append(Row("bytes", "80x24 in 256 colours", "B/s", steady[few_colors.pid].rate, note="as over most SSH links"))
    return [*rows, *_beside(others, steady)]


def _beside(others: Mapping[tuple[str, Size], Terminal], steady: Mapping[int, Sent]) -> list[Row]:
    rows = []
    for name in NAMES:
        for size in BOUNDS:
            where = f"{size[0]}x{size[1]}"
            if (name, size) not in others:
                rows.append(Row("bytes", f"{where} {name}", "B/s", None, note="not installed"))
                continue
            sent = steady[others[name, size].pid]
            rows.append(Row("bytes", f"{where} {name}", "B/s", sent.rate, note="with its own defaults"))
            rows.append(Row("bytes", f"{where} {name} cpu", "%", sent.cpu_percent))
    return rows


async def hold_still(entry: Entry) -> None:
    """Let nothing happen any more: no trades, no training steps."""
    async with attached(entry) as link:
        for command in (CommandName.DISCONNECT, CommandName.TRAIN_PAUSE):
            ack = await link.command(command)
            if not ack.ok:
                raise RuntimeError(f"{command.value}: {ack.message}")


def watch(terminals: Sequence[Terminal], seconds: float) -> dict[int, Sent]:
    """What each of them sends in that time, by process id."""
    outputs = {terminal.pid: bytearray() for terminal in terminals}
    begun = {terminal.pid: terminal.cpu_s() for terminal in terminals}
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        for terminal in terminals:
            outputs[terminal.pid] += terminal.read(0.0)
        time.sleep(_TICK_S)
    return {one.pid: Sent(bytes(outputs[one.pid]), one.cpu_s() - begun[one.pid], passed) for one in terminals}


def _remains(sent: Sent, after_s: float) -> str:
    cells = number(printable(sent.output) / sent.seconds)
    return f"{after_s:g} s after stream and training were stopped: {cells} cells/s are still printed"
