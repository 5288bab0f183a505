"""What the tests of the faults share: a whole stream with a real store, against the real exchange, and questions to both."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from exchange_support import synthetic
from stream_support import eventually
from transport_support import LIBRARIES

from quantai_tui.exchange.alterations import AlterableMarket
from quantai_tui.exchange.budget import Limits
from quantai_tui.exchange.catalogue import parse_fault
from quantai_tui.exchange.doors import Doors
from quantai_tui.exchange.faults import Faults
from quantai_tui.exchange.folder import ExchangeFolder, ExchangeState
from quantai_tui.exchange.markets import Market
from quantai_tui.exchange.server import ExchangeServer, bind
from quantai_tui.market import AggTrade, StoreReader, TradeStore
from quantai_tui.stream import FailureKind, ResilientStream, StreamConfig
from quantai_tui.stream.advice import RULES
from quantai_tui.stream.transport import Transport
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock, StreamSnapshot, StreamState, SymbolSnapshot

SYMBOL = "ETHUSDT"
SYMBOLS = (SYMBOL, "BTCUSDT")
S = StreamState

BUSY_S = 8.0  # what one connect and one repair may take on a machine that has other things to do
# The market's wall clock at the beginning of each test: always the same trades. A quarter of a minute before a full one, since
# limits are counted by the minute.
MARKET_START = 1_790_254_845.0

FIRST_DIAL = (S.CONNECTING, S.HANDSHAKING, S.SUBSCRIBING, S.LIVE)
REDIAL = (S.BACKOFF, *FIRST_DIAL)

on_both_transports = pytest.mark.parametrize("transport", LIBRARIES)


class RunningClock:
    """All time, `rate` times as fast as it is; the wall's begins at MARKET_START."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self._began = time.monotonic()

    def monotonic(self) -> float:
        return self.real_s * self.rate

    def time(self) -> float:
        return MARKET_START + self.real_s * self.rate

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.rate)

    @property
    def real_s(self) -> float:
        return time.monotonic() - self._began


class WatchedStore:
    """The real store, which minds the order of what it is handed, and can be made to wait."""

    def __init__(self, store: TradeStore) -> None:
        self._store = store
        self.begin, self.position = store.begin, store.position
        self.add_gap, self.close_gap = store.add_gap, store.close_gap
        self.out_of_order: list[list[int]] = []
        self.room = asyncio.Event()
        self.room.set()

    async def append(self, symbol: str, trades: Sequence[AggTrade]) -> None:
        await self.room.wait()
        ids = [trade.id for trade in trades]
        if ids != sorted(set(ids)):
            self.out_of_order.append(ids)
        await self._store.append(symbol, trades)


