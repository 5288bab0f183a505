"""What of a training loop passes between ranks: the bars that the leader read, its checkpoint, what it was asked, overflows.

Every rank runs the same loop over the same bars. Where one process reads, hears or remembers, here the leader does and tells.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import msgspec
import torch

from ..market import BarColumns, StoreError
from .messages import Control, Overflowed
from .ranks import Ranks
from .requests import Request, no_answer

_controls = msgspec.msgpack.Decoder(list[Control])
_overflowed = msgspec.msgpack.Decoder(Overflowed)


class _Read(msgspec.Struct):
    there: bool
    trouble: str


def shared_read(ranks: Ranks, read: Callable[..., BarColumns | None]) -> Callable[..., BarColumns | None]:
    """`read` on the leader alone; its answer, or the StoreError it raised, on all ranks.

    Bars and not windows: a window of 24 overlaps with 23 others. Features follow from them by the same arithmetic everywhere.
    """
    if ranks.world == 1:
        return read

    def read_by_leader(*asked: Any) -> BarColumns | None:
        bars, trouble = None, ""
        if ranks.leader:
            try:
                bars = read(*asked)
            except StoreError as error:
                trouble = str(error)
        told = ranks.tell(msgspec.msgpack.encode(_Read(bars is not None, trouble)))
        answer = msgspec.msgpack.decode(told, type=_Read)
        if answer.trouble:
            raise StoreError(answer.trouble)
        if not answer.there:
            return None
        columns = ranks.share([torch.from_numpy(column) for column in bars or ()])
        return BarColumns(*(column.numpy() for column in columns))

    return read_by_leader


def share_state(ranks: Ranks, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """The leader's checkpoint, on all ranks; None where it has none."""
    if ranks.world == 1:
        return state
    packed = io.BytesIO()
    if ranks.leader and state is not None:
        torch.save(state, packed)
    told = ranks.tell(packed.getvalue())
    loaded: dict[str, Any] | None = torch.load(io.BytesIO(told), weights_only=True) if told else None
    return loaded


def pack(requests: list[Request]) -> bytes:
    """What the leader was asked, for the others: without what answers it."""
    return msgspec.msgpack.encode([Control(0, each.kind, each.config) for each in requests]) if requests else b""


def unpack(words: bytes) -> list[Request]:
    return [Request(each.kind, no_answer, each.config) for each in _controls.decode(words)] if words else []


def first_overflow(ranks: Ranks, own: Overflowed | None) -> Overflowed | None:
    """On a step that was skipped: the explanation by the first rank that has one, saying which where there are several."""
    if ranks.world == 1:
        return own
    for rank, words in enumerate(ranks.collect(b"" if own is None else msgspec.msgpack.encode(own))):
        if words:
            found = _overflowed.decode(words)
            return msgspec.structs.replace(found, text=f"rank {rank}: {found.text}")
    return None
