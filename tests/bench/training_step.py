"""One training step with monitor and telemetry, beside the bare torch loop on the same model, the same batch, the same numbers.

The two alternate step by step. What is ours is also timed piece by piece, in loops that keep it in the caches: a lower bound,
which the noise of a busy machine does not reach. The measuring happens in a process of its own, whose reports the starter takes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .report import Options, Row, median, number, paired
from .surroundings import measured

BOUND = 1.01
_BATCH = 64


def run(options: Options) -> list[Row]:
    rows = []
    # The smallest model is the default, and its step the shortest to stand beside; on a GPU a larger one is as usual.
    for size in ("tiny",) if options.device == "cpu" else ("tiny", "medium"):
        result = _measured_beside_a_reader(size, options)
        step, parts = result["bare_us"], result["parts_us"]
        what = f"{size} model, {result['precision']}, {result['device']}"
        note = f"medians of {result['steps']} steps; noise: bare against itself {result['again_paired']:.3f}x"
        ours, ratio = result["ours_us"], result["ours_paired"]
        rows.append(Row("training-step", f"{what}: in turn", "us", ours, step, BOUND, "ratio", note, ratio))
        if parts:
            note = ", ".join(f"{name} {number(cost)}" for name, cost in sorted(parts.items(), key=lambda part: -part[1]))
            ours = step + sum(parts.values())
            rows.append(Row("training-step", f"{what}: by parts", "us", ours, step, BOUND, "ratio", f"in us: {note}"))
    return rows


def _measured_beside_a_reader(size: str, options: Options) -> dict[str, Any]:
    """Run `measure` in its process, and read here what the worker reports, as an engine does."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "worker"
        listener.bind(str(path))
        listener.listen(1)
        threading.Thread(target=_read_all, args=(listener,), daemon=True).start()
        seconds = 5 if options.quick else 90
        return measured("training_step", str(path), f"--size={size}", f"--device={options.device}", f"--seconds={seconds}")


def _read_all(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while connection.recv(65536):
            pass


class TurnClock:
    """Time that passes only while it is our loop's turn: else each of its steps would find a report due."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._since: float | None = None

    def begin(self) -> None:
        self._since = time.monotonic()

    def end(self) -> None:
        self._passed, self._since = self.monotonic(), None

    def monotonic(self) -> float:
        return self._passed + (0.0 if self._since is None else time.monotonic() - self._since)

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a training loop does not sleep on an event loop")


class SameBatch:
    """What a loop needs of an epoch, with one and the same batch in each step."""

    def __init__(self, window: int, features: int, where: Any) -> None:
        import torch

        self.features = torch.randn(_BATCH + window, features, device=where)
        self.at = torch.arange(window, window + _BATCH, device=where)
        self.labels = torch.randint(0, 3, (_BATCH,), device=where)

    def samples(self, size: int, part: int = 0) -> tuple[Any, Any]:
        return self.at, self.labels


class Bare:
    """Mixed precision as in torch's own recipe, with gradient clipping."""

    def __init__(self, stepper: Any, config: Any, features: int) -> None:
        import torch

        from quantai_tui.training.model import BarEncoder

        torch.manual_seed(config.seed)
        self.device, self.dtype = stepper.precision.device, stepper.precision.autocast_dtype
        self.model = BarEncoder(features, config.window, config.model_size).to(self.device)
        self.clip_norm = config.clip_norm
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
        )
        scale = stepper.monitor.scale if stepper.monitor else 1.0
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=scale, enabled=stepper.precision.scales)

    def step(self, windows: Any, labels: Any) -> None:
        import torch
        import torch.nn.functional as F

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.model(windows)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def measure(socket_path: str, size: str, device: str, seconds: float) -> dict[str, Any]:
    import torch

    from quantai_tui.training.channel import WorkerChannel
    from quantai_tui.training.config import WorkerConfig
    from quantai_tui.training.dataset import FEATURES
    from quantai_tui.training.loop import TrainingLoop
    from quantai_tui.training.worker import _SocketReporter

    torch.set_num_threads(1)
    # Without warm-up, and with torch's own growth, so that both loops walk through the same numbers.
    config = WorkerConfig(
        store_path="none", symbol="ETHUSDT", window=32, batch_size=_BATCH, model_size=size, device=device, precision="fp16",
        lr_warmup_steps=0, growth_factor=2.0, growth_interval=2000,
    )  # fmt: skip
    clock = TurnClock()
    loop = TrainingLoop(config, _SocketReporter(WorkerChannel(socket_path), lambda: None), clock=clock)
    where = loop._stepper.precision.device
    bare, again = (Bare(loop._stepper, config, len(FEATURES)) for _ in range(2))
    batch = SameBatch(config.window, len(FEATURES), where)

    def ours() -> None:
        """What the loop does per step, as its epoch does it."""
        clock.begin()
        loop._pace()
        loop._control()
        loop._step(batch)
        clock.end()

    def windows() -> Any:
        """Both loops cut their windows out of the same features."""
        return loop._windows(batch.features, batch.at)

    subjects: dict[str, Callable[[], None]] = {
        "bare": lambda: bare.step(windows(), batch.labels),
        "ours": ours,
        "again": lambda: again.step(windows(), batch.labels),
    }
    times = alternate(subjects, where.type, seconds)
    medians = {f"{name}_us": median(values) for name, values in times.items()}
    medians |= {f"{name}_paired": paired(values, times["bare"]) for name, values in times.items()}
    parts = part_costs(loop, bare, windows(), batch.labels) if where.type == "cpu" else {}
    return {
        **medians,
        "steps": len(times["bare"]),
        "parts_us": parts,
        "precision": loop._stepper.precision.name,
        "device": str(where),
    }


