"""Faults of single frames: what is sent beside, instead of, twice, later or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame

from .alterations import AlterableMarket
from .fault import Fault, FaultError
from .faults import Faults
from .frames import BINARY, PONG, TEXT, Form, frame

Make = Callable[[Form], bytes]
"""Frames as bytes, for the form that a connection wants."""

_RSV1 = 0x40
_FIN = 0x80

_BAD = ("malformed", "missing-fields", "unknown-event", "bad-utf8", "binary", "compressed", "oversized")
_KINDS = frozenset((*_BAD, "fragmented", "duplicate", "reorder", "hole", "venue-hole"))


@dataclass(eq=False)
class _Turn:
    """How far a fault that goes by count has come. `waiting`: trades that are to be sent (again), and after how many more."""

    fault: Fault
    seen: int = 0
    done: int = 0
    waiting: list[tuple[int, AggTrade]] = field(default_factory=list)


class FrameFaults:
    """Turns the trades of a turn into frames with something wrong. All connections are sent the same."""

    def __init__(self, faults: Faults, market: AlterableMarket) -> None:
        self._faults = faults
        self._market = market
        self._turns: dict[tuple[str, str], _Turn] = {}  # by kind and symbol
        for kind in _KINDS:
            faults.offer(kind, self._begin)

    async def _begin(self, fault: Fault) -> str:
        if fault.symbol and fault.symbol not in self._market.symbols:
            raise FaultError(f"{fault.symbol!r} does not trade here", f"use one of {', '.join(self._market.symbols)}")
        if fault.kind == "venue-hole":
            self._market.require_room(fault.count)
        return f"{fault.kind}, {fault.count} times, on {fault.symbol or 'all symbols'}"

    @property
    def idle(self) -> bool:
        """Nothing is to be doctored, and nothing waits to be sent."""
        return not self._turns and not self._faults.among(_KINDS)

    def forget(self, symbol: str) -> None:
        """Nobody listens to the symbol any more: what waited is not sent."""
        for turn in self._turns.values():
            turn.waiting = [(left, trade) for left, trade in turn.waiting if trade.symbol != symbol]

    def doctored(self, symbol: str, trades: list[AggTrade], event_ms: int) -> list[Make]:
        """The frames of these trades and of what had been waiting."""
        made: list[Make] = []
        for trade in self._rearranged(symbol, trades):
            made += self._around(symbol, trade, event_ms)
        for key in [key for key, turn in self._turns.items() if turn.fault is not self._faults.in_force(*key)]:
            if not self._turns[key].waiting:
                del self._turns[key]
        return made

    def _takes(self, kind: str, symbol: str) -> _Turn | None:
        """The fault's account if this trade is one of those that it is for; the last of them uses it up."""
        fault = self._faults.in_force(kind, symbol)
        if fault is None:
            return None
        turn = self._turns.get((kind, fault.symbol))
        if turn is None or turn.fault is not fault:
            waiting = turn.waiting if turn is not None else []
            turn = self._turns[kind, fault.symbol] = _Turn(fault, waiting=waiting)
        turn.seen += 1
        if turn.seen % max(1, fault.every):
            return None
        turn.done += 1
        if turn.done == fault.count * max(1, fault.span if kind == "reorder" else 1):
            self._faults.used_up(fault)
        return turn

    def _rearranged(self, symbol: str, trades: list[AggTrade]) -> list[AggTrade]:
        """Without those that are lost, and with those that come twice or in another order."""
        order: list[AggTrade] = []
        lost = False
        for trade in trades:
            if self._takes("venue-hole", symbol) is not None:
                self._market.lose(symbol, trade.id)
                lost = True
                continue
            if self._takes("hole", symbol) is not None:
                continue
            order += self._in_turn(symbol, trade)
        if lost:
            self._market.save()
        return order

    def _in_turn(self, symbol: str, trade: AggTrade) -> list[AggTrade]:
        order = [trade]
        for kind in ("reorder", "duplicate"):
            order = [late for each in order for late in self._delayed(kind, symbol, each)]
        return order

    def _delayed(self, kind: str, symbol: str, trade: AggTrade) -> list[AggTrade]:
        turn = self._takes(kind, symbol)
        if kind == "reorder":
            return self._shuffled(symbol, trade, turn)
        again = [trade]
        for key in ((kind, ""), (kind, symbol)):
            if (account := self._turns.get(key)) is not None:
                counted = [(left - (late.symbol == symbol), late) for left, late in account.waiting]
                again += [late for left, late in counted if left <= 0]
                account.waiting = [(left, late) for left, late in counted if left > 0]
        if turn is not None:
            turn.waiting.append((turn.fault.span, trade))
        return again

    def _shuffled(self, symbol: str, trade: AggTrade, turn: _Turn | None) -> list[AggTrade]:
        if turn is None:  # cleared before a group was whole
            before: list[AggTrade] = []
            for key in (("reorder", ""), ("reorder", symbol)):
                if (account := self._turns.get(key)) is not None:
                    before += [late for _, late in account.waiting if late.symbol == symbol]
                    account.waiting = [(left, late) for left, late in account.waiting if late.symbol != symbol]
            return [*before, trade]
        turn.waiting.append((0, trade))
        group = [late for _, late in turn.waiting if late.symbol == symbol]
        if len(group) < turn.fault.span:
            return []
        turn.waiting = [(left, late) for left, late in turn.waiting if late.symbol != symbol]
        first = group[0]
        self._faults.rng.shuffle(group)
        if group[0] is first:
            group.append(group.pop(0))  # so that the order is another one for certain
        return group

    def _around(self, symbol: str, trade: AggTrade, event_ms: int) -> list[Make]:
        """The trade's own frame, and bad ones before or instead of it."""
        turn = self._takes("fragmented", symbol)
        own: Make | None = partial(_trade_frame, trade, event_ms, turn.fault.pieces if turn is not None else 1)
        made: list[Make] = []
        for kind in _BAD:
            if (turn := self._takes(kind, symbol)) is not None:
                made.append(self._bad(turn.fault, trade, event_ms))
                if turn.fault.replace:
                    own = None
        return made if own is None else [*made, own]

    def _bad(self, fault: Fault, trade: AggTrade, event_ms: int) -> Make:
        # Drawn here, so that what is sent does not depend on how many forms are in use.
        noise = self._faults.rng.randbytes(64)

        def make(form: Form) -> bytes:
            if fault.kind == "binary":
                return frame(noise, BINARY)
            if fault.kind == "oversized":
                return frame(b'{"e":"aggTrade","filler":"%s"}' % (b"x" * fault.size))
            payload = _payload(trade, event_ms, form)
            if fault.kind == "malformed":
                return frame(payload[: len(payload) * 2 // 3])
            if fault.kind == "bad-utf8":
                return frame(payload[:10] + b"\xff\xfe" + payload[10:])
            if fault.kind == "compressed":
                return frame(_deflated(payload), TEXT | _RSV1)
            event = msgspec.json.decode(payload)
            inner = event["data"] if form.combined else event
            if fault.kind == "missing-fields":
                del inner["p"], inner["T"]
            else:
                inner["e"] = "auctionUpdate"
                inner.pop("a")
            return frame(msgspec.json.encode(event))

        return make


def _payload(trade: AggTrade, event_ms: int, form: Form) -> bytes:
    return agg_trade_frame(trade, event_ms, form.combined, microseconds=form.microseconds)


def _trade_frame(trade: AggTrade, event_ms: int, pieces: int, form: Form) -> bytes:
    payload = _payload(trade, event_ms, form)
    return frame(payload) if pieces == 1 else _fragments(payload, pieces)


def _fragments(payload: bytes, pieces: int) -> bytes:
    """RFC 6455, 5.4: the opcode in the first, FIN in the last; a control frame may come between, here an unsolicited pong."""
    size = -(-len(payload) // pieces)
    parts = [payload[start : start + size] for start in range(0, len(payload), size)]
    frames = [frame(part, (0 if number else TEXT & ~_FIN)) for number, part in enumerate(parts[:-1])]
    frames.insert(1, frame(b"", PONG))
    return b"".join([*frames, frame(parts[-1], _FIN)])


def _deflated(payload: bytes) -> bytes:
    """As permessage-deflate does it (RFC 7692, 7.2.1): raw, flushed, without the flush's four bytes."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
