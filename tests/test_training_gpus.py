"""GPUs as the driver tells of them: what it does not say is not known, and a driver in trouble troubles nobody else."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pynvml
import pytest
from nvml_support import GIB, Card, Driver, absent

from quantai_tui.cli.options import Wanted
from quantai_tui.engine.engine import Engine
from quantai_tui.telemetry import SYSTEM_CLOCK, TOO_HOT, Clock, GpuSnapshot
from quantai_tui.training import TrainingSupervisor, WorkerConfig
from quantai_tui.training.gpus import PERIOD_S, RETRY_S, GpuWatch
from quantai_tui.training.messages import RankReport, Ranks
from quantai_tui.training.nvml import NO_DRIVER, Nvml, NvmlUnavailable, Reading, throttle_words
from quantai_tui.training.view import TrainingView

OURS = 4243


def has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def read(*cards: Card, pids: tuple[int, ...] = (OURS,)) -> Reading:
    driver = Driver(*cards)
    return Nvml(lambda: driver).read(pids)


def test_a_card_is_told_with_all_that_its_driver_knows() -> None:
    (gpu,), note = read(Card(uncorrected=2, reasons=0x4 | 0x40 | 0x1, pids=(17, OURS)))
    assert note == ""
    assert gpu == GpuSnapshot(
        uuid="GPU-11111111-2222-3333-4444-555555555555",
        name="NVIDIA H100 80GB HBM3",
        utilisation=0.97,
        memory_used_bytes=61 * GIB,
        memory_total_bytes=80 * GIB,
        temperature_c=66.0,
        power_w=412.5,
        power_limit_w=700.0,
        ecc_errors=2,
        throttle=("power limit", f"{TOO_HOT} (hardware)"),
        used_by_worker=True,
    )


FIELDS = {
    "nvmlDeviceGetUtilizationRates": {"utilisation"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_bytes", "memory_total_bytes"},
    "nvmlDeviceGetTemperature": {"temperature_c"},
    "nvmlDeviceGetPowerUsage": {"power_w"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors"},
}


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_UNKNOWN]
)
@pytest.mark.parametrize("function", FIELDS)
def test_a_field_that_a_card_does_not_have_is_not_known_and_never_zero_and_the_others_stay(function: str, code: int) -> None:
    (whole,), _ = read(Card())
    (gpu,), note = read(Card(failing={function: code}))
    missing = {name for name in GpuSnapshot.__struct_fields__ if getattr(gpu, name) is None}
    assert missing == FIELDS[function]
    assert {name for name in GpuSnapshot.__struct_fields__ if getattr(gpu, name) != getattr(whole, name)} == missing
    assert note == ""


def test_a_card_that_tells_nothing_but_its_name_is_told_all_the_same() -> None:
    silent = dict.fromkeys([*FIELDS, "nvmlDeviceGetName"], pynvml.NVML_ERROR_NOT_SUPPORTED)
    silent |= dict.fromkeys(
        ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses"], pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    (gpu,), note = read(Card(failing=silent))
    assert gpu == GpuSnapshot(uuid=Card().uuid)
    assert note == ""


def test_older_drivers_are_asked_by_older_names() -> None:
    old = dict.fromkeys(
        ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses"], pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    )
    (gpu,), _ = read(Card(failing=old, reasons=0x8, pids=(OURS,)))
    assert gpu.throttle == ("slowed by hardware",)
    assert gpu.used_by_worker


def test_a_card_that_others_compute_on_is_not_ours() -> None:
    (ours, other), _ = read(Card(pids=(OURS,)), Card(uuid="GPU-2", pids=(17,)))
    assert (ours.used_by_worker, other.used_by_worker) == (True, False)
    (idle,), _ = read(Card(pids=(17,)), pids=())
    assert not idle.used_by_worker


def test_every_reason_that_the_library_knows_has_words_but_idleness_which_is_none() -> None:
    prefixes = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")
    reasons = {name: value for name, value in vars(pynvml).items() if name.startswith(prefixes) and not name.endswith("All")}
    assert len(reasons) > 20
    for name, value in reasons.items():
        words = throttle_words(value)
        assert len(words) == (0 if name.endswith(("Idle", "None")) else 1), name
        assert not any("unknown" in word for word in words), name
        assert ("Thermal" in name) == any(word.startswith(TOO_HOT) for word in words), name
    assert throttle_words(0x4 | 0x8000) == ("power limit", "unknown reason 0x8000")


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetTemperature"])
def test_a_card_that_fell_off_the_bus_is_named_and_the_others_are_told(function: str) -> None:
    gone = Card(uuid="GPU-1", failing={function: pynvml.NVML_ERROR_GPU_IS_LOST})
    gpus, note = read(Card(uuid="GPU-0"), gone, Card(uuid="GPU-2"))
    assert [gpu.uuid for gpu in gpus] == ["GPU-0", "GPU-2"]
    assert note == "GPU 1 fell off the bus"
    gone.failing = {"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_UNKNOWN}
    assert read(gone) == ((), "GPU 0 does not answer (Unknown Error)")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, NO_DRIVER),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, NO_DRIVER),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reload the driver or reboot"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "may not ask"),
        (pynvml.NVML_ERROR_MEMORY, "the NVIDIA driver says: Insufficient Memory"),
    ],
)
def test_a_driver_that_cannot_be_asked_says_why(code: int, words: str) -> None:
    driver = Driver(Card())
    driver.broken["nvmlInit"] = code
    with pytest.raises(NvmlUnavailable, match=words) as raised:
        Nvml(lambda: driver).read(())
    assert str(raised.value).startswith("n/a: ")


def test_a_driver_without_cards_says_so() -> None:
    assert read() == ((), "n/a: the NVIDIA driver finds no GPU")


def test_a_driver_that_was_unloaded_meanwhile_is_opened_anew_when_it_is_back() -> None:
    driver = Driver(Card())
    nvml = Nvml(lambda: driver)
    assert nvml.read(()).gpus
    driver.broken = dict.fromkeys(["nvmlDeviceGetCount", "nvmlShutdown", "nvmlInit"], pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    for _ in range(2):
        with pytest.raises(NvmlUnavailable, match=NO_DRIVER):
            nvml.read(())
    driver.broken = {}
    assert nvml.read(()).gpus
    nvml.close()
    nvml.close()
    assert not driver.is_open
    assert driver.calls.count("nvmlShutdown") == 2


class StepClock:
    """Waits until it is let go on, and remembers for how long it was to wait."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._go = asyncio.Semaphore(0)

    def monotonic(self) -> float:
        return sum(self.slept)

    def time(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self._go.acquire()

    def step(self) -> None:
        self._go.release()


class Told:
    """What was published, newest last."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def __call__(self, gpus: tuple[GpuSnapshot, ...], note: str) -> None:
        self.readings.append(Reading(gpus, note))


async def until(holds: Callable[[], object], within_s: float = 40.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


def nvml_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nvml"]


Watching = Callable[..., tuple[GpuWatch, Told]]


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    watches: list[GpuWatch] = []

    def start(load: Callable[[], Any], clock: Clock, **options: float) -> tuple[GpuWatch, Told]:
        told = Told()
        watch = GpuWatch(told, lambda: {OURS}, clock, load, **options)
        watches.append(watch)
        watch.start()
        return watch, told

    yield start
    for watch in watches:
        await watch.stop()


async def test_cards_are_read_every_two_seconds_and_the_driver_is_let_go_at_the_end(watching: Watching) -> None:
    driver, clock = Driver(Card()), StepClock()
    watch, told = watching(lambda: driver, clock)
    await until(lambda: len(clock.slept) == 1)
    driver.cards[0].percent = 12
    clock.step()
    await until(lambda: len(clock.slept) == 2)
    assert clock.slept == [PERIOD_S, PERIOD_S]
    assert [reading.gpus[0].utilisation for reading in told.readings] == [0.97, 0.12]
    assert driver.calls.count("nvmlInit") == 1
    await watch.stop()
    await watch.stop()
    assert not driver.is_open
    await until(lambda: not nvml_threads())


async def test_without_a_driver_it_is_asked_again_once_a_minute_and_found_when_it_has_come(watching: Watching) -> None:
    clock = StepClock()
    loads: list[Callable[[], Any]] = [absent(NvmlUnavailable(NO_DRIVER))]

    def load() -> Any:
        return loads[-1]()

    _, told = watching(load, clock)
    for turn in range(1, 4):
        await until(lambda turn=turn: len(clock.slept) == turn)
        clock.step()
    await until(lambda: len(clock.slept) == 4)
    assert clock.slept == [RETRY_S] * 4
    assert told.readings == [Reading((), NO_DRIVER)] * 4
    loads.append(lambda: Driver(Card()))
    clock.step()
    await until(lambda: len(clock.slept) == 5)
    assert told.readings[-1].gpus[0].name == Card().name
    assert told.readings[-1].note == ""
    assert clock.slept[-1] == PERIOD_S


async def test_a_driver_that_does_not_answer_holds_up_nobody_and_is_not_asked_twice(watching: Watching) -> None:
    driver = Driver(Card())
    driver.gate = threading.Event()
    watch, told = watching(lambda: driver, StepClock(), answer_s=0.02)
    try:
        await until(lambda: told.readings and driver.is_held)
        assert told.readings[0] == Reading((), "n/a: the NVIDIA driver has not answered for 0.02 s")
        await watch.stop()
        assert driver.calls == ["nvmlInit"]
        assert driver.is_open
    finally:
        driver.gate.set()
    # It is let go as soon as it answers, though nobody waits for that any more.
    await until(lambda: not driver.is_open)
    await until(lambda: not nvml_threads())
    assert driver.calls.count("nvmlDeviceGetCount") == 1
    assert len(told.readings) == 1


async def test_a_driver_that_answers_late_is_believed_again(watching: Watching) -> None:
    driver, clock = Driver(Card()), StepClock()
    driver.gate = threading.Event()
    _, told = watching(lambda: driver, clock, answer_s=0.02)
    await until(lambda: told.readings)
    driver.gate.set()
    await until(lambda: clock.slept)
    assert told.readings[-1].note == ""
    assert len(told.readings[-1].gpus) == 1


async def test_a_library_that_is_not_what_it_should_be_is_told_and_tried_again(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StepClock()
    _, told = watching(object, clock)
    await until(lambda: clock.slept)
    assert told.readings[-1].note.startswith("n/a: NVML failed (AttributeError")
    assert clock.slept == [RETRY_S]
    assert "reading the GPUs has failed" in caplog.text


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
async def test_on_this_machine_without_a_driver_the_real_library_says_so(watching: Watching) -> None:
    told = Told()
    watch = GpuWatch(told, set)
    watch.start()
    await until(lambda: told.readings)
    await watch.stop()
    assert told.readings == [Reading((), NO_DRIVER)]
    with pytest.raises(NvmlUnavailable, match=NO_DRIVER):
        Nvml(lambda: pynvml).read(())


@pytest.mark.skipif(not has_driver(), reason="this machine has no NVIDIA driver")
async def test_on_this_machine_the_real_driver_tells_of_its_cards() -> None:
    told = Told()
    watch = GpuWatch(told, lambda: {os.getpid()}, SYSTEM_CLOCK)
    watch.start()
    await until(lambda: len(told.readings) > 1)
    await watch.stop()
    for gpu in told.readings[-1].gpus:
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert gpu.name
        assert gpu.memory_total_bytes is None or gpu.memory_total_bytes > 0
        assert gpu.utilisation is None or 0 <= gpu.utilisation <= 1


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_where_there_is_no_driver_the_large_library_is_not_even_imported() -> None:
    code = """
import sys
from quantai_tui.training.nvml import Nvml, NvmlUnavailable
try:
    Nvml().read(())
except NvmlUnavailable:
    print("pynvml" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make a driver's library with")
def test_the_real_library_reads_an_old_drivers_answers_to_the_letter(tmp_path: Path) -> None:
    stub = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libnvidia-ml.so.1"), str(stub)], check=True)
    code = """
import asyncio
import msgspec
from quantai_tui.training.gpus import GpuWatch

async def main():
    told = asyncio.Queue()
    watch = GpuWatch(lambda gpus, note: told.put_nowait((gpus, note)), lambda: {4243})
    watch.start()
    print(msgspec.json.encode(await told.get()).decode())
    await watch.stop()

asyncio.run(main())
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    first, last = done.stdout.splitlines()
    (gpu,), note = msgspec.json.decode(first, type=tuple[tuple[GpuSnapshot, ...], str])
    assert note == ""
    assert gpu == GpuSnapshot(
        uuid="GPU-stub",
        name="NVIDIA Stub",
        utilisation=0.42,
        memory_used_bytes=250,
        memory_total_bytes=1000,
        temperature_c=55.0,
        power_w=123.456,
        power_limit_w=None,
        ecc_errors=7,
        throttle=(f"{TOO_HOT} (driver)",),
        used_by_worker=True,
    )
    assert last == "shutdown"


def test_the_driver_of_these_tests_has_the_functions_of_the_real_library() -> None:
    ours = {name: function for name, function in vars(Driver).items() if name.startswith("nvml")}
    assert len(ours) > 12
    for name, function in ours.items():
        wanted = len(inspect.signature(function).parameters) - 1
        real = inspect.signature(getattr(pynvml, name)).parameters.values()
        required = [one for one in real if one.default is inspect.Parameter.empty]
        assert len(required) <= wanted <= len(real), name


def test_the_processes_of_training_on_this_machine_are_the_worker_and_the_ranks_beside_it() -> None:
    view = TrainingView(SYSTEM_CLOCK)
    assert view.local_pids() == set()
    view.pid = 10
    here = socket.gethostname()
    ranks = [RankReport(rank, host, 20 + rank, "cuda:0", 1, 1.0, 0) for rank, host in enumerate([here, here, f"not-{here}"])]
    view.take_ranks(Ranks(tuple(ranks)))
    assert view.local_pids() == {10, 20, 21}


def test_the_supervisor_shows_what_is_watched_beside_its_worker(tmp_path: Path) -> None:
    supervisor = TrainingSupervisor(
        WorkerConfig(store_path="nowhere", symbol="ETHUSDT"), socket_path=Path("/tmp/s"), log_path=tmp_path / "log"
    )
    assert supervisor.snapshot().gpu_note == ""
    supervisor.take_gpus((GpuSnapshot("GPU-1"),), "GPU 1 fell off the bus")
    assert supervisor.snapshot().gpus == (GpuSnapshot("GPU-1"),)
    assert supervisor.snapshot().gpu_note == "GPU 1 fell off the bus"
    assert supervisor.worker_pids() == set()


async def test_an_engine_watches_the_gpus_while_it_runs_and_leaves_no_thread_behind() -> None:
    engine = Engine(Wanted("demo", seed=3).source(), overrides=("TRAIN_AUTOSTART=False",))
    await engine.start()
    try:
        await until(lambda: engine.snapshot().training.gpus or engine.snapshot().training.gpu_note)
        if not has_driver():
            assert engine.snapshot().training.gpu_note == NO_DRIVER
    finally:
        await engine.stop()
    await until(lambda: not nvml_threads())
