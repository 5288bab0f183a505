"""One client's connection: its form, its subscriptions, the watch over what it sends, and when it has to end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State

from .budget import Limits
from .frames import PONG, Form

_COUNTED = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})


@dataclass(frozen=True, slots=True)
class Departure:
    """When a connection ends (in the loop's time) and with which close code; 0: without a close frame."""

    at: float
    code: int
    reason: str = ""


class Connection(ServerConnection):
    """What `websockets` makes of a dial. `keep` runs beside its handler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.combined = False
        self.microseconds = False
        self.streams: dict[str, None] = {}  # an ordered set
        self.withholds_pongs = False
        self.opened = self.loop.time()
        self._pings: deque[tuple[bytes, float]] = deque()
        self._received: deque[float] = deque()
        self._limits = Limits()
        self._departures: dict[str, Departure] = {}
        self._changed = asyncio.Event()
        self.too_many = False

    @property
    def form(self) -> Form:
        return Form(self.combined, self.microseconds)

    def bind(self, limits: Limits) -> None:
        """The handshake is over: from now on its time runs."""
        self._limits = limits
        self.opened = self.loop.time()
        self.depart(
            "age",
            Departure(
                self.opened + limits.connection_lifetime_s, CloseCode.GOING_AWAY, "The connection has reached its 24 hours"
            ),
        )

    def depart(self, why: str, departure: Departure | None) -> None:
        """End the connection then; None takes back what was said under the same `why`. The earliest of all counts."""
        if departure is None:
            self._departures.pop(why, None)
        else:
            self._departures[why] = departure
        self._changed.set()

    def process_event(self, event: Event) -> None:
        # Below `recv`, because pings and pongs count towards the limit and never get there.
        if isinstance(event, Frame) and event.opcode in _COUNTED:
            self._count()
            if event.opcode is Opcode.PONG:
                self._match_pong(bytes(event.data))
        super().process_event(event)

    def send_data(self) -> None:
        if self.withholds_pongs:
            # The answer to a ping is a frame of its own that the protocol has laid ready before anybody is told of the ping.
            self.protocol.writes[:] = [data for data in self.protocol.writes if data[:1] != bytes((PONG,))]
        super().send_data()

    def _count(self) -> None:
        if self.too_many:
            return
        now = self.loop.time()
        self._received.append(now)
        while now - self._received[0] >= 1.0:
            self._received.popleft()
        if len(self._received) > self._limits.messages_per_s:
            self.too_many = True
            self.depart("too many", Departure(now, CloseCode.POLICY_VIOLATION, "Too many requests"))

    def _match_pong(self, payload: bytes) -> None:
        # A pong answers its ping and all before it (RFC 6455, 5.5.3); one without a ping answers nothing.
        if any(payload == sent for sent, _ in self._pings):
            while self._pings.popleft()[0] != payload:
                pass

    def _write_ping(self, payload: bytes) -> None:
        """Send a ping without waiting for a slow reader: the pong's deadline has to go on."""
        if self.state is State.OPEN:
            self._pings.append((payload, self.loop.time()))
            self.transport.write(bytes((0x80 | Opcode.PING, len(payload))) + payload)

    async def keep(self, stamp_ms: Callable[[], int]) -> None:
        """Ping, and end the connection when its time is up, its pongs stay away or it sends too much.

        `stamp_ms()` is what a ping carries.
        """
        next_ping = self.loop.time() + self._limits.ping_interval_s
        while True:
            self._changed.clear()
            departure = min(self._departures.values(), key=lambda departure: departure.at)
            now = self.loop.time()
            if now >= departure.at:
                await self.leave(departure.code, departure.reason)
                return
            if now >= next_ping:
                if self._pings and now - self._pings[0][1] >= self._limits.pong_deadline_s:
                    await self.leave(CloseCode.POLICY_VIOLATION, "Pong timeout")
                    return
                self._write_ping(str(stamp_ms()).encode())
                next_ping = now + self._limits.ping_interval_s
            try:
                async with asyncio.timeout_at(min(departure.at, next_ping, now + 86400.0)):
                    await self._changed.wait()
            except TimeoutError:
                pass  # the usual case: the next ping is due

    async def leave(self, code: int, reason: str = "") -> None:
        """End it now; code 0 closes TCP without a close frame."""
        if code:
            await self.close(code, reason)
        else:
            self.transport.abort()
