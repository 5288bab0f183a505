"""Scaler policy and monitor, model, data set, loop, worker process and its supervisor. Torch lives here and nowhere else.

Names load on first use (PEP 562): the engine imports the supervisor without paying for torch, and runs where CUDA is broken.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import WorkerConfig
    from .monitor import GradScalerMonitor
    from .records import ScaleRecord
    from .scaler import DynamicGradScalerConfig
    from .supervisor import TrainingSupervisor
    from .watching import Watch, watch

_HOME = {
    "DynamicGradScalerConfig": "scaler",
    "GradScalerMonitor": "monitor",
    "ScaleRecord": "records",
    "TrainingSupervisor": "supervisor",
    "Watch": "watching",
    "WorkerConfig": "config",
    "watch": "watching",
}

__all__ = ["DynamicGradScalerConfig", "GradScalerMonitor", "ScaleRecord", "TrainingSupervisor", "Watch", "WorkerConfig", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
