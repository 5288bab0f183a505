"""Bans and the venue's limit on dials, shared by all engines of a user: real files, and real second processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_support import ManualClock, eventually

from quantai_tui.stream import gate as gate_module
from quantai_tui.stream import gate_file
from quantai_tui.stream.gate import DIAL_WINDOW_S, DIALS_PER_WINDOW, LONGEST_BAN_S, Gate, scope_of

ROOT = Path(__file__).resolve().parents[1]
DAY = 86_400.0


class TwoClocks:
    """Wall and monotonic time, which a test moves together or apart."""

    def __init__(self) -> None:
        self.mono, self.wall = 5000.0, time.time()

    def monotonic(self) -> float:
        return self.mono

    def time(self) -> float:
        return self.wall

    def pass_by(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dials.json"


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that has `Gate`, `Path`, and its arguments in `sys.argv`; `code` is the body of a coroutine."""
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    program = (
        "import asyncio, sys, time\nfrom pathlib import Path\nfrom quantai_tui.stream.gate import Gate\n"
        f"async def main():\n{body}\nasyncio.run(main())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


async def take_all(gate: Gate, tries: int = DIALS_PER_WINDOW + 5) -> int:
    return sum([(await gate.take_dial())[0] == 0.0 for _ in range(tries)])


# Alone, in memory


async def test_dials_stay_within_the_venues_limit():
    clock = ManualClock()
    gate = Gate(clock)
    for left in range(DIALS_PER_WINDOW, 0, -1):
        assert gate.dials_left == left
        assert await gate.take_dial() == (0.0, "")
        clock._now += 0.1
    assert gate.dials_left == 0
    wait, why = await gate.take_dial()
    assert wait == pytest.approx(DIAL_WINDOW_S - DIALS_PER_WINDOW * 0.1)
    assert "limit of new connections" in why
    assert gate.dial_wait() == (wait, why)
    clock._now += wait + 0.001
    assert gate.dial_wait() == (0.0, "")
    assert gate.dials_left == 1


def test_a_ban_is_never_made_shorter_and_holds_up_dials():
    clock = ManualClock()
    gate = Gate(clock)
    gate.close_for(120.0, "banned")
    gate.close_for(5.0, "too many")
    assert (gate.closed_for, gate.reason) == (120.0, "banned")
    assert gate.dial_wait() == (120.0, "banned")
    clock._now += 120.0
    assert (gate.closed_for, gate.reason) == (0.0, "")
    assert gate.dial_wait() == (0.0, "")


@pytest.mark.parametrize(("seconds", "left"), [(float("nan"), 0.0), (-5.0, 0.0), (0.0, 0.0), (float("inf"), LONGEST_BAN_S)])
def test_a_ban_of_no_sensible_length_is_bounded(seconds, left):
    gate = Gate(ManualClock())
    gate.close_for(seconds, "said so")
    assert gate.closed_for == left


def test_dials_beyond_the_limit_are_counted_and_take_no_more_memory():
    clock = ManualClock()
    gate = Gate(clock)
    for _ in range(5 * DIALS_PER_WINDOW):
        gate.note_dial()
        clock._now += 0.01
    wait, _ = gate.dial_wait()
    assert wait == pytest.approx(DIAL_WINDOW_S - DIALS_PER_WINDOW * 0.01)
    assert len(gate._dials) == DIALS_PER_WINDOW


async def test_requests_wait_until_a_ban_is_over():
    clock = TwoClocks()
    gate = Gate(clock)
    gate.close_for(30.0, "banned")
    before = clock.mono
    await gate.wait_open()
    assert clock.mono - before == 30.0


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("wss://stream.binance.com:9443", "venue"),
        ("wss://data-stream.binance.vision", "venue"),
        ("wss://localhost:4001", "localhost:4001"),
        ("wss://localhost", "localhost:443"),
        ("wss://127.0.0.1:4001", "127.0.0.1:4001"),
        ("wss://127.3.2.1:4001/x", "127.3.2.1:4001"),
        ("wss://[::1]:4001", "::1:4001"),
        ("wss://[::ffff:127.0.0.1]:4001", "::ffff:127.0.0.1:4001"),
        ("wss://exchange.localhost:5", "exchange.localhost:5"),
        ("wss://localhost.evil.example:4001", "venue"),
        ("wss://192.168.0.7:4001", "venue"),
        ("wss://localhost:99999999", "venue"),
        ("wss://[::1", "venue"),
        ("", "venue"),
    ],
)
def test_only_an_exchange_on_this_machine_counts_apart_from_the_venue(url, scope):
    assert scope_of(url) == scope


# Shared with other processes


