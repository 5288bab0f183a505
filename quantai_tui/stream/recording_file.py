"""The file of a recording, `.qrec`: what a stream met on its connections and over REST, event by event.

    magic      8 bytes: 0x89 "QREC" CR LF 0x1A (a transfer that takes it for text breaks it visibly)
    version    unsigned 16 bits
    length     unsigned 32 bits, of the header
    header     `Header` as msgpack
    blocks, until the end of the file, each
      length   unsigned 32 bits, of the body
      crc      unsigned 32 bits, CRC-32 of the body
      body     zlib of `Block` as msgpack

Numbers are big-endian. Every block can be read by itself, and at least one is written each second in which something happens: of
a program that was killed the file is good up to its last whole block. An event's `at` is seconds on a monotonic clock since the
recording began; `Header.started` and `Block.wall` are Unix seconds, so that a clock that was set meanwhile can be seen. The last
event of a recording that was ended in order is `Closing`.

There is no secret in it: addresses are without user, password and query, the proxy is left out, and of HTTP only status and
`Retry-After` are kept.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO

import msgspec

from ..telemetry import Clock
from .recording_events import MOST_EVENTS, Block, Closing, Event, Header, has_numbers, pack

MAGIC = b"\x89QREC\r\n\x1a"
VERSION, SUFFIX = 1, ".qrec"

_PREFIX = struct.Struct(">8sHI")
_BLOCK = struct.Struct(">II")
_BLOCK_BYTES = 128 * 1024  # before compression: worth compressing, and decoded in a millisecond
_MAX_BODY_BYTES = 16 * 1024 * 1024  # a block holds one oversized event at most: a frame of 1 MiB, a REST answer of 8
_FLUSH_S = 0.5
_LEVEL = 3  # a third of the effort of zlib's usual 6, for files a tenth larger
_CLOSING_BYTES = 256  # kept free below the limit for the block that says why it ended
_EVENT_BYTES = 150  # what an event takes in memory beside its payload

_decode_block = msgspec.msgpack.Decoder(Block).decode


class RecordingError(Exception):
    """A recording cannot be begun or read; the text names the file and the remedy."""


def is_recording(path: Path) -> bool:
    """Whether a file begins as a recording does, whatever its name. False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class RecordingReader:
    """The blocks of a file, in order by iterating, or one by its offset. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Reads the header. Raises RecordingError."""
        self.path = path
        self.damage = ""  # after iterating: what of the file could not be read
        try:
            self._file: IO[bytes] = path.open("rb")
        except FileNotFoundError:
            raise RecordingError(f"{path}: there is no such file; check the path") from None
        except OSError as error:
            raise RecordingError(f"{path}: cannot be read ({error.strerror}); name a file that you may read") from error
        try:
            self.header, self._begin = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RecordingReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def __iter__(self) -> Iterator[tuple[int, Block]]:
        """Offset and content of every whole block. What comes after the first that is not whole is put down in `damage`."""
        size = self.size_bytes
        offset = self._begin
        while offset < size:
            found = self._read(offset, size)
            if found is None:
                self.damage = (
                    f"the last {size - offset} bytes are no whole block: "
                    "the program was killed while it wrote, or the file is damaged"
                )
                return
            block, following, _ = found
            yield offset, block
            offset = following

    def block(self, offset: int) -> tuple[Block, int]:
        """The block at an offset from iteration, and its unpacked size. Raises RecordingError when the file has changed."""
        found = self._read(offset, self.size_bytes)
        if found is None:
            raise RecordingError(f"{self.path}: has changed while it was read; copy it, and replay the copy")
        return found[0], found[2]

    def _read_header(self) -> tuple[Header, int]:
        prefix = self._file.read(_PREFIX.size)
        if not prefix:
            raise RecordingError(f"{self.path}: the file is empty; record again")
        if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
            raise RecordingError(f"{self.path}: is not a recording; make one with 'quantai-tui record'")
        _, version, length = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise RecordingError(
                f"{self.path}: is a recording of version {version}, this program reads {VERSION}; "
                "replay it with the release that recorded it, or a newer one"
            )
        body = self._file.read(min(length, _MAX_BODY_BYTES))
        try:
            return msgspec.msgpack.decode(body, type=Header), _PREFIX.size + length
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RecordingError(f"{self.path}: the recording's header is damaged ({error}); record again") from error

    def _read(self, offset: int, size: int) -> tuple[Block, int, int] | None:
        """The block at `offset`, the next offset, and the unpacked size; None when the block is not whole."""
        self._file.seek(offset)
        prefix = self._file.read(_BLOCK.size)
        if len(prefix) < _BLOCK.size:
            return None
        length, crc = _BLOCK.unpack(prefix)
        following = offset + _BLOCK.size + length
        if length > _MAX_BODY_BYTES or following > size:
            return None
        body = self._file.read(length)
        if zlib.crc32(body) != crc:
            return None
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(body, _MAX_BODY_BYTES)
            block = _decode_block(raw)
            return (block, following, len(raw)) if unpacker.eof and all(map(has_numbers, block.events)) else None
        except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


