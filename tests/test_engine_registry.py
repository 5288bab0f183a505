"""Finding the engines that run, whatever lies beside their entries."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
import pytest

from quantai_tui.engine.places import EngineFolder, socket_folder
from quantai_tui.engine.registry import Claim, Entry, is_alive, running


def entry_of(folder: Path) -> Entry:
    return Entry("demo-1", "demo", 1, "gone.sock", str(folder), "engine.log", 0.0)


@pytest.mark.parametrize("content", [b"", b"{", b'{"name":"\xff\xfe"}', b"[" * 5000, b"\x00" * 100])
def test_an_entry_that_is_damaged_hides_no_other(tmp_path: Path, content: bytes) -> None:
    damaged = socket_folder() / "000000000000.json"
    damaged.write_bytes(content)
    folder = EngineFolder(tmp_path / "demo-1")
    folder.prepare()
    claim = Claim.take(folder)
    try:
        claim.publish(entry_of(folder.path))
        assert [entry.name for entry in running()] == ["demo-1"]
    finally:
        claim.release()
        damaged.unlink()
    assert running() == []


def test_an_entry_whose_folder_is_now_something_else_is_of_a_dead_engine(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (socket_folder() / "000000000001.json").write_bytes(msgspec.json.encode(entry_of(tmp_path / "file")))
    assert running() == []


def test_two_who_ask_at_once_do_not_take_each_other_for_the_engine(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_alive(entry_of(tmp_path))
        fcntl.flock(other, fcntl.LOCK_EX)
        assert is_alive(entry_of(tmp_path))
