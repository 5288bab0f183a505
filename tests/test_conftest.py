"""A test run leaves no folders behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from quantai_tui.whereabouts import socket_folder

INNER = """
from quantai_tui.whereabouts import socket_folder

def test_inner():
    folder = socket_folder()
    print("sockets in", folder)
    assert folder.is_dir()
"""


def test_sockets_are_in_a_folder_of_this_test_run(temporary_folder: Path) -> None:
    assert socket_folder().is_relative_to(temporary_folder)
    assert tempfile.gettempdir() == str(temporary_folder)


def test_a_test_run_leaves_no_folder_for_sockets(tmp_path: Path) -> None:
    inner = tmp_path / "test_inner.py"
    inner.write_text(INNER)
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["--basetemp", str(tmp_path / ("long" * 20))]  # too long for sockets, as with xdist workers
    done = subprocess.run([*command, str(inner)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (said,) = (line for line in done.stdout.splitlines() if "sockets in" in line)
    folder = Path(said.split("sockets in ")[1])
    assert not folder.exists()
    assert not folder.parent.exists()
