"""The exchange as a process of its own: what to serve, where its state lies, and when to leave.

It says that it is ready, or why it cannot be, in one line of JSON on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantai_tui.telemetry import SYSTEM_CLOCK, Clock

from .folder import ExchangeFolder, ExchangeState
from .markets import ExchangeError, Market, MarketSpec, ReplaySpec, Speed, SyntheticSpec
from .replay import LoadAbandonedError, ReplayMarket
from .server import HOST, ExchangeServer, bind
from .synthetic import SyntheticMarket

_LOG = logging.getLogger(__name__)


class Ready(msgspec.Struct, frozen=True):
    """The line that an exchange prints when it serves.

    `last_id` holds the ids that a replay ends with, None for a market without an end; `total` is the number of trades in a
    replayed file. `notes` are sentences for the operator: a port that was taken, a certificate authority that had to be
    replaced.
    """

    ws_url: str
    rest_url: str
    ca_file: str
    mode: str
    symbols: tuple[str, ...]
    first_id: dict[str, int]
    last_id: dict[str, int | None]
    total: int | None
    notes: list[str]


def print_line(message: object) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(msgspec.json.encode(message).decode() + "\n")
    sys.stdout.flush()


async def run(
    folder: Path,
    spec: MarketSpec,
    *,
    ws_port: int = 0,
    rest_port: int = 0,
    stop: asyncio.Event,
    ready: Callable[[Ready], None] = print_line,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Serve `spec` out of `folder` until `stop` is set; `ready` is called once when both ports accept.

    A port of 0 means the one of the last start, or any. Raises ExchangeError when the exchange cannot run, and whatever broke the
    market in between.
    """
    home = await asyncio.to_thread(ExchangeFolder, folder)  # may wait for the exchange before to leave
    try:
        try:
            # In a thread: a large file takes seconds, and whoever asks to leave meanwhile must be heard.
            market, state = await asyncio.to_thread(_open_market, home, spec, clock.time(), stop.is_set)
        except LoadAbandonedError:
            return
        tls, notes = home.server_tls()
        ws_socket = _bind(ws_port or state.ws_port, "WebSocket", notes)
        rest_socket = _bind(rest_port or state.rest_port, "REST", notes)
        ports = ws_socket.getsockname()[1], rest_socket.getsockname()[1]
        # Loaded again: opening a replay may have moved its play clock.
        home.save(msgspec.structs.replace(home.load() or state, ws_port=ports[0], rest_port=ports[1]))
        server = ExchangeServer(market, tls, clock=clock)
        try:
            await server.start(ws_socket, rest_socket)
            ready(_describe(market, home, ports, notes))
            await _either(stop, server.failed)
        finally:
            await server.close()
    finally:
        home.close()


async def _either(stop: asyncio.Event, failed: asyncio.Future[None]) -> None:
    """Wait until somebody asks to leave; raise what broke the market, should that come first."""
    stopped = asyncio.ensure_future(stop.wait())
    waiting: set[asyncio.Future[Any]] = {stopped, failed}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
    finally:
        stopped.cancel()


def _open_market(
    home: ExchangeFolder, spec: MarketSpec, now: float, abandoned: Callable[[], bool]
) -> tuple[Market, ExchangeState]:
    state = home.load()
    if isinstance(spec, SyntheticSpec):
        source, history_s = f"seed {spec.seed}", spec.history_h * 3600
    else:
        source, history_s = f"file {ReplayMarket.fingerprint(spec)}", 0
    if state is None:
        state = ExchangeState(source=source, epoch_s=int(now) - history_s)
        home.save(state)
    elif state.source != source:
        raise ExchangeError(
            f"the folder {home.path} belongs to another market ({state.source}, not {source})",
            "name another folder, or delete this one to begin anew",
        )
    if isinstance(spec, SyntheticSpec):
        return SyntheticMarket(spec, state.epoch_s), state
    return ReplayMarket.open(spec, home, now, abandoned), state


def _bind(port: int, name: str, notes: list[str]) -> socket.socket:
    try:
        return bind(port)
    except OSError as error:
        if port == 0:
            raise ExchangeError(f"no port of {HOST} is free: {error.strerror}", "end some of the programs that listen") from error
        notes.append(f"{name} port {port} is taken ({error.strerror}): another one is used")
        return bind(0)


def _describe(market: Market, home: ExchangeFolder, ports: tuple[int, int], notes: list[str]) -> Ready:
    return Ready(
        ws_url=f"wss://{HOST}:{ports[0]}",
        rest_url=f"https://{HOST}:{ports[1]}",
        ca_file=str(home.ca_file),
        mode=market.mode,
        symbols=market.symbols,
        first_id={symbol: market.first_id(symbol) for symbol in market.symbols},
        last_id={symbol: market.final_id(symbol) for symbol in market.symbols},
        total=market.total if isinstance(market, ReplayMarket) else None,
        notes=notes,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 after a request to leave, 2 when the exchange cannot run."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
        spec: MarketSpec
        if options.file is not None:
            spec = ReplaySpec(options.file, _speed(options.speed), options.symbol)
        else:
            names = tuple(dict.fromkeys(name.strip() for name in options.symbols.split(",") if name.strip()))
            spec = SyntheticSpec(options.seed, names, options.history_h)
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("quantai_tui.exchange.websockets").setLevel(logging.WARNING)
        asyncio.run(_serve(options.folder, spec, options.ws_port, options.rest_port))
    except ExchangeError as error:
        print_line({"error": str(error), "remedy": error.remedy})
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # it raises, which is one way not to return
        raise ExchangeError(message, self.format_usage().strip())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m quantai_tui.exchange", description="Binance's spot protocol on loopback, over TLS.")
    parser.add_argument("--folder", type=Path, required=True, help="where its certificates, ports and clock are kept")
    parser.add_argument("--seed", type=int, default=1, help="which synthetic market")
    parser.add_argument("--symbols", default="ETHUSDT", help="what trades on it, separated by commas")
    parser.add_argument("--history-h", type=int, default=72, help="hours of it that exist at the first start")
    parser.add_argument("--file", type=Path, help="replay this aggTrades archive instead (.csv, .csv.gz, .zip)")
    parser.add_argument("--symbol", help="the symbol of a file whose name does not say it")
    parser.add_argument("--speed", default="1", help="market seconds in a second of a replay, or max: 10,000 trades/s")
    parser.add_argument("--ws-port", type=_port, default=0, help="port for streams; 0 is the last one used, or any")
    parser.add_argument("--rest-port", type=_port, default=0, help="port for REST; 0 is the last one used, or any")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: use 0 to 65535")
    return port


def _speed(text: str) -> Speed:
    if text == "max":
        return "max"
    try:
        return float(text)
    except ValueError:
        raise ExchangeError(f"speed {text!r} is no number", "use a number of market seconds in a second, or max") from None


async def _serve(folder: Path, spec: MarketSpec, ws_port: int, rest_port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    threading.Thread(target=_watch_stdin, args=(loop, stop), name="stdin", daemon=True).start()
    await run(folder, spec, ws_port=ws_port, rest_port=rest_port, stop=stop)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: then the parent is gone, however it died.

    A blocking read in a thread of its own, since standard input may be anything, and not all of it can be waited for by a
    selector.
    """
    try:
        while os.read(0, 4096):
            pass
    except OSError as error:
        _LOG.warning("standard input cannot be read (%s): leaving", error)
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        pass  # the loop is closed: it is leaving already