@dataclass
class Rig:
    """A stream, its store, and the exchange with everything that can be wrong with it."""

    stream: ResilientStream
    store: TradeStore
    sink: WatchedStore
    server: ExchangeServer
    faults: Faults
    market: Market
    clock: Clock
    home: ExchangeFolder
    config: StreamConfig
    symbols: tuple[str, ...] = (SYMBOL,)
    _mark: int = field(default=0)
    _asked: int = field(default=0)

    async def inject(self, kind: str, **parameters: Any) -> str:
        """A fault as a script would write it, with the key `for` as `for_s`."""
        table = {"for" if key == "for_s" else key: value for key, value in parameters.items()}
        self._mark = len(self.stream.machine.changes)
        self._asked += self.questions
        return await self.faults.inject(parse_fault({"kind": kind} | table))

    async def mend(self) -> None:
        """End all that is wrong."""
        await self.faults.clear()

    @property
    def snapshot(self) -> StreamSnapshot:
        return self.stream.snapshot()

    @property
    def symbol(self) -> SymbolSnapshot:
        return self.snapshot.symbols[self.symbols[0]]

    @property
    def dials(self) -> int:
        """Upgrades that the exchange has seen, refused ones too. What fails before, the stream alone can count."""
        return sum(what.startswith("ws ") for _, what in self.server.visits)

    @property
    def questions(self) -> int:
        """Requests to REST since the last fault was injected. On a busy machine a first trade may be asked about before that."""
        return sum(what.startswith("rest ") for _, what in self.server.visits) - self._asked

    @property
    def path(self) -> tuple[StreamState, ...]:
        """The states since the last fault was injected."""
        changes = self.stream.machine.changes
        shown = self.snapshot.changes
        assert [change.state for change in shown] == [change.state for change in changes[-len(shown) :]]
        return tuple(change.state for change in changes[self._mark :])

    def now(self) -> dict[str, int]:
        """The newest id of each symbol at this moment."""
        truth = self.truth()
        return {symbol: truth.last_id_at(symbol, self.clock.time()) for symbol in self.symbols}

    def truth(self) -> AlterableMarket:
        """The market, made again from its seed and from what was done to it on purpose."""
        state = self.home.load()
        assert state is not None
        return AlterableMarket(self.market, state.alterations)

    async def until(self, condition: Callable[[], bool], what: str, within: float = 0.0) -> None:
        """Wait for it, so many seconds and what a busy machine takes; a failure tells what the operator would be shown."""
        try:
            await eventually(condition, what, within + BUSY_S)
        except AssertionError as error:
            shown = self.snapshot
            raise AssertionError(f"{error}; is {shown.state}: {shown.cause}; {shown.last_error}; {shown.symbols}") from None

    async def flowing(self, trades: int = 5) -> None:
        """Until live, with so many trades of each symbol, and with nothing left to ask over REST."""

        def flows() -> bool:
            shown = self.snapshot
            return shown.state is S.LIVE and not shown.repairing and all(one.stored >= trades for one in shown.symbols.values())

        await self.until(flows, f"live, with {trades} trades of each symbol")

    async def shown(self, kind: FailureKind, says: str, within: float = 0.0, of: str = "") -> None:
        """Until the operator is shown a failure of this kind, in a message `of` that, with advice that `says` so.

        And until the stream has taken the step that follows: for a moment it has noted the failure, and is live as before.
        """

        def is_shown() -> bool:
            error = self.snapshot.last_error
            return error is not None and error.kind == kind and self.path != ()

        await self.until(is_shown, kind, within)
        error = self.snapshot.last_error
        assert error is not None
        assert says in error.advice
        assert of in error.message
        assert (error.type, error.message != "") == (RULES[kind].type, True)

    async def recovered(self, within: float = 0.0) -> None:
        """Live again, and whole up to this moment, in so many seconds and what a busy machine takes."""
        goal = self.now()

        def whole() -> bool:
            known = self.snapshot.symbols
            return self.stream.state is S.LIVE and all(
                known[symbol].missing == 0 and (known[symbol].complete_through_id or 0) >= last for symbol, last in goal.items()
            )

        await self.until(whole, f"live and whole up to {goal}", within)

    async def nothing_lost(self, *, duplicates: int | None = 0, late: int | None = 0, holes: int = 0) -> None:
        """Every trade of the market, from the ledger's first to now, is in the store once, as it was; counters as said.

        None for counters that chance decides, as where REST may bring a trade before the stream does, which is so after a dial in
        a world that runs fast; `late` is then not looked at either. Whatever they are: the store is handed nothing twice.
        """
        late = None if duplicates is None else late
        await self.recovered()
        snapshot = self.snapshot
        await self.stream.stop()
        await self.store.flush()
        assert snapshot.repair_pending == 0
        for counter, wanted in (("duplicates", duplicates), ("late", late), ("venue_holes", holes), ("unrecoverable", 0)):
            counted = sum(getattr(one, counter) for one in snapshot.symbols.values())
            assert wanted is None or counted == wanted, f"{counter}: {counted}, not {wanted}"
        assert self.sink.out_of_order == []
        absent = 0
        for symbol in self.symbols:
            # A look over REST may have opened a gap just before the end; it is recorded for the next start.
            through = self.snapshot.symbols[symbol].complete_through_id or 0
            stored = [one for one in await asyncio.to_thread(_stored, self.store.path, symbol) if one.id <= through]
            assert stored[-1].id >= (snapshot.symbols[symbol].complete_through_id or 0)
            happened = self.truth().trades(symbol, stored[0].id, stored[-1].id - stored[0].id + 1, self.clock.time())
            wanted = [_as_stored(trade) for trade in happened if trade.id <= stored[-1].id]
            assert stored == wanted, _differences(stored, wanted, snapshot)
            assert self.store.counts(symbol).duplicates == 0, "something was handed over twice"
            absent += stored[-1].id - stored[0].id + 1 - len(stored)
        assert absent == holes