async def test_processes_together_never_exceed_the_limit(path):
    assert await take_all(Gate(path=path), DIALS_PER_WINDOW - 40) == DIALS_PER_WINDOW - 40
    code = """
gate = Gate(path=Path(sys.argv[1]))
print(sum([(await gate.take_dial())[0] == 0.0 for _ in range(40)]), gate.dials_left, gate.note)
"""
    children = [child(code, path) for _ in range(3)]
    counts = [said(process).split() for process in children]
    assert sum(int(count[0]) for count in counts) == 40, "three that wanted 40 each"
    assert [count[1:] for count in counts] == [["0"]] * 3
    restarted = Gate(path=path)
    wait, why = await restarted.take_dial()
    assert DIAL_WINDOW_S - 100 < wait <= DIAL_WINDOW_S
    assert "limit of new connections" in why


async def test_a_ban_that_another_process_has_met_is_seen_at_once_and_after_a_restart(path):
    gate = Gate(path=path)
    assert await gate.take_dial() == (0.0, "")
    said(child("gate = Gate(path=Path(sys.argv[1]))\ngate.close_for(600, 'HTTP 418')\nawait gate.close()", path))
    for one in (gate, Gate(path=path)):
        assert 500 < one.closed_for <= 600
        assert one.reason == "HTTP 418"
        assert one.dial_wait()[1] == "HTTP 418"
        wait, why = await one.take_dial()
        assert wait > 500
        assert why == "HTTP 418"
    waiting = asyncio.create_task(gate.wait_open())
    await asyncio.wait([waiting], timeout=0.3)
    assert not waiting.done(), "no request inside a ban, whoever met it"
    waiting.cancel()
    other = Gate(path=path, scope="localhost:4001")
    assert await other.take_dial() == (0.0, ""), "an exchange on this machine has bans of its own"


async def test_a_ban_is_written_by_itself_and_a_shorter_one_of_another_process_does_not_replace_it(path):
    gate, other = Gate(path=path), Gate(path=path)
    gate.close_for(600, "long")
    await eventually(lambda: Gate(path=path).closed_for > 500, "the ban is in the file")
    other.close_for(5, "short")
    await other.close()
    assert Gate(path=path).reason == "long"


async def test_a_noted_dial_reaches_the_others(path):
    gate, other = Gate(path=path), Gate(path=path)
    gate.note_dial()
    await gate.close()
    assert other.dials_left == DIALS_PER_WINDOW - 1


async def test_a_writer_that_is_killed_leaves_a_good_file_and_no_lock(path):
    code = """
gate = Gate(path=Path(sys.argv[1]), scope=sys.argv[2])
print("begun", flush=True)
while True:
    gate.close_for(gate.closed_for + 1, "longer " * 20)
    await gate.close()
"""
    for round_ in range(6):
        process = child(code, path, f"localhost:{round_}")
        assert process.stdout is not None
        process.stdout.readline()
        written = path.with_name("dials.json.tmp")
        await eventually(path.exists)
        deadline = time.monotonic() + 0.05 * round_
        await eventually(lambda w=written, d=deadline: time.monotonic() > d and w.exists(), "it is writing")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        scopes = gate_file.GateFile(path).read()
        assert f"localhost:{round_}" in scopes, "never half written"
        gate = Gate(path=path)
        assert await gate.take_dial() == (0.0, "")
        assert gate.dials_left == DIALS_PER_WINDOW - round_ - 1, "nothing of what was there before is lost"
        assert gate.note == ""


async def test_file_and_folder_are_private_and_stay_small(path):
    umask = os.umask(0)
    try:
        clock = TwoClocks()
        gate = Gate(clock, path=path)
        assert await take_all(gate) == DIALS_PER_WINDOW
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    assert path.stat().st_size < 32_000
    clock.pass_by(DIAL_WINDOW_S + 1)
    assert await gate.take_dial() == (0.0, "")
    assert path.stat().st_size < 200, "what has left the window is forgotten"


async def test_demos_never_eat_the_venues_budget_and_do_not_pile_up_in_the_file(path):
    clock = TwoClocks()
    venue = Gate(clock, path=path)
    assert await venue.take_dial() == (0.0, "")
    assert await take_all(Gate(clock, path=path, scope="localhost:1")) == DIALS_PER_WINDOW
    for port in range(2, 40):
        clock.pass_by(0.1)
        assert await Gate(clock, path=path, scope=f"localhost:{port}").take_dial() == (0.0, "")
    assert Gate(clock, path=path).dials_left == DIALS_PER_WINDOW - 1
    scopes = json.loads(path.read_bytes())["scopes"]
    assert len(scopes) <= 16
    assert "localhost:39" in scopes


# What a file can be


