"""A full disk when the engine starts or runs: one message with the reason, and no traceback.

A limit on the size of files replaces the full disk: the same calls fail, with another reason.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantai_tui.engine.engine import Engine
from quantai_tui.engine.registry import control_socket
from quantai_tui.engine.source import live
from quantai_tui.engine.starting import StartError, reason_of

SCRIPT = str(Path(sys.executable).parent / "quantai-tui")


@pytest.mark.parametrize("command", ["demo --headless --for 1", "demo --plain", "serve demo"])
def test_start_on_a_full_disk_names_the_reason(command: str, own_home: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 32; exec {SCRIPT} {command} --set TRAIN_AUTOSTART=false </dev/null"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    folder = own_home / "data" / "quantai-tui" / "demo-7"
    assert done.stderr.startswith(f"quantai-tui: the data folder {folder} cannot be written: ")
    assert "File too large" in done.stderr
    assert not list(folder.glob(".probe*"))


async def test_sockets_that_cannot_be_made_name_their_folder() -> None:
    engine = Engine(live())
    path = control_socket(engine.folder)
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(StartError, match=f"{path.parent} cannot be used: .*XDG_STATE_HOME"):
        await engine.start()


def test_system_error_names_file_reason_and_remedy() -> None:
    error = OSError(28, "No space left on device", "/data/engine.log")
    assert reason_of(error) == "/data/engine.log: No space left on device; free some space, or give another DATA_DIR"
    assert reason_of(ValueError("a text of ours")) == "a text of ours"


def test_unwritable_log_is_reported_once_and_not_on_stderr(tmp_path: Path) -> None:
    code = """
import logging, resource, sys
from pathlib import Path
from quantai_tui.engine.logs import EngineLog
log = EngineLog(Path(sys.argv[1]), "INFO")
logger = logging.getLogger("quantai_tui.x")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for number in range(20):
    logger.info("line %d of many", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
logger.info("there is room again")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
logger.info("and none")
print(*log.tail.snapshot(), sep="\\n")
log.close()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "engine.log")], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    told = [line for line in done.stdout.splitlines() if "cannot be written" in line]
    assert len(told) == 2
    assert f"the log {tmp_path / 'engine.log'} cannot be written: " in told[0]
    assert "File too large" in told[0]
    assert "line 19 of many" in done.stdout
    assert "there is room again" in (tmp_path / "engine.log").read_text()
