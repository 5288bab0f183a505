"""What the record of dials and bans survives: damage, a folder that cannot be used, clocks that are set."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from pathlib import Path

import pytest
from gate_support import TwoClocks, path, take_all
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_support import eventually

from quantai_tui.stream import gate as gate_module
from quantai_tui.stream import gate_file
from quantai_tui.stream.gate import DIAL_WINDOW_S, DIALS_PER_WINDOW, Gate

__all__ = ["path"]  # a fixture

DAY = 86_400.0


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
    assert gate.reason == "a[31m b", "text from a file must be cleaned for a terminal"


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


# Clocks that are set


def _set_boot(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (gate_file, gate_module):
        monkeypatch.setattr(module, "boot_id", lambda: name)


@pytest.fixture(params=["this run of the machine has a name", "it has none"])
def boot(request, monkeypatch):
    if request.param == "it has none":
        _set_boot(monkeypatch, "")


@pytest.mark.usefixtures("boot")
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


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_another_scope_drops_no_ban_when_the_clock_is_set(path, jump):
    clock = TwoClocks()
    gate = Gate(clock, path=path)
    gate.close_for(120.0, "banned")
    await gate.close()
    clock.wall += jump
    assert await Gate(clock, path=path, scope="localhost:1").take_dial() == (0.0, "")
    assert await Gate(clock, path=path).take_dial() == (120.0, "banned")


async def test_times_from_before_a_reboot_are_read_by_the_wall_clock(path, monkeypatch):
    clock = TwoClocks()
    gate = Gate(clock, path=path)
    gate.close_for(120.0, "banned")
    await gate.close()
    _set_boot(monkeypatch, "another run")
    clock.mono = 3.0
    clock.wall += 50.0
    restarted = Gate(clock, path=path)
    assert restarted.closed_for == pytest.approx(70.0)
    assert (await restarted.take_dial())[0] == pytest.approx(70.0)
    clock.wall += DAY
    assert (await Gate(clock, path=path).take_dial())[0] == pytest.approx(70.0), "known by the clock of this run since then"


@pytest.mark.usefixtures("boot")
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


@pytest.mark.usefixtures("boot")
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
    st.tuples(st.just("set"), st.sampled_from([-DAY, -100.0, -1.5, 1.5, 100.0, DAY])),
    st.tuples(st.just("restart"), st.integers(0, 2)),
)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
# A gate learns of a ban after the clock was set twice: in sum it was set back, or not at all.
@example(steps=[("set", -DAY), ("ban", 0), ("set", 100.0), ("take", 1)])
@example(steps=[("set", -DAY), ("ban", 0), ("set", DAY), ("take", 1)])
@example(steps=[("ban", 0), ("set", DAY), ("restart", 0), ("take", 0)])
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
    for gate in gates:
        await gate.take_dial()  # which notices at its first look that a clock was set, and counts a ban new to it from there
    clock.pass_by(DIAL_WINDOW_S)
    assert await gates[1].take_dial() == (0.0, ""), "nothing is closed for ever"