def _as_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_text('{"scopes":{"venue":{"dials":{"a":17'),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "not text": lambda path: path.write_bytes(b'{"scopes":{"\xff\xfe":{}}}'),
    "deeply nested": lambda path: path.write_bytes(b"[" * 200_000),
    "somebody else's": lambda path: path.write_text('["a", "list"]'),
    "wrong types": lambda path: path.write_text('{"scopes":{"venue":{"dials":["x"]}}}'),
    "no scopes": lambda path: path.write_text("{}"),
    "huge": lambda path: path.write_bytes(b" " * (2 << 20)),
    "a folder": _as_folder,
    "a pipe": os.mkfifo,
    "a loop of links": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_file_is_moved_aside_and_the_worst_assumed(path, damage, caplog):
    path.parent.mkdir(parents=True)
    DAMAGE[damage](path)
    clock = TwoClocks()
    gate = Gate(clock, path=path)
    assert gate.closed_for == 0.0, "looking does not change anything"
    with caplog.at_level(logging.WARNING):
        wait, why = await gate.take_dial()
    assert DIAL_WINDOW_S - 60 < wait <= DIAL_WINDOW_S
    assert "damaged" in why
    assert "damaged" in caplog.text
    assert os.path.lexists(path.with_name("dials.json.damaged"))
    assert Gate(clock, path=path).reason == why, "others see it too"
    assert await Gate(clock, path=path, scope="localhost:1").take_dial() == (0.0, "")
    clock.pass_by(wait + 0.01)
    assert await gate.take_dial() == (0.0, "")
    assert gate.note == ""


async def test_a_request_waits_out_a_damaged_file_too(path):
    path.parent.mkdir(parents=True)
    path.write_text("{")
    clock = TwoClocks()
    before = clock.mono
    await Gate(clock, path=path).wait_open()
    assert clock.mono - before > DIAL_WINDOW_S - 60


async def test_a_file_that_was_damaged_long_ago_holds_nobody_up(path):
    path.parent.mkdir(parents=True)
    path.write_text("{")
    os.utime(path, (time.time() - 400, time.time() - 400))
    gate = Gate(path=path)
    assert await gate.take_dial() == (0.0, "")
    assert gate.dials_left == DIALS_PER_WINDOW - 1


async def test_a_later_version_may_write_more_than_we_know(path):
    path.parent.mkdir(parents=True)
    ban = {"id": "x", "until": time.time() + 50, "for_s": 60, "reason": "a\x1b[31m b", "kind": 3}
    path.write_text(json.dumps({"version": 9, "scopes": {"venue": {"dials": {}, "ban": ban, "weight": 1}}}))
    gate = Gate(path=path)
    assert 0 < gate.closed_for <= 50
    assert gate.reason == "a [31m b", "what comes from a file is not sent to a terminal as it is"


async def test_where_the_file_cannot_be_used_the_gate_says_so_and_goes_on_alone(tmp_path, caplog):
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    clock = TwoClocks()
    gate = Gate(clock, path=blocked / "dials.json")
    with caplog.at_level(logging.INFO):
        gate.close_for(5.0, "too many")
        await eventually(lambda: gate.note, "the note")
        assert (await gate.take_dial()) == (5.0, "too many")
        clock.pass_by(5.0)
        await gate.wait_open()
        assert await take_all(gate) == DIALS_PER_WINDOW
    assert str(blocked / "dials.json") in gate.note
    assert "XDG_STATE_HOME" in gate.note
    assert caplog.text.count("cannot be used") == 1, "said once, not at every dial"
    await gate.close()
    blocked.unlink()
    clock.pass_by(1.0)
    assert (await gate.take_dial())[0] > 0
    assert gate.note == ""
    assert Gate(clock, path=blocked / "dials.json").dials_left == 0, "what was counted alone is told later"


# The lock


