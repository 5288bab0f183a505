"""What the tests of the doors share: the real exchange behind real doors, and a check that nothing is left of either."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange_support import Served, SetClock, synthetic, until
from websockets.asyncio.client import connect

from quantai_tui.exchange.catalogue import parse_fault
from quantai_tui.exchange.doors import Doors
from quantai_tui.exchange.faults import Faults
from quantai_tui.exchange.folder import ExchangeFolder
from quantai_tui.exchange.server import ExchangeServer, bind

STREAM = "/ws/ethusdt@aggTrade"


@dataclass
class Breakable(Served):
    """The exchange behind its doors, and what breaks it."""

    faults: Faults | None = None

    @property
    def ws_port(self) -> int:
        return int(self.ws_url.rsplit(":", 1)[1])

    async def inject(self, kind: str, **parameters: Any) -> str:
        """A fault as a script would write it, with the key `for` as `for_s`."""
        assert self.faults is not None
        table = {"for" if key == "for_s" else key: value for key, value in parameters.items()}
        return await self.faults.inject(parse_fault({"kind": kind} | table))

    async def clear(self) -> None:
        assert self.faults is not None
        await self.faults.clear()

    def trades(self, **options: Any) -> connect:
        """A connection on which trades come at once; a WebSocket ends it in half a second if nobody answers its good-bye."""
        return self.dial(STREAM, **({"close_timeout": 0.5, "open_timeout": 8.0, "ping_interval": None} | options))


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """It is a failure when more tasks or descriptors are there at the end than at the beginning."""
    tasks, files = asyncio.all_tasks(), descriptors()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks, 8.0)
    await until(lambda: descriptors() <= files, 8.0)


@asynccontextmanager
async def breakable(folder: Path) -> AsyncIterator[Breakable]:
    """A synthetic market that runs five times as fast, behind doors that work in real time."""
    async with nothing_left():
        market_clock = SetClock(rate=5.0)
        home = await asyncio.to_thread(ExchangeFolder, folder)
        server = ExchangeServer(
            synthetic(epoch_s=int(market_clock.time()) - 3600), home.server_tls()[0], clock=market_clock, faults=Faults(seed=7)
        )
        doors = Doors(server, home.authority()[0])
        ws_socket, rest_socket = bind(0), bind(0)
        urls = f"wss://127.0.0.1:{ws_socket.getsockname()[1]}", f"https://localhost:{rest_socket.getsockname()[1]}"
        await doors.start(ws_socket, rest_socket)
        try:
            yield Breakable(*urls, ssl.create_default_context(cafile=str(home.ca_file)), server, server.faults)
        finally:
            await doors.close()
            home.close()
