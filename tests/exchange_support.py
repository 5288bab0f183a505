"""What the exchange's tests share: a server on real TLS ports, a clock that can be set, and a child process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

import quantai_tui
from quantai_tui.exchange.budget import Limits
from quantai_tui.exchange.fault import Fault
from quantai_tui.exchange.folder import ExchangeFolder, ExchangeState
from quantai_tui.exchange.markets import Market, ReplaySpec, SyntheticSpec
from quantai_tui.exchange.replay import ReplayMarket
from quantai_tui.exchange.server import ExchangeServer, bind
from quantai_tui.exchange.synthetic import SyntheticMarket
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

NOON = 1_790_251_200  # a Unix time on the hour; nothing depends on which


class SetClock:
    """Stands still at `now` until the test moves it; or runs `rate` times too fast, from `start` (or the present) on."""

    def __init__(self, now: float | None = None, start: float | None = None, rate: float = 1.0) -> None:
        self.now = now
        self._rate = rate
        self._start = time.time() if start is None else start
        self._began = time.monotonic()

    def time(self) -> float:
        return self._start + (time.monotonic() - self._began) * self._rate if self.now is None else self.now

    def run(self) -> None:
        """Run from where it stands."""
        assert self.now is not None
        self._start, self._began, self.now = self.now, time.monotonic(), None

    def monotonic(self) -> float:
        return time.monotonic() if self.now is not None else (time.monotonic() - self._began) * self._rate

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._rate)


@dataclass
class Served:
    """A running server, and how a client that trusts its authority reaches it."""

    ws_url: str
    rest_url: str
    tls: ssl.SSLContext
    server: ExchangeServer | None = None

    def dial(self, path: str = "/ws", **options: Any) -> connect:
        return connect(self.ws_url + path, ssl=self.tls, compression=None, max_queue=None, proxy=None, **options)

    async def inject(self, kind: str, **parameters: Any) -> str:
        """Let a fault happen; what the exchange says about it."""
        assert self.server is not None
        return await self.server.faults.inject(Fault(kind, **parameters))

    async def get(self, path: str, **params: str | int) -> tuple[int, Any, dict[str, str]]:
        """Status, decoded body and headers."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls)) as session,
            session.get(self.rest_url + path, params=params) as response,
        ):
            return response.status, await response.json(), dict(response.headers)


@asynccontextmanager
async def serving(
    market: Market,
    folder: Path,
    *,
    limits: Limits | None = None,
    clock: Clock = SYSTEM_CLOCK,
    send_buffer: int | None = None,
    remembers: bool = False,
) -> AsyncIterator[Served]:
    """`remembers`: bans and what is done to the market are kept in the folder, as by the process."""
    home = await asyncio.to_thread(ExchangeFolder, folder)
    if remembers and home.load() is None:
        home.save(ExchangeState(source="test", epoch_s=0))
    ws_socket, rest_socket = bind(0), bind(0)
    if send_buffer is not None:
        ws_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # accepted sockets inherit it
    server = ExchangeServer(market, home.server_tls()[0], limits=limits, clock=clock, home=home if remembers else None)
    await server.start(ws_socket, rest_socket)
    try:
        yield Served(
            f"wss://127.0.0.1:{ws_socket.getsockname()[1]}",
            f"https://localhost:{rest_socket.getsockname()[1]}",
            ssl.create_default_context(cafile=str(home.ca_file)),
            server,
        )
    finally:
        await server.close()
        home.close()


def synthetic(seed: int = 7, symbols: tuple[str, ...] = ("ETHUSDT",), epoch_s: int = NOON) -> SyntheticMarket:
    return SyntheticMarket(SyntheticSpec(seed, symbols), epoch_s)


def replay(path: Path, folder: Path, speed: Any, now: float = NOON) -> tuple[ReplayMarket, ExchangeFolder]:
    """A replay on a folder of its own, as the process opens it. The caller closes the folder."""
    home = ExchangeFolder(folder)
    if home.load() is None:
        home.save(ExchangeState(source="file", epoch_s=0))
    try:
        return ReplayMarket.open(ReplaySpec(path, speed), home, now, lambda: False), home
    except BaseException:
        home.close()
        raise


async def ask(ws: ClientConnection, method: str, *params: Any, id: int | str | None = 1) -> dict[str, Any]:
    """Send a control message; the reply to it, past all events."""
    await ws.send(json.dumps({"method": method, "params": list(params), "id": id}))
    async with asyncio.timeout(15):
        while True:
            frame: dict[str, Any] = json.loads(await ws.recv())
            if "e" not in frame and "stream" not in frame:
                return frame


async def receive(ws: ClientConnection, count: int, seconds: float = 15.0) -> list[dict[str, Any]]:
    """The next `count` frames."""
    async with asyncio.timeout(seconds):
        return [json.loads(await ws.recv()) for _ in range(count)]


class Child:
    """The exchange as a child process, and its first line."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self.process = process
        self.ready = ready

    def served(self) -> Served:
        tls = ssl.create_default_context(cafile=self.ready["ca_file"])
        return Served(self.ready["ws_url"], self.ready["rest_url"], tls)

    async def order(self, line: str) -> dict[str, Any]:
        """Write a line to its standard input; the line that it answers with."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(10):
            answer: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return answer

    async def leave(self) -> int:
        """Close its standard input, as its parent's death would."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(15):
            return await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def child(*arguments: str | Path) -> AsyncIterator[Child]:
    """`python -m quantai_tui.exchange`, from its first line on; killed at the end if it is still there."""
    environment = os.environ | {"PYTHONPATH": str(Path(quantai_tui.__file__).resolve().parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "quantai_tui.exchange",
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        yield Child(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return when the condition holds; it is a failure when it never does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
