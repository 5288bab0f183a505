"""What goes wrong, when: a plan drawn from a seed, and the hand that carries it out on a `Venue`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from .link import MemoryLink, tls_error
from .loop import VirtualClock
from .venue import AT_THE_DOOR, Venue, reset

_DECODE_NEVER = (b"{", b"\xff\xfe\xfd", b"[]", b'{"e":"aggTrade","s":"ETHUSDT"}', b'{"stream":"x","data":7}', b"")
_SETTLE_S = 1.0
_LONGEST_WAIT_FOR_LINK_S = 900.0
SHUTDOWN_LEAD_S = 45.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong `at` seconds after the start, for `for_s` seconds where it lasts."""

    at: float
    kind: str
    for_s: float = 0.0


# How long each lasts, at least and at most; 0 where it is the matter of a moment.
ON_A_LINK: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("close_1000", "close_1001", "close_1008", "close_1012", "close_1013"), (0.0, 0.0)),
    **dict.fromkeys(("reset", "fin", "bad_mac", "oversized", "server_shutdown"), (0.0, 0.0)),
    **dict.fromkeys(("half_open", "stall", "silent_symbol", "lost_subscription"), (0.0, 0.0)),
    **dict.fromkeys(("duplicates", "swapped", "wire_hole", "garbled", "junk"), (0.0, 0.0)),
    "slow_line": (60.0, 300.0),
}
AT_THE_VENUE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("dns", "refused", "unreachable", "connect_stall"), (5.0, 120.0)),
    **dict.fromkeys(("tls_stall", "tls_bad_mac", "tls_cut", "expired_certificate"), (5.0, 120.0)),
    **dict.fromkeys(("upgrade_stall", "http_403", "http_451", "http_503", "no_ack", "flapping"), (5.0, 120.0)),
    **dict.fromkeys(("ban_429", "ban_418"), (3.0, 300.0)),
    "maintenance": (600.0, 2700.0),
    **dict.fromkeys(("rest_503", "rest_hang", "rest_short", "rest_cut", "rest_behind", "rest_refused"), (10.0, 180.0)),
    "rest_429": (3.0, 60.0),
    "venue_hole": (0.0, 0.0),
    "forgetful": (420.0, 900.0),
    "suspend": (600.0, 7200.0),
    "clock_set": (60.0, 3600.0),
}
KINDS = {**ON_A_LINK, **AT_THE_VENUE}
# While one of these lasts nothing else happens: what is lost by it would have two causes.
_ALONE = frozenset({"forgetful", "maintenance"})
_QUIET_AFTER_S = 420.0
_QUIET_BEFORE_S = 900.0


def seeded_plan(seed: int, hours: float, kinds: Iterable[str] = KINDS, every_s: float = 240.0) -> list[Fault]:
    """A fault every few minutes, each kind in turn in a shuffled order, so that none is left out if there is time for all.

    The last half hour is left in peace: what was broken must come right by then.
    """
    rng = random.Random(f"plan {seed}")
    plan: list[Fault] = []
    deck: list[str] = []
    at = 120.0
    while at < hours * 3600 - 1800:
        if not deck:
            deck = sorted(kinds)
            rng.shuffle(deck)
        kind = deck.pop()
        if kind in _ALONE:
            at += _QUIET_BEFORE_S
        least, most = KINDS[kind]
        fault = Fault(at, kind, rng.uniform(least, most))
        plan.append(fault)
        at += rng.uniform(0.25, 1.75) * every_s
        if kind in _ALONE:
            at += fault.for_s + _QUIET_AFTER_S
    while plan and plan[-1].at + (0.0 if plan[-1].kind in ("suspend", "clock_set") else plan[-1].for_s) > hours * 3600 - 1500:
        plan.pop()
    return plan


