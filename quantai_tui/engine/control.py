"""The control socket: dashboards attach here, watch snapshots and send commands. A slow or dead one holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ..link.frames import FrameError, encode, read_from_client
from ..link.messages import PROTOCOL_VERSION, Ack, Command, Hello, Refused, Sample, Watch, Welcome
from ..private_files import identity, remove_if_same
from ..telemetry import EngineSnapshot

logger = logging.getLogger(__name__)

_HELLO_WITHIN_S = 5.0
_FINISH_WITHIN_S = 2.0
_FASTEST_PERIOD_S = 0.1
_MAX_DASHBOARDS = 16
_MAX_COMMANDS_IN_FLIGHT = 16


class ControlServer:
    """Serves one engine's snapshots and commands on a Unix socket of mode 0600."""

    def __init__(
        self,
        path: Path,
        name: str,
        snapshot: Callable[[], EngineSnapshot],
        execute: Callable[[Command], Coroutine[Any, Any, Ack]],
    ) -> None:
        self._path = path
        self._name = name
        self._snapshot = snapshot
        self._execute = execute
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._commands: set[asyncio.Task[Ack]] = set()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)  # the claim on the folder is ours, so this one is a dead engine's
        # The folder is 0700: between the two lines nobody else can reach the socket.
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        self._path.chmod(0o600)
        self._identity = identity(self._path)

    async def stop(self) -> None:
        if self._server is not None:
            remove_if_same(self._path, self._identity)  # before the close: afterwards another file may get its inode number
            self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        if self._commands:
            _, late = await asyncio.wait(self._commands, timeout=_FINISH_WITHIN_S)
            for command in late:
                command.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._greet_and_serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            logger.debug("a dashboard left")
        except FrameError as error:
            logger.warning("a dashboard sent what is not of this protocol: %s", error)
        except asyncio.CancelledError:
            pass  # the server stops; the task ends here and nothing waits behind it
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # not close(): a dashboard that reads no more would keep its buffer for ever

    async def _greet_and_serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await asyncio.wait_for(read_from_client(reader), _HELLO_WITHIN_S)
        if not isinstance(hello, Hello) or hello.version != PROTOCOL_VERSION or len(self._clients) > _MAX_DASHBOARDS:
            spoken = hello.version if isinstance(hello, Hello) else "none"
            reason = f"this engine speaks protocol {PROTOCOL_VERSION}, the dashboard {spoken}: use the same release for both"
            if len(self._clients) > _MAX_DASHBOARDS:
                reason = f"{_MAX_DASHBOARDS} dashboards are attached already; close one"
            writer.write(encode(Refused(reason)))
            await writer.drain()
            return
        writer.write(encode(Welcome(PROTOCOL_VERSION, self._name, os.getpid())))
        logger.info("%s attached", hello.client)
        slots = asyncio.Semaphore(_MAX_COMMANDS_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                watching: asyncio.Task[None] | None = None
                while True:
                    message = await read_from_client(reader)
                    if isinstance(message, Watch):
                        if watching is not None:
                            watching.cancel()
                        watching = group.create_task(self._watch(writer, max(message.period_s, _FASTEST_PERIOD_S)))
                    elif isinstance(message, Command):
                        await slots.acquire()
                        group.create_task(self._answer(writer, message, slots))
        except* (OSError, asyncio.IncompleteReadError):
            logger.info("%s detached", hello.client)
        except* FrameError as errors:
            logger.warning("%s sent what is not of this protocol: %s", hello.client, errors.exceptions[0])

    async def _watch(self, writer: asyncio.StreamWriter, period_s: float) -> None:
        while True:
            writer.write(encode(Sample(self._snapshot())))
            await writer.drain()  # the next snapshot is taken only when this one is gone: nothing piles up
            await asyncio.sleep(period_s)

    async def _answer(self, writer: asyncio.StreamWriter, command: Command, slots: asyncio.Semaphore) -> None:
        try:
            # Shielded: a dashboard that leaves must not cut in two what it has asked for.
            task = asyncio.create_task(self._execute(command), name=f"command-{command.name.value}")
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)
            ack = await asyncio.shield(task)
            with contextlib.suppress(OSError):
                writer.write(encode(ack))
                await writer.drain()
        finally:
            slots.release()
