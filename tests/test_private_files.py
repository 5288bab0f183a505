"""Folders, files and links of another user in our places are not used."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import quantai_tui
from quantai_tui.engine.engine import Engine
from quantai_tui.engine.logs import EngineLog
from quantai_tui.engine.places import EngineFolder, PlaceError, data_root, dials_file
from quantai_tui.engine.registry import Claim
from quantai_tui.engine.source import live
from quantai_tui.engine.starting import StartError
from quantai_tui.private_files import make_folders, make_private_folder, open_private
from quantai_tui.stream.gate_file import Change, GateFile
from quantai_tui.training.child import WorkerLog
from quantai_tui.ui.crash import keep_report
from quantai_tui.whereabouts import socket_folder

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    return victim


@as_root
def test_an_engine_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "live-spot")
    folder.path.mkdir()
    folder.path.chmod(0o777)
    os.chown(folder.path, NOBODY, NOBODY)
    with pytest.raises(PlaceError, match=r"live-spot.* belongs to another user \(uid 65534\).*DATA_DIR"):
        folder.prepare()
    assert mode(folder.path) == 0o777  # another user's mode stays


@as_root
def test_another_users_link_to_our_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    link = tmp_path / "live-spot"
    link.symlink_to(tmp_path / "ours")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(PlaceError, match="another user"):
        EngineFolder(link).prepare()


@as_root
@pytest.mark.parametrize("name", ["market.sqlite3", "market.sqlite3-wal", "checkpoints", "recordings", "exchange"])
def test_another_users_file_in_our_folder_is_refused(tmp_path: Path, name: str, victim: Path) -> None:
    folder = EngineFolder(tmp_path / "live-spot")
    folder.prepare()
    (folder.path / name).symlink_to(victim)
    os.chown(folder.path / name, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(PlaceError, match=rf"{name}: belongs to another user"):
        folder.prepare()


def test_own_folder_open_to_others_is_made_private(tmp_path: Path) -> None:
    folder = EngineFolder(tmp_path / "live-spot")
    folder.path.mkdir()
    folder.path.chmod(0o777)
    folder.prepare()
    assert mode(folder.path) == 0o700


async def test_engine_does_not_start_when_its_log_is_a_link(victim: Path) -> None:
    engine = Engine(live(), serve=False)
    folder = engine.folder
    folder.prepare()
    folder.log.symlink_to(victim)
    with pytest.raises(StartError, match=r"engine\.log.*is a link"):
        await engine.start()
    assert victim.read_text() == "precious"
    Claim.take(folder).release()  # the lock is free


@pytest.mark.parametrize("what", ["engine.log", "worker.log", "lock", "crash", "dials.json.lock", "dials.json.tmp"])
def test_no_file_of_ours_is_written_through_a_link(what: str, tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "files" / what
    path.parent.mkdir()
    path.symlink_to(victim)
    if what == "engine.log":
        with pytest.raises(OSError, match="is a link"):
            EngineLog(path, "INFO")
    elif what == "worker.log":
        with pytest.raises(OSError, match="is a link"):
            WorkerLog(path).open()
    elif what == "lock":
        with pytest.raises(PlaceError, match="is a link"):
            Claim.take(EngineFolder(path.parent))
    elif what.startswith("dials"):
        with pytest.raises(OSError, match="is a link"):
            GateFile(path.parent / "dials.json").update(lambda content, lost: Change({}), threading.Event())
    else:
        assert keep_report(ValueError("x"), path) == "its log"
    assert victim.read_text() == "precious"
    assert path.is_symlink()


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_CREAT])
def test_private_file_must_be_neither_link_nor_pipe(flags: int, tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="is a link"):
        open_private(tmp_path / "link", flags)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"regular file|No such device"):  # at once, without a reader at the other end
        open_private(tmp_path / "pipe", flags)
    assert victim.read_text() == "precious"


@as_root
def test_another_users_file_is_not_truncated(victim: Path) -> None:
    os.chown(victim, NOBODY, NOBODY)
    with pytest.raises(OSError, match="another user"):
        open_private(victim, os.O_WRONLY | os.O_TRUNC)
    assert victim.read_text() == "precious"


def test_opening_makes_a_file_private(victim: Path) -> None:
    victim.chmod(0o666)
    os.close(open_private(victim, os.O_WRONLY))
    assert mode(victim) == 0o600


def test_with_an_open_umask_all_folders_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        EngineFolder(data_root(str(tmp_path / "a" / "b" / "data")) / "live-spot").prepare()
        make_private_folder(tmp_path / "state" / "quantai-tui")
        make_folders(tmp_path / "config" / "quantai-tui")
        dials_file()
        socket_folder()
    finally:
        os.umask(before)
    made = [tmp_path / name for name in ("a", "a/b", "a/b/data", "a/b/data/live-spot", "state", "config")]
    made += [tmp_path / "state" / "quantai-tui", tmp_path / "config" / "quantai-tui", dials_file().parent, socket_folder()]
    assert {str(path): oct(mode(path)) for path in made if mode(path) != 0o700} == {}


def test_run_under_an_open_umask_leaves_nothing_writable_by_others(own_home: Path) -> None:
    command = [sys.executable, "-m", "quantai_tui", "demo", "--headless", "--for", "1", "--set", "TRAIN_AUTOSTART=false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, umask=0)
    assert done.returncode == 0, done.stderr
    made = [path for name in ("data", "state", "config") for path in (own_home / name).rglob("*")]
    assert (own_home / "data" / "quantai-tui" / "demo-7" / "engine.log") in made
    assert [str(path) for path in made if path.is_dir() and mode(path) & 0o077] == []
    assert [str(path) for path in made if path.is_file() and mode(path) & 0o022] == []


def test_files_are_created_in_one_place_only() -> None:
    """`os.open` with O_CREAT elsewhere must use O_EXCL, which follows no link."""
    root = Path(quantai_tui.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"os.open", "open"}:
                text = ast.unparse(node)
                writes = "O_CREAT" in text or any(f"'{letter}" in text for letter in ("w", "a", "x", "r+"))
                if writes and "open_private" not in text and "O_EXCL" not in text:
                    found.append((str(path.relative_to(root)), text))
            elif isinstance(node, ast.Attribute) and node.attr in {"write_text", "write_bytes"}:
                found.append((str(path.relative_to(root)), ast.unparse(node)))
    assert [name for name, text in found if not text.startswith("os.fdopen")] == ["ui/external.py"]  # in a new folder of its own
