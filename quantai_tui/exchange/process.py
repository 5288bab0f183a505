"""The exchange as a process of its own: what to serve, where its state lies, and when to leave.

It says that it is ready, or why it cannot be, in one line of JSON on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantai_tui.arguments import typed_number
from quantai_tui.market.trades import whole_number
from quantai_tui.telemetry import SYSTEM_CLOCK, Clock
from quantai_tui.textfile import escaped

from ..output import log_to_stderr, say_json
from .catalogue import FAULTS
from .doors import Doors
from .faults import Faults
from .folder import ExchangeFolder, ExchangeState
from .markets import ExchangeError, Market, MarketSpec, ReplaySpec, Speed, SyntheticSpec
from .orders import Orders
from .replay import LoadAbandonedError, ReplayMarket
from .script import FaultScript, load_script
from .server import HOST, ExchangeServer, bind
from .synthetic import SyntheticMarket

_AT_THE_DOORS = frozenset({"line", "tls"})
_LONGEST_ERROR = 8_000  # characters; the engine reads lines of up to 256 KiB


class FaultOffer(msgspec.Struct, frozen=True):
    """A kind of fault that can be asked for, in words for an operator."""

    kind: str
    text: str


class Ready(msgspec.Struct, frozen=True):
    """The line that an exchange prints when it serves.

    `last_id` holds the ids that a replay ends with, None for a market without an end; `total` is the number of trades in a
    replayed file. `notes` are sentences for the operator: a port that was taken, a certificate authority that had to be
    replaced. `faults` are the kinds that standard input takes: none unless the exchange is breakable.
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
    faults: list[FaultOffer] = []


async def run(
    folder: Path,
    spec: MarketSpec,
    *,
    ws_port: int = 0,
    rest_port: int = 0,
    stop: asyncio.Event,
    ready: Callable[[Ready], None] = say_json,
    script: FaultScript | None = None,
    breakable: bool = False,
    orders: Orders | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Serve `spec` out of `folder` until `stop` is set; `ready` is called once when both ports accept.

    A port of 0 means the one of the last start, or any. `script` is played from the first subscription on. A `breakable` exchange
    has a door before each port and takes faults from `orders`; a script that needs the doors gets them too. Raises ExchangeError
    when the exchange cannot run, and whatever broke the market in between.
    """
    script = script or FaultScript()
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
        faults = Faults(clock, seed=script.seed)
        server = ExchangeServer(market, tls, clock=clock, faults=faults, home=home)
        front: ExchangeServer | Doors = server
        if breakable or any(FAULTS[fault.kind].layer in _AT_THE_DOORS for fault in script.faults):
            front = Doors(server, home.authority()[0], clock=clock)
        try:
            await front.start(ws_socket, rest_socket)
            faults.play(script.faults)
            offers = [FaultOffer(kind.name, kind.text) for kind in faults.offered] if breakable else []
            ready(_describe(market, home, ports, notes, offers))
            await _attend(stop, server.failed, orders, faults if breakable else None)
        finally:
            await front.close()
    finally:
        home.close()


async def _attend(stop: asyncio.Event, failed: asyncio.Future[None], orders: Orders | None, faults: Faults | None) -> None:
    """Obey orders until somebody asks to leave; raise what broke the market, should that come first."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if orders is not None:
        tasks.append(asyncio.create_task(orders.obey(faults)))
    waiting: set[asyncio.Future[Any]] = {failed, *tasks}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def _describe(market: Market, home: ExchangeFolder, ports: tuple[int, int], notes: list[str], offers: list[FaultOffer]) -> Ready:
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
        faults=offers,
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
        log_to_stderr("%(asctime)sZ %(levelname)s %(name)s: %(message)s")
        logging.getLogger("quantai_tui.exchange.websockets").setLevel(logging.WARNING)
        script = load_script(options.faults) if options.faults is not None else None
        asyncio.run(_serve(options, spec, script))
    except ExchangeError as error:
        say_json({"error": escaped(str(error))[:_LONGEST_ERROR], "remedy": escaped(error.remedy)[:_LONGEST_ERROR]})
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
    parser.add_argument("--faults", type=Path, help="play this fault script (TOML) from the first subscription on")
    parser.add_argument("--breakable", action="store_true", help="take faults on standard input, a line of JSON each")
    return parser


def _port(text: str) -> int:
    port = whole_number(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: use 0 to 65535")
    return port


def _speed(text: str) -> Speed:
    if text == "max":
        return "max"
    try:
        return typed_number(text)
    except ValueError:
        raise ExchangeError(f"speed {text!r} is no number", "use a number of market seconds in a second, or max") from None


async def _serve(options: argparse.Namespace, spec: MarketSpec, script: FaultScript | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    await run(
        options.folder,
        spec,
        ws_port=options.ws_port,
        rest_port=options.rest_port,
        stop=stop,
        script=script,
        breakable=options.breakable,
        orders=Orders(stop, say_json),
    )
