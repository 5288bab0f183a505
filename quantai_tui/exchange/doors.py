"""The exchange with a door before each of its ports: what the kinds of `line_catalogue` do, said in terms of doors."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trustme

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .catalogue import FAULTS
from .certificates import Forger
from .conditions import BlackHole, Condition, Latency, StalledTls, StalledUpgrade, Stutter, Throttle
from .door import Door, Lift, Scope
from .fault import Fault, FaultError
from .passage import Wound
from .server import ExchangeServer, Front, Retire, bind

_WOUNDS = {
    "reset": Wound.RESET,
    "half-close": Wound.HALF_CLOSE,
    "truncate-record": Wound.TRUNCATE,
    "flip-byte": Wound.FLIP,
}


@dataclass
class _Kept:
    """What ends a fault. It holds the fault itself, so that no other one gets its identity."""

    fault: Fault
    lifts: list[Lift] = field(default_factory=list)
    retires: list[Retire] = field(default_factory=list)


class Doors:
    """Stands in for the `server`, which it owns from `start` to `close`. Offers to its faults what can happen on the line."""

    def __init__(self, server: ExchangeServer, authority: trustme.CA, *, clock: Clock = SYSTEM_CLOCK) -> None:
        faults = server.faults
        self._server = server
        self._clock = clock
        self._rng: random.Random = faults.rng
        self._doors: dict[Front, Door] = {}
        self._faults = faults
        self._kept: dict[int, _Kept] = {}  # by the identity of the fault: two of a kind may follow each other closely
        forger = Forger(authority)
        conditions: dict[str, Callable[[Fault], Condition]] = {
            "black-hole": lambda _: BlackHole(),
            "stall-tls": lambda _: StalledTls(),
            "stall-upgrade-bytes": lambda _: StalledUpgrade(),
            "latency": lambda fault: Latency(fault.delay_ms / 1000, fault.jitter_ms / 1000, self._rng),
            "stutter": self._stutter,
            "throttle": lambda fault: Throttle(fault.bytes_per_s),
        }
        contexts: dict[str, Callable[[Fault], ssl.SSLContext]] = {
            "cert-expired": lambda fault: forger.expired(fault.days),
            "cert-not-yet-valid": lambda fault: forger.not_yet_valid(fault.days),
            "cert-expires-soon": lambda fault: forger.expires_in(fault.days),
            "cert-wrong-host": lambda _: forger.wrong_host(),
            "cert-untrusted": lambda _: forger.untrusted(),
            "tls-1-1": lambda _: forger.tls_1_1(),
            "tls-rsa-only": lambda _: forger.rsa_only(),
        }
        for kind, wound in _WOUNDS.items():
            faults.offer(kind, self._dealing(wound), self._end)
        for kind, condition in conditions.items():
            faults.offer(kind, self._imposing(condition), self._end)
        for kind, context in contexts.items():
            faults.offer(kind, self._certifying(context), self._end)
        faults.offer("refuse", self._refuse, self._end)
        faults.offer("connection-cap", self._cap, self._end)

    async def start(self, ws_socket: socket.socket, rest_socket: socket.socket) -> None:
        """Listen on two bound sockets, which this object closes from now on, and serve behind them on ports of its own."""
        behind: dict[Front, socket.socket] = {"ws": bind(0), "rest": bind(0)}
        outside: dict[Front, socket.socket] = {"ws": ws_socket, "rest": rest_socket}
        for front, listener in outside.items():
            port = behind[front].getsockname()[1]
            self._doors[front] = Door(listener, port, rng=self._rng, clock=self._clock, name=f"door of the {front} port")
        await self._server.start(behind["ws"], behind["rest"])
        for door in self._doors.values():
            door.start()

    async def close(self) -> None:
        """Close server and doors, in this order, so that clients hear the server's good-bye. Well under a second."""
        await self._server.close()
        await asyncio.gather(*(door.close() for door in self._doors.values()))

    def _dealing(self, wound: Wound) -> Callable[[Fault], Awaitable[str]]:
        async def begin(fault: Fault) -> str:
            scope = Scope(fault.connections)
            if not fault.for_s:
                if scope is Scope.NEW:
                    raise FaultError(f"{fault.kind} for new connections, and no `for`", "say `for` how long they are to meet it")
                scope = Scope.OPEN
            return self._impose(fault, wound, scope)

        return begin

    def _imposing(self, make: Callable[[Fault], Condition]) -> Callable[[Fault], Awaitable[str]]:
        async def begin(fault: Fault) -> str:
            # A stalled handshake is one that begins while the fault is in force: those kinds have no choice of connections.
            note = self._impose(fault, make(fault), Scope(fault.connections or Scope.NEW))
            if fault.how == "refuse":
                await self._refuse(fault)
            return note

        return begin

    def _certifying(self, make: Callable[[Fault], ssl.SSLContext]) -> Callable[[Fault], Awaitable[str]]:
        async def begin(fault: Fault) -> str:
            context = await asyncio.to_thread(make, fault)
            for front, door in self._meant(fault).items():
                # The version limits of a listener that runs cannot be changed, so another one serves the same front.
                try:
                    listener = bind(0)
                except OSError as error:
                    await self._end(fault)
                    raise FaultError(f"{fault.kind}: no port is free ({error.strerror})", "end what listens") from error
                port = listener.getsockname()[1]
                retire = await self._server.serve(front, listener, context)
                self._keep(fault, door.route(port, context)).retires.append(retire)
            if not self._faults.left_s(fault):
                await self._end(fault)  # somebody cleared it while the key was made
            return FAULTS[fault.kind].text

        return begin

    def _impose(self, fault: Fault, measure: Condition | Wound, scope: Scope) -> str:
        doors = self._meant(fault).values()
        for door in doors:
            lift = door.impose(measure, scope)
            if fault.for_s:  # otherwise it is over with this, and nothing will end it
                self._keep(fault, lift)
        met = sum(door.connections for door in doors) if scope is not Scope.NEW else 0
        parts = [f"{met} open connection{'' if met == 1 else 's'}"] if scope is not Scope.NEW else []
        parts += ["those that come"] if scope is not Scope.OPEN else []
        return f"{fault.kind} on {' and '.join(parts)}"

    async def _refuse(self, fault: Fault) -> str:
        for door in self._meant(fault).values():
            self._keep(fault, door.refuse())
        return "dials are refused"

    async def _cap(self, fault: Fault) -> str:
        for door in self._meant(fault).values():
            self._keep(fault, door.cap(fault.count))
        return f"at most {fault.count} open"

    def _stutter(self, fault: Fault) -> Stutter:
        if fault.freeze_ms >= fault.every_ms:
            raise FaultError(
                f"stutter: `freeze_ms` {fault.freeze_ms:g} is no less than `every_ms` {fault.every_ms:g}",
                "use a shorter freeze, or black-hole for a line that is dead",
            )
        return Stutter(fault.freeze_ms / 1000, fault.every_ms / 1000, self._clock.monotonic())

    def _meant(self, fault: Fault) -> dict[Front, Door]:
        return {front: door for front, door in self._doors.items() if fault.port in (front, "both")}

    def _keep(self, fault: Fault, lift: Lift) -> _Kept:
        kept = self._kept.setdefault(id(fault), _Kept(fault))
        kept.lifts.append(lift)
        return kept

    async def _end(self, fault: Fault) -> None:
        kept = self._kept.pop(id(fault), None)
        if kept is None:
            return
        for lift in kept.lifts:
            lift()
        for retire in kept.retires:
            await retire()
