"""A stream on a virtual venue, put together and taken apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Self

from quantai_tui.stream import ResilientStream, StreamConfig
from quantai_tui.stream.gate import Gate
from quantai_tui.telemetry import StreamState

from .history import MemoryHistory
from .limits import Limits
from .loop import clock_here
from .market import RATES, Market
from .reader import CheckingReader
from .sink import CheckingSink
from .venue import DAY_S, MemoryTransport, Venue


class Rig:
    """`async with Rig(seed) as rig`: the market trades and the stream runs. `config` changes single values of `StreamConfig`.

    With `idle` the stream is not started, so the venue is free for other use. With `reader` the stream has no sink, and the
    reader iterates over it.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        rates: Mapping[str, float] = RATES,
        lifetime_s: float = DAY_S,
        others_weight: int = 0,
        idle: bool = False,
        reader: CheckingReader | None = None,
        **config: Any,
    ) -> None:
        venue_clock, self.clock = clock_here(), clock_here()
        self.market = Market(seed, venue_clock, rates)
        limits = Limits(venue_clock, others_weight=others_weight)
        self.venue = Venue(self.market, venue_clock, seed, limits=limits, lifetime_s=lifetime_s)
        self.sink = CheckingSink(self.market.symbols)
        self.gate = Gate(self.clock)
        self._begun = 0.0
        self._idle = idle
        self.reader = reader
        self._reading: asyncio.Task[None] | None = None
        values: dict[str, Any] = {
            "symbols": self.market.symbols,
            "ws_url": "wss://venue.invalid",
            "rest_url": "https://rest.invalid",
        }
        self.config = StreamConfig(**{**values, **config})
        self._rng = random.Random(f"stream {seed}")
        self.stream = self._new_stream()

    async def __aenter__(self) -> Self:
        self._begun = self.now
        self.market.start()
        if not self._idle:
            await self.stream.start()
        if self.reader is not None:
            self._reading = asyncio.create_task(self.reader.read(self.stream), name="reader")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()
        self.market.stop()
        self.venue.cut_all()

    @property
    def now(self) -> float:
        return self.venue.clock.monotonic()

    async def end(self) -> None:
        """Stop the stream; the reader reads to its end."""
        await self.stream.stop()
        if self._reading is not None:
            await self._reading

    async def restart(self, after_s: float) -> None:
        """The program ends, and starts again on the same store."""
        await self.stream.stop()
        await asyncio.sleep(after_s)
        self.stream = self._new_stream()
        await self.stream.start()

    async def live(self, timeout: float = 60.0) -> None:
        async with asyncio.timeout(timeout):
            await self.stream.machine.wait_for(StreamState.LIVE)

    async def until(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """Wait in virtual time, looking twice a second."""
        deadline = self.now + timeout
        while not condition():
            assert self.now < deadline, f"not within {timeout:g} s: {what}; {self.stream.state}: {self.stream.machine.cause}"
            await asyncio.sleep(0.5)

    async def rest_of(self, seconds: float) -> None:
        """Let time pass until so many seconds after the start."""
        await asyncio.sleep(max(0.0, self._begun + seconds - self.now))

    def wrong(self, until_s_ago: float = 30.0) -> list[str]:
        """What is not as it must be, over all that happened until so many seconds ago: an empty list is what tests want."""
        found = list(self.sink.breaches)
        until_ms = self.market.now_ms() - until_s_ago * 1000
        for symbol, record in self.sink.records.items():
            if record.begin_id is None:
                found.append(f"{symbol}: nothing came at all")
                continue
            found += self._wrong_of(symbol, until_ms)
        return found

    def _new_stream(self) -> ResilientStream:
        return ResilientStream(
            self.config,
            None if self.reader is not None else self.sink,
            gate=self.gate,
            transport=MemoryTransport(self.venue),
            history=MemoryHistory(self.venue, self.gate, self.clock),
            clock=self.clock,
            rng=self._rng,
        )

    def _wrong_of(self, symbol: str, until_ms: float) -> list[str]:
        record, venue = self.sink.records[symbol], self.venue
        assert record.begin_id is not None
        issued = {id for id in self.market.ids(symbol, until_ms) if id >= record.begin_id}
        held = record.trades.keys()
        last = max(issued, default=record.begin_id)
        # What the venue never had and what REST dropped before anybody got it can be told apart only while older trades are kept.
        lost = {"venue_hole": self.market.holes[symbol], "unrecoverable": venue.lost[symbol]}
        lost = {how: {id for id in ids if record.begin_id <= id <= last} for how, ids in lost.items()}
        found = []
        if missing := issued - held - venue.lost[symbol]:
            found.append(f"{symbol}: {len(missing)} of {len(issued)} trades are missing, such as {sorted(missing)[:3]}")
        for how, ids in lost.items():
            told = {id for id in record.lost[how] if id <= last}
            if told != ids:
                found.append(f"{symbol}: {how} should be {_some(ids)}, but is {_some(told)}; differing: {_some(told ^ ids)}")
        if foreign := held - {trade.id for trade in self.market.issued[symbol]}:
            found.append(f"{symbol}: {_some(foreign)} never happened")
        wrong = [t.id for t in self.market.issued[symbol] if t.id in held and record.trades[t.id] != t]
        if wrong:
            found.append(f"{symbol}: {_some(set(wrong))} differ from what happened")
        return found


def _some(ids: set[int]) -> str:
    ranked = sorted(ids)
    return f"{len(ranked)} ids" + (f" from {ranked[0]} to {ranked[-1]}" if ranked else "")
