"""From the links to the store: one consumer takes what the present link has delivered, in batches, and hands it over.

Between them lies one bounded list per link. When the sink is slow the list fills, the socket is not read any more, and TCP slows
the venue down: nothing that has come is dropped. What the venue cuts off meanwhile is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from ..market.trades import AggTrade
from ..telemetry import SYSTEM_CLOCK, Clock
from .feed import Feeds
from .id_jumps import IdJumps
from .inlet import Inlet
from .ledger import Origin, SymbolLedger
from .overlap import Overlap
from .quarantine import Quarantine
from .rate_meter import RateMeter
from .symbol_feed import SymbolFeed
from .tasks import settle

# Long enough that a batch is worth its overhead, short enough that nobody sees it.
_BATCH_PERIOD_S = 0.075
_PEAK_WINDOW_S = 5.0


class Peak:
    """The highest value of the last five to ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._now: float | None = None
        self._before: float | None = None

    def add(self, value: float) -> None:
        self._turn()
        self._now = value if self._now is None else max(self._now, value)

    def value(self) -> float | None:
        self._turn()
        known = [value for value in (self._before, self._now) if value is not None]
        return max(known, default=None)

    def _turn(self) -> None:
        passed = self._clock.monotonic() - self._since
        if passed >= _PEAK_WINDOW_S:
            self._before = self._now if passed < 2 * _PEAK_WINDOW_S else None
            self._now = None
            self._since = self._clock.monotonic()


