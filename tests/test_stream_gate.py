"""Bans and the venue's limit on dials, shared by all engines of a user: real files, and real second processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest
from gate_support import TwoClocks, child, path, said, take_all
from stream_support import ManualClock, eventually

from quantai_tui.stream import gate as gate_module
from quantai_tui.stream import gate_file
from quantai_tui.stream.gate import DIAL_WINDOW_S, DIALS_PER_WINDOW, LONGEST_BAN_S, Gate, scope_of

__all__ = ["path"]  # a fixture


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
        record, scope = gate_file.GateFile(path), f"localhost:{round_}"
        await eventually(lambda file=record, scope=scope: scope in file.read(), "it has written once")
        deadline = time.monotonic() + 0.05 * round_
        await eventually(lambda w=written, d=deadline: time.monotonic() > d and w.exists(), "it is writing")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert scope in record.read(), "never half written"
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
    clock.pass_by(DIAL_WINDOW_S + 1)
    assert await venue.take_dial() == (0.0, "")
    assert set(json.loads(path.read_bytes())["scopes"]) == {"venue"}


# The lock


@pytest.fixture
def held(path: Path):
    """The lock, held by somebody else."""
    path.parent.mkdir(parents=True)
    handle = os.open(path.with_name("dials.json.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield handle
    os.close(handle)


async def test_waiting_for_the_lock_does_not_hold_up_the_loop_and_can_be_called_off(path, held, monkeypatch):
    monkeypatch.setattr(gate_file, "LOCK_WAIT_S", 60.0)
    monkeypatch.setattr(gate_module, "_ANSWER_S", 60.0)
    gate = Gate(path=path)
    taking = asyncio.create_task(gate.take_dial())
    for _ in range(30):
        await asyncio.sleep(0.01)
    assert not taking.done(), "the loop has turned, and not stood still until the wait was over"
    taking.cancel()
    before = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert time.monotonic() - before < 10.0
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
