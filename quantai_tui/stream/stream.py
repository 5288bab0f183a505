"""The resilient stream as a whole: its parts put together, its commands, and what it tells of itself."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..arguments import check_methods, check_type
from ..market.trades import Bar
from ..telemetry import SYSTEM_CLOCK, Clock, RecordingSnapshot, StreamSnapshot, StreamState
from .batch_queue import BatchQueue
from .batches import IdOrder, TradeBatch
from .config import StreamConfig
from .failures import Failure, classify
from .feed import Feeds
from .gate import Gate
from .id_jumps import JumpCheck
from .intake import Intake
from .quarantine import Quarantine
from .recording import Recorder, RecordingHistory, RecordingTransport
from .repair import Repairer
from .report import Parts, connection_stats, stream_snapshot
from .rest import History, RestClient
from .sink import TradeSink
from .supervisor import Supervisor
from .tasks import until_first_ends
from .tls import tls_context
from .trade_times import TradeTimes
from .transport import Transport
from .transports import ConfiguredTransport

log = logging.getLogger("quantai_tui.stream")

# Settings that a running stream cannot change: they belong to its ledgers and its place.
_FIXED = (
    *("symbols", "ws_url", "rest_url", "ca_file", "proxy", "backfill_start", "exit_on_failure"),
    *("buffer_trades", "order", "reorder_trades", "reorder_s"),
)
_SINK_METHODS = ("append", "add_gap", "close_gap", "begin", "position")


class ResilientStream:
    """A market-data stream that reconnects, and fetches what it missed.

    Trades go to `sink`; without one they come out of the stream itself:

        async with ResilientStream(StreamConfig(symbols=("ETHUSDT",))) as stream:
            async for batch in stream:
                print(batch.symbol, len(batch.trades), stream.get_connection_stats()["state"])

    `start` returns at once; `stop` ends it for good. Commands may be given in every state and answer with one line that says
    what was done. `failed` is set when the stream has given up and was told to (`exit_on_failure`). `gate` is shared by all that
    dial from this address, `transport` and `history` are the network; each has a default. `replayed`: the market is from another
    time, and no trade is refused for its time.
    """

    def __init__(
        self,
        config: StreamConfig,
        sink: TradeSink | None = None,
        *,
        gate: Gate | None = None,
        transport: Transport | None = None,
        history: History | None = None,
        replayed: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        check_type("config", config, StreamConfig, "a StreamConfig")
        if sink is not None:
            check_methods("sink", sink, "TradeSink", _SINK_METHODS)
        rng = rng or random.Random()
        self._config = config
        self._context: ssl.SSLContext | None = None
        batches = BatchQueue(config.buffer_trades, _order(config), clock)
        self._batches = batches if sink is None else None
        gate = gate or Gate(clock)
        self._recorder = Recorder(clock)
        self._transport = RecordingTransport(transport or ConfiguredTransport(self._tls, clock), self._recorder)
        self._rest = RecordingHistory(
            history or RestClient(config.rest_url, self._tls, gate, proxy=config.proxy, clock=clock), self._recorder
        )
        quarantine = Quarantine(clock)
        self._feeds = Feeds(
            sink or batches, clock, TradeTimes(self._rest.server_time, quarantine, clock, replayed=replayed), quarantine
        )
        self._repairer = Repairer(self._feeds, self._rest, config, rng=rng, clock=clock, replayed=replayed)
        self._intake = Intake(self._feeds, quarantine, limit=config.buffer_trades, clock=clock)
        self._intake.on_gap = self._repairer.wake
        self._jump_check = JumpCheck(self._intake.jumps, self._rest, clock)
        self._supervisor = Supervisor(
            config, self._transport, gate, self._feeds, self._intake, self._repairer, quarantine, rng=rng, clock=clock
        )
        self._supervisor.on_given_up = self._on_given_up
        self._supervisor.on_dead_line = self._rest.renew
        self._gate = gate
        self.machine = self._supervisor.machine
        self._parts = Parts(
            clock,
            self._supervisor,
            self._feeds,
            self._intake,
            self._repairer,
            quarantine,
            gate,
            self._rest,
            self._recorder,
            batches,
        )
        self._started = self._stopping = False
        self._main: asyncio.Task[None] | None = None
        self._failure: Failure | None = None
        self.failed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def __aiter__(self) -> AsyncIterator[TradeBatch]:
        """Batches of trades of one symbol each. Ends after the last received trade when the stream is stopped or has given up.

        Ids rise within a batch and, with `StreamConfig.order` "id", from batch to batch of a symbol: a gap that is skipped
        is a batch without trades that names its ids in `gap`, and trades of it that arrive later are `late`.
        The next batch is not asked for before this one has been dealt with: a slow reader slows the socket, and loses nothing.

        Raises:
            RuntimeError: the trades go to a sink.
        """
        if self._batches is None:
            raise RuntimeError("this stream has a sink, which gets the trades; make one without to iterate over it")
        async for batch in self._batches:
            yield batch

    @property
    def state(self) -> StreamState:
        return self.machine.state

    @property
    def paused(self) -> bool:
        """Whether the socket is read more slowly because the sink is behind."""
        return self._intake.paused_since is not None

    @property
    def queued(self) -> int:
        """Received trades that the sink has not taken yet, or that wait behind a gap for the iteration."""
        return self._intake.waiting + (self._batches.held if self._batches is not None else 0)

    async def start(self) -> None:
        """Read where the sink stands, then begin to connect, in the background. May be called once."""
        if self._started or self._stopping:
            raise RuntimeError("a stream is started once; make a new one")
        self._started = True
        await self._feeds.load(self._config.symbols, seed=self._config.backfill_start != "now")
        self._main = asyncio.create_task(self._run(), name="stream")

    async def stop(self) -> None:
        """End everything: connection, repair, REST. Idempotent, and takes about a second at most."""
        self._stopping = True
        if self._batches is not None:
            self._batches.finish()
        self._supervisor.stop()
        if self._main is not None:
            await asyncio.wait([self._main])
        elif self._batches is not None:
            self._batches.close()
        await self._rest.close()
        await self._recorder.stop()
        if self.machine.state is not StreamState.STOPPED:
            self.machine.to(StreamState.STOPPED, "stopped")

    def reconnect_now(self) -> str:
        """Dial at once: skips a backoff, drops a live link. A ban and the venue's dial limit it does not skip."""
        if (refusal := self._not_running()) is not None:
            return refusal
        state = self.machine.state
        self._supervisor.wanted = True
        self._supervisor.reconnector.reset()
        self._supervisor.interrupt("reconnect asked for by the operator")
        wait, why = self._gate.dial_wait()
        if wait > 0:
            return f"will dial in {wait:.0f} s, not before: {why}"
        if state in (StreamState.LIVE, StreamState.STALLED, StreamState.ROTATING):
            return "dropped the live link, dialling again"
        return "dialling now"

    def disconnect(self) -> str:
        """Close the link and stay away until `connect` or `reconnect_now`."""
        if (refusal := self._not_running()) is not None:
            return refusal
        if not self._supervisor.wanted:
            return "is disconnected already"
        self._supervisor.wanted = False
        self._supervisor.interrupt("disconnected by the operator")
        return "disconnected; connect brings it back, and what is missed meanwhile is fetched then"

    def connect(self) -> str:
        """Undo `disconnect`, or leave a failed state; does nothing to a stream that is connecting or live."""
        if (refusal := self._not_running()) is not None:
            return refusal
        state = self.machine.state
        if self._supervisor.wanted and state not in (StreamState.FAILED, StreamState.COOLING_DOWN):
            return f"is at it already: {state.value}"
        return self.reconnect_now()

    def reset(self) -> str:
        """Forget the failed attempts; a stream that waits or has failed dials at once, a live one goes on undisturbed."""
        if (refusal := self._not_running()) is not None:
            return refusal
        self._supervisor.reconnector.reset()
        if self._supervisor.wanted and self.machine.state in (StreamState.BACKOFF, StreamState.COOLING_DOWN, StreamState.FAILED):
            return f"attempts forgotten; {self.reconnect_now()}"
        return "attempts forgotten"

    def rotate(self) -> str:
        """Replace the present connection by a fresh one, without a break in the data."""
        if (refusal := self._not_running()) is not None:
            return refusal
        if not self._supervisor.links.rotate("asked for by the operator"):
            return f"there is no live connection to replace: {self.machine.state.value.replace('_', ' ')}"
        wait, why = self._gate.dial_wait()
        if wait > 0:
            return f"will be replaced in {wait:.0f} s, not before: {why}"
        return "opening a second connection; the first is closed once both bring the same trades"

    def start_recording(self, path: Path, limit_bytes: int) -> RecordingSnapshot:
        """Write every raw frame and connection event to `path` from now on, until `stop_recording` or the limit.

        Raises what `Recorder.start` raises.
        """
        return self._recorder.start(path, limit_bytes)

    async def stop_recording(self) -> RecordingSnapshot | None:
        """End the recording; what it came to, None where there was none."""
        return await self._recorder.stop()

    def apply(self, config: StreamConfig) -> str:
        """Take over the numbers of `config` and reconnect with them. Symbols, addresses and the like wait for the next start."""
        check_type("config", config, StreamConfig, "a StreamConfig")
        kept = {name: getattr(self._config, name) for name in _FIXED}
        later = [name for name, value in kept.items() if getattr(config, name) != value]
        self._config = replace(config, **kept)
        self._supervisor.reconfigure(self._config)
        told = "stream reconnects with the new numbers"
        if self._main is None or self._stopping or not self._supervisor.wanted:
            told = "the stream takes the new numbers when it next connects"
        else:
            self._supervisor.interrupt("new settings")
        return told + (f"; at the next start: {', '.join(later)}" if later else "")

    def snapshot(self) -> StreamSnapshot:
        """The stream at this moment. Cheap enough for several calls a second, and nothing of it happens on the receive path."""
        return stream_snapshot(self._parts, self._config, self._transport.name)

    def get_connection_stats(self) -> dict[str, Any]:
        """Counters as plain values; `["reconnect_statistics"]` is `ExponentialBackoffReconnector.get_statistics()`."""
        return connection_stats(self._parts)

    async def warm_klines(self, symbol: str, interval: str, limit: int) -> list[Bar]:
        """The last `limit` finished bars of the venue, oldest first, over REST. Raises what `RestClient` raises."""
        return await self._rest.recent_klines(symbol, interval, limit)

    async def wait_failed(self) -> Failure:
        """Wait until the stream has given up; with `exit_on_failure` only. Exit code 3 is the caller's."""
        await self.failed.wait()
        assert self._failure is not None
        return self._failure

    def _not_running(self) -> str | None:
        if self._stopping:
            return "the stream has been stopped"
        if self._main is None:
            return "the stream has not been started yet"
        if self._main.done():
            return "the stream has ended by a fault of its own: see the log, and start the engine again"
        return None

    def _on_given_up(self, failure: Failure) -> None:
        self._failure = failure
        self.failed.set()
        if self._batches is not None:
            self._batches.close()

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._config.ca_file)
        return self._context

    async def _run(self) -> None:
        try:
            await until_first_ends(self._supervisor.run(), self._intake.consume(), self._repairer.run(), self._jump_check.run())
            self.machine.to(StreamState.STOPPED, "stopped")
        except Exception as error:
            # Only a fault of this program comes here: it is shown like any failure, and does not hide in a task.
            log.critical("the stream ended by a fault of its own", exc_info=error)
            advice = "A fault of this program: the log has the trace; start the engine again, and report it."
            self._supervisor.give_up(replace(classify(error), advice=advice))
        finally:
            if self._batches is not None:
                self._batches.close()


def _order(config: StreamConfig) -> IdOrder | None:
    if config.order == "arrival":
        return None
    start = config.backfill_start
    begin_id = start if isinstance(start, int) else 0 if start == "earliest" else None
    return IdOrder(config.reorder_trades, config.reorder_s, begin_id)
