"""From a key press to its effect on the screen, while an engine on the same machine takes 20,000 messages a second.

The effect is looked for on an emulated screen, because a dashboard that repaints by itself writes bytes that answer no key.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyte

from quantai_tui.engine.registry import Entry

from .children import Child
from .empty_app import LINES
from .report import Options, Row, number, percentile
from .surroundings import attached, engine, module, program
from .terminal import Terminal
from .venue import SYMBOL

BOUND_MS = 30.0
RATE = 20_000
SIZE = (80, 24)
_TITLES = ("connection", "heartbeat", "backoff", "market", "training", "gradient scale", "overflow", "log")
_EDGES = "─━╭"

Look = Callable[[pyte.Screen], object]


def run(options: Options) -> list[Row]:
    presses, settle_s = (30, 2.0) if options.quick else (400, 20.0)
    with busy_engine() as entry:
        with Terminal(program("attach"), SIZE) as ours, Terminal(module("empty_app"), SIZE) as bare:
            screens = Watched(ours, (b"\t", b"\x1b[Z"), focus), Watched(bare, (b"t",), first_line)
            for screen in screens:
                screen.follow(settle_s / 2)
            # Onto the first pane with a frame; from there tab and shift-tab go to its neighbour and back.
            ours.press(b"\t\t")
            screens[0].follow(0.5)
            delays = press_in_turn(screens, presses)
        taken = asyncio.run(messages_per_s(entry))
    note = f"{presses} presses of tab and shift-tab, {number(taken)} messages/s taken by the engine, training on"
    rows = []
    for what, percent, bound in (("p50", 50, None), ("p99", 99, BOUND_MS)):
        mine, other = (percentile(each, percent) for each in delays)
        rows.append(Row("key-to-paint", f"{what} 80x24, focus moves", "ms", mine, other, bound, note=note if bound else ""))
    return rows


@contextmanager
def busy_engine() -> Iterator[Entry]:
    """An engine on a venue that sends 20,000 messages a second; it trains as the demo does."""
    with Child("venue", ".") as venue:
        told = venue.hear()
        settings = {
            "EXCHANGE_WS_URL": f"{told['url']}/paced/{RATE}",
            "EXCHANGE_REST_URL": "https://localhost:1",
            "EXCHANGE_CA_FILE": told["ca_file"],
            "SYMBOLS": SYMBOL,
            "WARMUP_BARS": "0",
            "BAR_INTERVAL": "1s",
            "TRAIN_STEPS_PER_S": "20",
        }
        with engine("live", *(f"--set={name}={value}" for name, value in settings.items())) as entry:
            yield entry


class Watched:
    """A terminal with an emulator behind it, and a way to look whether a key has taken effect."""

    def __init__(self, terminal: Terminal, keys: Sequence[bytes], look: Look) -> None:
        self.terminal = terminal
        self._keys = itertools.cycle(keys)
        self.screen = pyte.Screen(*SIZE)
        self._stream = pyte.ByteStream(self.screen)
        self._look = look

    def follow(self, seconds: float) -> None:
        self._stream.feed(self.terminal.read_for(seconds))

    def press(self) -> float:
        """Milliseconds until what is looked at has changed."""
        before = self._look(self.screen)
        seen = 0

        def changed(output: bytes) -> bool:
            nonlocal seen
            self._stream.feed(output[seen:])
            seen = len(output)
            return self._look(self.screen) != before

        pressed = self.terminal.press(next(self._keys))
        _, at = self.terminal.read_until(changed, 10.0)
        return (at - pressed) * 1000


def press_in_turn(screens: tuple[Watched, ...], presses: int) -> tuple[list[float], ...]:
    """Presses at moments that fall anywhere between two repaints."""
    chance = random.Random(1)
    delays: tuple[list[float], ...] = tuple([] for _ in screens)
    for _ in range(presses):
        for screen, list_of in zip(screens, delays, strict=True):
            for other in screens:
                other.follow(chance.uniform(0.01, 0.06))
            list_of.append(screen.press())
    return delays


def focus(screen: pyte.Screen) -> tuple[str, ...]:
    """The rule before each pane's number and title, with its colour: the focused pane's differ."""
    found = []
    for y, line in enumerate(screen.display):
        for title in _TITLES:
            at = line.find(title)
            edge = line[max(0, at - 3)]  # the key that goes there stands between
            if at > 2 and edge in _EDGES:
                found.append(f"{title}{edge}{screen.buffer[y][at].fg}")
    return tuple(found)


def first_line(screen: pyte.Screen) -> str:
    return screen.display[0] if any(line in screen.display[0] for line in LINES) else ""


async def messages_per_s(entry: Entry) -> float:
    """What the engine itself says that it takes."""
    async with attached(entry) as link:
        assert link.snapshot is not None
        return link.snapshot.stream.messages_per_s or 0.0
