"""What only a real terminal shows: bytes, signals, hang-ups, a terminal that stops reading, and what is left on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
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

QUESTION, ANSWER = b"\x1b[6n", b"\x1b[24;80R"
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
        self.answers = False  # where the cursor is, when it is asked
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
        if self.answers:
            os.write(self.master, ANSWER * chunk.count(QUESTION))
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

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

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
        assert modes_left(screen.output) == AS_FOUND
        assert termios.tcgetattr(screen.master)[:6] == screen.settings[:6]


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
def test_a_terminal_that_has_stopped_reading_cannot_hold_the_process(number: signal.Signals, own_home: Path) -> None:
    with terminal("100", size=(200, 50)) as screen:
        screen.painted()
        press_unread(screen, own_home)
        screen.process.send_signal(number)
        screen.process.wait(20)
        assert screen.process.returncode == 0
        assert termios.tcgetattr(screen.master)[:6] == screen.settings[:6]
        screen.ended()
        assert modes_left(screen.output) == AS_FOUND
        assert b"\x1b[2J" not in screen.output.split(b"\x1b[?1049l", 1)[1]  # the shell's own screen is not wiped


def test_keys_act_while_the_terminal_reads_nothing_and_the_picture_is_whole_once_it_does(own_home: Path) -> None:
    with terminal("4", size=(200, 50)) as screen:
        screen.painted()
        press_unread(screen, own_home)
        assert_whole(screen, 200, 50)


def test_a_line_that_swallows_what_nobody_has_seen_yet_gets_no_more_until_the_terminal_answers() -> None:
    with terminal("1000", size=(120, 40)) as screen:
        screen.answers = True
        screen.read_until(lambda output: output.count(QUESTION) >= 2)
        screen.answers = False
        asked = screen.output.count(QUESTION)
        screen.read_until(lambda output: output.count(QUESTION) > asked)
        screen.read_until_quiet(2.5)  # while all of it is read, and the market moves
        swallowed = len(screen.output)
        os.write(screen.master, ANSWER)
        screen.answers = True
        screen.read_until(lambda output: b"slow line" in output[swallowed:])
        screen.process.send_signal(signal.SIGTERM)
        assert screen.ended() == 0
        assert QUESTION not in screen.output[screen.output.rindex(b"\x1b[?1049l") :]
        assert b"\x1b[?2026h" + QUESTION not in screen.output  # it would be answered before the frame is seen


def test_a_terminal_that_never_says_where_its_cursor_is_is_painted_all_the_same() -> None:
    with terminal("1000") as screen:
        screen.painted()
        asked = len(screen.output)
        screen.read(5.0)
        assert b"\x1b[?2026h" in screen.output[asked:]
        assert screen.output.count(QUESTION) == 1  # one more would come after half a minute
        assert b"slow line" not in screen.output[asked:]


def press_unread(screen: Terminal, home: Path) -> None:
    """Ask for more than the terminal holds without reading any of it, then press `r`, until the engine has been told."""
    for _ in range(20):
        os.write(screen.master, b"\x0c")
        time.sleep(0.02)
    os.write(screen.master, b"r")
    heard = home / "work" / "heard"
    deadline = time.monotonic() + 20
    while not (heard.exists() and "reconnect" in heard.read_text()):
        assert time.monotonic() < deadline, "the loop is stuck"
        time.sleep(0.02)


# What a terminal is when no program has touched it: of all modes only line wrap and the cursor are on.
AS_FOUND = {b"7", b"25"}


def modes_left(output: bytes) -> set[bytes]:
    """The private modes that are on after this output, with the kitty keyboard's as `u`."""
    on = set(AS_FOUND)
    for mode, end in re.findall(rb"\x1b\[([?>][0-9;]+|<)([hlu])", output):
        if end == b"u":
            (on.discard if mode == b"<" else on.add)(b"u")
        else:
            (on.add if end == b"h" else on.discard)(mode[1:])
    return on


def assert_whole(screen: Terminal, width: int, height: int) -> None:
    """What has been sent piece by piece shows the same as the whole screen sent anew."""

    def both() -> tuple[object, object]:
        os.write(screen.master, b"\x0c")  # what is said of it must be on the screen before the one that counts
        screen.read_until_quiet()
        already = len(screen.output)
        os.write(screen.master, b"\x0c")
        screen.read_until(lambda output: len(output) > already + 2_000)
        screen.read_until_quiet()
        return _picture(screen.output[:already], width, height), _picture(screen.output[already:], width, height)

    pieced, whole = within_a_minute(both)
    assert whole == pieced


def test_ctrl_z_gives_the_shell_its_terminal_and_the_screen_comes_back_whole_in_the_windows_new_size() -> None:
    with terminal("3", "job", size=(80, 24)) as screen:
        screen.painted()
        os.write(screen.master, b"\x1a")
        screen.read_until(lambda output: re.search(rb"stopped \d+;", output) is not None)
        assert modes_left(screen.output) == AS_FOUND
        assert termios.tcgetattr(screen.master)[:6] == screen.settings[:6]
        stopped = re.search(rb"stopped (\d+);", screen.output)
        assert stopped is not None
        screen.resize(120, 40)
        screen.output = b""
        os.kill(int(stopped[1]), signal.SIGCONT)
        screen.painted()
        assert_whole(screen, 120, 40)
        os.write(screen.master, b"\x03")
        assert screen.ended() == 0
        assert modes_left(screen.output) == AS_FOUND


def test_a_storm_of_resizes_ends_in_the_right_picture() -> None:
    with terminal("2") as screen:
        screen.painted()
        for number in range(200):
            screen.resize(60 + number, 20 + number % 30)
            screen.read(0.005)
        screen.resize(120, 40)
        deadline = time.monotonic() + 20
        while not fits(screen, 120, 40):
            assert time.monotonic() < deadline, "the last size is not taken up"
        os.write(screen.master, b"\x03")
        assert screen.ended() == 0


def fits(screen: Terminal, width: int, height: int) -> bool:
    """Whether the screen that is sent anew has its lines at the window's edges."""
    screen.read_until_quiet()
    already = len(screen.output)
    os.write(screen.master, b"\x0c")
    screen.read_until(lambda output: len(output) > already + 2_000)
    screen.read_until_quiet()
    lines = ["".join(cell[0] for cell in line) for line in _picture(screen.output[already:], width, height)]
    sides = all(lines[y][0] == lines[y][width // 2 - 1] == "│" for y in (3, 4))
    return "QuantAI" in lines[0] and "disconnect" in lines[height - 1] and sides


def test_without_utf8_nothing_but_ascii_is_written_and_with_it_the_glyphs_are() -> None:
    for locale, ascii_only in (("C", True), ("C.UTF-8", False)):
        with terminal("1", size=(120, 40), LC_ALL=locale) as screen:
            screen.painted()
            os.write(screen.master, b"c")
            screen.read_until(lambda output: b"esc" in output)
            os.write(screen.master, b"\x03")
            screen.ended()
            assert screen.output.isascii() is ascii_only


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
        assert_whole(screen, 120, 40)


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
