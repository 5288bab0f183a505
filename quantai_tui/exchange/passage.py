"""One connection through the door: a socket to the client, a socket to the exchange, and the bytes between them.

Plain sockets instead of asyncio's transports, which neither say when half a record has left, so that a reset may follow, nor stop
reading before a buffer of their own is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from enum import Enum
from typing import Any

from quantai_tui.telemetry import Clock

from .certificates import Trial
from .conditions import NEVER, Condition
from .tls_records import HEADER_BYTES, Conversation, Record, Records

_CHUNK_BYTES = 1 << 16
# What one direction may hold back. More while bytes are delayed, or the delay would throttle: 4 MiB in 0.3 s are 13 MB/s.
_ROOM_BYTES = 1 << 18
_DELAYED_ROOM_BYTES = 1 << 22
_PATIENCE_S = 1.0  # a wound shall be seen soon, also where no trade is
_LINGER_0 = struct.pack("ii", 1, 0)  # closing then sends RST, and drops what was not sent


class Wound(Enum):
    """What can be done once to a connection, at the next record of application data that the server sends."""

    RESET = "half of it, then RST"
    HALF_CLOSE = "all of it, then FIN, without close frame or close_notify"
    TRUNCATE = "half of it, then FIN"
    FLIP = "all of it and what follows, with one bit of its ciphertext turned over"


class _ResetError(Exception):
    """Both sockets are to be reset, since it was asked for."""


class Passage:
    """Owns the client's socket from `__init__` and both from `run` on. All else may be called at any time."""

    def __init__(self, client: socket.socket, clock: Clock, rng: random.Random) -> None:
        self.clock = clock
        self.rng = rng
        self.conversation = Conversation()
        self.conditions: list[Condition] = []
        self.lost = False
        """Bytes have vanished: nothing passes any more, and neither side hears of the other."""
        client.setblocking(False)
        self._client = client
        self._backend: socket.socket | None = None
        self._changed = asyncio.Event()
        self._down = _Direction(self, downwards=True)
        self._up = _Direction(self, downwards=False)
        self._hurrying: asyncio.Task[None] | None = None

    def impose(self, condition: Condition) -> None:
        self.conditions.append(condition)
        self.lost = self.lost or condition.swallows
        self._wake()

    def lift(self, measure: Condition | Wound) -> None:
        """Mend what was imposed, or spare a wound not dealt yet. What a `BlackHole` has met stays lost."""
        if isinstance(measure, Wound):
            self._down.spare(measure)
        elif measure in self.conditions:
            self.conditions.remove(measure)
            self._wake()

    def wound(self, wound: Wound, *, patient: bool = False) -> None:
        """Deal it at the next record; one that ends the connection, unless `patient`, without one if none comes in a second."""
        self._down.wound = wound
        if not patient and wound is not Wound.FLIP and self._hurrying is None:
            self._hurrying = asyncio.create_task(self._hurry(), name="door: the patience of a wound")

    async def run(self, host: str, port: int, trial: Trial | None = None) -> None:
        """Dial the exchange and pass bytes until both sides have finished or one breaks. Closes both sockets.

        A client whose hello fails the `trial` gets its alert, and no further.
        """
        rough = False
        try:
            if self.lost or (trial is not None and not await self._greeted(trial)):
                await self._ignore()
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up.read(self._client))
                # A stalled client waits out here: the exchange would lose its patience with a handshake that does not begin.
                await self._up.admitted()
                self._backend = await self._dialled(host, port)
                group.create_task(self._up.write(self._backend))
                group.create_task(self._down.read(self._backend))
                group.create_task(self._down.write(self._client))
        except* (OSError, _ResetError):
            rough = True  # one side is gone without a good-bye, or was made to look so: the other shall see the same
        finally:
            self.close(rough=rough and not self.lost)
            if self._hurrying is not None:
                await asyncio.gather(self._hurrying, return_exceptions=True)

    def close(self, *, rough: bool = False) -> None:
        """Close both sockets, with RST if `rough`. Idempotent; for a connection that never got to `run`, and the end of one."""
        if self._hurrying is not None:
            self._hurrying.cancel()
        for end in (self._client, self._backend):
            if end is not None and end.fileno() >= 0:
                if rough:
                    with contextlib.suppress(OSError):  # macOS refuses it on a socket that is reset already
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                end.close()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the conditions change."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
        if seconds != NEVER:
            waits.append(asyncio.ensure_future(self.clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _hurry(self) -> None:
        await self.clock.sleep(_PATIENCE_S)
        self._hurrying = None
        self._down.hurry()

    async def _dialled(self, host: str, port: int) -> socket.socket:
        backend = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            backend.setblocking(False)
            await asyncio.get_running_loop().sock_connect(backend, (host, port))
            for end in (self._client, backend):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            backend.close()
            raise
        return backend

    async def _greeted(self, trial: Trial) -> bool:
        loop = asyncio.get_running_loop()
        while not trial.decided and (data := await loop.sock_recv(self._client, _CHUNK_BYTES)):
            alert = trial.hear(data)
            self._up.prepend(data)
            if alert:
                await loop.sock_sendall(self._client, alert)
                self._client.shutdown(socket.SHUT_WR)
                return False
        return True

    async def _ignore(self) -> None:
        """Accepted, and that was all. Reading only serves to notice that the client has gone."""
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self._client, _CHUNK_BYTES):
            pass


class _Line:
    """Bytes on their way, each with the moment from which on it may go. One writer, one reader; None is the end."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes | None]] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    async def put(self, due: float, data: bytes | None, room: int) -> None:
        """Wait until it fits into `room` bytes."""
        size = len(data or b"")
        while self._size and self._size + size > room:
            self._emptied.clear()
            await self._emptied.wait()
        self.push(due, data)

    def push(self, due: float, data: bytes | None) -> None:
        """Without regard to room."""
        self._size += len(data or b"")
        self._chunks.append((due, data))
        self._filled.set()

    async def get(self) -> tuple[float, bytes | None]:
        while not self._chunks:
            self._filled.clear()
            await self._filled.wait()
        due, data = self._chunks.popleft()
        self._size -= len(data or b"")
        self._emptied.set()
        return due, data


class _Direction:
    """Bytes one way. `read` and `write` are a task each, so that bytes can be under way."""

    def __init__(self, passage: Passage, downwards: bool) -> None:
        self.wound: Wound | None = None
        self._passage = passage
        self._downwards = downwards
        self._line = _Line()
        self._records = Records()
        self._application_at: int | None = None  # offset of the first record of application data
        self._cut_at: int | None = None
        self._cut_hard = False
        self._flip_at: int | None = None
        self._hurried = False
        self._deaf = False

    def hurry(self) -> None:
        """No record has come for a wound that waits for one: do without."""
        self._hurried = True
        self._line.push(0.0, b"")

    def prepend(self, data: bytes) -> None:
        """Bytes that were read before `read` was begun."""
        self._line.push(0.0, data)

    def spare(self, wound: Wound) -> None:
        if self.wound is wound:
            self.wound = None

    async def read(self, source: socket.socket) -> None:
        loop, passage = asyncio.get_running_loop(), self._passage
        last_due = 0.0
        data: bytes | None = b""
        while data is not None:
            try:
                data = await loop.sock_recv(source, _CHUNK_BYTES) or None
            except OSError:
                if not passage.lost:
                    raise
                data = None
            if passage.lost and data is not None:
                continue
            delay = sum(condition.delay_s() for condition in passage.conditions)
            now = passage.clock.monotonic()
            last_due = max(last_due, now + delay)
            await self._line.put(last_due, data, _DELAYED_ROOM_BYTES if last_due > now else _ROOM_BYTES)

    async def write(self, sink: socket.socket) -> None:
        passage = self._passage
        while True:
            due, data = await self._line.get()
            # A delay stays what it was drawn as, even if the latency is lifted meanwhile: the order must not change.
            while (left := due - passage.clock.monotonic()) > 0 and not passage.lost:
                await passage.wait(left)
            if data is None:
                await self.admitted()
                if not passage.lost and not self._deaf:
                    sink.shutdown(socket.SHUT_WR)
                return
            if not passage.lost and not self._deaf:
                await self._deliver(sink, data)

    async def admitted(self) -> None:
        """Wait until nothing is held, or all is lost."""
        await self._admit(0, 0)

    async def _deliver(self, sink: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        at = self._records.position
        end = at + len(data)
        for record in self._records.feed(data):
            self._look(record)
        hurried, self._hurried = self._hurried, False
        if hurried and self.wound is not None:
            whole = self.wound is Wound.HALF_CLOSE and not self._records.broken
            self._cut_at = max(at, self._records.boundary) if whole else at
            self._cut_hard, self.wound = self.wound is Wound.RESET, None
        if self._flip_at is not None and at <= self._flip_at < end:
            data = _with_flipped_bit(data, self._flip_at - at, self._passage.rng)
            self._flip_at = None
        view, begin = memoryview(data), at
        while True:
            if at == self._cut_at:
                self._cut(sink)
                return
            stop = end if self._cut_at is None else min(end, self._cut_at)
            if at == stop:
                return
            stop = at + await self._admit(stop - at, at)
            if self._passage.lost:
                return
            await loop.sock_sendall(sink, view[at - begin : stop - begin])
            at = stop

    async def _admit(self, wanted: int, at: int) -> int:
        """Wait until bytes may pass; how many of `wanted`, from offset `at` on. At least one of them, unless all is lost."""
        passage = self._passage
        while not passage.lost:
            now = passage.clock.monotonic()
            hold = max((condition.hold_s(now) for condition in passage.conditions), default=0.0)
            if hold <= 0 and wanted and self._application_at is not None and self._holds_application():
                wanted = min(wanted, max(0, self._application_at - at))
                hold = 0.0 if wanted else NEVER
            if hold > 0:
                await passage.wait(hold)
                continue
            wait = 0.0
            for condition in passage.conditions:
                if wanted:
                    wanted, share_wait = condition.share(wanted, now, self._downwards)
                    wait = max(wait, share_wait)
            if wait > 0:
                await passage.wait(wait)
            return wanted
        return 0

    def _holds_application(self) -> bool:
        return not self._downwards and any(condition.holds_application for condition in self._passage.conditions)

    def _look(self, record: Record) -> None:
        conversation = self._passage.conversation
        if not (conversation.from_server(record) if self._downwards else conversation.from_client(record)):
            return
        if self._application_at is None:
            self._application_at = record.start
        if self.wound is Wound.FLIP:
            self._flip_at = self._passage.rng.randrange(record.start + HEADER_BYTES, record.end)
        elif self.wound is not None:
            self._cut_at = record.end if self.wound is Wound.HALF_CLOSE else record.middle
            self._cut_hard = self.wound is Wound.RESET
        self.wound = None

    def _cut(self, sink: socket.socket) -> None:
        if self._cut_hard:
            raise _ResetError
        sink.shutdown(socket.SHUT_WR)
        self._deaf = True  # the server goes on talking until the client, seeing the end, closes its side


def _with_flipped_bit(data: bytes, index: int, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    damaged[index] ^= 1 << rng.randrange(8)
    return bytes(damaged)
