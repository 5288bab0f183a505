"""What NVIDIA's driver says of its GPUs, through NVML. Free of torch; calls block for as long as the driver likes.

Cards and drivers differ in what they tell: a field that this one does not know is None, and never 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

from ..telemetry import TOO_HOT, GpuSnapshot

NO_DRIVER = "n/a: no NVIDIA driver"
_DRIVER = "libnvidia-ml.so.1"

_T = TypeVar("_T")

# The nvmlClocksEventReason bits of NVML's reference. 0x1, idle, is left out: an idle card is not held down by anything.
_THROTTLE = {
    0x0002: "clocks set by hand",
    0x0004: "power limit",
    0x0008: "slowed by hardware",
    0x0010: "in step with other GPUs",
    0x0020: f"{TOO_HOT} (driver)",
    0x0040: f"{TOO_HOT} (hardware)",
    0x0080: "power brake",
    0x0100: "display clocks",
    0x0200: "board limit",
    0x0400: "reliability limit",
}
_IDLE = 0x0001

# Of the errors, those that are about the whole card: no field of it can be trusted then.
_GONE = {"NVML_ERROR_GPU_IS_LOST": "fell off the bus", "NVML_ERROR_RESET_REQUIRED": "needs a reset"}
_WORDS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": NO_DRIVER,
    "NVML_ERROR_DRIVER_NOT_LOADED": NO_DRIVER,
    "NVML_ERROR_NO_PERMISSION": "n/a: this user may not ask the NVIDIA driver",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "n/a: NVIDIA driver and library differ in version; reload the driver or reboot",
    "NVML_ERROR_GPU_IS_LOST": "n/a: a GPU fell off the bus; reset it or reboot",
}


class NvmlUnavailable(Exception):
    """There is nothing to be had from NVML at present; the text says why, and is fit for the operator."""


class Reading(NamedTuple):
    """The GPUs in the driver's order, and what there is to say besides: why there is none, or which one does not answer."""

    gpus: tuple[GpuSnapshot, ...]
    note: str = ""


def load_pynvml() -> Any:
    """The module `pynvml`, imported only where there is a driver: it is large. Raises NvmlUnavailable."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        raise NvmlUnavailable(NO_DRIVER) from None
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise NvmlUnavailable(f"n/a: nvidia-ml-py cannot be imported ({error})") from error


def throttle_words(reasons: int) -> tuple[str, ...]:
    """Why the clocks are held down, from NVML's bits; a bit that nobody knows yet is named by its number."""
    unknown = reasons & ~_IDLE & ~sum(_THROTTLE)
    known = [words for bit, words in _THROTTLE.items() if reasons & bit]
    return (*known, *([f"unknown reason {unknown:#x}"] if unknown else []))


class Nvml:
    """A session with the driver, opened by the first `read`. All calls from one thread at a time.

    `load` returns `pynvml` or a module with the same functions, errors and constants.
    """

    def __init__(self, load: Callable[[], Any] = load_pynvml) -> None:
        self._load = load
        self._library: Any = None

    def read(self, worker_pids: Collection[int]) -> Reading:
        """Every GPU as it is now; `worker_pids` are those of our training. Raises NvmlUnavailable, the session is closed then.

        Pids are the driver's: from inside a container with pids of its own it names others, or none.
        """
        library = self._opened()
        try:
            count = library.nvmlDeviceGetCount()
        except library.NVMLError as error:
            self.close()
            raise NvmlUnavailable(self._words(library, error)) from error
        gpus: list[GpuSnapshot] = []
        silent: list[str] = []
        for index in range(count):
            try:
                gpus.append(_Device(library, index).snapshot(worker_pids))
            except library.NVMLError as error:
                silent.append(f"GPU {index} {_gone(library, error) or f'does not answer ({error})'}")
        if not count:
            return Reading((), "n/a: the NVIDIA driver finds no GPU")
        return Reading(tuple(gpus), "; ".join(silent))

    def _opened(self) -> Any:
        if self._library is not None:
            return self._library
        library = self._load()
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise NvmlUnavailable(self._words(library, error)) from error
        self._library = library
        return library

    @staticmethod
    def _words(library: Any, error: Any) -> str:
        known = {getattr(library, name, None): words for name, words in _WORDS.items()}
        return known.get(error.value, f"n/a: the NVIDIA driver says: {error}")

    def close(self) -> None:
        """Idempotent. A driver that is gone cannot be told."""
        library, self._library = self._library, None
        if library is not None:
            with contextlib.suppress(library.NVMLError):
                library.nvmlShutdown()


def _gone(library: Any, error: Any) -> str:
    return next((words for name, words in _GONE.items() if error.value == getattr(library, name, None)), "")


class _Device:
    """One card. Its handle and its UUID it must have; raises the library's NVMLError without, or when the card is gone."""

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._handle = library.nvmlDeviceGetHandleByIndex(index)
        self._uuid = str(library.nvmlDeviceGetUUID(self._handle))

    def snapshot(self, worker_pids: Collection[int]) -> GpuSnapshot:
        library = self._library
        percent = self._ask(lambda handle: int(library.nvmlDeviceGetUtilizationRates(handle).gpu))
        memory = self._ask(library.nvmlDeviceGetMemoryInfo)
        heat = self._ask(lambda handle: float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)))
        return GpuSnapshot(
            uuid=self._uuid,
            name=self._ask(lambda handle: str(library.nvmlDeviceGetName(handle))) or "",
            utilisation=None if percent is None else percent / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_c=heat,
            power_w=_watts(self._ask(library.nvmlDeviceGetPowerUsage)),
            power_limit_w=_watts(self._ask(library.nvmlDeviceGetEnforcedPowerLimit)),
            ecc_errors=self._ask(self._uncorrected),
            throttle=throttle_words(self._ask(self._clocks_event_reasons) or 0),
            used_by_worker=bool(worker_pids) and not self._pids().isdisjoint(worker_pids),
        )

    def _ask(self, call: Callable[[Any], _T]) -> _T | None:
        """One field, or None where this card or this driver does not have it. Raises NVMLError when the card is gone."""
        library = self._library
        try:
            return call(self._handle)
        except library.NVMLError as error:
            if _gone(library, error):
                raise
            return None
        except library.NVMLLibraryMismatchError:  # the driver is older than the library
            return None

    def _uncorrected(self, handle: Any) -> int:
        library = self._library
        return int(
            library.nvmlDeviceGetTotalEccErrors(handle, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC)
        )

    def _clocks_event_reasons(self, handle: Any) -> int:
        library = self._library
        try:
            return int(library.nvmlDeviceGetCurrentClocksEventReasons(handle))
        except library.NVMLError_FunctionNotFound:  # drivers before 535 have it under its old name
            return int(library.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def _pids(self) -> set[int]:
        processes = self._ask(self._library.nvmlDeviceGetComputeRunningProcesses)
        if processes is None:
            processes = self._ask(self._library.nvmlDeviceGetComputeRunningProcesses_v2)
        return {process.pid for process in processes or ()}


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
