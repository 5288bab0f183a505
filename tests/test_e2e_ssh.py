"""Over a real SSH session: the line drops in the middle, and the operator finds everything as it went on without a screen."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest
from e2e_support import LINUX_ONLY, PROGRAM, Stage, stage, watch
from e2e_terminal import Terminal, wait_until
from ssh_support import MISSING, Server, ssh_server

__all__ = ["stage"]  # a fixture

pytestmark = [
    pytest.mark.ssh,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    LINUX_ONLY,
]

_DEMO = (*PROGRAM, "demo", "--set", "TRAIN_AUTOSTART=false")


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    with ssh_server(stage) as running:
        yield running


def live(text: str) -> bool:
    return "● LIVE" in text and bool(re.search(r"ETHUSDT .*whole", text))


def rotate(terminal: Terminal) -> None:
    terminal.press("o")
    terminal.wait_for("fresh connection: done", 30)


def test_a_dropped_line_costs_nothing_but_the_screen_and_attach_brings_it_back(stage: Stage, server: Server) -> None:
    first = server.login(*_DEMO, columns=120, rows=40)
    first.wait_for(live, 60)
    rotate(first)
    engine = stage.pid("engine")

    first.stop_reading()  # the far end sleeps, and then is gone without a word
    first.signal(signal.SIGSTOP)
    before = watch(stage.entry(), lambda snapshot: snapshot.stream.messages > 0)
    first.signal(signal.SIGKILL)
    # The dashboard left by itself; engine and exchange are as they were.
    wait_until(lambda: not stage.processes("program"), 30, lambda: f"a dashboard that has gone: {stage.processes()}")
    after = watch(stage.entry(), lambda snapshot: snapshot.stream.messages > before.stream.messages)
    assert after.pid == before.pid == engine

    second = server.login(*PROGRAM, "attach", columns=80, rows=24)
    second.wait_for(live, 60)
    assert f"pid {engine}" in second.text
    second.press("m")
    second.wait_for("mouse: on", 20)  # it was off, as it is over every SSH session
    rotate(second)
    second.press("q")
    assert second.wait_exit(40) == 0
    second.assert_restored()
    ids = stage.stored_ids("demo-7")
    assert ids == list(range(ids[0], ids[-1] + 1))
    stage.assert_nothing_left()


def test_in_tmux_the_dashboard_itself_outlives_the_line_and_fits_the_next_window(stage: Stage, server: Server) -> None:
    tmux = ("tmux", "-f", "/dev/null", "-S", str(stage.home / "tmux"))
    first = server.login(*tmux, "new-session", "-s", "watch", *_DEMO, columns=120, rows=41)
    first.wait_for(live, 60)
    rotate(first)
    first.signal(signal.SIGKILL)

    second = server.login(*tmux, "attach-session", "-d", "-t", "watch", columns=81, rows=25)
    second.wait_for(lambda text: live(text) and "q quit" in text, 30)
    assert all(len(line) <= 81 for line in second.text.splitlines())
    second.press("?")
    second.wait_for("esc leaves", 20)
    second.press("\x1b")
    second.wait_for(live, 20)
    second.press("q")
    assert second.wait_exit(40) == 0
    second.assert_restored()
    stage.assert_nothing_left()


def test_over_a_thin_line_what_is_seen_is_never_far_behind_and_the_screen_says_why_it_moves_less(
    stage: Stage, server: Server
) -> None:
    """The line takes a quarter of what the screen sends, and buffers of megabytes on the way hide that from the writer."""
    with server.thin_line(500) as line:
        terminal = server.login(*_DEMO, columns=200, rows=50, over=line)
        terminal.wait_for(live, 60)
        line.make_thin()
        terminal.wait_for("slow line: ", 60)
        for key, told in (("p", "frozen"), ("p", "live again"), ("m", "mouse: on")):
            terminal.press(key)
            terminal.wait_for(told, 30)
        terminal.press("q")
        assert terminal.wait_exit(60) == 0
        terminal.assert_restored()
        stage.assert_nothing_left()


def test_a_window_of_tmux_that_grew_is_left_as_it_was_found(stage: Stage) -> None:
    def tmux(*command: str) -> str:
        socket = ("tmux", "-f", "/dev/null", "-S", str(stage.home / "tmux"))
        return subprocess.run((*socket, *command), capture_output=True, text=True, check=True).stdout

    def seen() -> str:
        return tmux("capture-pane", "-p")

    tmux("new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=ready> ", "bash", "--norc", "--noprofile")
    try:
        wait_until(lambda: "ready>" in seen(), 20, seen)
        tmux("send-keys", f"cd {stage.work}; clear; {shlex.join(_DEMO)}; echo the end", "Enter")
        wait_until(lambda: live(seen()), 60, seen)
        tmux("resize-window", "-x", "120", "-y", "40")
        wait_until(lambda: "╰" in seen() and live(seen()), 30, seen)
        tmux("send-keys", "q")
        wait_until(lambda: "the end\nready>" in seen(), 40, seen)
        assert not re.search("[╭╰│─]", seen()), seen()
    finally:
        tmux("kill-server")
    stage.assert_nothing_left()
