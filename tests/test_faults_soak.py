"""Minutes of real sockets under faults drawn at random, of all kinds: nothing lost, nothing left behind, no memory that grows."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from e2e_support import LINUX_ONLY
from faults_support import MARKET_START, SYMBOLS, Rig, eventually, rig

from quantai_tui.exchange.catalogue import FAULTS
from quantai_tui.exchange.fault import FaultError

LASTS_S = float(os.environ.get("FAULTS_SOAK_S", "300"))
# The last part, in which memory may not grow. Before it faults come thick and fast, after so many trades that the page cache of
# the store and every bounded history is full: what fills up only once is no leak.
MEASURED = 0.6
FILLING = {"rate": 30_000.0, "for_s": 4.0}  # 12 MB in the store, whose cache has 8
MOST_MB_PER_HOUR = 1.0
MOST_OBJECTS_PER_HOUR = 200  # of ours and of tasks: counted exactly, so that far less than a megabyte shows
BIN_S = 10.0

# Short forms of what would last longer than a soak has time for. What is not named here is drawn with a `for` of a second or so.
SHORT: dict[str, dict[str, object]] = {
    "server-shutdown": {"lead": 0.3},
    "lifetime": {"lifetime": 0.5, "for": 1.0},
    "burst": {"rate": 2000.0, "for": 0.5},
    "rest-limit": {"retry_after": 1.0, "refusals": 5, "lifetime": 1.0, "for": 1.0},
    "ban": {"lifetime": 0.5, "for": 1.0},
    "rest-lag": {"behind": 2.0, "for": 1.0},
    "latency": {"delay_ms": 100.0, "jitter_ms": 50.0, "port": "both", "for": 1.0},
    "stutter": {"freeze_ms": 200.0, "every_ms": 500.0, "for": 1.5},
    "throttle": {"bytes_per_s": 20_000.0, "for": 1.5},
    "http-status": {"code": 429, "for": 1.0},
    "venue-hole": {"count": 3},
    "reorder": {"count": 3},
    "duplicate": {"count": 5, "span": 3},
    "fragmented": {"count": 5},
    "hole": {"count": 10},
}
ENDS_CONNECTIONS = ("http-status", "upgrade-stall", "stall-tls", "stall-upgrade-bytes", "refuse")


@dataclass
class Memory:
    """This process's own memory (MB) and Python's objects over time, less what is free and only kept by the allocator."""

    samples: list[tuple[float, float, int]] = field(default_factory=list)

    def look(self) -> None:
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        status = Path("/proc/self/status").read_text()
        kilobytes = int(status.partition("RssAnon:")[2].split()[0])
        # Not of libraries: the event loop keeps cancelled timers, and what they hold, for as long as they would have run.
        ours = sum(isinstance(one, asyncio.Task) or "quantai_tui" in repr(type(one)) for one in gc.get_objects())
        self.samples.append((time.monotonic(), kilobytes / 1024, ours))

    def slope(self, since: float, column: int) -> tuple[float, float]:
        """Growth an hour since then by least squares, and its standard error.

        Of the least in every ten seconds: what a connection or an answer needs for a moment is not growth.
        """
        bins: dict[int, list[tuple[float, float]]] = {}
        for sample in self.samples:
            if sample[0] >= since:
                bins.setdefault(int((sample[0] - since) / BIN_S), []).append((sample[0] / 3600, sample[column]))
        at, least = np.array([min(sample, key=lambda one: one[1]) for sample in bins.values()]).T
        (slope, _), covariance = np.polyfit(at - at[0], least, 1, cov=True)
        return float(slope), float(np.sqrt(covariance[0][0]))


def descriptors() -> Counter[str]:
    """How many descriptors this process has open, by type."""
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # the one that lists this folder
        kinds[target.partition(":")[0] if ":" in target else "file"] += 1
    return kinds


@contextmanager
def no_log() -> Iterator[None]:
    """pytest keeps every record of a test, which would be memory that grows."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def fill_the_cache(rigged: Rig) -> None:
    """Let the market, which shares this process, keep as many quarters of an hour as it ever will."""
    for symbol in SYMBOLS:
        for number in range(20):
            rigged.market.trades(symbol, rigged.market.first_id(symbol) + number * 10_800, 1, MARKET_START + 10 * 3600)


