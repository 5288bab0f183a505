"""What only a real terminal shows: bytes, signals, hang-ups, a terminal that stops reading, and what is left on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyte
import pytest

from quantai_tui.ui.cells import Pace

CHILD = Path(__file__).with_name("ui_child.py")
Seen = TypeVar("Seen")


class Terminal:
    """A pseudo terminal with the dashboard in it, as its own session."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_ANIMATIONS": "none"} | environment
        env.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
        env["PYTHONPATH"] = os.pathsep.join([str(CHILD.parent), str(CHILD.parent.parent)])
        self.master = master
        self.settings = termios.tcgetattr(slave)  # as they were before the program has touched them
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), *arguments], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
        )
        os.close(slave)

    def read(self, seconds: float) -> bytes:
        """What arrives within so many seconds."""
        until = time.monotonic() + seconds
        arrived = b""
        while (left := until - time.monotonic()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                break
            chunk = self._take()
            if not chunk:
                break
            if b"\x1b[?2026$p" in chunk:
                os.write(self.master, b"\x1b[?2026;2$y")
            arrived += chunk
        return arrived

    def _take(self) -> bytes:
        """What is there, as soon as there is something; nothing once the program has ended and all of it was read."""
        try:
            chunk = os.read(self.master, 65_536)
        except OSError:
            return b""
        self.output += chunk
        return chunk

    def read_until(self, met: Callable[[bytes], bool], within_s: float = 20.0) -> bytes:
        deadline = time.monotonic() + within_s
        while not met(self.output):
            assert time.monotonic() < deadline, self.output[-2000:].decode(errors="replace")
            self.read(0.05)
        return self.output

    def read_until_quiet(self, quiet_s: float = 1.2, within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while self.read(quiet_s):
            assert time.monotonic() < deadline, "the screen does not come to rest"

    def painted(self) -> Terminal:
        self.read_until(lambda output: b"LIVE" in output and b"disconnect" in output)
        self.read(0.3)
        return self

    def ended(self, within_s: float = 20.0) -> int:
        deadline = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it goes on"
            if self.master >= 0:
                self.read(0.05)
            else:
                time.sleep(0.02)
        while self.master >= 0 and self._take():
            assert time.monotonic() < deadline, "it has ended, and its output does not"
        return self.process.returncode

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.master >= 0:
            os.close(self.master)


def within_a_minute(look: Callable[[], Seen]) -> Seen:
    """What `look` sees in a time in which the header's clock stood still."""
    while True:
        minute = time.strftime("%M")
        seen = look()
        if time.strftime("%M") == minute:
            return seen


@contextmanager
def terminal(*arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments, size=size, **environment)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_detaches_with_the_terminal_restored_and_exit_code_zero(number: signal.Signals) -> None:
    with terminal("100") as screen:
        screen.painted()
        screen.process.send_signal(number)
        assert screen.ended() == 0
        assert b"outcome=detach closed=True" in screen.output
        assert b"\x1b[?1049l" in screen.output
        assert b"\x1b[?25h" in screen.output
        assert termios.tcgetattr(screen.master)[3] == screen.settings[3]


def test_a_hang_up_of_the_terminal_ends_the_dashboard_without_spinning_or_failing() -> None:
    with terminal("100") as screen:
        screen.painted().hang_up()
        assert screen.ended() == 0


@pytest.mark.parametrize(
    ("keys", "options", "outcome"),
    [
        ([b"\x03"], [], b"outcome=detach"),
        ([b"\x03"], ["stop-on-quit"], b"outcome=stop"),
        ([b"q"], ["stop-on-quit"], b"outcome=stop"),
    ],
)
def test_leaving_by_key_says_whether_the_engine_was_stopped(keys: list[bytes], options: list[str], outcome: bytes) -> None:
    with terminal("100", *options) as screen:
        screen.painted()
        for key in keys:
            os.write(screen.master, key)
        assert screen.ended() == 0
        assert outcome in screen.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_has_stopped_reading_cannot_hold_the_process(number: signal.Signals) -> None:
    with terminal("100", size=(200, 50)) as screen:
        screen.painted()
        deadline = time.monotonic() + 20
        while _cpu_of_twenty_redraws(screen) > 0.02:
            assert time.monotonic() < deadline, "the loop does not get stuck"
        screen.process.send_signal(number)
        began = time.monotonic()
        screen.process.wait(10)
        assert time.monotonic() - began < 6
        assert screen.process.returncode == 0


def _cpu_of_twenty_redraws(screen: Terminal) -> float:
    """Seconds the main thread works while it is asked for the whole screen; nothing once its output queue is full."""
    before = _main_thread_cpu(screen.process.pid)
    for _ in range(20):
        os.write(screen.master, b"\x0c")
        time.sleep(0.02)
    return _main_thread_cpu(screen.process.pid) - before


def _main_thread_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_byte_is_sent_when_nothing_changes() -> None:
    with terminal("0") as screen:
        screen.painted()
        assert within_a_minute(lambda: (screen.read_until_quiet(), screen.read(1.5))[1]) == b""


@pytest.mark.parametrize(("size", "limit"), [((80, 24), 2_000), ((200, 50), 3_000)])
def test_a_busy_market_costs_few_bytes_a_second(size: tuple[int, int], limit: int) -> None:
    with terminal("100", size=size) as screen:
        already = len(screen.painted().output)
        screen.read_until(lambda output: len(output) > already)
        screen.read_until_quiet(0.3)
        # From between two paintings on for two moves of the charts: three seconds would hold one move of them, or two.
        began = time.monotonic()
        arrived = 0
        while time.monotonic() - began < 2 * Pace.CHART.value:
            arrived += len(screen.read(0.2))
        rate = arrived / (time.monotonic() - began)
        assert 100 < rate < limit, f"{rate:.0f} bytes a second"


def test_cells_sent_one_by_one_add_up_to_the_whole_picture() -> None:
    with terminal("2", size=(120, 40)) as screen:
        screen.painted()

        def both() -> tuple[object, object]:
            screen.read_until_quiet()
            already = len(screen.output)
            os.write(screen.master, b"\x0c")
            screen.read_until(lambda output: len(output) > already + 4_000)
            screen.read_until_quiet()
            return _picture(screen.output[:already], 120, 40), _picture(screen.output[already:], 120, 40)

        pieced, whole = within_a_minute(both)
        assert whole == pieced


def _picture(output: bytes, width: int, height: int) -> list[list[tuple[str, str, str, bool]]]:
    emulator = pyte.Screen(width, height)
    stream = pyte.ByteStream(emulator)
    # The emulator knows no private answers and no kitty keyboard protocol; neither draws anything.
    for unknown in (b"\x1b[>25u", b"\x1b[<u", b"\x1b[>29u"):
        output = output.replace(unknown, b"")
    stream.feed(output)
    line = range(width)
    return [[(cell.data, cell.fg, cell.bg, cell.bold) for cell in (emulator.buffer[y][x] for x in line)] for y in range(height)]


def test_no_color_leaves_no_colour_in_the_output() -> None:
    with terminal("100", NO_COLOR="1") as screen:
        screen.painted()
        os.write(screen.master, b"c")
        screen.read_until(lambda output: b"What reconnect initial delay" in output)
        screen.read_until_quiet()
        coloured = [code for code in _colours(screen.output) if code]
        assert coloured == []


def test_an_empty_no_color_is_no_request() -> None:
    with terminal("100", NO_COLOR="") as screen:
        screen.painted()
        assert len(set(_colours(screen.output))) > 5


def _colours(output: bytes) -> list[bytes]:
    """The colour parts of all style sequences: 3x, 4x, 9x and 10x, but 39 and 49, which are the terminal's own."""
    found = []
    for part in output.split(b"\x1b[")[1:]:
        codes, end, _ = part.partition(b"m")
        if end and codes.replace(b";", b"").isdigit():
            numbers = [int(code) for code in codes.split(b";")]
            found += [codes for number in numbers if (30 <= number <= 48 and number != 39) or 90 <= number <= 107]
    return found


def test_a_crash_tells_no_secrets_and_says_where_the_traceback_is(own_home: Path) -> None:
    with terminal("100", "crash") as screen:
        assert screen.ended() == 1
        said = screen.output.decode(errors="replace")
        assert "The dashboard failed: RuntimeError: a [/broken] look" in said
        assert "crash.log" in said
        report = (own_home / "work" / "crash.log").read_text()
        assert "RuntimeError: a [/broken] look" in report
        assert "hunter2" not in said
        assert "hunter2'" not in report.replace('password = "hunter2"', "")


def test_without_a_terminal_it_says_so_and_starts_nothing() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHILD.parent), str(CHILD.parent.parent)])}
    done = subprocess.run(
        [sys.executable, str(CHILD), "0"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
