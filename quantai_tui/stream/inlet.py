"""What one link delivers: decoded, in a bounded list. Next to nothing is done per message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..market.trades import AggTrade
from ..market.wire import ControlReply, OtherEvent, ServerShutdown, WireError, decode_frame
from ..telemetry import SYSTEM_CLOCK, Clock
from .advice import FailureKind
from .failures import LinkFault
from .quarantine import Quarantine
from .tasks import until_first_ends
from .transport import Link

Notice = ControlReply | ServerShutdown | OtherEvent


class Inlet:
    """The receiver of one link. Who consumes it calls `drain`; when it is full the socket is not read any more.

    `hurry` is called when it is full, for the consumer to come at once.
    """

    def __init__(
        self,
        limit: int,
        quarantine: Quarantine,
        on_notice: Callable[[Notice], None],
        *,
        hurry: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limit = limit
        self._quarantine = quarantine
        self._on_notice = on_notice
        self._hurry = hurry
        self._clock = clock
        self._trades: list[AggTrade] = []
        self._others = 0
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self.paused_since: float | None = None

    @property
    def waiting(self) -> int:
        """Trades that nobody has taken yet."""
        return len(self._trades)

    def take(self, data: bytes, /) -> None:
        """One message of the link, in the order they came. This is the hot path: decode, and append."""
        try:
            frame = decode_frame(data)
        except WireError as error:
            self._others += 1
            self._quarantine.add(data, error)
            return
        if type(frame) is AggTrade:
            self._trades.append(frame)
        else:
            self._others += 1
            if type(frame) is OtherEvent:
                self._quarantine.add(data, WireError(f"an event that nobody asked for: {frame.kind}"))
            self._on_notice(frame)  # type: ignore[arg-type]

    def is_full(self) -> bool:
        """Whether to stop reading: asked once per read of the socket, which can bring two thousand trades above the limit."""
        if len(self._trades) < self._limit:
            return False
        self._full.set()
        return True

    def drain(self) -> tuple[list[AggTrade], int]:
        """Take everything: the trades, and the number of other messages."""
        taken = self._trades[:], self._others
        self._trades.clear()  # the same list stays: `take` may hold on to it
        self._others = 0
        self._room.set()
        return taken

    async def attend(self, link: Link, patience_s: float) -> None:
        """See to `link` while it delivers: read on when there is room again, and notice its end.

        Raises:
            LinkFault: with kind OVERLOAD, when nobody made room for `patience_s`.
            Exception: what ended the link; what had come before is here to be drained.
        """
        await until_first_ends(link.until_closed(), self._mind_the_room(link, patience_s))

    async def _mind_the_room(self, link: Link, patience_s: float) -> None:
        while True:
            await self._full.wait()
            self.paused_since = self._clock.monotonic()
            try:
                await until_first_ends(self._wait_for_room(), self._lose_patience(patience_s))
            finally:
                self.paused_since = None
            self._full.clear()
            link.resume_reading()

    async def _wait_for_room(self) -> None:
        while len(self._trades) >= self._limit:
            self._room.clear()
            self._hurry()
            await self._room.wait()

    async def _lose_patience(self, patience_s: float) -> None:
        await self._clock.sleep(patience_s)
        raise LinkFault(FailureKind.OVERLOAD, f"reading was paused for {patience_s:g} s: the store did not keep up")
