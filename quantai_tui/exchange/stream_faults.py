"""Faults of connections and of whole streams: who is let in, how long they stay, and whether they hear anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.http11 import Response
from websockets.protocol import State

from quantai_tui.market.wire import agg_trade_stream
from quantai_tui.telemetry import Clock

from .alterations import AlterableMarket
from .connection import Connection, Departure
from .fault import Fault, FaultError
from .faults import Faults
from .frames import frame

_MUTES = frozenset({"stall", "silent-symbol"})


class StreamFaults:
    """Knows the open connections, from `greet` to `forget`. `unsubscribe` takes a symbol's trades away from one of them."""

    def __init__(
        self, faults: Faults, market: AlterableMarket, clock: Clock, unsubscribe: Callable[[Connection, str], None]
    ) -> None:
        self._faults = faults
        self._market = market
        self._symbols = market.symbols
        self._clock = clock
        self._unsubscribe = unsubscribe
        self._open: set[Connection] = set()
        self._met: dict[str, frozenset[Connection]] = {}  # by kind: whom a fault met that is for open connections alone
        self._leaving: set[asyncio.Task[None]] = set()
        faults.offer("close", self._close)
        faults.offer("flap", self._flap)
        faults.offer("http-status", self._http_status)
        faults.offer("upgrade-stall")
        faults.offer("server-shutdown", self._server_shutdown)
        faults.offer("lifetime", self._lifetime, self._immortal)
        faults.offer("pongs-withheld", self._withhold_pongs, self._answer_pings)
        faults.offer("stall", self._meet)
        faults.offer("hold")
        faults.offer("silent-symbol", self._silence)
        faults.offer("lost-subscription", self._lose_subscription)
        faults.offer("burst", self._burst, self._calm)

    async def close(self) -> None:
        """Stop what is being done to connections."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def answer(self, connection: Connection) -> Response | None:
        """What a dial is told instead of an upgrade, if anything; may take its time."""
        await self._faults.until_over("upgrade-stall")
        fault = self._faults.in_force("http-status")
        if fault is None:
            return None
        status = HTTPStatus(fault.code)
        response = connection.respond(status, f"{status.phrase}\n")
        if (after := retry_after(fault, self._faults)) is not None:
            response.headers["Retry-After"] = after
        return response

    def greet(self, connection: Connection) -> None:
        """A connection is open. It may have to leave at once."""
        self._open.add(connection)
        if (fault := self._faults.in_force("close")) is not None:
            connection.depart("close", Departure(connection.opened, fault.code, fault.reason))
        if (fault := self._faults.in_force("flap")) is not None:
            connection.depart("flap", Departure(connection.opened + fault.after, fault.code))
        if (fault := self._faults.in_force("lifetime")) is not None:
            self._limit_life(connection, fault)
        fault = self._faults.in_force("pongs-withheld")
        connection.withholds_pongs = fault is not None and fault.connections == "all"

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        self._open.discard(connection)
        self._met = {kind: met - {connection} for kind, met in self._met.items()}

    async def released(self) -> None:
        """Return when trades may be sent: not during a `hold`."""
        if self._faults.in_force("hold") is not None:
            await self._faults.until_over("hold")

    def mutes(self, connection: Connection, symbol: str) -> bool:
        """Whether the connection hears nothing of the symbol."""
        if not self._faults.among(_MUTES):
            return False
        for kind in _MUTES:
            fault = self._faults.in_force(kind, symbol)
            if fault is not None and kind == "silent-symbol" and self._symbol_of(fault) != symbol:
                fault = None
            if fault is not None and (fault.connections == "all" or connection in self._met.get(kind, ())):
                return True
        return False

    def forgets(self, symbol: str) -> Fault | None:
        """The fault by which a subscription to the symbol is acknowledged and not kept."""
        fault = self._faults.in_force("lost-subscription", symbol)
        return fault if fault is not None and self._symbol_of(fault) == symbol else None

    def _symbol_of(self, fault: Fault) -> str:
        """The one symbol that is meant. Raises FaultError when it does not trade here."""
        if fault.symbol and fault.symbol not in self._symbols:
            raise FaultError(f"{fault.symbol!r} does not trade here", f"use one of {', '.join(self._symbols)}")
        return fault.symbol or self._symbols[0]

    def _living(self) -> list[Connection]:
        return [connection for connection in self._open if connection.state is State.OPEN]

    def _dismiss(self, connections: Iterable[Connection], code: int, reason: str) -> None:
        """Close them, each at its own speed: one that does not answer must not keep the others."""
        for connection in connections:
            task = asyncio.create_task(connection.leave(code, reason), name="a connection leaves")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _close(self, fault: Fault) -> str:
        _require_close_code(fault)
        living = self._living()
        self._dismiss(living, fault.code, fault.reason)
        return f"{_counted(living)} closed with {fault.code}"

    async def _flap(self, fault: Fault) -> str:
        if fault.code:
            _require_close_code(fault)
        living = self._living()
        self._dismiss(living, fault.code, fault.reason)
        return f"{_counted(living)} dropped; new ones live {fault.after:g} s"

    async def _http_status(self, fault: Fault) -> str:
        require_http_status(fault)
        return f"dials are answered with HTTP {fault.code}"

    async def _server_shutdown(self, fault: Fault) -> str:
        _require_close_code(fault)
        event = {"e": "serverShutdown", "E": int(self._clock.time() * 1000)}
        raw = frame(msgspec.json.encode(event))
        combined = frame(msgspec.json.encode({"stream": "!serverShutdown", "data": event}))
        living = self._living()
        for connection in living:
            connection.transport.write(combined if connection.combined else raw)
            if fault.lead > 0:
                at = connection.loop.time() + fault.lead
                connection.depart("shutdown", Departure(at, fault.code, "The server is shutting down"))
        if fault.lead == 0:
            self._dismiss(living, fault.code, "The server is shutting down")
        after = "no close follows" if fault.lead < 0 else f"closed {fault.lead:g} s later"
        return f"serverShutdown told to {_counted(living)}; {after}"

    async def _lifetime(self, fault: Fault) -> str:
        for connection in self._living():
            self._limit_life(connection, fault)
        return f"connections live {fault.lifetime:g} s"

    @staticmethod
    def _limit_life(connection: Connection, fault: Fault) -> None:
        connection.depart("lifetime", Departure(connection.opened + fault.lifetime, 1001, "Its lifetime is over"))

    async def _immortal(self, _: Fault) -> None:
        for connection in self._living():
            connection.depart("lifetime", None)

    async def _withhold_pongs(self, fault: Fault) -> str:
        living = self._living()
        for connection in living:
            connection.withholds_pongs = True
        return f"{_counted(living)} get no pongs"

    async def _answer_pings(self, _: Fault) -> None:
        for connection in self._open:
            connection.withholds_pongs = False

    async def _meet(self, fault: Fault) -> str:
        living = self._living()
        self._met[fault.kind] = frozenset(living)
        return f"{_counted(living)} hear nothing"

    async def _silence(self, fault: Fault) -> str:
        symbol = self._symbol_of(fault)
        return f"{await self._meet(fault)} of {symbol}"

    async def _lose_subscription(self, fault: Fault) -> str:
        symbol = self._symbol_of(fault)
        name = agg_trade_stream(symbol)
        losers = [connection for connection in self._living() if name in connection.streams]
        for connection in losers:
            self._unsubscribe(connection, symbol)
            if not fault.listed:
                del connection.streams[name]
        return f"{_counted(losers)} lost {name}"

    async def _burst(self, fault: Fault) -> str:
        assert fault.for_s is not None
        trades = self._market.speed_up(self._clock.time(), fault.for_s, fault.rate)
        return f"about {trades} trades of {', '.join(self._symbols)} happen now"

    async def _calm(self, _: Fault) -> None:
        self._market.calm_down(self._clock.time())


def retry_after(fault: Fault, faults: Faults) -> str | None:
    """The header's value: as asked for, or until the fault is over; None for no header."""
    seconds = fault.retry_after or faults.left_s(fault)
    return None if seconds < 0 or seconds > 10**9 else str(max(1, -int(-seconds // 1)))


def require_http_status(fault: Fault) -> None:
    """Raises FaultError for a number that HTTP has no status for."""
    if fault.code not in {status.value for status in HTTPStatus}:
        raise FaultError(f"{fault.code} is no HTTP status", "use one such as 403, 418, 429, 451 or 503")


def _require_close_code(fault: Fault) -> None:
    try:
        Close(fault.code, fault.reason).check()
    except ProtocolError as error:
        raise FaultError(
            f"close code {fault.code} may not be sent ({error})", "use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
        ) from None


def _counted(connections: list[Connection]) -> str:
    return "one connection" if len(connections) == 1 else f"{len(connections)} connections"
