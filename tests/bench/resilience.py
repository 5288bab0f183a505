"""A day of trouble, twice: what the stream makes of it, and what a client makes of it that dials again every five seconds.

Both live through the same script on the same market, in virtual time: the same seed gives the same numbers on every machine.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import WireError, agg_trade_stream, decode_frame, subscribe_frame
from quantai_tui.stream import StreamConfig
from tests.virtual.faults import Fault, Faults
from tests.virtual.link import MemoryLink
from tests.virtual.loop import run as run_virtual
from tests.virtual.market import RATES
from tests.virtual.rig import Rig
from tests.virtual.venue import MemoryTransport, Venue

from .report import Options, Row, number

BOUND = 0.1  # at least 90 % fewer
SEED = 7
HOUR_S = 3600.0
MINUTE_S = 60.0
DAY_H = 24.0
QUICK_H = 9.0

# Dead and mute connections get an end after half an hour, in favour of the old client, as if somebody had looked and started it
# again: real ones have none.
_UNTIL_NOTICED = 30.0
# When (hours, shifted by up to ten minutes by the seed), what, and for how long (minutes; 0: a moment).
SCRIPT: Sequence[tuple[float, str, float]] = (
    (0.6, "reset", 0),  # a router on the way is restarted
    (1.2, "tls_bad_mac", 14),  # a middlebox damages what it passes on: every handshake fails with a bad MAC
    (2.2, "half_open", _UNTIL_NOTICED),  # a NAT forgets the connection: nothing comes any more, and nobody says so
    (3.2, "ban_429", 1),  # another program at the address has used up the limit: Retry-After 60
    (4.9, "stall", _UNTIL_NOTICED),  # pings are answered, data does not come
    (5.9, "maintenance", 45),  # the venue is away, and its market stands still for all but the first and last two minutes
    (7.5, "flapping", 6),  # accepts and drops
    (8.3, "close_1001", 0),  # the connection's 24 hours are over
    (9.2, "half_open", _UNTIL_NOTICED),
    (10.3, "dns", 8),
    (11.2, "tls_bad_mac", 22),
    (12.3, "bad_mac", 0),  # one damaged record
    (13.0, "stall", _UNTIL_NOTICED),
    (14.0, "ban_429", 2),
    (15.9, "server_shutdown", 0),  # announced, and 45 s later done
    (16.4, "unreachable", 10),  # this machine's own line
    (17.2, "silent_symbol", _UNTIL_NOTICED),  # one symbol is forgotten, the others go on
    (18.2, "maintenance", 75),
    (20.2, "half_open", _UNTIL_NOTICED),
    (21.1, "http_503", 5),
    (21.8, "reset", 0),
    (22.4, "tls_bad_mac", 11),
    (23.2, "stall", _UNTIL_NOTICED),
)
# A ban that is not respected is followed by one twice as long, from 2 minutes to this, and then lifted. Binance's go to 3 days.
_LONGEST_BAN_S = 32 * MINUTE_S
_OLD_DELAY_S = 5.0
_OLD_OPEN_TIMEOUT_S = 10.0

_NOT_CLAIMED = (
    "not claimed: that a line is like this script (its faults are those that lines have, their number is chosen); that outages "
    "get shorter (after one of more than 5 min ours may come back WS_RECONNECT_COOLDOWN later than the old client; it fetches "
    "what it missed); anything about TLS or sockets, which are not real here"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client made of the script. A failed attempt is a dial that brought no trade."""

    dials: int
    failed: int
    tls_errors: int
    down_s: float
    avoidable_s: float
    lost: int
    bans: int
    inside_bans: int
    trades: int


class OldClient:
    """The behaviour that the stream replaces: read until an error comes, wait five seconds, dial again, whatever it was.

    It has no heartbeat, so a dead connection is one that is quiet; it never asks REST; an HTTP status is an error like any other.
    """

    def __init__(self, venue: Venue, symbols: Sequence[str]) -> None:
        self._transport = MemoryTransport(venue)
        self._config = StreamConfig(symbols=tuple(symbols), ws_url="wss://venue.invalid")
        self.trades: dict[str, set[int]] = {symbol: set() for symbol in symbols}

    def take(self, data: bytes, /) -> None:
        try:
            frame = decode_frame(data)
        except WireError:
            return
        if isinstance(frame, AggTrade):
            self.trades[frame.symbol].add(frame.id)

    def is_full(self) -> bool:
        return False

    async def run(self) -> None:
        streams = [agg_trade_stream(symbol) for symbol in self._config.symbols]
        while True:
            link: MemoryLink | None = None
            try:
                async with asyncio.timeout(_OLD_OPEN_TIMEOUT_S):
                    link = await self._transport.dial(self._config, self, lambda phase: None)
                await link.send(subscribe_frame("SUBSCRIBE", streams, 1))
                await link.until_closed()
            except Exception:  # as the old one did: every error is the same error
                await asyncio.sleep(_OLD_DELAY_S)
            finally:
                if link is not None:
                    link.abort()


