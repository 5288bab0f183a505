"""`--plain`: the dashboard as lines of text, for screen readers and logs. A line when something changes, words to steer by."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from ..link.base import EngineLink, LinkState
from ..link.messages import CommandName
from ..output import say
from ..telemetry import SYSTEM_CLOCK, Clock, EngineSnapshot, Mode
from .commands import Commands
from .format import clean, duration, wall_clock
from .narration import changes, summary

_POLL_S = 0.25
_STALE_AFTER_S = 5.0
_QUIET_S = 300.0  # after so long without a line it says where everything stands: silence is no news
_LONGEST_LINE = 4096

_ORDERS: dict[str, tuple[CommandName, str]] = {
    "reconnect": (CommandName.RECONNECT, "dial now"),
    "disconnect": (CommandName.DISCONNECT, "disconnect the stream"),
    "connect": (CommandName.CONNECT, "connect it again"),
    "rotate": (CommandName.ROTATE, "replace the connection without a break"),
    "train": (CommandName.TRAIN_START, "start or resume training"),
    "pause": (CommandName.TRAIN_PAUSE, "pause training"),
    "checkpoint": (CommandName.CHECKPOINT, "save a checkpoint now"),
    "ack": (CommandName.ALERT_ACK, "acknowledge all alerts"),
    "reset": (CommandName.SCALER_RESET, "reset the scale to half of the initial one; asks"),
    "stop": (CommandName.STOP, "stop the engine; asks where it would go on"),
}
_ARGUMENTS: dict[CommandName, dict[str, str]] = {CommandName.ALERT_ACK: {"key": ""}}
_ASKS = {
    CommandName.SCALER_RESET: "the scale is set to clamp(init/2, floor, cap)",
    CommandName.STOP: "the engine ends, the stream with it and the training",
}


class PlainView:
    """One engine told in lines, each given to `print_line`. `run` ends with "stop" (the engine was told to) or "detach"."""

    def __init__(
        self, link: EngineLink, print_line: Callable[[str], None], *, clock: Clock = SYSTEM_CLOCK, stop_on_quit: bool = False
    ) -> None:
        self._link = link
        self._print = print_line
        self._clock = clock
        self._stop_on_quit = stop_on_quit
        self._commands = Commands(link, lambda text, token: self.say(text))
        self._left = asyncio.Event()
        self._started_up = asyncio.Event()  # the engine accepts commands, or has failed
        self._leaving = False
        self._outcome = "detach"
        self._asked: str | None = None
        self._told: EngineSnapshot | None = None
        self._state: LinkState | None = None
        self._stale = False
        self._spoke_at = clock.monotonic()
        self._orders: set[asyncio.Task[None]] = set()
        self.failed = False  # whether the link ended by itself: closing it afterwards hides this

    async def run(self) -> str:
        await self._link.start()
        try:
            while not self._left.is_set():
                self.look()
                await self._wait()
            self.look()
            return self._outcome
        finally:
            for order in self._orders:
                order.cancel()
            await asyncio.gather(*self._orders, return_exceptions=True)
            await self._link.close()

    async def _wait(self) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(_POLL_S))
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait({sleeping, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            leaving.cancel()
            await asyncio.gather(sleeping, leaving, return_exceptions=True)

    def look(self) -> None:
        """Say what is new since the last look."""
        link = self._link
        if link.state is not LinkState.STARTING:
            self._started_up.set()
        if link.state is not self._state:
            self._state = link.state
            detail = f": {clean(link.detail)}" if link.detail else ""
            self.say(f"engine link: {link.state.value}{detail}")
            if link.state in {LinkState.FAILED, LinkState.REFUSED}:
                self.failed = True
                self._left.set()
                return
        snapshot = link.snapshot
        if snapshot is None:
            return
        age = link.snapshot_age_s or 0.0
        if (age > _STALE_AFTER_S) != self._stale:
            self._stale = not self._stale
            self.say(f"no news from the engine for {duration(age)}: what was said is old" if self._stale else "news again")
        if snapshot is not self._told:
            for line in changes(self._told, snapshot):
                self._say_line(line)
            self._told = snapshot
        if self._clock.monotonic() - self._spoke_at >= _QUIET_S:
            self.say("; ".join(summary(snapshot)))

    def say(self, text: str) -> None:
        """A line of our own, at the time of now."""
        self._say_line(f"{wall_clock(self._clock.time())} {text}")

    def _say_line(self, line: str) -> None:
        self._spoke_at = self._clock.monotonic()
        self._print(line)

    def leave(self) -> None:
        """Ctrl-C or a signal: stop a demo or a replay, leave a live engine running. A second signal does not wait."""
        if self._quit_stops and not self._leaving and self._link.state in (LinkState.STARTING, LinkState.ATTACHED):
            self._leaving = True
            self._order(CommandName.STOP, "stop")
        else:
            self._left.set()

    def hang_up(self) -> None:
        """Nobody listens any more: the engine goes on."""
        self._left.set()

    @property
    def _quit_stops(self) -> bool:
        snapshot = self._link.snapshot
        return self._stop_on_quit or (snapshot is not None and snapshot.mode is not Mode.LIVE)

    def hear(self, typed: str) -> None:
        """One line that the operator has typed."""
        word, asked = typed.strip().lower(), self._asked
        self._asked = None
        if asked is not None:
            if word == "yes":
                self._order(_ORDERS[asked][0], asked)
            else:
                self.say(f"{asked}: not done, since the answer was not yes")
        elif word in {"", "status"}:
            self.say("; ".join(summary(self._told)) if self._told is not None else "nothing is known yet")
        elif word == "quit":
            self.leave()
        elif word == "detach":
            self.hang_up()
        elif word in _ORDERS:
            self._ask_or_order(word)
        else:
            self._help(word)

    def _ask_or_order(self, word: str) -> None:
        command = _ORDERS[word][0]
        if command in _ASKS and not (command is CommandName.STOP and self._quit_stops):
            self._asked = word
            self.say(f"{word}: {_ASKS[command]}. Type yes to do it, anything else to leave it")
        else:
            self._order(command, word)

    def _help(self, word: str) -> None:
        if word not in {"help", "?"}:
            self.say(f"{clean(word)[:40]!r} is not a word known here")
        self.say("words, each with enter: status; help; quit; detach leaves the engine running")
        for name, (_, text) in _ORDERS.items():
            self.say(f"{name}: {text}")

    def _order(self, command: CommandName, word: str) -> None:
        task = asyncio.ensure_future(self._carry_out(command, word))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _carry_out(self, command: CommandName, word: str) -> None:
        if command is not CommandName.STOP:
            await self._commands.send(command, word, **_ARGUMENTS.get(command, {}))
            return
        if not self._started_up.is_set():
            self.say("stopping as soon as the engine has started; quit again to leave it running")
            await self._started_up.wait()
        self.say("stop: sent")
        ack = await self._commands.ask(command)
        if ack.ok or self._link.state in {LinkState.FAILED, LinkState.CLOSED}:
            self._outcome = "stop"
            self._left.set()
        else:
            self._leaving = False
            self.say(f"stop: not done, {clean(ack.message)}")


def run_plain(link: EngineLink, *, stop_on_quit: bool = False, on_outcome: Callable[[str], None] | None = None) -> int:
    """Tell of the engine on standard output, and take orders from standard input, until it is left. Returns the exit code.

    0 when left, also when nobody reads the output any more; 1 when the link has failed. The orders are read from a terminal or
    a pipe alike; its end is not a command. Raises OSError when the output cannot be written for another reason.
    """
    return asyncio.run(_run(link, stop_on_quit, on_outcome))


async def _run(link: EngineLink, stop_on_quit: bool, on_outcome: Callable[[str], None] | None) -> int:
    unwritten: OSError | None = None

    def print_line(line: str) -> None:
        try:
            say(line)
        except BrokenPipeError:
            view.hang_up()
        except OSError as error:
            nonlocal unwritten
            unwritten = error
            view.hang_up()

    view = PlainView(link, print_line, stop_on_quit=stop_on_quit)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, view.leave)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, view.hang_up)
    with _orders_from(0, view.hear):
        outcome = await view.run()
    if on_outcome is not None:
        on_outcome(outcome)
    if unwritten is not None:
        if not view.failed:
            say("quantai-tui: the engine keeps running: 'quantai-tui ps' lists it, 'quantai-tui stop' stops it", err=True)
        raise unwritten
    return 1 if view.failed and outcome != "stop" else 0


@contextlib.contextmanager
def _orders_from(descriptor: int, hear: Callable[[str], None]) -> Iterator[None]:
    """Hand each line that comes in to `hear`. A descriptor that cannot be waited for (a file) gives no orders."""
    loop = asyncio.get_running_loop()
    pending = b""

    def read() -> None:
        nonlocal pending
        try:
            data = os.read(descriptor, _LONGEST_LINE)
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(descriptor)
            return
        *lines, pending = (pending + data).split(b"\n")
        pending = pending[-_LONGEST_LINE:]
        for line in lines:
            hear(line.decode("utf-8", "replace"))

    try:
        loop.add_reader(descriptor, read)
    except OSError:  # epoll takes no plain files
        yield
        return
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