def _stored(path: Path, symbol: str) -> list[AggTrade]:
    with StoreReader(path) as reader:
        return reader.trades(symbol, 0, 10_000_000)


def _differences(stored: list[AggTrade], wanted: list[AggTrade], shown: StreamSnapshot) -> str:
    """What a failed comparison of thousands of trades comes down to."""
    have, want = {trade.id: trade for trade in stored}, {trade.id: trade for trade in wanted}
    other = [id for id in have.keys() & want.keys() if have[id] != want[id]]
    ends = f"stored {stored[0].id} to {stored[-1].id}, happened {wanted[0].id} to {wanted[-1].id}"
    absent, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    return f"{ends}: absent {absent[:20]}, too many {extra[:20]}, other {sorted(other)[:20]}; {shown.symbols}"


def _as_stored(trade: AggTrade) -> AggTrade:
    t = trade
    return AggTrade(t.id, t.price, t.quantity, t.first_id, t.last_id, t.time_us, t.buyer_is_maker, t.symbol)


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """It is a failure when more tasks are there at the end than at the beginning."""
    before = asyncio.all_tasks()
    yield
    await eventually(lambda: asyncio.all_tasks() <= before, "no task is left")


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    symbols: Iterable[str] = (SYMBOL,),
    market_rate: float | None = None,
    world_rate: float | None = None,
    limits: Limits | None = None,
    seed: int = 7,
    flowing: bool = True,
    wrap: Callable[[StreamConfig], Transport] | None = None,
    wrong: dict[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[Rig]:
    """A stream with short times, and a market that runs `market_rate` times as fast: 180 trades a second and symbol at 15.

    `world_rate` lets all clocks run so fast, the market's too unless it has its own. Sockets and event loops stay as they are,
    and with them what a busy machine needs for a handshake, an answer or a pong: unless told otherwise, BUSY_S for each.

    `wrong` is injected before the stream begins. `wrap` makes the transport that the stream is given out of its own.
    """
    if config.get("transport") == "picows":
        pytest.importorskip("picows", reason="picows, the optional fast transport, is not installed")
    symbols = tuple(symbols)
    world: Clock = SYSTEM_CLOCK if world_rate is None else RunningClock(world_rate)
    clock = world if world_rate is not None and market_rate is None else RunningClock(market_rate or 15.0)
    async with no_task_left():
        home = await asyncio.to_thread(ExchangeFolder, folder / "exchange")
        market = synthetic(seed, symbols, int(MARKET_START) - 3600)
        home.save(ExchangeState(source="demo", epoch_s=market.epoch_s))
        faults = Faults(world, seed=seed)
        server = ExchangeServer(market, home.server_tls()[0], limits=limits, clock=clock, faults=faults, home=home)
        doors = Doors(server, home.authority()[0], clock=world)
        ports = bind(0), bind(0)
        values: dict[str, Any] = {
            "symbols": symbols,
            "ws_url": f"wss://localhost:{_port(ports[0])}",
            "rest_url": f"https://localhost:{_port(ports[1])}",
            "ca_file": str(home.ca_file),
            "transport": "websockets",
            **_SHORT,
            "pong_timeout": BUSY_S * (world_rate or 1.0),
            **config,
        }
        await doors.start(*ports)
        store = await TradeStore.open(folder / "trades.sqlite")
        sink = WatchedStore(store)
        settings = StreamConfig(**values)
        own: Transport | None = wrap(settings) if wrap is not None else None
        stream = ResilientStream(settings, sink, transport=own, clock=world, rng=random.Random(seed))
        made = Rig(stream, store, sink, server, faults, market, clock, home, settings, symbols)
        try:
            if wrong is not None:
                await made.inject(**wrong)
            await stream.start()
            if flowing:
                await made.flowing()
            yield made
        finally:
            sink.room.set()
            await stream.stop()
            await store.close()
            await doors.close()
            home.close()


_SHORT: dict[str, Any] = {
    "initial_delay": 0.05,
    "max_delay": 1.0,
    "max_retries": 0,
    "jitter": 0.0,
    "cooldown": 0.2,
    "stable_after": 0.2,
    "ssl_timeout": BUSY_S,
    "connect_timeout": BUSY_S,
    "subscribe_timeout": BUSY_S,
}


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port
