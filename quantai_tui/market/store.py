"""The store as the engine sees it: hand over batches, and be told to wait when the disk is behind.

A store is one SQLite file in WAL mode. All writing happens in one thread, which takes whatever has been handed over meanwhile and
commits it in one transaction: trades, the bars they change, and how far the ledger is whole, all or nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..telemetry import SYSTEM_CLOCK, Clock, StoreSnapshot
from .conflicts import Conflict
from .damage import StoreError, store_error
from .gaptable import OUTCOMES
from .holders import who_holds
from .reader import StoreReader
from .schema import Counts, LedgerPosition
from .trades import AggTrade, Bar
from .writer import LedgerWriter, Written

__all__ = ["StoreError", "StoreReader", "TradeStore"]

# A transaction costs the same for one trade as for hundreds: so hand-overs are gathered for a moment, and a backlog is cut into
# transactions short enough that a flush does not wait long behind one.
_GATHER_S = 0.05
_MAX_PER_TRANSACTION = 10_000
# While another program locks the file, writing is tried for a second at a time, with a pause between; once the store
# is closing, at most this many times.
_CLOSE_TRIES = 10
_PAUSE_S = 0.05


class _Job:
    """One change, to be made in the writer thread; `weight` in trades. With a future, somebody waits for its commit."""

    __slots__ = ("future", "run", "weight")

    def __init__(self, run: Callable[[LedgerWriter], Any], weight: int, future: asyncio.Future[Any] | None) -> None:
        self.run = run
        self.weight = weight
        self.future = future


class TradeStore:
    """Open with `await TradeStore.open(path)`, close with `await close()`; every method belongs to the event loop that opened it.

    While another program locks the file, nothing can be written: `held_by` names it, and appended trades wait, up to
    `max_queued` trades; then `append` waits too. `held_by` changes call `on_held`. A failure of the writing thread (disk
    full, damaged file) ends the store: `failure` says why, and every later call raises it.
    """

    def __init__(self, path: Path, clock: Clock, max_queued: int) -> None:
        self.path = path
        self.max_queued = max_queued
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._queued = 0
        self._waiting = 0
        self._failure: StoreError | None = None
        self._failure_told = False
        self._counts: dict[str, Counts] = {}
        self._prune_refused: dict[str, str] = {}
        self.held_by = ""
        self.on_held: Callable[[str], None] = lambda held_by: None
        # Shared with the writer thread, under `_changed`.
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._hurry = False
        self._closing = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)

    @classmethod
    async def open(cls, path: Path, *, clock: Clock = SYSTEM_CLOCK, max_queued: int = 50_000) -> Self:
        """Open the file, creating it when it is not there, and find out where each ledger stands. Raises StoreError."""
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, got {max_queued}")
        store = cls(Path(path), clock, max_queued)
        store._thread.start()
        try:
            await asyncio.shield(store._opened)
        except asyncio.CancelledError:
            store._let_end()
            raise
        return store

    # -- what is known without waiting

    @property
    def queued(self) -> int:
        """Trades accepted and not committed yet."""
        return self._queued

    @property
    def paused(self) -> bool:
        """Whether somebody waits in `append` because the disk is behind."""
        return self._waiting > 0

    @property
    def failure(self) -> StoreError | None:
        return self._failure

    @property
    def prune_refused(self) -> str:
        """Describes the deletion that the last prune refused; empty if it refused none."""
        return "; ".join(self._prune_refused[symbol] for symbol in sorted(self._prune_refused))

    @property
    def now_us(self) -> int:
        """Microseconds since 1970, by the clock of this store."""
        return int(self._clock.time() * 1e6)

    @property
    def size_bytes(self) -> int:
        """The file and its write-ahead log on disk."""
        size = 0
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            try:
                size += path.stat().st_size
            except FileNotFoundError:
                continue  # the log comes and goes
        return size

    def snapshot(self) -> StoreSnapshot:
        """What dashboards are shown."""
        return StoreSnapshot(str(self.path), self.size_bytes, self.queued, self.paused, self.held_by, self.prune_refused)

    def counts(self, symbol: str) -> Counts:
        """Committed trades, and duplicates since the store was opened."""
        return self._counts.get(symbol, Counts())

    def symbols(self) -> list[str]:
        """The symbols of which something is stored."""
        return sorted(self._counts)

    # -- changes: they return when accepted, and are made in the order in which they were accepted

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        """Accept a batch, which must not be changed afterwards. In any order, and with repetitions, which are counted.

        Waits while more than `max_queued` trades are on their way: whoever reads the socket is then reading more slowly.
        """
        if trades:
            await self._accept(lambda writer: writer.append(symbol, trades), len(trades))

    async def begin(self, symbol: str, first_id: int, time_us: int) -> None:
        """Say that the ledger of `symbol` begins with the trade `first_id`, at `time_us`.

        Said again, only an earlier beginning counts: what lies between is then missing. Once trades were removed by age the
        beginning stays. Without it a ledger begins with the lowest id that comes. Older trades that come later move it back
        once they reach up to it without a hole. The bar in which a ledger begins is partial: readers get a kline there, or
        nothing.
        """
        await self._accept(lambda writer: writer.begin_ledger(symbol, first_id, time_us))

    async def add_gap(self, symbol: str, first_id: int, last_id: int, cause: str, opened: float) -> None:
        """Record that `first_id` to `last_id` exist and have not arrived; `opened` is Unix time."""
        _require_range(first_id, last_id)
        await self._accept(lambda writer: writer.add_gap(symbol, first_id, last_id, cause, opened))

    async def close_gap(self, symbol: str, first_id: int, last_id: int, outcome: str) -> None:
        """Say how a gap, or a part of one, ended: `repaired`, `venue_hole` or `unrecoverable`.

        Ids that ended as one of the latter two are no longer waited for. Raises ValueError for another outcome.
        """
        _require_range(first_id, last_id)
        if outcome not in OUTCOMES:
            raise ValueError(f"a gap ends as {', '.join(OUTCOMES)}, not as {outcome!r}")
        closed = self._clock.time()
        await self._accept(lambda writer: writer.close_gap(symbol, first_id, last_id, outcome, closed))

    async def put_klines(self, symbol: str, bars: Sequence[Bar]) -> None:
        """Store fetched klines of finished intervals; one that is there already is replaced.

        Bars made of trades win over them wherever the ledger has every trade of the interval.
        """
        if bars:
            await self._accept(lambda writer: writer.put_klines(symbol, bars), len(bars))

    # -- changes and questions that are waited for

    async def write(self, symbol: str, trades: Sequence[AggTrade]) -> Written:
        """Like `append`, but return when committed, with what was new."""
        written: Written = await self._done(lambda writer: writer.append(symbol, trades), len(trades))
        return written

    async def find_conflicts(self, symbol: str, trades: Sequence[AggTrade]) -> list[Conflict]:
        """Find trades that differ from the stored ones of the same ids, including all that were accepted before."""
        found: list[Conflict] = await self._done(lambda writer: writer.find_conflicts(symbol, trades), len(trades))
        return found

    async def flush(self) -> None:
        """Return when all that was accepted before is committed."""
        await self._done(lambda writer: None)

    async def position(self, symbol: str) -> LedgerPosition:
        """How far the ledger of `symbol` goes, with all that was accepted before."""
        position: LedgerPosition = await self._done(lambda writer: writer.position(symbol))
        return position

    async def prune(self, older_than_us: int) -> int:
        """Remove trades and one-second bars older than `older_than_us` against each symbol's newest trade (market time).

        Deletes in portions, with appends in between; returns the counts of trades and bars. Cuts at whole hours. More than half
        of a symbol's trades go only if the rest cover the retention, or the retention changed; otherwise `prune_refused` says
        so.
        """
        if older_than_us <= 0:
            raise ValueError(f"the age to keep must be positive, got {older_than_us} us")
        total = 0
        while removed := await self._done(lambda writer: writer.prune(older_than_us)):
            total += removed
        self._prune_refused = await self._done(lambda writer: writer.prune_refused)
        return total

    def keep_all(self) -> None:
        """Retention is off: clear `prune_refused`."""
        self._prune_refused = {}

    async def close(self) -> None:
        """Commit all that was accepted, fold the write-ahead log into the file, close. Idempotent.

        Raises StoreError when another program keeps the file locked for ten seconds while trades still wait to be written.
        The log goes away with the last reader: close readers before.
        """
        self._let_end()
        self._let_in()
        await asyncio.shield(self._ended)
        self._thread.join()
        if self._failure is not None and not self._failure_told:
            self._raise_failure(self._failure)

    # -- the hand-over, on the event loop

    async def _accept(
        self, run: Callable[[LedgerWriter], Any], weight: int = 1, future: asyncio.Future[Any] | None = None
    ) -> None:
        self._require_open()
        while self._queued and self._queued + weight > self.max_queued:
            self._waiting += 1
            try:
                await self._room.wait()
            finally:
                self._waiting -= 1
            self._require_open()
        self._queued += weight
        with self._changed:
            self._jobs.append(_Job(run, weight, future))
            self._hurry = self._hurry or future is not None or self._queued >= _MAX_PER_TRANSACTION
            self._changed.notify()

    async def _done(self, run: Callable[[LedgerWriter], Any], weight: int = 1) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        await self._accept(run, weight, future)
        return await future

    def _require_open(self) -> None:
        if self._failure is not None:
            self._raise_failure(self._failure)
        if self._closing:
            raise StoreError(f"the store {self.path} is closed")

    def _raise_failure(self, failure: StoreError) -> None:
        self._failure_told = True
        raise StoreError(str(failure)) from failure

    def _let_end(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _let_in(self) -> None:
        self._room.set()
        self._room.clear()

    def _committed(self, jobs: list[_Job], results: list[Any], counts: dict[str, Counts]) -> None:
        self._counts.update(counts)
        for job, result in zip(jobs, results, strict=True):
            self._queued -= job.weight
            if job.future is not None and not job.future.done():
                job.future.set_result(result)
        self._let_in()

    def _fail(self, error: Exception) -> None:
        """The writer thread has ended before its time; what was queued is lost and whoever waits is told."""
        self._failure = failure = store_error(self.path, "writing", error)
        if not self._opened.done():
            self._failure_told = True
            self._opened.set_exception(failure)
        with self._changed:
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            if job.future is not None and not job.future.done():
                self._failure_told = True
                job.future.set_exception(StoreError(str(failure)))
        self._queued = 0
        self._let_in()

    # -- the writer thread

    def _write_until_closed(self) -> None:
        error: Exception | None = None
        try:
            self._serve()
        except Exception as failed:  # noqa: BLE001 - whatever ends this thread is told to whoever calls the store
            error = failed
        try:
            if error is not None:
                self._loop.call_soon_threadsafe(self._fail, error)
            self._loop.call_soon_threadsafe(self._ended.set_result, None)
        except RuntimeError:
            return  # the event loop is gone, and with it everyone who could be told

    def _serve(self) -> None:
        writer = LedgerWriter(self.path, self._clock)
        try:
            self._loop.call_soon_threadsafe(self._set_opened, writer.counts())
            while jobs := self._next_jobs():
                self._write(writer, jobs)
        except BaseException:
            writer.abandon()
            raise
        writer.close()

    def _set_opened(self, counts: dict[str, Counts]) -> None:
        self._counts = counts
        self._opened.set_result(None)

    def _next_jobs(self) -> list[_Job]:
        """Wait for the next transaction's worth; empty when the store is being closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            self._changed.wait_for(lambda: self._hurry or self._closing, timeout=_GATHER_S)
            jobs: list[_Job] = []
            weight = 0
            while self._jobs and weight < _MAX_PER_TRANSACTION:
                jobs.append(self._jobs.popleft())
                weight += jobs[-1].weight
            if not self._jobs:
                self._hurry = False
            return jobs

    def _begin(self, writer: LedgerWriter) -> None:
        """Begin a transaction once no other program locks the file. Raises StoreError when the store is closing."""
        told, tries_left = "", _CLOSE_TRIES
        while not writer.begin():
            holder = who_holds(self.path)
            if holder != told:
                told = holder
                self._loop.call_soon_threadsafe(self._set_held, holder)
            tries_left -= self._closing
            if not tries_left:
                raise StoreError(
                    f"the store {self.path} is held by {holder}: the last trades were not written; close it there, then start "
                    "again to fetch what is missing"
                )
            time.sleep(_PAUSE_S)
        if told:
            self._loop.call_soon_threadsafe(self._set_held, "")

    def _set_held(self, holder: str) -> None:
        self.held_by = holder
        self.on_held(holder)

    def _write(self, writer: LedgerWriter, jobs: list[_Job]) -> None:
        try:
            self._begin(writer)
            results = [job.run(writer) for job in jobs]
            counts = writer.commit()
        except BaseException:
            # Not committed: back in line, so that whoever waits for them is found.
            with self._changed:
                self._jobs.extendleft(reversed(jobs))
            raise
        self._loop.call_soon_threadsafe(partial(self._committed, jobs, results, counts))


def _require_range(first_id: int, last_id: int) -> None:
    if last_id < first_id:
        raise ValueError(f"a gap's last id must not be below its first: {first_id} to {last_id}")
