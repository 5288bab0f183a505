"""The receive path: frames in, batches out. Next to nothing is done per message; a consumer beside it takes batches.

Between them lies one bounded list. When the sink is slow the list fills, the socket is not read any more, and TCP slows the venue
down: nothing that has come is dropped. What the venue cuts off meanwhile is fetched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..market.trades import AggTrade
from ..market.wire import ControlReply, OtherEvent, ServerShutdown, WireError, decode_frame
from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .failures import LinkFault, one_line
from .feed import Feeds, RateMeter
from .tasks import until_first_ends
from .transport import Link

log = logging.getLogger("quantai_tui.stream")

# Long enough that a batch is worth its overhead, short enough that nobody sees it.
_BATCH_PERIOD_S = 0.075
_LOG_BAD_FRAMES_EVERY_S = 10.0

Notice = ControlReply | ServerShutdown | OtherEvent


class Intake:
    """Takes trades off a link and hands them over in batches, through `Feeds`, to the sink."""

    def __init__(self, feeds: Feeds, *, limit: int, overload_after: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._feeds = feeds
        self._limit = limit
        self._overload_after = overload_after
        self._clock = clock
        self._inbox: list[AggTrade] = []
        self._in_hand = 0  # trades taken off the inbox and not stored yet
        self._handing_over = asyncio.Lock()
        self._handed_over = asyncio.Event()
        self._room = asyncio.Event()
        self._due = asyncio.Event()  # a batch is to be handed over: by the timer, or because the inbox is full
        self._bad_logged_at: float | None = None
        self._others = 0
        self.frames = 0
        self.bad_frames = 0
        self.strangers = 0  # trades of symbols that were never asked for
        self.last_data_at: float | None = None
        self.paused_since: float | None = None
        self.meter = RateMeter(clock)
        self._full = asyncio.Event()
        self.on_notice: Callable[[Notice], None] = lambda notice: None
        self.on_gap: Callable[[], None] = lambda: None
        self.on_data: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        """Trades received and not yet taken by the sink."""
        return len(self._inbox) + self._in_hand

    def take(self, data: bytes) -> None:
        """One text frame of the link, in the order they came. This is the hot path: decode, and append."""
        try:
            frame = decode_frame(data)
        except WireError as error:
            self._bad_frame(error)
            return
        if type(frame) is AggTrade:
            self._inbox.append(frame)
        else:
            self._others += 1
            self.on_notice(frame)  # type: ignore[arg-type]

    def is_full(self) -> bool:
        """Whether to stop reading: asked once per read of the socket, which can bring two thousand trades above the limit."""
        if len(self._inbox) < self._limit:
            return False
        self._full.set()
        return True

    async def attend(self, link: Link) -> None:
        """See to `link` while its frames come in: go on reading when there is room again, and notice its end.

        Raises:
            ConnectionClosed: the link ended; what had come before is in the inbox.
            LinkFault: with kind OVERLOAD, when the sink did not keep up for too long.
        """
        await until_first_ends(self._take_the_rest(link), self._mind_the_room(link))

    async def consume(self) -> None:
        """Hand batches over for ever. One call serves all connections, so that none takes trades with it when it ends."""
        loop = asyncio.get_running_loop()
        while True:
            # The loop's own timer, not the injected clock: this is a rhythm, and no decision hangs on it.
            timer = loop.call_later(_BATCH_PERIOD_S, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            self._due.clear()
            await self.hand_over()

    async def hand_over(self) -> None:
        """Hand over what has come so far."""
        async with self._handing_over:
            if self._others:
                self.frames += self._others
                self.meter.add(self._others)
                self._others = 0
            batch = self._inbox[:]
            self._inbox.clear()
            self._room.set()
            if batch:
                await self._store(batch)
        self._handed_over.set()

    async def wait_stored(self) -> None:
        """Wait until all that was received is in the sink. Meaningful while nothing reads."""
        while self.waiting:
            self._handed_over.clear()
            await self._handed_over.wait()

    async def _store(self, batch: list[AggTrade]) -> None:
        self._in_hand = len(batch)
        self.frames += len(batch)
        self.meter.add(len(batch))
        self.last_data_at = self._clock.monotonic()
        self.on_data()
        by_symbol: dict[str, list[AggTrade]] = {}
        for trade in batch:
            try:
                by_symbol[trade.symbol].append(trade)
            except KeyError:
                by_symbol[trade.symbol] = [trade]
        for symbol, trades in by_symbol.items():
            feed = self._feeds.get(symbol)
            if feed is None:
                self.strangers += len(trades)
            elif await self._feeds.take_live(feed, trades):
                self.on_gap()
            self._in_hand -= len(trades)

    async def _take_the_rest(self, link: Link) -> None:
        await link.until_closed()

    async def _mind_the_room(self, link: Link) -> None:
        while True:
            await self._full.wait()
            self.paused_since = self._clock.monotonic()
            try:
                await until_first_ends(self._wait_for_room(), self._run_out_of_patience())
            finally:
                self.paused_since = None
            self._full.clear()
            link.resume_reading()

    async def _wait_for_room(self) -> None:
        """The consumer takes the whole inbox at a time: there is room as soon as it comes round."""
        while len(self._inbox) >= self._limit:
            self._room.clear()
            self._due.set()
            await self._room.wait()

    async def _run_out_of_patience(self) -> None:
        await self._clock.sleep(self._overload_after)
        raise LinkFault(FailureKind.OVERLOAD, f"reading was paused for {self._overload_after:g} s: the store did not keep up")

    def _bad_frame(self, error: WireError) -> None:
        self.bad_frames += 1
        self._others += 1
        now = self._clock.monotonic()
        if self._bad_logged_at is None or now - self._bad_logged_at >= _LOG_BAD_FRAMES_EVERY_S:
            self._bad_logged_at = now
            log.warning(
                "a frame was not understood (%d so far); the connection goes on: %s", self.bad_frames, one_line(str(error))
            )
