"""Training scripts for the tests of `watch`: the README's own, in a real process, and a small loop with planted overflows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantai_tui.engine.registry import Claim, EngineFolder, entry_of, guest_socket, worker_socket
from quantai_tui.telemetry import Mode
from quantai_tui.training.supervisor import TrainingSupervisor
from tests.refresh_docs import README
from tests.training_support import config


def readme_example() -> str:
    found = re.search(r"<!-- watch-example -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, "README.md has no block watch-example"
    return found[1]


# With `bare` in the place of "quantai_tui.training" the very same text runs without us.
_BARE = """
import contextlib

class Nobody:
    def loss(self, loss):
        pass

def watch(*arguments, **options):
    return contextlib.nullcontext(Nobody())
"""


def script(folder: Path, body: str, *, watched: bool = True) -> Path:
    """The README's example with another ending."""
    text, _, _ = readme_example().partition("if __name__")
    if not watched:
        (folder / "bare.py").write_text(_BARE)
        text = text.replace("from quantai_tui.training import", "from bare import")
        assert "quantai_tui" not in text
    path = folder / ("run_watched.py" if watched else "run_bare.py")
    path.write_text(f"{text}\n\ntorch.set_num_threads(1)\n{body}\n")
    return path


def start(path: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(path)], text=True, **options)


class Place:
    """What of an engine a script can see: its folder, its claim, its entry, and the supervisor that scripts report to."""

    def __init__(self, home: Path, name: str = "live-spot") -> None:
        self.folder = EngineFolder(home / name)
        self.folder.prepare()
        self.claim = Claim.take(self.folder)
        self.supervisor = TrainingSupervisor(
            config(store_path=str(home / "none.sqlite3")),
            socket_path=worker_socket(self.folder),
            log_path=self.folder.worker_log,
            guest_socket=guest_socket(self.folder),
        )

    async def __aenter__(self) -> TrainingSupervisor:
        await self.supervisor.listen()
        self.claim.publish(entry_of(self.folder, Mode.LIVE, 0.0))
        return self.supervisor

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.close()
        self.claim.release()


class Loop:
    """A loop of torch's recipe on one layer. `step(factor)` multiplies what is differentiated: 1e9 overflows."""

    def __init__(self, build: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer = build(self.model.parameters(), lr=1e-3, **options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10)
        self.inputs = torch.randn(8, 4)

    def step(self, factor: float = 1.0) -> torch.Tensor:
        with torch.autocast("cpu", torch.float16):
            loss = self.model(self.inputs).float().square().mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss * factor))
        self.scaler.step(self.optimizer)
        return loss