async def break_at_random(rigged: Rig, rng: random.Random, calm_at: float, ends_at: float, happened: Counter[str]) -> None:
    await rigged.inject("burst", **FILLING)
    await rigged.faults.until_over("burst")
    kinds = [name for name in FAULTS if name != "clear"]
    while time.monotonic() < ends_at:
        rng.shuffle(kinds)
        for kind in kinds:
            if time.monotonic() >= ends_at:
                return
            known = FAULTS[kind]
            drawn = dict(SHORT.get(kind, {}))
            if known.lasts_s and "for" not in drawn:
                drawn["for"] = rng.uniform(0.3, 1.5)
            if known.parameter("symbol") is not None:
                drawn["symbol"] = rng.choice(SYMBOLS)
            try:
                await rigged.inject(kind, **{"for_s" if key == "for" else key: value for key, value in drawn.items()})
            except FaultError as error:
                happened[f"not {kind}: {error}"] += 1
                continue
            happened[kind] += 1
            if kind in ENDS_CONNECTIONS or known.layer == "tls":
                await rigged.inject("close")  # so that a dial meets it
            hurry = 1.0 if time.monotonic() >= calm_at else 0.2
            await asyncio.sleep(rng.uniform(0.2, 2.0) * hurry)
        rigged.stream.apply(replace(rigged.config, transport=rng.choice(("websockets", "auto"))))


@LINUX_ONLY
@pytest.mark.soak
@pytest.mark.timeout(LASTS_S + 240)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_minutes_of_faults_at_random_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    before, threads = descriptors(), threading.active_count()
    memory, happened = Memory(), Counter[str]()
    settings = {
        "initial_delay": 0.2,
        "max_delay": 2.0,
        "stable_after": 1.0,
        "jitter": 0.1,
        "ping_interval": 0.5,
        "pong_timeout": 2.0,
        "ssl_timeout": 1.0,
        "connect_timeout": 2.0,
        "subscribe_timeout": 5.0,
    }
    with no_log():
        async with rig(tmp_path, symbols=SYMBOLS, market_rate=2.0, **settings) as rigged:
            fill_the_cache(rigged)
            began = time.monotonic()
            calm_at, ends_at = began + LASTS_S * (1 - MEASURED), began + LASTS_S
            breaking = asyncio.create_task(break_at_random(rigged, random.Random(7), calm_at, ends_at, happened))
            while not breaking.done():
                memory.look()
                await asyncio.wait([breaking], timeout=2.0)
            breaking.result()
            await rigged.mend()
            mended = time.monotonic()
            # The longest that can be in force by now is a forgotten subscription, which is noticed once a minute.
            await rigged.recovered(within=90.0)
            recovered_s = time.monotonic() - mended
            snapshot, dials = rigged.snapshot, rigged.dials
            altered = rigged.home.load()
            assert altered is not None
            holes = sum(len(ids) for ids in altered.alterations.lost.values())
            await rigged.nothing_lost(duplicates=None, late=None, holes=holes)
    await eventually(lambda: descriptors() <= before, "no descriptor is left")
    slope, error = memory.slope(calm_at, 1)
    objects, spread = memory.slope(calm_at, 2)
    print(f"\nfaults: {sum(happened.values())} of {len(happened)} kinds in {LASTS_S:g} s; dials {dials}; {dict(happened)}")
    print(
        f"stored {sum(one.stored for one in snapshot.symbols.values())}, repaired "
        f"{sum(one.repaired for one in snapshot.symbols.values())}, holes at the venue {holes}, lost 0; errors "
        f"{dict(snapshot.error_counts)}; rotations {snapshot.rotations}; whole after {recovered_s:.1f} s"
    )
    print(f"descriptors before {dict(before)}, after {dict(descriptors())}; threads {threads}, {threading.active_count()}")
    resident = f"{memory.samples[0][1]:.1f} to {memory.samples[-1][1]:.1f} MB"
    print(f"memory {resident}; slope {slope:+.2f} +- {error:.2f} MB/h; objects of ours {objects:+.0f} +- {spread:.0f} an hour")
    assert slope - 3 * error < MOST_MB_PER_HOUR
    assert objects - 3 * spread < MOST_OBJECTS_PER_HOUR
