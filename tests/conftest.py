"""Every test gets a home of its own: no setting, store or socket of the person who runs the suite is read or touched."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Four processes on two cores: how long an example takes says nothing of the program.
hypothesis.settings.register_profile(
    "any load", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any load")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background with the interrupt ignored, and what we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def temporary_folder() -> Iterator[Path]:
    """Temporary folder of the tests and their children, removed when the tests end.

    Its path is short, because a test's own folder is too long for sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix="q"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """XDG folders and the working folder below the test's own; no setting in the environment; UTC."""
    from quantai_tui.settings import names

    home = tmp_path / "home"
    monkeypatch.setenv("TMPDIR", str(temporary_folder))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder))
    for variable, folder in (("CONFIG", "config"), ("DATA", "data"), ("STATE", "state"), ("CACHE", "cache")):
        (home / folder).mkdir(parents=True)
        monkeypatch.setenv(f"XDG_{variable}_HOME", str(home / folder))
    monkeypatch.setenv("TEST_HOME", str(home))  # identifies a test's processes
    work = home / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in list(os.environ):
        if name in names() or name.startswith(("WS_", "GRAD_SCALER_", "QUANTAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real market data that lies beside a checkout; where it is missing the test says so."""
    if not _SHARED.is_dir():
        pytest.skip("the folder ../shared/data with real market data is not there")
    return _SHARED


@pytest.fixture(scope="session")
def xrpeth(shared_data: Path) -> Path:
    return shared_data / "XRPETH-aggTrades-2019-10-11.csv.gz"