class _LimitReached(Exception):
    """The next event would not fit below the limit."""


class RecordingWriter:
    """Owns a new file of a recording and the thread that compresses and writes it. `put` and `finish` only hand over.

    `on_end` is called in that thread when it ends by itself; `ended` then says why. `finished` is done when the file is closed.
    """

    def __init__(self, path: Path, limit_bytes: int, clock: Clock, *, queue_bytes: int, on_end: Callable[[], None]) -> None:
        """Raises RecordingError when the file exists or cannot be made."""
        self.path = path
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._queue_bytes = queue_bytes
        self._on_end = on_end
        self._origin = clock.monotonic()
        self._queue: deque[tuple[Event, int]] = deque()  # appended by the loop, taken by the thread; both are atomic
        self._offered = 0
        self._taken = 0
        self._due = threading.Event()
        self._ending = ""
        self.ended = ""
        self.finished: Future[None] = Future()
        self.finished.set_running_or_notify_cancel()  # one who stops waiting for it does not cancel it
        header = pack(Header(started=clock.time()))
        opening = _PREFIX.pack(MAGIC, VERSION, len(header)) + header
        if limit_bytes < len(opening) + _CLOSING_BYTES:
            raise RecordingError(f"{path}: a recording cannot be kept within {limit_bytes} bytes; raise WS_RECORD_MAX_MB")
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise RecordingError(f"{path}: exists already, and is not overwritten; name another file") from None
        except OSError as error:
            raise RecordingError(f"{path}: cannot be made ({error.strerror}); name a file that you may write") from error
        self.size_bytes = 0
        try:
            self._write(opening)
        except OSError as error:
            os.close(self._descriptor)
            raise RecordingError(f"{path}: cannot be written ({error.strerror}); free some space") from error
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds since the recording began."""
        return self._clock.monotonic() - self._origin

    def put(self, event: Event, size: int) -> None:
        """Hand over an event with a payload of `size` bytes. When too much waits for the disk, the recording ends here."""
        if self._ending:
            return
        self._queue.append((event, size))
        self._offered += size + _EVENT_BYTES
        waiting = self._offered - self._taken
        if waiting > self._queue_bytes:
            self.finish("disk too slow")
        elif waiting > _BLOCK_BYTES:
            self._due.set()

    def finish(self, reason: str) -> None:
        """Write what waits, say why it ends, close. Returns at once; idempotent."""
        self._ending = self._ending or reason
        self._due.set()

    def _run(self) -> None:
        reason = ""
        try:
            while not self._ending:
                self._due.wait(_FLUSH_S)
                self._due.clear()
                self._drain()
            self._drain()
            reason = self._ending
        except _LimitReached:
            reason = f"the limit of {self.limit_bytes / 1e6:g} MB is reached"
        except Exception as error:  # noqa: BLE001 - whatever the disk did: it is said, and the stream goes on
            reason = f"cannot be written: {getattr(error, 'strerror', None) or error}"
        self._ending = self._ending or reason
        self._queue.clear()
        try:
            self._write(_packed(Block(self.now(), self._clock.time(), [Closing(self.now(), reason)])))
            os.fsync(self._descriptor)
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
        finally:
            os.close(self._descriptor)
            self.ended = reason
            self.finished.set_result(None)
            self._on_end()

    def _drain(self) -> None:
        """Write all that waits, in blocks."""
        events: list[Event] = []
        raw = 0
        while self._queue:
            event, size = self._queue.popleft()
            events.append(event)
            raw += size
            self._taken += size + _EVENT_BYTES
            if raw >= _BLOCK_BYTES or len(events) == MOST_EVENTS:
                self._write_block(events)
                events, raw = [], 0
        if events:
            self._write_block(events)

    def _write_block(self, events: list[Event]) -> None:
        block = _packed(Block(self.now(), self._clock.time(), events))
        if self.size_bytes + len(block) + _CLOSING_BYTES <= self.limit_bytes:
            self._write(block)
        elif len(events) == 1:
            raise _LimitReached
        else:  # as much of it as fits
            self._write_block(events[: len(events) // 2])
            self._write_block(events[len(events) // 2 :])

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self.size_bytes += written
            rest = rest[written:]


def _packed(block: Block) -> bytes:
    body = zlib.compress(pack(block), _LEVEL)
    return _BLOCK.pack(len(body), zlib.crc32(body)) + body
