"""A driver without a card: the functions of `pynvml` over cards that a test describes, with pynvml's own errors and constants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1 << 30


@dataclass
class Card:
    """One GPU. `failing` maps a function's name to the NVML error code that it raises for this card."""

    uuid: str = "GPU-11111111-2222-3333-4444-555555555555"
    name: str = "NVIDIA H100 80GB HBM3"
    percent: int = 97
    used: int = 61 * GIB
    total: int = 80 * GIB
    celsius: int = 66
    milliwatts: int = 412_500
    limit_milliwatts: int = 700_000
    uncorrected: int = 0
    reasons: int = 0
    pids: tuple[int, ...] = ()
    failing: dict[str, int] = field(default_factory=dict)


class Driver:
    """Stands in for the module `pynvml`. `broken` holds functions that fail for all cards; `gate`, when set, is waited for."""

    def __init__(self, *cards: Card) -> None:
        self.cards = list(cards)
        self.broken: dict[str, int] = {}
        self.calls: list[str] = []
        self.gate: threading.Event | None = None
        self.is_held = False  # somebody stands before the gate
        self.is_open = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("NVML_", "NVMLError", "NVMLLibrary")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _enter(self, name: str, handle: Card | None = None) -> None:
        self.calls.append(name)
        code = self.broken.get(name) or (handle.failing.get(name) if handle is not None else None)
        if code is not None:
            raise pynvml.NVMLError(code)
        if name != "nvmlInit" and not self.is_open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def nvmlInit(self) -> None:
        self._enter("nvmlInit")
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self._enter("nvmlShutdown")
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        if self.gate is not None:
            self.is_held = True
            self.gate.wait()
        self._enter("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        self._enter("nvmlDeviceGetHandleByIndex", self.cards[index])
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle: Card) -> str:
        self._enter("nvmlDeviceGetUUID", handle)
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Card) -> str:
        self._enter("nvmlDeviceGetName", handle)
        return handle.name

    def nvmlDeviceGetUtilizationRates(self, handle: Card) -> SimpleNamespace:
        self._enter("nvmlDeviceGetUtilizationRates", handle)
        return SimpleNamespace(gpu=handle.percent, memory=1)

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> SimpleNamespace:
        self._enter("nvmlDeviceGetMemoryInfo", handle)
        return SimpleNamespace(used=handle.used, total=handle.total, free=handle.total - handle.used)

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:
        self._enter("nvmlDeviceGetTemperature", handle)
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return handle.celsius

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:
        self._enter("nvmlDeviceGetPowerUsage", handle)
        return handle.milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Card) -> int:
        self._enter("nvmlDeviceGetEnforcedPowerLimit", handle)
        return handle.limit_milliwatts

    def nvmlDeviceGetTotalEccErrors(self, handle: Card, kind: int, counter: int) -> int:
        self._enter("nvmlDeviceGetTotalEccErrors", handle)
        assert (kind, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        return handle.uncorrected

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Card) -> int:
        self._enter("nvmlDeviceGetCurrentClocksEventReasons", handle)
        return handle.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Card) -> int:
        self._enter("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return handle.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:
        return pynvml.throwOnVersionMismatch(self._processes)("nvmlDeviceGetComputeRunningProcesses", handle)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: Card) -> list[SimpleNamespace]:
        return self._processes("nvmlDeviceGetComputeRunningProcesses_v2", handle)

    def _processes(self, name: str, handle: Card) -> list[SimpleNamespace]:
        self._enter(name, handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in handle.pids]


def absent(reason: Exception) -> Callable[[], Any]:
    """What loads a library that is not there."""

    def load() -> Any:
        raise reason

    return load
