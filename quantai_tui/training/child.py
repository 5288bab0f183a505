"""One worker process: how it is started, what it writes, how it is ended, and why it died, in words. Free of torch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import threading
from collections import deque
from pathlib import Path

from ..private_files import make_folders, open_private
from ..telemetry import Clock
from . import reasons
from .config import WorkerConfig
from .launcher import launch
from .messages import Ack, Failed, Finished, SupervisorMessage, encode_frame

_TAIL_LINES = 20
_TAIL_BYTES = 8192
_LARGEST_LOG_BYTES = 2 << 20
# Together under the 3 s in which a worker must be gone. Most of it is for the step it is in and for the checkpoint it writes.
_POLITE_S, _TERM_S, _KILL_S = 1.7, 0.3, 0.4


class WorkerLog:
    """The file that a worker's stderr goes to, and its last lines. Past 2 MiB its last 2 MiB move to `.1`, and it starts over.

    What a look costs does not depend on how much a worker writes. `refresh` may be called from any thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tail: tuple[str, ...] = ()
        self._seen = -1
        self._lock = threading.Lock()

    def open(self) -> int:
        """A descriptor to append to; the caller closes it."""
        make_folders(self.path.parent)
        return open_private(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def refresh(self) -> None:
        """Read the last lines again when there are new ones. An unreadable log is said in the tail, and is no reason to stop."""
        with self._lock:
            try:
                size = self.path.stat().st_size
                if size == self._seen:
                    return
                text = self._last(size, _TAIL_BYTES).decode("utf-8", "replace")
                self._seen = size
                self.tail = tuple(deque(text.splitlines(), maxlen=_TAIL_LINES))
                if size > _LARGEST_LOG_BYTES:
                    self._rotate(size)
            except OSError as error:
                self.tail = (f"log {self.path} cannot be read: {error}",)

    def _last(self, size: int, count: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(size - count, 0))
            return file.read(count)

    def _rotate(self, size: int) -> None:
        """Copy and truncate: the worker goes on appending to the same open file."""
        with open(f"{self.path}.1", "wb", opener=open_private) as kept:
            kept.write(self._last(size, _LARGEST_LOG_BYTES))
        os.truncate(self.path, 0)
        self._seen = 0


class WorkerLife:
    """One process from its start to its end, with its connection once it has said Hello.

    The process is torchrun's agent where there are several `ranks`. It starts them anew when one dies: then the leader among the
    new ones says Hello, with the same token, in the same life.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, token: str, clock: Clock, *, ranks: bool = False, extra_grace_s: float = 0.0
    ) -> None:
        self.process = process
        self.token = token
        self.ranks = ranks
        self.extra_grace_s = extra_grace_s
        self._clock = clock
        self.heard_at = clock.monotonic()
        self.ready_at: float | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.disconnected = asyncio.Event()
        self.failed: Failed | None = None
        self.finished: Finished | None = None
        self.ended_because = ""  # set by whoever ends it on purpose
        self.replaced = False
        self.acks: dict[int, asyncio.Future[Ack]] = {}
        self._oom_kills = reasons.OomKills()

    @classmethod
    async def spawn(cls, config: WorkerConfig, python: str, socket_path: Path, log: WorkerLog, clock: Clock) -> WorkerLife:
        """Start a worker in a process group of its own. Raises OSError."""
        token = secrets.token_hex(16)
        command = launch(config, python=python, socket_path=socket_path, token=token)
        descriptor = log.open()
        try:
            process = await asyncio.create_subprocess_exec(
                *command.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=command.environment,
                process_group=0,
            )
        finally:
            os.close(descriptor)
        several = config.nproc > 1 or config.nnodes > 1
        return cls(process, token, clock, ranks=several, extra_grace_s=command.extra_grace_s)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    @property
    def connected(self) -> bool:
        return self.alive and self.writer is not None and not self.disconnected.is_set()

    def silent_s(self) -> float:
        return self._clock.monotonic() - self.heard_at

    def send(self, message: SupervisorMessage) -> None:
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(encode_frame(message))

    def signal(self, number: signal.Signals) -> None:
        """To the whole process group: data loaders and the like go with it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def end(self, goodbye: SupervisorMessage) -> None:
        """Ask it to leave, then tell it, then make it: gone within 3 s."""
        if self.connected:
            self.send(goodbye)
            if await self._gone_within(_POLITE_S):
                return
        self.signal(signal.SIGTERM)
        if await self._gone_within(_TERM_S):
            return
        self.signal(signal.SIGKILL)
        await self._gone_within(_KILL_S)

    async def _gone_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), seconds)
        return not self.alive

    def connect(self, writer: asyncio.StreamWriter) -> None:
        """A worker has said Hello; a connection of ranks that were before is over."""
        self.hang_up()
        self.writer, self.disconnected = writer, asyncio.Event()
        self.failed = self.ready_at = None
        self.heard_at = self._clock.monotonic()

    def disconnect(self, writer: asyncio.StreamWriter) -> None:
        """This connection has ended. Of ranks, others may come in their place: they are given the time of a start."""
        if writer is not self.writer:
            return
        self.disconnected.set()
        if self.ranks and self.finished is None:
            self.ready_at = None
            self.heard_at = self._clock.monotonic()
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection and let nobody wait for an answer that will not come."""
        if self.writer is not None:
            self.writer.close()
        for waiting in self.acks.values():
            waiting.cancel()
        self.acks.clear()

    def why_it_ended(self) -> str:
        """One line for the operator."""
        if self.ended_because:
            return self.ended_because
        if self.failed is not None:
            return self.failed.reason
        code = self.process.returncode
        if code is None:
            return "the worker does not end, not even by SIGKILL: it hangs in the kernel"
        if code >= 0:
            return f"the worker ended with exit code {code}"
        if code == -signal.SIGKILL and (whose := self._oom_kills.risen()):
            return f"the worker was killed by the kernel: the memory of {whose} ran out; choose a smaller model or batch"
        return reasons.of_signal(-code)
