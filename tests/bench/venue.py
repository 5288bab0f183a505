"""A venue that does nothing but send: aggTrade frames over TLS, to order or at a steady pace.

    wss://localhost:PORT/told/NAME/stream     sends what its orders say
    wss://localhost:PORT/paced/RATE/stream    RATE frames a second, until the client leaves

Orders: `prepare=N, to=NAME` makes and encrypts N frames, and is answered when that is done; `go=NAME` lets them out;
`pace=RATE, to=NAME` sends so many a second from now on, 0 none; `count=NAME` is answered with how many were sent in all. Each
frame is a TLS record of its own, as from a venue that sends every trade when it happens.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from quantai_tui.market.trades import AggTrade
from quantai_tui.market.wire import agg_trade_frame, agg_trade_stream

from .children import orders, say

SYMBOL = "ETHUSDT"
FIRST_ID = 5_000_001
TRADES_PER_MARKET_S = 1000
_PACE_S = 0.001
_MOST_UNSENT_BYTES = 1 << 18


def frames() -> Iterator[bytes]:
    """WebSocket frames of a made-up market without end: ids without holes, prices that stay or move by a few ticks."""
    chance = random.Random(1)
    epoch_ms = int(time.time() * 1000)
    price = 200_000
    number = 0
    while True:
        if chance.random() < 0.6:
            price += chance.randint(-3, 3)
        told = f"{price / 100:.2f}", f"{chance.randint(1, 50_000) / 10_000:.8f}"
        at = epoch_ms + number * 1000 // TRADES_PER_MARKET_S
        trade = AggTrade(FIRST_ID + number, *told, 2 * number, 2 * number + 1, at, chance.random() < 0.5, SYMBOL)
        yield Frame(Opcode.TEXT, agg_trade_frame(trade, at, True)).serialize(mask=False)
        number += 1


class Outlet:
    """The way to one client."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._tls: ssl.SSLObject = connection.transport.get_extra_info("ssl_object")
        self._frames = frames()
        self._held = b""
        self._pacing: asyncio.Task[None] | None = None
        self.sent = 0

    def prepare(self, count: int) -> None:
        """Make `count` frames and keep them back: a receiver that had to wait for its sender would measure its own waking up.

        A ping that comes before `go` lets out what has been made, which the receiver has to put up with.
        """
        self.sent += count
        every = list(islice(self._frames, count))
        self._encrypt(every[:-1])
        self._held = every[-1]

    def go(self) -> None:
        self._transport.write(self._held)  # and with it, in one piece, every record that was made before

    def pace(self, rate: int) -> None:
        if self._pacing is not None:
            self._pacing.cancel()
        self._pacing = asyncio.create_task(self.keep_pace(rate)) if rate else None

    async def keep_pace(self, rate: int) -> None:
        started, sent = time.monotonic(), 0
        while self._connection.close_code is None:
            due = min(int((time.monotonic() - started) * rate) - sent, rate // 50)
            if due > 0 and self._transport.get_write_buffer_size() <= _MOST_UNSENT_BYTES:
                some = list(islice(self._frames, due))
                self._encrypt(some[:-1])
                self._transport.write(some[-1])
                sent += due
                self.sent += due
            await asyncio.sleep(_PACE_S)

    def _encrypt(self, some: Sequence[bytes]) -> None:
        for frame in some:
            self._tls.write(frame)


class Venue:
    def __init__(self) -> None:
        self._outlets: dict[str, Outlet] = {}

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        kind, value, _ = connection.request.path.strip("/").split("/")
        outlet = Outlet(connection)
        try:
            await self._answer(connection, await connection.recv())
            if kind == "paced":
                await outlet.keep_pace(int(value))
            elif value in self._outlets:
                # Between two measurements the market is silent, and a stream asks on a second connection whether it is.
                await self._converse(connection)
            else:
                self._outlets[value] = outlet
                await self._converse(connection)
                outlet.pace(0)
        except (ConnectionClosed, ssl.SSLError):
            return  # the client has left

    async def _converse(self, connection: ServerConnection) -> None:
        async for message in connection:
            await self._answer(connection, message)

    @staticmethod
    async def _answer(connection: ServerConnection, message: str | bytes) -> None:
        request = json.loads(message)
        listed = [agg_trade_stream(SYMBOL)] if request["method"] == "LIST_SUBSCRIPTIONS" else None
        await connection.send(json.dumps({"result": listed, "id": request["id"]}))

    async def obey(self) -> None:
        async for order in orders():
            if "go" in order:
                self._outlets[order["go"]].go()
            elif "prepare" in order:
                self._outlets[order["to"]].prepare(order["prepare"])
                say(prepared=order["prepare"])
            elif "count" in order:
                say(sent=self._outlets[order["count"]].sent)
            else:
                self._outlets[order["to"]].pace(order["pace"])


def certify(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for localhost, and the file of the authority that vouches for it."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    ca_file = folder / "venue-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context, ca_file.resolve()


async def main(folder: Path) -> None:
    venue = Venue()
    context, ca_file = certify(folder)
    options = {"compression": None, "ping_interval": None, "close_timeout": 0.2}
    async with serve(venue.handle, "localhost", 0, ssl=context, **options) as server:  # type: ignore[arg-type]
        say(url=f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}", ca_file=str(ca_file))
        await venue.obey()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