class Faults:
    """Carries a plan out. `done` is what was done, `missed` the faults on a connection for which there was none."""

    def __init__(self, venue: Venue, clock: VirtualClock, seed: int = 0) -> None:
        self._venue = venue
        self._clock = clock  # the client's: a suspended machine is the client's
        self._rng = random.Random(f"faults {seed}")
        self._begun = venue.clock.monotonic()
        self._later: list[asyncio.TimerHandle] = []
        self.done: list[Fault] = []
        self.missed: list[Fault] = []

    async def run(self, plan: Sequence[Fault]) -> None:
        """From the first to the last, each at its time or, where a connection is needed, as soon as there is one after it."""
        for fault in plan:
            await asyncio.sleep(max(0.0, self._begun + fault.at - self._venue.clock.monotonic()))
            if fault.kind in ON_A_LINK and not await self._link_there():
                self.missed.append(fault)
                continue
            self.inject(fault)
            self.done.append(fault)

    def inject(self, fault: Fault) -> None:
        """Do it now."""
        if fault.kind in ON_A_LINK:
            self._on_link(fault, self._rng.choice(self._venue.subscribed()))
        elif fault.kind in AT_THE_DOOR:
            self._venue.force(fault.kind, fault.for_s)
            self._venue.cut_all(self._why(fault.kind))
        else:
            getattr(self, f"_{fault.kind}")(fault)

    def close(self) -> None:
        for timer in self._later:
            timer.cancel()

    async def _link_there(self) -> bool:
        deadline = self._venue.clock.monotonic() + _LONGEST_WAIT_FOR_LINK_S
        while not self._venue.subscribed():
            if self._venue.clock.monotonic() > deadline:
                return False
            await asyncio.sleep(_SETTLE_S)
        return True

    def _after(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        self._later.append(asyncio.get_running_loop().call_later(seconds, call, *args))

    def _why(self, kind: str) -> Callable[[], BaseException]:
        if kind.startswith("tls"):
            return lambda: tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
        return reset

    # On a connection.

    def _on_link(self, fault: Fault, link: MemoryLink) -> None:
        rng, kind = self._rng, fault.kind
        some = rng.randrange(2, 12)
        if kind.startswith("close_"):
            link.close_from_venue(int(kind.removeprefix("close_")), "by plan")
        elif kind == "reset":
            link.cut(reset())
        elif kind == "fin":
            link.cut()
        elif kind == "bad_mac":
            link.cut(tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"))
        elif kind == "oversized":
            link.end(ConnectionClosedError(None, Close(1009, "frame too large")))
        elif kind == "half_open":
            link.black_hole = True
            self._ends_after(fault, link.cut, reset())
        elif kind == "stall":
            link.muted = None
            self._ends_after(fault, link.close_from_venue, 1001)
        elif kind == "silent_symbol":
            if link.muted is not None:
                link.muted.add(rng.choice(self._venue.market.symbols))
            self._ends_after(fault, link.close_from_venue, 1001)
        elif kind == "lost_subscription":
            link.streams.discard(rng.choice(sorted(link.streams)))
        elif kind == "server_shutdown":
            self._announce(link)
        elif kind == "duplicates":
            link.doubles += some
        elif kind == "swapped":
            link.swaps += some
        elif kind == "wire_hole":
            link.drops += some
        elif kind == "garbled":
            link.garbles += some
        elif kind == "junk":
            for frame in _DECODE_NEVER:
                link.push(frame)
        elif kind == "slow_line":
            link.latency_s, link.jitter_s = 0.6, 0.4

    def _ends_after(self, fault: Fault, end: Callable[..., None], *args: object) -> None:
        """A connection that is dead or mute stays so for good, unless the fault says for how long."""
        if fault.for_s:
            self._after(fault.for_s, end, *args)

    def _announce(self, link: MemoryLink) -> None:
        event = {"e": "serverShutdown", "E": self._venue.market.now_ms()}
        combined = {"stream": "!serverShutdown", "data": event}
        link.push(msgspec.json.encode(combined if self._rng.random() < 0.5 else event))
        self._after(SHUTDOWN_LEAD_S, link.close_from_venue, 1001, "shutting down")

    # At the venue.

    def _ban_429(self, fault: Fault) -> None:
        self._ban(429, fault.for_s)

    def _ban_418(self, fault: Fault) -> None:
        self._ban(418, fault.for_s)

    def _ban(self, status: int, seconds: float) -> None:
        self._venue.limits.impose(status, seconds)
        self._venue.cut_all()

    def _maintenance(self, fault: Fault) -> None:
        """The venue is away, websocket and REST; the market stands still for all but the first two and the last two minutes."""
        self._venue.force("http_503", fault.for_s)
        self._venue.force("rest_503", fault.for_s)
        for link in list(self._venue.links):
            link.close_from_venue(1012, "maintenance")
        self._after(120.0, self._venue.market.halt, fault.for_s - 240.0)

    def _rest(self, fault: Fault) -> None:
        """REST fails, just when there is something to be fetched."""
        self._venue.force(fault.kind, fault.for_s)
        for link in self._venue.subscribed():
            link.drops += 5

    _rest_503 = _rest_hang = _rest_short = _rest_cut = _rest_behind = _rest_refused = _rest

    def _rest_429(self, fault: Fault) -> None:
        self._venue.limits.impose(429, fault.for_s)
        for link in self._venue.subscribed():
            link.drops += 5

    def _venue_hole(self, _: Fault) -> None:
        self._venue.market.skip(self._rng.choice(self._venue.market.symbols), self._rng.randrange(1, 40))

    def _forgetful(self, fault: Fault) -> None:
        """Nobody gets in, over websocket or REST, and when that is over REST has dropped all but the last minute."""
        self._venue.force("http_503", fault.for_s)
        self._venue.force("rest_refused", fault.for_s)
        self._venue.cut_all()
        self._after(fault.for_s - 1.0, self._venue.forget, 60.0)

    def _suspend(self, fault: Fault) -> None:
        """The machine sleeps: monotonic time stands still, the wall clock does not, and no connection outlives it."""
        self._clock.ahead += fault.for_s
        for link in self._venue.links:
            link.black_hole = True

    def _clock_set(self, fault: Fault) -> None:
        """The wall clock jumps, and nothing else happens."""
        self._clock.ahead += fault.for_s * self._rng.choice((-0.5, 1.0))