class Intake:
    """Hands over what the present link delivers; a successor's trades wait beside it in an `Overlap` until it takes over.

    `on_heard(symbol, count)` is told of every symbol in a batch, `on_gap` that something is to be fetched.
    """

    def __init__(self, feeds: Feeds, quarantine: Quarantine, *, limit: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._feeds = feeds
        self.jumps = IdJumps(quarantine, limit=limit, clock=clock)
        self._limit = limit
        self._clock = clock
        self._inlet: Inlet | None = None
        self._second: tuple[Inlet, Overlap] | None = None
        self._known_through: dict[str, int] = {}  # per symbol: what the link before had brought when this one took over
        self._in_hand = 0  # trades taken from an inlet and not stored yet
        self._handing_over = asyncio.Lock()
        self._handed_over = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._due = asyncio.Event()  # a batch is to be handed over: by the timer, or because an inlet is full
        self._drained_at = clock.monotonic()
        self.frames = 0
        self.strangers = 0  # trades of symbols that were never asked for
        self.last_data_at: float | None = None
        self.meter = RateMeter(clock)
        self.consumer_lag_s = Peak(clock)
        self.loop_lag_s = Peak(clock)
        self.on_gap: Callable[[], None] = lambda: None
        self.on_heard: Callable[[str, int], None] = lambda symbol, count: None

    @property
    def waiting(self) -> int:
        """Trades received and not yet taken by the sink."""
        return self._in_hand + (self._inlet.waiting if self._inlet else 0)

    @property
    def paused_since(self) -> float | None:
        """Since when the present link is not read because the sink is behind; monotonic seconds."""
        return self._inlet.paused_since if self._inlet else None

    @property
    def stuck_s(self) -> float:
        """For how long the sink has been at the batch that it was given last; 0 when it has taken all of it."""
        return self._clock.monotonic() - self.last_data_at if self._in_hand and self.last_data_at is not None else 0.0

    @property
    def held(self) -> int:
        """Trades that a second link has brought and that wait for it to take over."""
        return self._second[1].waiting if self._second else 0

    def hurry(self) -> None:
        """Hand over at once, not when the period is over."""
        self._due.set()

    def attach(self, inlet: Inlet) -> None:
        """Take from this inlet from now on. What the one before holds must be stored (`wait_stored`)."""
        self._inlet = inlet
        self._known_through.clear()

    def begin_overlap(self, inlet: Inlet, symbols: Iterable[str]) -> Overlap:
        """Hold what a second link delivers. One at a time; `promote` or `end_overlap` ends it."""
        overlap = Overlap(symbols, self._ledger_of, self._limit, self._clock, self._is_plausible)
        self._second = (inlet, overlap)
        return overlap

    def end_overlap(self) -> None:
        """Drop the second link and all that it brought: the present one goes on."""
        self._second = None

    async def promote(self) -> None:
        """Let the second link be the present one: first all that the old has brought, then what was held, then its own.

        Who is cancelled meanwhile goes, and the work goes on, as with `hand_over`.
        """
        await self._to_the_end(self._promote(self._second))

    async def _promote(self, second: tuple[Inlet, Overlap] | None) -> None:
        async with self._handing_over:
            if second is None or self._second is not second:
                return  # the overlap was ended before its turn came
            assert self._inlet is not None
            await self._pass_on(self._inlet.drain(), Origin.LIVE)
            inlet, overlap = second
            trades, others = inlet.drain()
            self._inlet, self._second = inlet, None
            self._known_through = {feed.symbol: feed.ledger.last_id for feed in self._feeds if feed.ledger.last_id is not None}
            await self._pass_on((overlap.release() + trades, others), Origin.OVERLAP)
        self._handed_over.set()

    async def consume(self) -> None:
        """Hand batches over for ever. One call serves all connections, so that none takes trades with it when it ends."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                # The loop's own timer, not the injected clock: this is a rhythm, and no decision hangs on it.
                due_at = loop.time() + _BATCH_PERIOD_S
                timer = loop.call_at(due_at, self._due.set)
                try:
                    await self._due.wait()
                finally:
                    timer.cancel()
                self._due.clear()
                self.loop_lag_s.add(max(0.0, loop.time() - due_at))
                await self._hand_over()
        finally:
            for work in tuple(self._under_way):
                await settle(work)

    async def hand_over(self) -> None:
        """Hand over what has come so far.

        Who is cancelled meanwhile goes, and the work goes on: what was drained has no other place, and the ledger has it.
        """
        await self._to_the_end(self._hand_over())

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="hand over")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _hand_over(self) -> None:
        async with self._handing_over:
            if self._inlet is not None:
                since, self._drained_at = self._drained_at, self._clock.monotonic()
                if await self._pass_on(self._inlet.drain(), Origin.LIVE):
                    self.consumer_lag_s.add(self._clock.monotonic() - since)
            for feed in self.jumps.doubted:
                await self._release(feed)
            if self._second is not None:
                inlet, overlap = self._second
                if overlap.has_room:
                    trades = inlet.drain()[0]
                    self.jumps.witness(trades)
                    known = _by_symbol(overlap.absorb(trades)).items()
                    feeds = [(one, repeated) for symbol, repeated in known if (one := self._feeds.get(symbol)) is not None]
                    await asyncio.gather(*(self._feeds.compare(one, repeated) for one, repeated in feeds))
                overlap.looked.set()
        self._handed_over.set()

    async def wait_stored(self) -> None:
        """Wait until all that was received is in the sink. Meaningful while nothing reads."""
        while self.waiting:
            self._handed_over.clear()
            await self._handed_over.wait()

    def _is_plausible(self, trade: AggTrade) -> bool:
        feed = self._feeds.get(trade.symbol)
        return feed is not None and self.jumps.is_plausible(feed, trade.id)

    def _ledger_of(self, symbol: str) -> SymbolLedger | None:
        feed = self._feeds.get(symbol)
        return feed.ledger if feed is not None else None

    async def _pass_on(self, drained: tuple[Sequence[AggTrade], int], origin: Origin) -> bool:
        """Count and store. Whether there were trades."""
        batch, others = drained
        if others or batch:
            self.frames += others + len(batch)
            self.meter.add(others + len(batch))
        if not batch:
            return False
        self._in_hand = len(batch)
        self.last_data_at = self._clock.monotonic()
        for symbol, trades in _by_symbol(batch).items():
            feed = self._feeds.get(symbol)
            if feed is None:
                self.strangers += len(trades)
            else:
                self.on_heard(symbol, len(trades))
                known, new = self._parted(symbol, self.jumps.admit(feed, trades), origin)
                await self._take(feed, known, Origin.OVERLAP)
                await self._take(feed, new, origin)
                await self._release(feed)
            self._in_hand -= len(trades)
        return True

    async def _release(self, feed: SymbolFeed) -> None:
        """Store the doubtful trades that are now confirmed."""
        if released := self.jumps.release(feed):
            await self._take(feed, released, Origin.LIVE)
            self.on_gap()

    def _parted(self, symbol: str, trades: Sequence[AggTrade], origin: Origin) -> tuple[Sequence[AggTrade], Sequence[AggTrade]]:
        """What the link before had brought already, and the rest: a link that has taken over may lag behind it for a while."""
        through = self._known_through.get(symbol) if origin is Origin.LIVE else None
        if through is None:
            return [], trades
        known = [trade for trade in trades if trade.id <= through]
        if len(known) < len(trades):
            del self._known_through[symbol]
        return known, [trade for trade in trades if trade.id > through]

    async def _take(self, feed: SymbolFeed, trades: Sequence[AggTrade], origin: Origin) -> None:
        if trades and await self._feeds.take_live(feed, trades, origin):
            self.on_gap()


def _by_symbol(trades: Sequence[AggTrade]) -> dict[str, list[AggTrade]]:
    by_symbol: dict[str, list[AggTrade]] = {}
    for trade in trades:
        try:
            by_symbol[trade.symbol].append(trade)
        except KeyError:
            by_symbol[trade.symbol] = [trade]
    return by_symbol
