"""The Unix socket at which the worker process reports to its supervisor: framing, and what befalls a connection."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..private_files import identity, remove_if_same
from .child import WorkerLife
from .messages import FrameReader, WorkerMessage

log = logging.getLogger(__name__)

_LONGEST_PATH = 107  # sun_path of Linux, less its closing zero
_HELLO_S = 10.0


class WorkerSocket:
    """Decodes what workers send. `open` and `close` may follow each other again and again.

    `admit` takes a connection's first message and returns the worker that it belongs to, or raises ValueError; `take` gets each
    further message, and `lost` is called when the connection of an admitted worker has ended. A worker that sends something that
    cannot be understood is killed.
    """

    def __init__(
        self,
        path: Path,
        *,
        admit: Callable[[WorkerMessage, asyncio.StreamWriter], WorkerLife],
        take: Callable[[WorkerLife, WorkerMessage], None],
        lost: Callable[[WorkerLife, asyncio.StreamWriter], None],
    ) -> None:
        """Raises ValueError when the path is too long for a socket."""
        if len(str(path).encode()) > _LONGEST_PATH:
            raise ValueError(f"the worker socket's path is longer than {_LONGEST_PATH} bytes: {path}")
        self.path = path
        self._admit = admit
        self._take = take
        self._lost = lost
        self._decoder = msgspec.msgpack.Decoder(WorkerMessage)
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None

    async def open(self) -> None:
        """Raises OSError."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        self.path.chmod(0o600)
        self._identity = identity(self.path)

    def close(self) -> None:
        """Listen no more. Connections that are open end with their worker. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            remove_if_same(self.path, self._identity)
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        life: WorkerLife | None = None
        try:
            while data := await asyncio.wait_for(reader.read(65536), None if life else _HELLO_S):
                for body in frames.feed(data):
                    message = self._decoder.decode(body)
                    if life is None:
                        life = self._admit(message, writer)
                    else:
                        self._take(life, message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            log.error("closing a worker's connection: %s", error)
            if life is not None:
                life.ended_because = f"the worker sent what the engine does not understand ({error}) and was killed"
                life.signal(signal.SIGKILL)
        except (OSError, TimeoutError) as error:
            log.warning("a worker's connection broke: %s", error or "no Hello in time")
        finally:
            writer.close()
            if life is not None:
                self._lost(life, writer)
