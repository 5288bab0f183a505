"""The embedded exchange as a child process of the engine: started from a command that the caller hands over, restarted when it
dies, gone when the engine is gone (it leaves as soon as its standard input ends)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..telemetry import Clock

logger = logging.getLogger(__name__)

_READY_WITHIN_S = 60.0  # a large archive is read whole first
_RESTART_AFTER_S = 3.0
_LEAVE_WITHIN_S = 3.0


class ExchangeInfo(msgspec.Struct, frozen=True):
    """What the exchange says of itself when it is ready."""

    ws_url: str
    rest_url: str
    ca_file: str
    symbols: tuple[str, ...]
    first_id: dict[str, int | None] = {}
    last_id: dict[str, int | None] = {}  # of a replay: where the file ends
    total: int | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    remedy: str = ""


class ExchangeFailed(Exception):
    """The exchange did not start; the text says why and what to do."""


class ExchangeChild:
    """Owns the exchange process from `start` to `stop`."""

    def __init__(self, command: Sequence[str], log_path: Path, clock: Clock) -> None:
        self._command = tuple(command)
        self._log_path = log_path
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._info: ExchangeInfo | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> ExchangeInfo:
        """Raises ExchangeFailed, with the exchange's own words."""
        self._info = await self._launch()
        self._keeper = asyncio.create_task(self._keep(), name="exchange-keeper")
        return self._info

    async def stop(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._end()

    async def _launch(self) -> ExchangeInfo:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is the engine's to answer
            )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _READY_WITHIN_S)
        except TimeoutError:
            await self._end()
            raise ExchangeFailed(
                f"the embedded exchange was not ready within {_READY_WITHIN_S:.0f} s; see {self._log_path}"
            ) from None
        except asyncio.CancelledError:
            await self._end()
            raise
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            await self._end()
            raise ExchangeFailed(f"the embedded exchange did not start; see {self._log_path}") from None
        if "error" in said:
            await self._end()
            refusal = msgspec.convert(said, _Refusal)
            raise ExchangeFailed("; ".join(filter(None, (refusal.error, refusal.remedy))))
        return msgspec.convert(said, ExchangeInfo)

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            logger.warning("the embedded exchange ended (exit %s); starting it again in %.0f s", code, _RESTART_AFTER_S)
            while True:
                await self._clock.sleep(_RESTART_AFTER_S)
                try:
                    info = await self._launch()
                except (ExchangeFailed, OSError) as error:
                    logger.error("the embedded exchange did not come back: %s", error)
                    continue
                if self._info is not None and (info.ws_url, info.rest_url) != (self._info.ws_url, self._info.rest_url):
                    logger.error("the embedded exchange came back at another address; restart the engine to reach it")
                logger.info("the embedded exchange is back (pid %s)", self.pid)
                break

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _LEAVE_WITHIN_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        # Without this the transport is closed by the garbage collector, after its loop is gone.
        process._transport.close()  # type: ignore[attr-defined]