def alternate(subjects: dict[str, Callable[[], None]], device: str, seconds: float) -> dict[str, list[float]]:
    """Step times in microseconds, one of each in turn. On the CPU this thread's processor time: neighbours do not count."""
    import torch

    clock = time.thread_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    warm_until = time.monotonic() + 0.15 * seconds
    deadline = time.monotonic() + seconds
    rounds = 0
    while (now := time.monotonic()) < deadline or rounds < 20:
        names = names[1:] + names[:1]
        rounds += 1
        for name in names:
            started = clock()
            subjects[name]()
            if device != "cpu":
                torch.cuda.synchronize()
            if now >= warm_until:
                times[name].append((clock() - started) * 1e6)
    return times


def part_costs(loop: Any, bare: Bare, windows: Any, labels: Any) -> dict[str, float]:
    """Microseconds per step of each thing that a bare loop does not do."""
    import torch

    from quantai_tui.training.probing import largest_magnitude
    from quantai_tui.training.progress import FLUSH_PERIOD_S

    stepper, progress, monitor = loop._stepper, loop._progress, loop._stepper.monitor
    loss = torch.nn.functional.cross_entropy(stepper._forward(windows), labels)
    detached, norm = loss.detach(), torch.tensor(1.0)
    scaler = stepper._scaler

    def update_ours() -> None:
        _mark_checked(scaler, stepper.optimizer)
        monitor.update(False, 1, 1)

    def update_bare() -> None:
        _mark_checked(bare.scaler, bare.optimizer)
        bare.scaler.update()

    def measure_amax() -> None:
        stepper._amax.put(largest_magnitude(stepper._gradients()))
        monitor.observe_amax(stepper._amax.read())

    costs = {
        "monitor": _cost(update_ours) - _cost(update_bare),
        "trace": _cost(lambda: stepper.trace.push(detached, norm)),
        "learning rate": _cost(stepper._set_learning_rate),
        "planted factor": _cost(loop._plan.factor),
        "amax, once in 16 steps": _cost(measure_amax) / 16,
        "underflow, once in 2000": _cost(lambda: stepper._sample_underflow((windows, labels), 65536.0), 20) / 2000,
        "skip detector": _cost(stepper._skips.take) + _cost(stepper._skips._on_step),
        "control and pace": _cost(lambda: (loop._control(), loop._pace())),
        "progress": _cost(lambda: progress.stepped(64, False, monitor.scale)),
    }
    # A report goes out once in 40 ms at most: a step bears its share of one.
    share = min(1.0, _cost(lambda: bare.step(windows, labels), 20) / (FLUSH_PERIOD_S * 1e6))
    costs["report"] = _cost(lambda: progress.flush(stepper)) + share * _cost(lambda: progress.flush(stepper, period_s=0.0), 300)
    return costs


def _mark_checked(scaler: Any, optimizer: Any) -> None:
    """The state that `unscale_` and `step` leave behind for `update`: one flag for the device, no overflow found."""
    import torch

    scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = {torch.device("cpu"): torch.zeros(())}


def _cost(work: Callable[[], object], repeats: int = 4000) -> float:
    """Microseconds of processor time for one call, the median of five series."""
    series = []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(repeats // 5):
            work()
        series.append((time.thread_time() - started) / (repeats // 5) * 1e6)
    return median(series)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--size", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.socket, asked.size, asked.device, asked.seconds)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
