"""What the exchange's parent says on standard input: faults to inject, a line of JSON each; and by its end, that it is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable

import msgspec

from .catalogue import parse_fault
from .fault import FaultError
from .faults import Faults

_LOG = logging.getLogger(__name__)

_MOST_WAITING = 64
_LONGEST_LINE = 64 * 1024


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    fault: dict[str, object]


class Orders:
    """Reads standard input from `__init__` on; sets `stop` when it ends, since then the parent is gone, however it died.

    A blocking read in a thread of its own, since standard input may be anything, and not all of it can be waited for by a
    selector.
    """

    def __init__(self, stop: asyncio.Event, answer: Callable[[object], None]) -> None:
        self._stop = stop
        self._say = answer
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def obey(self, faults: Faults | None) -> None:
        """Carry out line after line and answer each, in order, until cancelled. Without `faults` none is to be had."""
        while True:
            self._say(await _carry_out(await self._lines.get(), faults))

    def _read(self) -> None:
        try:
            rest = b""
            try:
                while data := os.read(0, 4096):
                    *lines, rest = (rest + data).split(b"\n")
                    rest = rest[: _LONGEST_LINE + 1]
                    for line in filter(bytes.strip, lines):
                        # Waits while too many are waiting; the parent's next write then does too.
                        asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()
            except OSError as error:
                _LOG.warning("standard input cannot be read (%s): leaving", error)
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            pass  # the loop is closed: it is leaving already


async def _carry_out(line: bytes, faults: Faults | None) -> dict[str, str]:
    try:
        if len(line) > _LONGEST_LINE:
            raise FaultError(f"a line of more than {_LONGEST_LINE} bytes", "write one fault a line")
        try:
            order = msgspec.json.decode(line, type=_Order)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FaultError(f"not understood: {error}", 'write {"fault": {"kind": "close"}} in one line') from error
        if faults is None:
            raise FaultError("this exchange takes no faults", "start it with --breakable")
        fault = parse_fault(order.fault)
        return {"fault": fault.kind, "note": await faults.inject(fault)}
    except FaultError as error:
        return {"error": str(error), "remedy": error.remedy}
