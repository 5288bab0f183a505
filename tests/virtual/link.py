"""One connection in memory, both ends of it: the client's is a `Link`, the venue's speaks Binance's protocol."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close

from quantai_tui.market.trades import AggTrade
from quantai_tui.stream.transport import CLOSE_TIMEOUT_S, Receiver, SendPace, TlsInfo

from .limits import MESSAGES_PER_S

if TYPE_CHECKING:
    from .venue import Venue

_SERVER_PING_S = 20.0
_SERVER_PONG_S = 60.0
_YEAR_S = 365 * 24 * 3600.0


class MemoryLink:
    """A connection to a `Venue`; see `Link` for what the client may do with it. The rest is the venue's end and the wire."""

    def __init__(self, venue: Venue, receiver: Receiver, rng: random.Random) -> None:
        self._venue = venue
        self._receiver = receiver
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._pace = SendPace(venue.clock)
        self._wire: deque[tuple[float, bytes | BaseException, AggTrade | int | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._pings: dict[bytes, tuple[asyncio.Future[float], float]] = {}
        self._over = asyncio.Event()
        self._end: BaseException | None = None
        self._heard: deque[float] = deque(maxlen=MESSAGES_PER_S)
        self._server_pinged: float | None = None
        self._server_timer = self._loop.call_later(_SERVER_PING_S, self._server_ping)
        self._last_due = 0.0
        self.latency_s = rng.uniform(0.02, 0.08)
        self.jitter_s = 0.0
        self.opened_at = venue.clock.monotonic()
        self.tls: TlsInfo | None = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "Virtual CA", venue.clock.time() + _YEAR_S)
        # What the venue and the wire do to it:
        self.streams: set[str] = set()
        self.black_hole = False
        self.muted: set[str] | None = set()  # symbols that it is not sent; None: none of them
        self.drops = self.doubles = self.garbles = 0  # so many of the next trades are dropped, sent twice, damaged
        self.swaps = 0
        self._swapped: dict[str, tuple[bytes, AggTrade]] = {}

    # The client's end.

    async def until_closed(self) -> NoReturn:
        await self._over.wait()
        assert self._end is not None
        raise self._end

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._arm()

    async def send(self, frame: str | bytes) -> None:
        await self._pace.turn()
        self._refuse_if_over()
        self._to_server(self._on_message, frame.encode() if isinstance(frame, str) else frame)

    async def ping(self, payload: bytes) -> Awaitable[float]:
        await self._pace.turn()
        self._refuse_if_over()
        trip: asyncio.Future[float] = self._loop.create_future()
        self._pings[payload] = (trip, self._loop.time())
        self._to_server(self._on_ping, payload)
        return trip

    async def close(self) -> None:
        if self._end is not None:
            return
        answers = not (self.black_hole or self._paused)
        self._to_server(self._stop_sending)
        try:
            await asyncio.sleep(min(2 * self.latency_s, CLOSE_TIMEOUT_S) if answers else CLOSE_TIMEOUT_S)
        finally:
            done = Close(1000, "")
            self.end(ConnectionClosedOK(done, done, False) if answers else ConnectionClosedError(None, done))

    def abort(self) -> None:
        self.end(ConnectionClosedError(None, None))

    # The venue's end.

    def carries(self, stream: str, symbol: str) -> bool:
        """Whether trades of a symbol get through at all."""
        muted = self.muted is None or symbol in self.muted or symbol in self._venue.muted
        return stream in self.streams and not self.black_hole and not muted

    def publish(self, stream: str, frame: bytes, trade: AggTrade) -> None:
        """Send a trade, unless the wire or the venue has something against it."""
        if not self.carries(stream, trade.symbol):
            return
        if self.drops:
            self.drops -= 1
            return
        if self.garbles:
            self.garbles -= 1
            self.push(frame[: len(frame) // 2])
            return
        held = self._swapped.pop(trade.symbol, None)
        if held is None and self.swaps:
            self.swaps -= 1
            self._swapped[trade.symbol] = (frame, trade)
            return
        self.push(frame, trade)
        if held is not None:
            self.push(*held)
        if self.doubles:
            self.doubles -= 1
            self.push(frame, trade)

    def push(self, item: bytes | BaseException, note: AggTrade | int | None = None) -> None:
        """Put a frame on the wire, or the end of the connection, behind what is there already."""
        if self.black_hole or self._end is not None:
            return
        delay = self.latency_s + (self._rng.uniform(0, self.jitter_s) if self.jitter_s else 0.0)
        self._last_due = max(self._last_due + 1e-6, self._loop.time() + delay)
        self._wire.append((self._last_due, item, note))
        if self._timer is None and not self._paused:
            self._arm()

    def close_from_venue(self, code: int, reason: str = "") -> None:
        """A close frame, behind the data."""
        if code in (1000, 1001):
            self.push(ConnectionClosedOK(Close(code, reason), Close(code, reason), True))
        else:
            self.push(ConnectionClosedError(Close(code, reason), Close(code, reason), True))
        self._stop_sending()

    def cut(self, cause: BaseException | None = None) -> None:
        """The connection breaks here and now, by `cause`; what is on the wire is lost."""
        self._venue.tls_errors += isinstance(cause, ssl.SSLError)
        end = ConnectionClosedError(None, None)
        end.__cause__ = cause
        self.end(end)

    def end(self, how: BaseException) -> None:
        """It is over, for the client; idempotent."""
        if self._end is not None:
            return
        self._end = how
        for timer in (self._timer, self._server_timer):
            if timer is not None:
                timer.cancel()
        self._wire.clear()
        for trip, _ in self._pings.values():
            if not trip.done():
                trip.set_exception(how)
                trip.exception()  # whoever still waits gets it; nobody has to
        self._pings.clear()
        self._stop_sending()
        self._over.set()

    def _refuse_if_over(self) -> None:
        if self._end is not None:
            raise self._end

    def _to_server(self, call: Any, *args: Any) -> None:
        if not self.black_hole:
            self._loop.call_later(self.latency_s, self._at_server, call, *args)

    def _at_server(self, call: Any, *args: Any) -> None:
        if self._end is None and not self.black_hole:
            call(*args)

    def _stop_sending(self) -> None:
        self.streams.clear()
        self._venue.links.discard(self)

    def _counts(self) -> bool:
        """Count one message of the client. False when it was one too many, and the connection is being closed."""
        now = self._loop.time()
        if len(self._heard) == MESSAGES_PER_S and now - self._heard[0] < 1.0:
            self._venue.limits.violations.append(f"at {now:.1f} s more than {MESSAGES_PER_S} messages in a second")
            self.close_from_venue(1008, "Too many requests")
            return False
        self._heard.append(now)
        return True

    def _on_ping(self, payload: bytes) -> None:
        if self._counts():
            self.push(payload, 0)

    def _on_message(self, frame: bytes) -> None:
        if self not in self._venue.links or not self._counts():
            return
        asked = msgspec.json.decode(frame)
        reply: dict[str, Any] = {"result": None, "id": asked["id"]}
        if self._venue.has("no_ack"):
            return
        if asked["method"] == "SUBSCRIBE":
            self.streams.update(asked["params"])
        elif asked["method"] == "UNSUBSCRIBE":
            self.streams.difference_update(asked["params"])
        else:
            reply["result"] = sorted(self.streams)
        self.push(msgspec.json.encode(reply))

    def _server_ping(self) -> None:
        now = self._loop.time()
        if self._server_pinged is not None and now - self._server_pinged >= _SERVER_PONG_S:
            self.close_from_venue(1008, "pong timeout")
            return
        if self._server_pinged is None:
            self._server_pinged = now
        self.push(b"", 1)
        self._server_timer = self._loop.call_later(_SERVER_PING_S, self._server_ping)

    def _on_pong(self) -> None:
        self._server_pinged = None
        self._counts()

    # The wire.

    def _arm(self) -> None:
        if self.black_hole:
            self._wire.clear()  # what was on the way gets lost there
        elif self._wire and self._end is None:
            self._timer = self._loop.call_at(self._wire[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._wire and self._wire[0][0] <= now and not self._paused and not self.black_hole:
            _, item, note = self._wire.popleft()
            if isinstance(item, BaseException):
                self.end(item)
            elif note == 0:
                self._pong(item)
            elif note == 1:
                self._to_server(self._on_pong)
            else:
                self._take(item, note)  # type: ignore[arg-type]
        if not self._paused:
            self._arm()

    def _take(self, frame: bytes, trade: AggTrade | None) -> None:
        self._receiver.take(frame)
        if trade is not None:
            self._venue.hand_over(self, trade)
        if self._receiver.is_full():
            self._paused = True

    def _pong(self, payload: bytes) -> None:
        trip, sent_at = self._pings.pop(payload, (None, 0.0))
        if trip is not None and not trip.done():
            trip.set_result(self._loop.time() - sent_at)


def tls_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    """As OpenSSL's errors come: told apart by `reason`, not by their text."""
    error = kind(1, f"[SSL: {reason}] (virtual)")
    error.reason = reason
    return error
