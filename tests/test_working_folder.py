"""No command and no child process runs files in the working folder that are named like modules."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from e2e_support import LINUX_ONLY, Stage, says_live, stage

import quantai_tui
from quantai_tui.python_child import python_command, python_environment

__all__ = ["stage"]  # a fixture

SCRIPT = str(Path(sys.executable).parent / "quantai-tui")
MODULE = [sys.executable, "-m", "quantai_tui"]
TRAP = """\
import os
os.write(os.open({marker!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), __name__.encode() + b"\\n")
os._exit(97)
"""


@pytest.fixture
def marker(own_home: Path) -> Path:
    """Fill the working folder with hostile modules; each one that runs writes its name to this file."""
    marker = own_home / "was run"
    for name in {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"} - {"quantai_tui"}:
        if name.isidentifier():
            Path(f"{name}.py").write_text(TRAP.format(marker=str(marker)))
    return marker


def were_run(marker: Path) -> str:
    return marker.read_text() if marker.exists() else ""


def allow_what_python_imports_by_itself(folder: Path) -> None:
    """`python -m` imports these before any module of ours."""
    folder.mkdir()
    (folder / "probe.py").write_text("import sys\nprint(*sys.modules)\n")
    listed = subprocess.run([sys.executable, "-m", "probe"], cwd=folder, capture_output=True, text=True, check=True)
    for name in {*listed.stdout.split(), "sitecustomize", "usercustomize"}:
        Path(f"{name}.py").unlink(missing_ok=True)


QUICK = (
    ["config", "show"],
    ["config", "validate"],
    ["ps"],
    ["stop"],
    ["attach", "--plain"],
    ["record"],
    ["import", "no-such-file.csv"],
    ["serve", "replay", "no-such-file.csv"],
)


@pytest.mark.parametrize(
    ("command", "path"),
    [([SCRIPT], ""), (MODULE, ""), (MODULE, ":."), (MODULE, "probe/..")],
)
def test_no_command_runs_a_module_of_the_working_folder(
    command: list[str], path: str, marker: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "-m" in command:
        allow_what_python_imports_by_itself(own_home / "probe")
        monkeypatch.setenv("PYTHONPATH", path)
    for arguments in QUICK:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in {0, 2}, (arguments, were_run(marker), done.stdout, done.stderr)
        assert were_run(marker) == "", arguments


@pytest.mark.parametrize("module", ["quantai_tui.training.node", "quantai_tui.exchange"])
def test_a_program_started_by_hand_runs_no_module_of_the_working_folder(module: str, marker: Path, own_home: Path) -> None:
    allow_what_python_imports_by_itself(own_home / "probe")
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (were_run(marker), done.stderr)


def run_until(says: Callable[[str], bool], *arguments: str) -> list[str]:
    """Run `quantai-tui demo --plain` until it prints a line that `says` so; return its lines."""
    process = subprocess.Popen(
        [SCRIPT, "demo", "--plain", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    heard: list[str] = []
    try:
        for line in process.stdout:
            heard.append(line)
            if says(line):
                process.stdin.write("quit\n")
                process.stdin.flush()
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0, heard
    return heard


@LINUX_ONLY
def test_engine_and_exchange_run_no_module_of_the_working_folder(stage: Stage, marker: Path) -> None:
    heard = run_until(says_live, "--set", "TRAIN_AUTOSTART=false")
    assert were_run(marker) == "", heard
    assert any(map(says_live, heard)), heard


@LINUX_ONLY
@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("ranks", [1, 2])
def test_training_processes_run_no_module_of_the_working_folder(ranks: int, stage: Stage, marker: Path) -> None:
    def says_training(line: str) -> bool:
        return "training: under way" in line or "training under way" in line

    heard = run_until(says_training, "--set", f"TRAIN_NPROC={ranks}")
    assert were_run(marker) == "", heard
    assert any(map(says_training, heard)), heard


def test_child_keeps_user_variables_except_relative_paths(tmp_path: Path) -> None:
    given = {"PYTHONPATH": os.pathsep.join(["", str(tmp_path), ".", "src"]), "HOME": "/home/me"}
    made = python_environment(given)
    assert made["HOME"] == "/home/me"
    assert made["PYTHONPATH"].split(os.pathsep)[-1] == str(tmp_path)
    assert all(Path(entry).is_absolute() for entry in made["PYTHONPATH"].split(os.pathsep))
    assert made["PYTHONSAFEPATH"] == "1"
    assert "PYTHONPATH" not in python_environment({"PYTHONPATH": ":."})


def test_a_grandchild_does_not_look_into_the_working_folder(marker: Path) -> None:
    code = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'import queue']).returncode)"
    done = subprocess.run([sys.executable, "-P", "-c", code], env=python_environment({"PYTHONPATH": ":"}), check=False)
    assert done.returncode == 0, were_run(marker)


def test_a_child_runs_this_package_and_not_one_of_the_working_folder(own_home: Path) -> None:
    other = Path("quantai_tui")
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the wrong package')")
    done = subprocess.run(
        python_command("quantai_tui", "--version"), env=python_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("quantai-tui, version"), done.stderr


def test_importing_the_library_keeps_the_module_path() -> None:
    code = "import sys; before = list(sys.path); import quantai_tui; sys.exit(before != sys.path)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_one_module_names_the_interpreter() -> None:
    root = Path(quantai_tui.__file__).parent
    found = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (isinstance(node, ast.Attribute) and node.attr in {"executable", "_base_executable"})
        or (isinstance(node, ast.ImportFrom) and any(name.name == "executable" for name in node.names))
        or (isinstance(node, (ast.Import, ast.ImportFrom)) and "multiprocessing" in ast.unparse(node).split(".")[0])
    ]
    assert found == ["python_child.py"]
