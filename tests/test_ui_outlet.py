"""What reaches a terminal and how: hand-overs that never wait, signs in ASCII, and the bell."""

from __future__ import annotations

import os
import pty
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.cells import cell_len
from ui_support import FrozenClock

from quantai_tui.ui.bell import Bell
from quantai_tui.ui.glyphs import locale_is_utf8, to_ascii
from quantai_tui.ui.outlet import CUT, LIMIT_BYTES, Outlet
from quantai_tui.ui.panes.states import ALERT_SIGNS, STREAM_SIGNS, TRAINING_SIGNS


@contextmanager
def line() -> Iterator[tuple[int, Outlet]]:
    """An outlet to a terminal that is read by the test alone."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    outlet = Outlet(slave)
    try:
        yield master, outlet
    finally:
        outlet.discard()
        os.close(master)
        outlet.close(10)
        os.close(slave)


def read(master: int, count: int) -> bytes:
    arrived = b""
    while len(arrived) < count:
        arrived += os.read(master, 65_536)
    return arrived


def test_what_is_handed_over_arrives_in_order_and_whole_however_slow_the_reader_was() -> None:
    with line() as (master, outlet):
        parts = [f"<{number}:{'x' * 500}>" for number in range(200)]
        assert all(outlet.hand_over(part) for part in parts)
        assert outlet.lag_s > 0
        free = threading.Event()
        outlet.when_free(free.set)
        assert read(master, len("".join(parts))).decode() == "".join(parts)
        assert free.wait(10)
        assert outlet.lag_s == 0.0


def test_a_terminal_that_reads_nothing_costs_a_bounded_amount_of_memory_and_no_wait() -> None:
    with line() as (_, outlet):
        taken = [outlet.hand_over("x" * 10_000) for _ in range(100)]
        assert taken[: LIMIT_BYTES // 10_000] == [True] * (LIMIT_BYTES // 10_000)
        assert not taken[-1]


def test_what_is_discarded_halfway_is_ended_before_anything_else_is_written() -> None:
    with line() as (master, outlet):
        outlet.hand_over("x" * 100_000)
        os.read(master, 1)  # it has begun
        outlet.discard()
        outlet.hand_over("the end")
        arrived = b""
        while not arrived.endswith(b"the end"):
            arrived += os.read(master, 65_536)
        assert len(arrived) < 100_000
        assert arrived.endswith(CUT.encode() + b"the end")


@pytest.mark.parametrize(
    ("environment", "utf8"),
    [
        ({}, True),
        ({"LC_ALL": "C"}, False),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, False),
        ({"LC_ALL": "", "LC_CTYPE": "de_DE.ISO-8859-1", "LANG": "C.UTF-8"}, False),
        ({"LANG": "en_US.utf8"}, True),
        ({"LC_CTYPE": "UTF-8"}, True),
        ({"LANG": "de_DE.UTF-8@euro"}, True),
        ({"LANG": "de_DE@euro"}, False),
    ],
)
def test_the_locale_that_counts_is_the_first_of_three_variables_that_is_set(environment: dict[str, str], utf8: bool) -> None:
    assert locale_is_utf8(environment) is utf8


def test_every_sign_has_one_in_ascii_of_the_same_width() -> None:
    glyphs = " ▁▂▃▄▅▆▇█·┄━╌╭╮╰╯│─●○◌◔◑◍◕◆◇✗■▶‖▲✓…–—°±↑↓▊▎▔⠿→é日本"  # noqa: RUF001
    for glyph in glyphs:
        sign = to_ascii(glyph)
        assert sign.isascii(), glyph
        assert len(sign) == cell_len(glyph), glyph
    assert to_ascii("\x1b[38;5;4m\x1b[2;1H") == "\x1b[38;5;4m\x1b[2;1H"


def test_heights_bars_and_states_stay_different_from_each_other_in_ascii() -> None:
    assert len(set(to_ascii(" ▁▂▃▄▅▆▇█·"))) == 10
    assert to_ascii("━") != to_ascii("╌")
    for signs in (STREAM_SIGNS, TRAINING_SIGNS, ALERT_SIGNS):
        assert len({to_ascii(glyph) for glyph, _ in signs.values()}) == len(signs)


def rung(environment: dict[str, str], title: str = "QuantAI", text: str = "no trades") -> str:
    written: list[str] = []
    assert Bell(written.append, FrozenClock(), environment).ring(title, text)
    return "".join(written)


def test_an_unknown_terminal_is_only_rung_at_and_a_known_one_gets_a_notice() -> None:
    assert rung({"TERM": "xterm-256color"}) == "\a"
    assert rung({"TERM": "foot"}) == "\a\x1b]777;notify;QuantAI;no trades\a"
    assert rung({"TERM_PROGRAM": "iTerm.app"}) == "\a\x1b]9;QuantAI: no trades\a"
    assert rung({"TERM": "foot", "QUANTAI_NOTIFY": "off"}) == "\a"
    assert rung({"QUANTAI_NOTIFY": "9"}) == "\a\x1b]9;QuantAI: no trades\a"


def test_through_tmux_a_notice_is_wrapped_with_its_escapes_doubled() -> None:
    told = rung({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0", "LC_TERMINAL": "iTerm2"})
    assert told == "\a\x1bPtmux;\x1b\x1b]9;QuantAI: no trades\a\x1b\\"


def test_a_notice_cannot_be_left_by_what_it_tells() -> None:
    told = rung({"QUANTAI_NOTIFY": "777"}, "a;b", "x\x1b]0;title\x07\n\u202ey" + "z" * 500)
    assert told.count("\x1b") == 1
    assert told.count("\a") == 2
    assert told.startswith("\a\x1b]777;notify;a,b;x]0;title y")
    assert len(told) < 260


def test_the_bell_rings_at_most_once_in_ten_seconds() -> None:
    clock = FrozenClock()
    written: list[str] = []
    bell = Bell(written.append, clock, {})
    assert bell.ring("a", "b")
    clock.advance(9)
    assert not bell.ring("a", "b")
    clock.advance(1)
    assert bell.ring("a", "b")
    assert written == ["\a", "\a"]
