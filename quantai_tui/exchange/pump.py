"""The pump between the market and the connections: one feed for each symbol that somebody listens to.

The market never waits for a client. Frames of a turn are built once per form, joined, and written to every subscriber as one
piece; who lets more than `Limits.buffer_bytes` pile up is dropped.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.protocol import State

from quantai_tui.market.trades import AggTrade
from quantai_tui.telemetry import Clock

from .alterations import AlterableMarket
from .budget import Limits
from .connection import Connection
from .faults import Faults
from .frame_faults import FrameFaults
from .frames import Form, trade_frames
from .stream_faults import StreamFaults

_LOG = logging.getLogger(__name__)

# Fewer, larger writes: one TLS record carries many frames, and 200 turns a second cost little. The delay is below the venue's
# own.
_TURN_S = 0.005
_NAP_S = 0.25  # without a next trade in sight (a replay not begun, or over)
_TURN_TRADES = 1000  # bounds the time that one turn holds the event loop


class _Feed:
    """One symbol's trades on their way to its subscribers, all at the same point of the market."""

    def __init__(self, symbol: str, next_id: int) -> None:
        self.symbol = symbol
        self.next_id = next_id
        self.subscribers: set[Connection] = set()
        self.task: asyncio.Task[None] | None = None


class Pump:
    """Writes trades to whom `subscribe` named. `failed` is done, with the exception, when the market broke."""

    def __init__(self, market: AlterableMarket, limits: Limits, clock: Clock, faults: Faults, streams: StreamFaults) -> None:
        self._market = market
        self._limits = limits
        self._clock = clock
        self._streams = streams
        self._frames = FrameFaults(faults, market)
        self._feeds: dict[str, _Feed] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        tasks = [feed.task for feed in self._feeds.values() if feed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.failed.cancel()

    def subscribe(self, connection: Connection, symbol: str) -> None:
        feed = self._feeds.get(symbol)
        if feed is None:
            now = self._clock.time()
            # Where the market is, before a replay begins with this very subscription: its first trade belongs to it.
            feed = self._feeds[symbol] = _Feed(symbol, self._market.last_id_at(symbol, now) + 1)
            self._market.begin(now)
            feed.task = asyncio.create_task(self._run(feed), name=f"pump {symbol}")
            feed.task.add_done_callback(self._ended)
        feed.subscribers.add(connection)

    def unsubscribe(self, connection: Connection, symbol: str) -> None:
        feed = self._feeds.get(symbol)
        if feed is None:
            return
        feed.subscribers.discard(connection)
        if not feed.subscribers:
            del self._feeds[symbol]
            self._frames.forget(symbol)
            if feed.task is not None:
                feed.task.cancel()

    async def _run(self, feed: _Feed) -> None:
        while True:
            await self._streams.released()
            now = self._clock.time()
            trades = self._market.trades(feed.symbol, feed.next_id, _TURN_TRADES, now)
            if trades:
                feed.next_id = trades[-1].id + 1
                self._write(feed, trades, int(now * 1000))
            if len(trades) == _TURN_TRADES:
                await asyncio.sleep(0)
                continue
            due = self._market.next_trade_s(feed.symbol, now)
            await self._clock.sleep(_NAP_S if due is None else min(_NAP_S, max(_TURN_S, due - now)))

    def _write(self, feed: _Feed, trades: list[AggTrade], event_ms: int) -> None:
        pieces: dict[Form, bytes] = {}
        doctored = None if self._frames.idle else self._frames.doctored(feed.symbol, trades, event_ms)
        for connection in tuple(feed.subscribers):
            if connection.state is not State.OPEN or self._streams.mutes(connection, feed.symbol):
                continue
            if connection.transport.get_write_buffer_size() > self._limits.buffer_bytes:
                _LOG.warning(
                    "dropping %s: it leaves more than %d bytes unread", connection.remote_address, self._limits.buffer_bytes
                )
                connection.transport.abort()
                for symbol in tuple(self._feeds):
                    self.unsubscribe(connection, symbol)
                continue
            form = connection.form
            if form not in pieces:
                if doctored is None:
                    pieces[form] = trade_frames(trades, event_ms, form)
                else:
                    pieces[form] = b"".join(make(form) for make in doctored)
            connection.transport.write(pieces[form])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
