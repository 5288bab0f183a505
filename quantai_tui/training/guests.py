"""Training scripts of the user that report to the engine, one at a time, while no worker of its own runs. Free of torch."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from .. import __version__
from ..private_files import identity, remove_if_same
from ..telemetry import Clock, Severity, TrainingSnapshot, TrainingState
from .guest_protocol import LONGEST_NAME, GuestHello, GuestReport, Refused, Welcome
from .messages import (
    Ack,
    Control,
    ControlKind,
    EpochDone,
    Event,
    Failed,
    Finished,
    FrameReader,
    Metrics,
    Overflowed,
    Ready,
    encode_frame,
)
from .view import TrainingView

log = logging.getLogger(__name__)

_HELLO_S = 10.0
_ANSWER_S = 5.0


class Guest:
    """One script that reports, from its welcome until its connection ends."""

    def __init__(self, hello: GuestHello, writer: asyncio.StreamWriter, clock: Clock) -> None:
        self.name = hello.name[:LONGEST_NAME]
        self.pid = hello.pid
        self.writer = writer
        self.view = TrainingView(clock)
        self.view.pid = hello.pid
        self.view.enter(TrainingState.STARTING, f"{self} is here, and has not reported yet")
        self.farewell = ""
        self.acks: dict[int, asyncio.Future[Ack]] = {}

    def __str__(self) -> str:
        return f"the script {self.name} (pid {self.pid})"

    def take(self, message: GuestReport) -> None:
        match message:
            case Metrics():
                self.view.take_metrics(message)
            case Ready():
                self.view.ready = message
            case EpochDone():
                self.view.take_epoch(message)
            case Overflowed():
                self.view.take_overflow(message)
            case Event():
                self.view.last_event = message.text
                if message.level is not Severity.INFO:
                    log.warning("%s: %s", self, message.text)
            case Ack():
                waiting = self.acks.pop(message.id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Finished():
                self.farewell = message.text
            case Failed():
                self.farewell = message.reason


class Guests:
    """The socket for such scripts, and what the one that reports has said last. All methods belong to one event loop.

    A script trains whether it is heard or not, and is nobody's child: it is not paused, stopped, or missed when it goes. What it
    said last stays to be seen until the next one comes, or `dismiss` makes room for the engine's own worker.
    """

    def __init__(
        self,
        socket_path: Path | None,
        clock: Clock,
        *,
        engine_trains: Callable[[], bool],
        on_metrics: Callable[[Metrics], None],
    ) -> None:
        self._path = socket_path
        self._clock = clock
        self._engine_trains = engine_trains
        self._on_metrics = on_metrics
        self._decoder = msgspec.msgpack.Decoder(GuestReport)
        self._hello = msgspec.msgpack.Decoder(GuestHello)
        self._ids = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._guest: Guest | None = None
        self._shown: Guest | None = None

    async def open(self) -> None:
        """Listen, where there is a path to listen at. Raises OSError."""
        if self._path is None:
            return
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        self._path.chmod(0o600)
        self._identity = identity(self._path)

    async def close(self) -> None:
        """Hang up and listen no more. Idempotent."""
        server, self._server = self._server, None
        if server is None or self._path is None:
            return
        remove_if_same(self._path, self._identity)
        server.close()
        for writer in self._visits.values():
            writer.transport.abort()
        if self._visits:
            await asyncio.wait(self._visits)

    @property
    def reporting(self) -> str:
        """Which script reports at present, in words; empty for none."""
        return "" if self._guest is None else str(self._guest)

    @property
    def pids(self) -> set[int]:
        """The process of the script that reports at present, if there is one."""
        return set() if self._guest is None else {self._guest.pid}

    def snapshot(self) -> TrainingSnapshot | None:
        """The training of the script that reports, or reported last; None when there was none since `dismiss`."""
        return None if self._shown is None else self._shown.view.snapshot(self._shown.name, ())

    def dismiss(self) -> None:
        """The engine's own worker takes the place: a script that reports is told so and goes on unheard."""
        guest, self._guest, self._shown = self._guest, None, None
        if guest is not None:
            guest.writer.write(encode_frame(Refused("the engine trains by itself from now on")))
            guest.writer.close()

    async def reset_scaler(self) -> Ack:
        """The manual reset, carried out by the script at its next step, or declined by it in words."""
        guest = self._guest
        if guest is None:
            return Ack(0, False, "no training script reports to this engine: there is no scale to reset")
        control = Control(next(self._ids), ControlKind.RESET_SCALER)
        answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        guest.acks[control.id] = answer
        guest.writer.write(encode_frame(control))
        done, _ = await asyncio.wait({answer}, timeout=_ANSWER_S)
        guest.acks.pop(control.id, None)
        if not done:
            return Ack(control.id, False, f"{guest} has not answered in {_ANSWER_S:g} s; it will do it after its present step")
        if answer.cancelled():
            return Ack(control.id, False, f"{guest} went before it could answer")
        return answer.result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        guest: Guest | None = None
        visit: asyncio.Task[None] | None = asyncio.current_task()
        assert visit is not None
        self._visits[visit] = writer
        try:
            while data := await asyncio.wait_for(reader.read(65536), None if guest else _HELLO_S):
                for body in frames.feed(data):
                    if guest is not None:
                        self._take(guest, self._decoder.decode(body))
                        continue
                    guest = self._admit(self._hello.decode(body), writer)
                    if guest is None:
                        return
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            log.warning("hanging up on %s: %s", guest or "a training script", error)
        except (OSError, TimeoutError) as error:
            log.warning("the connection to %s broke: %s", guest or "a training script", error or "no Hello in time")
        finally:
            del self._visits[visit]
            writer.close()
            if guest is not None:
                self._part(guest)

    def _admit(self, hello: GuestHello, writer: asyncio.StreamWriter) -> Guest | None:
        why = ""
        if hello.release != __version__:
            why = f"the script has quantai_tui {hello.release}, the engine {__version__}: install the same release for both"
        elif self._engine_trains():
            why = "this engine trains by itself; start it with TRAIN_AUTOSTART=False to watch a script of your own"
        elif self._guest is not None:
            why = f"{self._guest} reports to this engine already"
        if why:
            log.info("the script %s (pid %d) was turned away: %s", hello.name[:LONGEST_NAME], hello.pid, why)
            writer.write(encode_frame(Refused(why)))
            return None
        guest = self._guest = self._shown = Guest(hello, writer, self._clock)
        writer.write(encode_frame(Welcome()))
        log.info("%s reports to this engine", guest)
        return guest

    def _take(self, guest: Guest, message: GuestReport) -> None:
        if guest is not self._guest:
            return  # dismissed; these words were under way
        guest.take(message)
        if isinstance(message, Metrics):
            self._on_metrics(message)

    def _part(self, guest: Guest) -> None:
        for waiting in guest.acks.values():
            waiting.cancel()
        if guest is not self._guest:
            return
        self._guest = None
        how = guest.farewell or "it went without a word: killed, or cut off"
        log.info("%s reports no longer: %s", guest, how)
        guest.view.pid = None
        guest.view.enter(TrainingState.STOPPED, f"{guest} reports no longer: {how}")
