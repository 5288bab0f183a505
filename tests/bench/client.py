"""One receiver of a `venue`, as a process of its own: `bare`, `sink` (into nothing), `store` (into bars and SQLite) or `fast`.

`fast` is `sink` by the transport `picows`; `sink` and `store` are by `websockets`, like the bare loop.

Orders: `until=N` is answered at once and, when N trades in all have come, with processor time per trade and trades a second;
`listen=S` with the rate, the processor time and the lag of the event loop over S seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from quantai_tui.market.schema import LedgerPosition
from quantai_tui.market.store import TradeStore
from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_stream, subscribe_frame
from quantai_tui.stream import ResilientStream, StreamConfig
from quantai_tui.stream.transport import MAX_FRAME_BYTES
from quantai_tui.telemetry import StreamState

from .children import orders, say
from .report import percentile
from .venue import SYMBOL

_PROBE_S = 0.002

Settle = Callable[[], Awaitable[None]]


class Counter:
    """How many trades have come, and who waits for how many."""

    def __init__(self) -> None:
        self.taken = 0
        self.wanted = 0
        self.reached = asyncio.Event()

    def add(self, count: int) -> None:
        self.taken += count
        if self.taken >= self.wanted:
            self.reached.set()

    def want(self, total: int) -> int:
        """Returns how many are still to come; `reached` is set when they have."""
        self.wanted = total
        self.reached.clear()
        self.add(0)
        return total - self.taken


class NullSink:
    """A store that takes everything and keeps nothing."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        self._counter.add(len(trades))

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        raise AssertionError(f"the venue sends without holes, and {first_id} to {last_id} are missing")

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        raise AssertionError("there was no gap to close")

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        return

    async def position(self, symbol: str) -> LedgerPosition:
        return LedgerPosition()

    async def flush(self) -> None:
        return


class CountingStore(TradeStore):
    """The real store, which tells the counter of every batch that it has accepted."""

    counter: Counter

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        await super().append(symbol, trades)
        self.counter.add(len(trades))


async def receive_bare(url: str, ca_file: str, counter: Counter, stack: AsyncExitStack) -> Settle:
    """The library alone, with the options that serve it best."""
    from websockets.asyncio.client import connect

    connection = await stack.enter_async_context(
        connect(
            f"{url}/stream",
            ssl=ssl.create_default_context(cafile=ca_file),
            compression=None,
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=(2048, 512),  # the stream's own; with the default of 16 the bare loop is slower
            proxy=None,
            close_timeout=0.2,
        )
    )
    await connection.send(subscribe_frame("SUBSCRIBE", [agg_trade_stream(SYMBOL)], 1))
    await connection.recv()

    async def receive() -> None:
        recv, add = connection.recv, counter.add
        while True:
            # The cheapest there is, counted in hundreds: not even the text is decoded.
            for _ in range(100):
                await recv(decode=False)
            add(100)

    async def nothing() -> None:
        return

    task = asyncio.create_task(receive())
    stack.callback(task.cancel)
    return nothing


async def receive_ours(mode: str, url: str, ca_file: str, folder: Path, counter: Counter, stack: AsyncExitStack) -> Settle:
    sink: NullSink | CountingStore = NullSink(counter)
    if mode == "store":
        sink = await CountingStore.open(folder / "bench.sqlite3")
        sink.counter = counter
        stack.push_async_callback(sink.close)
    library = "picows" if mode == "fast" else "websockets"
    config = StreamConfig(symbols=(SYMBOL,), ws_url=url, rest_url="https://localhost:1", ca_file=ca_file, transport=library)
    stream = ResilientStream(config, sink)
    await stream.start()
    stack.push_async_callback(stream.stop)
    await stream.machine.wait_for(StreamState.LIVE)
    return sink.flush


async def receive_until(total: int, counter: Counter, settle: Settle) -> None:
    count = counter.want(total)
    say(to_come=count)
    cpu, started = time.process_time(), time.perf_counter()
    await counter.reached.wait()
    await settle()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    say(cpu_us=cpu / max(count, 1) * 1e6, per_s=count / seconds)


async def listen(seconds: float, counter: Counter) -> None:
    before, cpu, started = counter.taken, time.process_time(), time.perf_counter()
    lags: list[float] = []
    while (now := time.perf_counter()) - started < seconds:
        await asyncio.sleep(_PROBE_S)
        lags.append((time.perf_counter() - now - _PROBE_S) * 1000)
    cpu, seconds, count = time.process_time() - cpu, time.perf_counter() - started, counter.taken - before
    lag = {"lag_p50_ms": percentile(lags, 50), "lag_p99_ms": percentile(lags, 99), "lag_max_ms": max(lags)}
    say(cpu_us=cpu / max(count, 1) * 1e6, per_s=count / seconds, **lag)


async def main(mode: str, url: str, ca_file: str, folder: Path) -> None:
    # There is no REST behind this venue, which a stream notices in the pauses between two measurements.
    logging.getLogger("quantai_tui").addHandler(logging.NullHandler())
    counter = Counter()
    async with AsyncExitStack() as stack:
        if mode == "bare":
            settle = await receive_bare(url, ca_file, counter, stack)
        else:
            settle = await receive_ours(mode, url, ca_file, folder, counter, stack)
        say(connected=mode)
        async for order in orders():
            if "until" in order:
                await receive_until(order["until"], counter, settle)
            else:
                await listen(order["listen"], counter)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("bare", "sink", "store", "fast"))
    parser.add_argument("url")
    parser.add_argument("ca_file")
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asyncio.run(main(asked.mode, asked.url, asked.ca_file, asked.folder))