def run(options: Options) -> list[Row]:
    hours = QUICK_H if options.quick else DAY_H
    log = logging.getLogger("quantai_tui.stream")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a day of failures, each with its trace
    try:
        ours = run_virtual(_ours(hours))
    finally:
        log.setLevel(level)
    return rows(ours, run_virtual(_old(hours)), hours)


def rows(ours: Outcome, old: Outcome, hours: float) -> list[Row]:
    """The comparison; `bare` is the old client."""
    lines: list[tuple[str, str, float, float, str]] = [
        ("failed attempts", "", ours.failed, old.failed, f"of {ours.dials} dials, the old client of {old.dials}"),
        ("SSL errors", "", ours.tls_errors, old.tls_errors, "a bad MAC, in the handshake or on a live connection"),
        (
            "avoidable time down",
            "s",
            ours.avoidable_s,
            old.avoidable_s,
            "trades went by unseen, although who had broken no rule could connect",
        ),
        ("trades lost", "", ours.lost, old.lost, f"of {ours.trades:,} in {hours:g} h"),
        (
            "bans of its own making",
            "",
            ours.bans,
            old.bans,
            f"asked {ours.inside_bans} times inside a ban, the old client {old.inside_bans}",
        ),
    ]
    found = [
        Row("resilience", what, unit, value, bare, BOUND, "ratio", f"{_saved(value, bare)}; {note}")
        for what, unit, value, bare, note in lines
    ]
    note = f"{_saved(ours.down_s, old.down_s)}, outages of venue and line included; bare: the old client; {_NOT_CLAIMED}"
    return [*found, Row("resilience", "time down, all", "s", ours.down_s, old.down_s, note=note)]


def script(hours: float, seed: int = SEED) -> list[Fault]:
    """The faults of the first `hours`."""
    rng = random.Random(f"script {seed}")
    shifted = [(at * HOUR_S + rng.uniform(0, 10 * MINUTE_S), kind, minutes * MINUTE_S) for at, kind, minutes in SCRIPT]
    return [Fault(at, kind, for_s) for at, kind, for_s in shifted if at < hours * HOUR_S]


async def _ours(hours: float, rates: Mapping[str, float] = RATES) -> Outcome:
    async with _rig(rates) as rig:
        await _live_through(rig, hours)
        return _outcome(rig, {symbol: set(record.trades) for symbol, record in rig.sink.records.items()})


async def _old(hours: float, rates: Mapping[str, float] = RATES) -> Outcome:
    rig = _rig(rates, idle=True)
    client = OldClient(rig.venue, rig.market.symbols)
    async with rig:
        running = asyncio.create_task(client.run())
        await _live_through(rig, hours)
        running.cancel()
        await asyncio.wait([running])
        return _outcome(rig, client.trades)


def _rig(rates: Mapping[str, float], *, idle: bool = False) -> Rig:
    rig = Rig(SEED, rates=rates, idle=idle)
    rig.venue.limits.patient = True
    rig.venue.limits.longest_ban_s = _LONGEST_BAN_S
    return rig


async def _live_through(rig: Rig, hours: float) -> None:
    faults = Faults(rig.venue, rig.clock, SEED)
    await asyncio.sleep(MINUTE_S)
    await faults.run(script(hours))
    await rig.rest_of(hours * HOUR_S + 15 * MINUTE_S)
    faults.close()


def _outcome(rig: Rig, got: Mapping[str, set[int]]) -> Outcome:
    """Trades count from the first that came: neither client asks for history before it; the last half minute is on its way."""
    venue, market = rig.venue, rig.market
    until_ms = market.now_ms() - 30_000
    begun = {symbol: min(ids) for symbol, ids in got.items()}
    wanted = {symbol: {id for id in market.ids(symbol, until_ms) if id >= first} for symbol, first in begun.items()}
    return Outcome(
        dials=len(venue.dialled),
        failed=len(venue.dialled) - len(venue.useful),
        tls_errors=venue.tls_errors,
        down_s=venue.unseen_s,
        avoidable_s=venue.avoidable_s,
        lost=sum(len(wanted[symbol] - got[symbol]) for symbol in got),
        bans=venue.limits.bans_earned,
        inside_bans=len(venue.limits.violations),
        trades=sum(len(ids) for ids in wanted.values()),
    )


def _saved(ours: float, old: float) -> str:
    return f"{number(100 * (1 - ours / old))} % fewer" if old else "none that could be saved"
