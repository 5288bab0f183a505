"""Sending commands and telling what came of them: one of a kind at a time, and an answer that does not come is an answer too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..link.base import EngineLink
from ..link.messages import Ack, CommandName

_LIMIT_S = 60.0
_Kind = TypeVar("_Kind")


def answered(ack: Ack, kind: type[_Kind]) -> tuple[_Kind | None, str]:
    """What an answer carries, or in words why it carries nothing of that kind. A refusal may carry its reasons as data."""
    if ack.data is None:
        return None, ack.message or "the engine gave no reason"
    try:
        return msgspec.convert(ack.data, kind), ack.message
    except msgspec.ValidationError as error:
        return None, f"the engine's answer cannot be read: {error}" if ack.ok else ack.message


class Commands:
    """Asks the engine behind `link`; `say(text, token)` puts a line before the operator at once."""

    def __init__(self, link: EngineLink, say: Callable[[str, str], None]) -> None:
        self._link = link
        self._say = say
        self._in_flight: set[CommandName] = set()

    async def ask(self, name: CommandName, **args: Any) -> Ack:
        """One command, one answer; nothing is said about it."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                return await self._link.command(name, **args)
        except TimeoutError:
            return Ack(0, False, f"no answer within {_LIMIT_S:.0f} s")

    async def send(self, name: CommandName, word: str, **args: Any) -> None:
        """Say that it is sent, then that it is done or why not. While one is on its way a second of its kind is not sent."""
        if name in self._in_flight:
            self._say(f"{word}: still waiting for the engine's answer", "state-pending")
            return
        self._in_flight.add(name)
        self._say(f"{word}: sent", "state-pending")
        try:
            ack = await self.ask(name, **args)
        finally:
            self._in_flight.discard(name)
        said = f" — {ack.message}" if ack.message else ""
        self._say(f"{word}: done{said}" if ack.ok else f"{word}: not done{said}", "state-live" if ack.ok else "state-failed")
