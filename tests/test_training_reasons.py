"""Why a worker has ended, in words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from quantai_tui.telemetry import SYSTEM_CLOCK, TrainingState
from quantai_tui.training import reasons
from quantai_tui.training.messages import EpochDone, Metrics, Saved
from quantai_tui.training.view import TrainingView


def machine(root: Path, cgroup: str, counts: dict[str, int]) -> Path:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, count in counts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"low 0\noom 9\noom_kill {count}\noom_group_kill 0\n")
    return root


UNIFIED = "0::/user.slice/training\n"
UNIFIED_EVENTS = "sys/fs/cgroup/user.slice/training/memory.events"
LEGACY = "5:cpu,cpuacct:/box\n4:memory:/box\n"
LEGACY_EVENTS = "sys/fs/cgroup/memory/box/memory.oom_control"


@pytest.mark.parametrize(("cgroup", "events"), [(UNIFIED, UNIFIED_EVENTS), (LEGACY, LEGACY_EVENTS)])
def test_a_kill_for_want_of_memory_is_told_from_one_by_hand(cgroup: str, events: str, tmp_path: Path) -> None:
    kills = reasons.OomKills(machine(tmp_path, cgroup, {events: 3, "proc/vmstat": 7}))
    assert kills.risen() == ""
    machine(tmp_path, cgroup, {"proc/vmstat": 8})
    assert kills.risen() == "this machine, or of a part of it,"
    machine(tmp_path, cgroup, {events: 4})
    assert kills.risen() == "this service or container"


def test_where_the_kernel_counts_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    assert reasons.OomKills(tmp_path / "nowhere").risen() == ""


def test_signals_and_errors_have_words() -> None:
    assert reasons.of_signal(signal.SIGILL) == (
        "the worker was killed by SIGILL: an instruction this CPU does not have: the torch build does not fit this machine"
    )
    assert reasons.of_signal(63) == "the worker was killed by signal 63"
    assert reasons.of_error(ImportError("libcudart.so.12: cannot open")).startswith("torch cannot be loaded: libcudart.so.12")
    assert reasons.of_error(RuntimeError("CUDA error: an illegal memory access\nCompile with")).startswith(
        "CUDA error: an illegal memory access; a new process may find the GPU sound"
    )
    assert reasons.of_error(torch.OutOfMemoryError("CUDA out of memory. Tried")).startswith("out of GPU memory; choose a smaller")
    assert reasons.of_error(ValueError("no")) == "ValueError: no"


def test_memory_that_torch_cannot_have_is_called_so() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 58, dtype=torch.uint8)
    assert reasons.of_error(raised.value).startswith("out of memory; choose a smaller model or batch")


def test_counts_go_on_from_the_checkpoint_and_nothing_is_counted_twice() -> None:
    view = TrainingView(SYSTEM_CLOCK)

    def metrics(step: int, overflows: int) -> Metrics:
        return Metrics(TrainingState.TRAINING, step=step, overflow_count=overflows, resets=1, nonfinite_loss=2)

    def epoch(number: int) -> EpochDone:
        return EpochDone(number, 0.5, 0.4, 0.4, 100, 500, 0.0)

    def counts() -> tuple[int | None, int | None, int | None, int | None, int]:
        now = view.snapshot("ETHUSDT", ())
        return now.step, now.overflow_count, now.resets, now.nonfinite_loss, now.epochs_done

    view.take_metrics(metrics(100, 5))
    view.take_epoch(epoch(1))
    view.take_epoch(epoch(2))
    view.take_saved(Saved("a", 80, 1.0, epochs_done=1))
    view.fold()
    assert counts() == (100, 5, 1, 2, 2)
    view.take_saved(Saved("a", 80, 1.0, resumed=True, epochs_done=1))
    view.take_metrics(metrics(85, 4))
    assert counts() == (85, 4, 1, 2, 1)
    assert view.snapshot("ETHUSDT", ()).checkpoint.resumed  # type: ignore[union-attr]
    view.take_epoch(epoch(2))
    view.fold()
    view.take_metrics(metrics(10, 1))  # another model, without a checkpoint: it counts on
    assert counts() == (95, 5, 2, 4, 2)