@pytest.fixture
def held(path: Path):
    """The lock, held by somebody else."""
    path.parent.mkdir(parents=True)
    handle = os.open(path.with_name("dials.json.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield handle
    os.close(handle)


async def test_waiting_for_the_lock_does_not_hold_up_the_loop_and_can_be_called_off(path, held):
    gate = Gate(path=path)
    taking = asyncio.create_task(gate.take_dial())
    turns = 0
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5
    assert not taking.done()
    taking.cancel()
    before = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert time.monotonic() - before < 2.0
    fcntl.flock(held, fcntl.LOCK_UN)
    assert await gate.take_dial() == (0.0, "")
    assert gate.dials_left == DIALS_PER_WINDOW - 1, "the one that was called off is not counted"


async def test_a_lock_that_is_never_let_go_is_waited_for_a_while_only(path, held, monkeypatch):
    monkeypatch.setattr(gate_file, "LOCK_WAIT_S", 0.1)
    gate = Gate(path=path)
    assert await gate.take_dial() == (0.0, "")
    assert "locked" in gate.note
    fcntl.flock(held, fcntl.LOCK_UN)
    assert await gate.take_dial() == (0.0, "")
    assert gate.note == ""
    assert Gate(path=path).dials_left == DIALS_PER_WINDOW - 2


# Clocks that are set


@pytest.mark.parametrize("jump", [DAY, -DAY, 3600.0, -60.0])
async def test_a_clock_that_is_set_neither_ends_a_ban_early_nor_makes_it_endless(path, jump):
    clock = TwoClocks()
    gate, other = Gate(clock, path=path), Gate(clock, path=path)
    gate.close_for(120.0, "banned")
    await gate.close()
    clock.pass_by(20.0)
    clock.wall += jump
    assert gate.closed_for == 100.0
    assert 100.0 <= other.closed_for <= 120.0, "read for the first time after the jump"
    assert (await gate.take_dial())[0] == 100.0
    assert Gate(clock, path=path).closed_for == pytest.approx(100.0), "set right in the file as well"
    clock.pass_by(120.0)
    for one in (gate, other, Gate(clock, path=path)):
        assert (one.closed_for, one.reason) == (0.0, "")
        assert await one.take_dial() == (0.0, "")


async def test_after_a_restart_a_clock_that_was_set_far_back_makes_a_ban_no_longer_than_the_venue_said(path):
    clock = TwoClocks()
    gate = Gate(clock, path=path)
    gate.close_for(120.0, "banned")
    await gate.close()
    clock.wall -= 30 * DAY
    for _ in range(3):
        restarted = Gate(clock, path=path)
        wait, _ = await restarted.take_dial()
        assert 0 < wait <= 120.0
        clock.pass_by(50.0)
    assert await Gate(clock, path=path).take_dial() == (0.0, ""), "restarts do not begin it anew"


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_clock_that_is_set_makes_no_dial_forgotten_and_none_count_for_ever(path, jump):
    clock = TwoClocks()
    gate, other = Gate(clock, path=path), Gate(clock, path=path)
    assert await take_all(gate) == DIALS_PER_WINDOW
    clock.wall += jump
    assert (await gate.take_dial())[0] == DIAL_WINDOW_S
    assert (await other.take_dial())[0] == DIAL_WINDOW_S
    assert (await Gate(clock, path=path).take_dial())[0] == pytest.approx(DIAL_WINDOW_S)
    clock.pass_by(DIAL_WINDOW_S + 0.01)
    assert await Gate(clock, path=path).take_dial() == (0.0, "")


STEPS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2)),
    st.tuples(st.just("take"), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 40.0, 120.0, 299.0])),
    st.tuples(st.just("ban"), st.integers(0, 2)),
    st.tuples(st.just("set"), st.sampled_from([-DAY, -100.0, -1.5])),
    st.tuples(st.just("restart"), st.integers(0, 2)),
)
AHEAD = st.one_of(STEPS.filter(lambda step: step[0] != "restart"), st.tuples(st.just("set"), st.sampled_from([1.5, 100.0, DAY])))


@settings(max_examples=100, deadline=None)
@given(steps=st.one_of(st.lists(STEPS, max_size=40), st.lists(AHEAD, max_size=40)))
def test_whatever_happens_no_window_holds_too_many_dials_and_none_leaves_inside_a_ban(steps):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_module, "DIALS_PER_WINDOW", 3)
        asyncio.run(_play(steps, Path(folder) / "dials.json"))


async def _play(steps: list[tuple[str, float]], path: Path) -> None:
    clock = TwoClocks()
    gates = [Gate(clock, path=path) for _ in range(3)]
    dials: list[float] = []
    banned_until = 0.0
    for kind, value in steps:
        if kind == "pass":
            clock.pass_by(value)
        elif kind == "set":
            clock.wall += value
        elif kind == "restart":
            gates[int(value)] = Gate(clock, path=path)
        elif kind == "ban":
            gates[int(value)].close_for(90.0, "banned")
            await gates[int(value)].close()
            banned_until = clock.mono + 90.0
        elif (await gates[int(value)].take_dial())[0] == 0.0:
            assert clock.mono >= banned_until - 0.01
            dials.append(clock.mono)
            assert len([at for at in dials if at > clock.mono - DIAL_WINDOW_S + 0.01]) <= 3
    clock.pass_by(2 * DIAL_WINDOW_S)
    await gates[0].take_dial()
    clock.pass_by(DIAL_WINDOW_S)
    assert await gates[1].take_dial() == (0.0, ""), "nothing is closed for ever"
