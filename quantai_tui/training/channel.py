"""The worker's end of its socket: sends from any thread without ever blocking training. Free of torch."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

import msgspec

from .messages import FrameReader, Metrics, encode_frame

# Control answers and events are small and few: so much unsent means that nobody has read for hours.
_MOST_UNSENT_BYTES = 1 << 20


class ChannelClosed(ConnectionError):
    """The engine has closed the socket, or has not read for so long that it must be taken for dead."""


class WorkerChannel:
    """Metrics are dropped and counted while earlier bytes are still unsent; any other message is kept until it can be sent."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._frames = FrameReader()
        self.dropped = 0

    def send_metrics(self, metrics: Metrics) -> bool:
        """True when it was sent or will be. Raises ChannelClosed."""
        with self._lock:
            self._push()
            if self._unsent:
                self.dropped += 1
                return False
            self._unsent += encode_frame(metrics)
            self._push()
            return True

    def send(self, message: msgspec.Struct) -> None:
        """Raises ChannelClosed."""
        with self._lock:
            if len(self._unsent) > _MOST_UNSENT_BYTES:
                raise ChannelClosed("the engine does not read")
            self._unsent += encode_frame(message)
            self._push()

    def flush(self, timeout_s: float) -> bool:
        """Try for so long to send what is still unsent. Raises ChannelClosed."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                self._push()
                if not self._unsent:
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select((), (self._socket,), (), left)

    def _push(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[bytes]:
        """Wait for the next message bodies; raises ChannelClosed when there will be none."""
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not data:
            raise ChannelClosed("the engine has closed the worker socket")
        return list(self._frames.feed(data))

    def close(self) -> None:
        """Hang up; whoever waits in `receive` is woken by ChannelClosed. Idempotent."""
        with contextlib.suppress(OSError):  # the other side may have been first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the descriptor, and the connection stays the parent's alone."""
        self._socket.close()
