"""Our own modules as processes that take orders and answer them, a line of JSON each."""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from .surroundings import module


class Child:
    """A module of these benchmarks in a process of its own; it leaves when its standard input closes. A context manager."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        # Unbuffered, so that what `select` sees is all there is.
        self._process = subprocess.Popen(module(name, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def hear(self, within_s: float = 60.0) -> dict[str, Any]:
        """The next line it says. Raises RuntimeError when there is none."""
        assert self._process.stdout is not None
        line = b""
        if select.select([self._process.stdout], [], [], within_s)[0]:
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} said nothing within {within_s:g} s, or has ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, **order: Any) -> dict[str, Any]:
        self.tell(**order)
        return self.hear()


def say(**answer: Any) -> None:
    """In a child: one line to whoever started it."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def orders() -> AsyncIterator[dict[str, Any]]:
    """In a child: what it is told, until its standard input closes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)
