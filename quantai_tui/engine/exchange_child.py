"""The embedded exchange as a child process of the engine: started from a command that the caller hands over, restarted when it
dies, gone when the engine is gone (it leaves as soon as its standard input ends)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..link import FaultOffer
from ..private_files import open_private
from ..python_child import python_environment
from ..telemetry import Clock

logger = logging.getLogger(__name__)

_READY_WITHIN_S = 60.0  # a large archive is read whole first
_RESTART_AFTER_S = 3.0
_LEAVE_WITHIN_S = 3.0
_ANSWER_WITHIN_S = 10.0
_MOST_WAITING = 32
_LONGEST_ANSWER = 256 * 1024  # the first line names all kinds of fault


class ExchangeInfo(msgspec.Struct, frozen=True):
    """What the exchange says of itself when it is ready."""

    ws_url: str
    rest_url: str
    ca_file: str
    symbols: tuple[str, ...]
    first_id: dict[str, int | None] = {}
    last_id: dict[str, int | None] = {}  # of a replay: where the file ends
    total: int | None = None
    faults: tuple[FaultOffer, ...] = ()  # what `inject` takes; none unless it was started to be broken

    def dictates(self, train_symbol: str) -> dict[str, str]:
        """The settings that the exchange decides, `TRAIN_SYMBOL` among them if it does not have the chosen one."""
        return {
            "EXCHANGE_WS_URL": self.ws_url,
            "EXCHANGE_REST_URL": self.rest_url,
            "EXCHANGE_CA_FILE": self.ca_file,
            "PROXY_URL": "",
            "SYMBOLS": ",".join(self.symbols),
            "TRAIN_SYMBOL": train_symbol if train_symbol in self.symbols else "",
        }


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    remedy: str = ""


class ExchangeFailed(Exception):
    """The exchange did not start, or did not do what it was asked to; the text says why and what to do."""


class _Answer(msgspec.Struct, frozen=True):
    """What it says to a fault: a note, or an error and its remedy."""

    note: str | None = None
    error: str = ""
    remedy: str = ""


def _first_words(line: bytes) -> ExchangeInfo | _Refusal:
    """Decode the first line. Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError if it is invalid."""
    said = msgspec.json.decode(line)
    refused = isinstance(said, dict) and "error" in said
    return msgspec.convert(said, _Refusal) if refused else msgspec.convert(said, ExchangeInfo)


class ExchangeChild:
    """Owns the exchange process from `start` to `stop`."""

    def __init__(self, command: Sequence[str], log_path: Path, clock: Clock) -> None:
        self._command = tuple(command)
        self._log_path = log_path
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._info: ExchangeInfo | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[_Answer]] = deque()  # for answers, which come in the order of the questions

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def faults(self) -> tuple[FaultOffer, ...]:
        """The kinds that `inject` takes."""
        return self._info.faults if self._info is not None else ()

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

    async def inject(self, fault: dict[str, object]) -> str:
        """Let a fault happen, as a fault script would write it (`{"kind": "close", "code": 1012}`); one line of what was done.

        Raises ExchangeFailed when the exchange refuses it, is not running, or does not answer within 10 s.
        """
        process, listener = self._process, self._listener
        if process is None or process.stdin is None or listener is None or listener.done():
            raise ExchangeFailed("the embedded exchange is not running; it is started again within seconds")
        if len(self._waiting) >= _MOST_WAITING:
            raise ExchangeFailed("the embedded exchange has too many faults to answer for; wait a moment")
        try:
            line = msgspec.json.encode({"fault": fault})
        except (TypeError, ValueError, RecursionError) as error:
            raise ExchangeFailed(f"a fault that cannot be written down: {error}") from error
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        process.stdin.write(line + b"\n")
        try:
            # Given up, it keeps its place in the queue: an answer that comes too late is still the one to this question.
            said = await asyncio.wait_for(answer, _ANSWER_WITHIN_S)
        except TimeoutError:
            raise ExchangeFailed(
                f"the embedded exchange did not answer within {_ANSWER_WITHIN_S:.0f} s; see {self._log_path}"
            ) from None
        if said.note is None:
            raise ExchangeFailed("; ".join(filter(None, (said.error, said.remedy))))
        return said.note

    async def _listen(self, stdout: asyncio.StreamReader) -> None:
        """Take answers as they come, until the exchange ends; then whoever waits for one is told so."""
        try:
            while line := await stdout.readline():
                try:
                    said = msgspec.json.decode(line, type=_Answer)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    said = _Answer(error=f"the embedded exchange said what is no answer ({error})")
                if self._waiting and not (answer := self._waiting.popleft()).done():
                    answer.set_result(said)
        except ValueError as error:  # a line over the limit
            logger.error("the embedded exchange printed a line that is too long (%s); see %s", error, self._log_path)
        finally:
            while self._waiting:
                if not (answer := self._waiting.popleft()).done():
                    answer.set_result(_Answer(error="the embedded exchange ended before it answered"))

    async def _launch(self) -> ExchangeInfo:
        log = open_private(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LONGEST_ANSWER,
                env=python_environment(),
                start_new_session=True,  # a Ctrl-C at the terminal is the engine's to answer
            )
        finally:
            os.close(log)
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _READY_WITHIN_S)
        except TimeoutError:
            await self._end()
            raise ExchangeFailed(
                f"the embedded exchange was not ready within {_READY_WITHIN_S:.0f} s; see {self._log_path}"
            ) from None
        except ValueError as error:  # a line over the limit
            await self._end()
            raise ExchangeFailed(f"the embedded exchange printed a line that is too long; see {self._log_path}") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        try:
            said = _first_words(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            await self._end()
            raise ExchangeFailed(f"the embedded exchange did not start; see {self._log_path}") from None
        if isinstance(said, _Refusal):
            await self._end()
            raise ExchangeFailed("; ".join(filter(None, (said.error, said.remedy))))
        self._listener = asyncio.create_task(self._listen(self._process.stdout), name="exchange-answers")
        return said

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self._listener is not None:
                await self._listener  # what it said last is heard, and nobody is left waiting
                self._listener = None
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
        listener, self._listener = self._listener, None
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
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        # Without this the transport is closed by the garbage collector, after its loop is gone.
        process._transport.close()  # type: ignore[attr-defined]
