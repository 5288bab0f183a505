"""The engine: owns stream, store, training and the embedded exchange as async tasks, and answers for them to dashboards."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ..link import Ack, Command
from ..market.damage import StoreError
from ..market.store import TradeStore
from ..settings import Layers, SettingsProblems
from ..stream import ResilientStream, StreamConfig
from ..stream.gate import Gate, scope_of
from ..stream.recording_file import RecordingError
from ..telemetry import SYSTEM_CLOCK, Clock, EngineSnapshot, Mode, Severity
from ..training.config import WorkerConfig
from ..training.gpus import GpuWatch
from ..training.supervisor import TrainingSupervisor
from .background import BackgroundTasks
from .chronicle import Chronicle
from .commands import Commands
from .control import ControlServer
from .desk import SettingsDesk
from .exchange_child import ExchangeChild, ExchangeFailed, ExchangeInfo
from .finish import is_finished
from .housekeeping import keep_house
from .linger import logout_warning
from .logs import EngineLog
from .places import EngineFolder, PlaceError, data_root, dials_file, socket_folder
from .playback import Playback
from .registry import AlreadyRunning, Claim, Entry, control_socket, entry_of, guest_socket, worker_socket
from .source import Source
from .starting import EXIT_STORE_FAILED, StartError, reason_of
from .vitals import PERIOD_S, Vitals
from .warmup import warm_start
from .worker_settings import worker_config

logger = logging.getLogger(__name__)

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class Engine:
    """One source of data, its store, its training. `start` and `stop` once each; all other calls in between."""

    def __init__(
        self,
        source: Source,
        *,
        config_path: Path | None = None,
        overrides: tuple[str, ...] = (),
        exit_on_failure: bool = False,
        fresh: bool = False,
        serve: bool = True,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        """`exit_on_failure`: the stream ends for good when its retries are used up. `fresh`: what an earlier
        engine of this name has stored is deleted first. `serve`: dashboards may attach."""
        self._source = source
        self._exit_on_failure = exit_on_failure
        self._fresh = fresh
        self._serve = serve
        self._clock = clock
        self._rng = rng or random.Random()
        try:
            layers = Layers(overrides=overrides, mode_defaults=source.mode_defaults, forced=source.forced)
            self.desk = SettingsDesk(config_path, layers)
            self.folder = EngineFolder(data_root(self.desk.settings.DATA_DIR) / source.name)
        except (SettingsProblems, PlaceError) as problem:
            raise StartError(str(problem)) from problem
        self._stop_asked = asyncio.Event()
        self._started_at = clock.monotonic()
        self._background = BackgroundTasks()
        self._claim: Claim | None = None
        self._symbols: tuple[str, ...] = ()
        self._training_reads = ("", "")
        self._log: EngineLog | None = None
        self._exchange: ExchangeChild | None = None
        self._exchange_info: ExchangeInfo | None = None
        self._playback: Playback | None = None
        self._store: TradeStore | None = None
        self._control: ControlServer | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._note = "; ".join(filter(None, (source.note, self.desk.settled, logout_warning() if serve else "")))
        self._gate: Gate | None = None
        self._stream: ResilientStream | None = None
        self._training: TrainingSupervisor | None = None
        self._gpus: GpuWatch | None = None
        self._commands = Commands(self)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def mode(self) -> Mode:
        return self._source.mode

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def exits_on_failure(self) -> bool:
        return self._exit_on_failure

    @property
    def exchange(self) -> ExchangeChild | None:
        """The embedded exchange; None for the live venue and for a recording."""
        return self._exchange

    async def start(self) -> None:
        """Raises StartError; then nothing is left running."""
        try:
            await self._start()
        except StoreError as error:
            await self.stop()
            raise StartError(str(error), exit_code=EXIT_STORE_FAILED) from error
        except (PlaceError, ExchangeFailed, RecordingError, SettingsProblems, OSError, ValueError) as error:
            await self.stop()
            raise StartError(reason_of(error)) from error
        except AlreadyRunning as error:
            await self.stop()
            raise StartError(str(error), entry=error.entry) from error
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self.folder.prepare()
        self._claim = await Claim.take_when_free(self.folder, self._clock)
        if self._fresh:
            await asyncio.to_thread(self.folder.clear)
        self._log = EngineLog(self.folder.log, self.desk.settings.LOG_LEVEL)
        logger.info("engine %s starts (pid %d, %s) %s", self.name, os.getpid(), self._source.mode.value, self.desk.settled)
        self.desk.log_warnings()
        if self._source.exchange_command is not None:
            await self._start_exchange(self._source.exchange_command(self.folder.exchange, self.desk.settings.SYMBOLS))
        if self._source.recording is not None:
            await self._open_recording(self._source.recording)
        self._store = await TradeStore.open(self.folder.store)
        self._symbols = self.desk.settings.SYMBOLS
        chronicle = Chronicle(self._log.tail.until)
        self.vitals = Vitals(lambda: self.desk.settings.WS_MESSAGE_WARNING_TIMEOUT, chronicle)
        config = self._stream_config()
        replay = self._playback.replay if self._playback is not None else None
        # A recording's dials are none, and its bans long over: no other engine need know of them.
        path = dials_file() if replay is None else None
        stream_clock = self._clock if replay is None else replay.clock
        self._gate = Gate(stream_clock, path=path, scope=scope_of(config.ws_url))
        self._stream = ResilientStream(
            config,
            self._store,
            gate=self._gate,
            transport=None if replay is None else replay.transport,
            history=None if replay is None else replay.history,
            replayed=self.mode is Mode.REPLAY,
            clock=stream_clock,
            rng=self._rng,
        )
        self._training = TrainingSupervisor(
            self.worker_config(),
            socket_path=worker_socket(self.folder),
            log_path=self.folder.worker_log,
            guest_socket=guest_socket(self.folder) if self._serve else None,
            clock=self._clock,
        )
        if self._serve:
            await self._listen(self._claim)
        await self.stream.start()
        if self.desk.settings.TRAIN_AUTOSTART:
            await self.training.start()
        self._gpus = GpuWatch(self.training.take_gpus, self.training.worker_pids, self._clock)
        self._gpus.start()
        self._training_reads = (self.train_symbol, self.desk.settings.BAR_INTERVAL)
        if self.mode is not Mode.REPLAY:
            self._background.start(self._warm_up(), "warm-up")
        self._background.start(self._sample(), "vitals")
        self._background.start(keep_house(self.desk, self.store, self.snapshot, self._clock), "housekeeping")

    async def _listen(self, claim: Claim) -> None:
        """Open the sockets and register this engine. Raises PlaceError."""
        self._control = ControlServer(control_socket(self.folder), self.name, self.snapshot, self.execute)
        try:
            await self.training.listen()
            await self._control.start()
            claim.publish(self.entry())
        except OSError as error:
            raise PlaceError(
                f"the socket folder {socket_folder()} cannot be used: {error.strerror or error}. Set XDG_STATE_HOME."
            ) from error

    async def _start_exchange(self, command: list[str]) -> None:
        self._exchange = ExchangeChild(command, self.folder.path / "exchange.log", self._clock)
        info = self._exchange_info = await self._exchange.start()
        self.desk.force({**self._source.forced, **info.dictates(self.desk.settings.TRAIN_SYMBOL)})

    async def _open_recording(self, path: Path) -> None:
        self._playback = await Playback.open(path, self._source.speed, self._clock)
        self._note = "; ".join(filter(None, (self._note, self._playback.note)))
        self.desk.force({**self._source.forced, **self._playback.dictates(self.desk.settings.TRAIN_SYMBOL)})

    def entry(self) -> Entry:
        return entry_of(self.folder, self.mode, self._clock.time())

    # What dashboards ask

    @property
    def stop_requested(self) -> bool:
        return self._stop_asked.is_set()

    def request_stop(self) -> None:
        self._stop_asked.set()

    async def wait_stop_requested(self) -> None:
        await self._stop_asked.wait()

    async def execute(self, command: Command) -> Ack:
        """Carry out one command; never raises, a failure is a negative answer."""
        return await self._commands.execute(command)

    @property
    def failure(self) -> str:
        """Why the engine can no longer store data and must end; empty while it can."""
        if self._store is not None and self._store.failure is not None:
            return f"the store failed: {self._store.failure}"
        return self._claim.loss if self._claim is not None else ""

    @property
    def stream(self) -> ResilientStream:
        assert self._stream is not None, "the engine is not started"
        return self._stream

    @property
    def training(self) -> TrainingSupervisor:
        assert self._training is not None, "the engine is not started"
        return self._training

    @property
    def store(self) -> TradeStore:
        assert self._store is not None, "the engine is not started"
        return self._store

    def snapshot(self) -> EngineSnapshot:
        """Everything a dashboard may know, now. Cheap enough for four times a second."""
        stream = self.stream.snapshot()
        symbols = {
            name: msgspec.structs.replace(symbol, stored=self.store.counts(name).stored)
            for name, symbol in stream.symbols.items()
        }
        stream = msgspec.structs.replace(stream, symbols=symbols)
        training = self.training.snapshot()
        progress = self._replay_progress()
        snapshot = EngineSnapshot(
            time=self._clock.time(),
            name=self.name,
            mode=self.mode,
            pid=os.getpid(),
            uptime_s=self._clock.monotonic() - self._started_at,
            note=self._note if self._gate is None else "; ".join(filter(None, (self._note, self._gate.note))),
            replay_progress=progress,
            stream=stream,
            training=training,
            store=self.store.snapshot(),
            alerts=self.vitals.alerts,
            series=dict(self.vitals.series()),
            log=self._log.tail.snapshot() if self._log is not None else (),
            theme=self.desk.settings.THEME,
            trial=self._commands.settings.trial(),
            keys=self.desk.settings.KEYS,
        )
        config = self.worker_config()
        trains = self.desk.settings.TRAIN_AUTOSTART and (self._playback is None or self._playback.can_train(config))
        finished = is_finished(
            snapshot, trains=trains, epochs=config.max_epochs, symbol=config.symbol, interval_s=config.interval_s
        )
        return msgspec.structs.replace(snapshot, finished=finished)

    @property
    def train_symbol(self) -> str:
        """What is learned: the symbol of the settings, if this engine listens to it; a new one waits for the next start."""
        wanted = self.desk.settings.train_symbol
        return wanted if wanted in self._symbols else self._symbols[0]

    def _replay_progress(self) -> float | None:
        if self._playback is not None:
            return self._playback.progress(self.stream)
        info = self._exchange_info
        if self.mode is not Mode.REPLAY or info is None or not info.total:
            return None
        return min(1.0, sum(self.store.counts(symbol).stored for symbol in info.symbols) / info.total)

    # Applying settings

    def worker_config(self) -> WorkerConfig:
        """The training worker's share of the settings."""
        return worker_config(
            self.desk.settings,
            symbol=self.train_symbol,
            store_path=self.folder.store,
            checkpoints=self.folder.checkpoints,
            demo=self.mode is Mode.DEMO,
        )

    async def apply_worker_settings(self) -> str:
        """Hand the settings in force to the worker, and fetch history if it reads other bars now; returns what is done."""
        before = self._training_reads
        self._training_reads = (self.train_symbol, self.desk.settings.BAR_INTERVAL)
        if self._training_reads != before and self.mode is not Mode.REPLAY:
            self._background.start(self._warm_up(), "warm-up")
        return await self.training.apply(self.worker_config())

    def _stream_config(self) -> StreamConfig:
        # In a recording the dials that followed are known: it goes on until it is over.
        exits = self._exit_on_failure and self._playback is None
        return StreamConfig.from_settings(self.desk.settings, exit_on_failure=exits)

    def apply_stream_settings(self) -> str:
        """Reconnect with the settings in force; returns what is done about it."""
        return self.stream.apply(self._stream_config())

    def apply_log_level(self) -> None:
        if self._log is not None:
            self._log.set_level(self.desk.settings.LOG_LEVEL)

    # What goes on by itself

    async def _warm_up(self) -> None:
        symbol, interval = self._training_reads
        await warm_start(self.stream, self.store, symbol, interval, self.desk.settings.WARMUP_BARS, self._clock)

    async def _sample(self) -> None:
        while True:
            await self._clock.sleep(PERIOD_S)
            snapshot = self.snapshot()
            samples = self.training.drain_samples()
            raised = self.vitals.sample(snapshot, sum(sample.overflows for sample in samples) if samples else None)
            for alert in raised:
                logger.log(_LEVELS[alert.severity], "alert: %s (%s)", alert.text, alert.remedy)
            if self.failure:
                logger.critical("%s; the engine stops, so that nothing is lost unseen", self.failure)
                self.request_stop()
                return

    async def stop(self) -> None:
        """Stop everything in order: training, stream, store, exchange, sockets. Idempotent; safe after a failed start."""
        self.request_stop()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="engine-stop")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        started = self._clock.monotonic()
        if self._claim is not None:
            self._claim.withdraw()
        await self._background.end()
        ends: list[tuple[str, Callable[[], Awaitable[None]]]] = [("settings on trial", self._commands.settings.close)]
        if self._training is not None:
            ends.append(("training", self._training.close))
        if self._gpus is not None:
            ends.append(("GPU watch", self._gpus.stop))
        if self._stream is not None:
            ends.append(("stream", self._stream.stop))
        if self._gate is not None:
            ends.append(("record of dials", self._gate.close))
        if self._store is not None:
            ends.append(("store", self._store.close))  # behind the worker: a reader that closes last leaves the log unmerged
        if self._playback is not None:
            ends.append(("recording", self._playback.close))
        if self._exchange is not None:
            ends.append(("exchange", self._exchange.stop))
        if self._control is not None:
            ends.append(("control socket", self._control.stop))
        for name, end in ends:
            try:
                await end()
            except Exception:
                # The parts behind it must be stopped all the same: an orphan is worse than an unclean end.
                logger.exception("%s did not stop cleanly", name)
        logger.info("engine %s stopped in %.1f s", self.name, self._clock.monotonic() - started)
        try:
            if self._log is not None:
                self._log.close()
        finally:
            if self._claim is not None:
                self._claim.release()
