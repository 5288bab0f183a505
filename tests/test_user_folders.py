"""A uid without an account and without HOME, as in many containers, gets one message with the remedy."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from account_support import UID, WITHOUT_ACCOUNT, has_namespaces

from quantai_tui.engine import linger
from quantai_tui.user_folders import PlaceError, user_folder

SCRIPT = str(Path(sys.executable).parent / "quantai-tui")
needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="no user namespaces here")


def homeless(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG_")}
    return subprocess.run(
        [*WITHOUT_ACCOUNT, *command], env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False
    )


@needs_namespaces
@pytest.mark.parametrize(
    "command",
    [
        "config path",
        "config show",
        "config validate",
        "ps",
        "stop",
        "record",
        "attach --plain",
        "demo --headless",
        "demo --plain",
        "serve",
    ],
)
def test_without_a_home_every_command_names_the_remedy(command: str) -> None:
    done = homeless(SCRIPT, *command.split())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert f"quantai-tui: user {UID} has no home folder: set HOME, or XDG_" in done.stderr


@needs_namespaces
def test_without_a_home_the_demo_runs_where_the_folders_are_set(own_home: Path) -> None:
    folders = {f"XDG_{kind}_HOME": str(own_home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")}
    for folder in folders.values():
        shutil.rmtree(folder)  # made by another uid
    own_home.chmod(0o777)
    done = homeless(SCRIPT, "demo", "--headless", "--for", "1", "--set", "TRAIN_AUTOSTART=false", **folders)
    assert done.returncode == 0, done.stderr
    assert "ETHUSDT" in done.stdout


@needs_namespaces
@pytest.mark.processes
def test_without_a_home_a_watched_script_continues() -> None:
    code = """
import torch
from quantai_tui.training import watch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
scaler = torch.amp.GradScaler("cpu")
with watch(scaler, optimizer, model, name="mine") as seen:
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
print("went on")
"""
    done = homeless(sys.executable, "-c", code)
    assert done.stdout == "went on\n", done.stderr


def test_without_a_home_the_folder_is_an_error_not_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_account(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_account)
    with pytest.raises(PlaceError, match="XDG_STATE_HOME"):
        user_folder("state")
    assert user_folder("config").name == "quantai-tui"  # XDG_CONFIG_HOME is set


@pytest.mark.parametrize(("variable", "command"), [("CONFIG", "config path"), ("DATA", "demo --headless"), ("STATE", "ps")])
def test_a_folder_whose_name_is_not_utf8_is_told_with_its_variable(variable: str, command: str) -> None:
    environment = os.environb | {f"XDG_{variable}_HOME".encode(): b"/\xff"}
    done = subprocess.run([SCRIPT, *command.split()], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert rf"/\udcff/quantai-tui: its name must be UTF-8 text; set HOME, or XDG_{variable}_HOME" in done.stderr


def test_a_user_without_an_account_has_no_login_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_account() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text("KillUserProcesses=yes\n")
    monkeypatch.setattr(linger.getpass, "getuser", no_account)
    assert linger.logout_warning(tmp_path) == ""
