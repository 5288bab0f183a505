"""A loop of one's own under `watch`, beside the same loop alone: while an engine listens, and while none runs.

The loops alternate step by step, on the same numbers, in a process of their own; the starter listens as an engine does. "Without
an engine" is measured twice: before one was ever found, when nothing is hooked, and after it has gone, when the steps are counted
on. What is hooked is also timed alone, with its share of a report (one goes out every 100 ms), and set beside a step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .report import Options, Row, median, number, paired
from .surroundings import measured

BOUND = 1.01
_WHAT = {"heard": "an engine listens", "left": "the engine has gone", "unfound": "none was ever found"}


def run(options: Options) -> list[Row]:
    rows = []
    for model in ("mlp", "tiny"):
        result = _measured_beside_an_engine(model, options)
        bare = result["us"]["bare"]
        for name, what in _WHAT.items():
            note = f"medians of {result['steps']} steps; noise: bare against itself {result['paired']['again']:.3f}x"
            ours, ratio = result["us"][name], result["paired"][name]
            where = f"{result['parameters']:,} parameters, {what}"
            rows.append(Row("watch", f"{where}: in turn", "us", ours, bare, BOUND, "ratio", note, ratio))
        parts = result["parts_us"]
        note = "in us: " + ", ".join(f"{name} {number(cost)}" for name, cost in parts.items())
        rows.append(
            Row(
                "watch",
                f"{result['parameters']:,} parameters: by parts",
                "us",
                bare + sum(parts.values()),
                bare,
                BOUND,
                "ratio",
                note,
            )
        )
    return rows


def _measured_beside_an_engine(model: str, options: Options) -> dict[str, Any]:
    """Run `measure` in its process, and take its reports here."""
    from quantai_tui.telemetry import SYSTEM_CLOCK
    from quantai_tui.training.guests import Guests

    loop = asyncio.new_event_loop()
    listening = threading.Thread(target=loop.run_forever, daemon=True)
    listening.start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guests"
        guests = Guests(path, SYSTEM_CLOCK, engine_trains=lambda: False, on_metrics=lambda metrics: None)
        try:
            asyncio.run_coroutine_threadsafe(guests.open(), loop).result(10)
            seconds = 6 if options.quick else 90
            return measured("watch", str(path), f"--model={model}", f"--device={options.device}", f"--seconds={seconds}")
        finally:
            asyncio.run_coroutine_threadsafe(guests.close(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            listening.join(10)
            loop.close()


class Loop:
    """PyTorch's own recipe of mixed precision."""

    def __init__(self, kind: str, device: Any) -> None:
        import torch
        from torch import nn

        from quantai_tui.training.dataset import FEATURES
        from quantai_tui.training.model import BarEncoder

        torch.manual_seed(0)
        self.device = device
        if kind == "mlp":
            self.model: nn.Module = nn.Sequential(
                nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3)
            )
            self.inputs = torch.randn(64, 16, device=device)
        else:
            self.model = BarEncoder(len(FEATURES), 32, "tiny")
            self.inputs = torch.randn(64, 32, len(FEATURES), device=device)
        self.model.to(device)
        self.labels = torch.randint(0, 3, (64,), device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=False)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=1024.0)
        self.tell: Callable[[Any], None] = lambda loss: None

    def step(self) -> None:
        import torch
        import torch.nn.functional as F

        with torch.autocast(self.device.type, torch.float16):
            outputs = self.model(self.inputs)
        loss = F.cross_entropy(outputs.float(), self.labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.tell(loss)
        self.scaler.update()


def measure(socket_path: str, kind: str, device_name: str, seconds: float) -> dict[str, Any]:
    import torch

    from quantai_tui.training import reporter, watch
    from quantai_tui.whereabouts import Entry

    from .training_step import alternate

    torch.set_num_threads(1)
    device = torch.device(device_name)
    entry = Entry("bench", "live", os.getpid(), "", "", "", 0.0, guests=socket_path)
    loops = {name: Loop(kind, device) for name in ("bare", "heard", "left", "unfound", "again")}

    def watched(name: str, engine: str = "") -> Any:
        loop = loops[name]
        made = watch(loop.scaler, loop.optimizer, loop.model, name=name, engine=engine, batch_size=64)
        loop.tell = made.loss
        return made

    unfound = watched("unfound")
    reporter.find_engine = lambda name="": (entry, "")
    left = watched("left")
    _wait_until(lambda: left._steps.reporter.connected)
    reporter.find_engine = lambda name="": (None, "no engine runs")
    left._steps.reporter._dialled.close()
    _wait_until(lambda: not left._steps.reporter.connected)
    reporter.find_engine = lambda name="": (entry, "") if name else (None, "no engine runs")
    heard = watched("heard", engine="bench")
    _wait_until(lambda: heard._steps.reporter.connected)

    times = alternate({name: loop.step for name, loop in loops.items()}, device.type, seconds)
    assert heard._steps.reporter.connected
    assert left._steps.started
    assert not unfound._steps.started
    parts = _parts(loops["heard"], heard, median(times["bare"])) if device.type == "cpu" else {}
    return {
        "us": {name: median(values) for name, values in times.items()},
        "paired": {name: paired(values, times["bare"]) for name, values in times.items()},
        "steps": len(times["bare"]),
        "parameters": sum(one.numel() for one in loops["bare"].model.parameters()),
        "parts_us": parts,
    }


def _parts(loop: Loop, watched: Any, step_us: float) -> dict[str, float]:
    """Microseconds per step of what a watch adds, its share of a report included."""
    import torch

    from quantai_tui.training.watched_steps import _REPORT_EVERY_S

    from .training_step import _cost

    loss = torch.tensor(1.0)
    states = {id(loop.optimizer): {"stage": _stepped(), "found_inf_per_device": {loop.device: torch.zeros(())}}}
    scaler = loop.scaler

    def update(replaced: Callable[[], None], *, hook: bool) -> None:
        scaler._per_optimizer_states.update(states)
        if hook:
            watched._steps._outcomes._on_step(loop.optimizer)
        replaced()

    watched._steps._report_at = float("inf")
    bare = _cost(lambda: update(lambda: type(scaler).update(scaler), hook=False))
    ours = _cost(lambda: update(scaler.update, hook=True))
    report = _cost(lambda: watched._steps.progress.flush(watched._steps, period_s=float("-inf")), 300)
    return {
        "hooks": ours - bare,
        "loss": _cost(lambda: watched.loss(loss)),
        "report": min(1.0, step_us / (_REPORT_EVERY_S * 1e6)) * report,
    }


def _stepped() -> Any:
    from torch.amp.grad_scaler import OptState

    return OptState.STEPPED


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the bench's engine was not reached")
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.socket, asked.model, asked.device, asked.seconds)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
