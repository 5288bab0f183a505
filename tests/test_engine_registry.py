"""Finding the engines that run, whatever lies beside their entries."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest

from quantai_tui.engine.places import EngineFolder, PlaceError, socket_folder
from quantai_tui.engine.registry import AlreadyRunning, Claim, Entry, is_alive, running


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


def test_start_waits_while_another_process_tests_the_lock(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-1")
    folder.prepare()
    folder.lock.touch()
    (socket_folder() / f"{folder.key}.json").write_bytes(msgspec.json.encode(entry_of(folder.path)))  # left by a killed engine
    looker = folder.lock.open("rb")
    fcntl.flock(looker, fcntl.LOCK_SH)
    leaving = threading.Timer(0.02, looker.close)
    leaving.start()
    try:
        Claim.take(folder).release()
    finally:
        leaving.join()


def test_a_start_beside_a_running_engine_is_still_refused(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-1")
    folder.prepare()
    claim = Claim.take(folder)
    with pytest.raises(AlreadyRunning):
        Claim.take(folder)
    claim.release()


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
def test_unreadable_engine_folder_does_not_hide_other_engines(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounting a read-only disk needs privileges, so the system call fails instead."""
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "lock").touch()
    (socket_folder() / "000000000002.json").write_bytes(msgspec.json.encode(entry_of(dead)))
    folder = EngineFolder(tmp_path / "demo-2")
    folder.prepare()
    claim = Claim.take(folder)
    real = os.open

    def refuse(path: str | Path, flags: int, *rest: int, **more: int) -> int:
        if Path(path) == dead / "lock" and (error != errno.EROFS or flags & (os.O_RDWR | os.O_WRONLY)):
            raise OSError(error, os.strerror(error), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    try:
        claim.publish(msgspec.structs.replace(entry_of(folder.path), name="demo-2"))
        assert [entry.name for entry in running()] == ["demo-2"]
    finally:
        claim.release()


def test_engine_with_unreadable_folder_is_alive_while_it_listens(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("lock")  # cannot be opened, even by root
    entry = msgspec.structs.replace(entry_of(tmp_path), socket=str(socket_folder() / "x.sock"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(entry.socket)
        assert not is_alive(entry)
        listener.listen(0)
        assert is_alive(entry)
    assert not is_alive(entry)


@pytest.mark.parametrize("removed", ["folder", "lock", "replaced"])
def test_claim_reports_a_removed_folder(removed: str, tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-1")
    folder.prepare()
    claim = Claim.take(folder)
    assert claim.loss == ""
    if removed == "folder":
        shutil.rmtree(folder.path)
    else:
        folder.lock.unlink()
    if removed == "replaced":
        folder.lock.touch()
    assert "was removed or replaced" in claim.loss
    claim.release()
    assert "was removed or replaced" in claim.loss


def test_ending_engine_keeps_its_successors_entry(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "demo-1")
    folder.prepare()
    first = Claim.take(folder)
    first.publish(entry_of(folder.path))
    shutil.rmtree(folder.path)
    folder.prepare()
    second = Claim.take(folder)
    second.publish(msgspec.structs.replace(entry_of(folder.path), pid=2))
    first.release()
    assert [entry.name for entry in running()] == ["demo-1"]
    second.release()
    assert running() == []


def test_without_any_temporary_folder_a_long_state_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setenv("XDG_STATE_HOME", "/" + "x" * 100)
    with pytest.raises(PlaceError, match="too long for sockets, and No usable temporary directory"):
        running()
