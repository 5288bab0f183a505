"""Whole snapshots of the past: each second for ten minutes, each minute for three days, and each change of state in between."""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass

import msgspec

from ..telemetry import EngineSnapshot

# Seconds between two, how many.
_TIERS = ((1.0, 600), (10.0, 2_160), (60.0, 4_320))
_MOST_CHANGES = 2_000
_LARGEST_BYTES = 24_000_000
_REBASE_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class _Packed:
    time: float
    body: bytes
    dictionary: bytes


class Moments:
    """A bounded memory of snapshots, without their series and their log.

    One is packed into a few hundred bytes, since zlib is told an earlier one as its dictionary: nearly all of a snapshot stands
    there already. At most `_LARGEST_BYTES` in all, the oldest go first. Where the clock is set back, moments after the new time
    are forgotten.
    """

    def __init__(self) -> None:
        self._tiers = tuple(deque[_Packed](maxlen=count) for _, count in _TIERS)
        self._changes = deque[_Packed](maxlen=_MOST_CHANGES)
        self._dictionary = b""
        self._packed = 0
        self._due = [-math.inf] * len(_TIERS)
        self._shape: object = None

    def keep(self, snapshot: EngineSnapshot) -> None:
        """Take one in, if its time has come or something has changed."""
        now, shape = snapshot.time, _shape(snapshot)
        if any(now < ring[-1].time for ring in self._rings if ring):
            self._forget_after(now)
        due = [index for index in range(len(_TIERS)) if now >= self._due[index]]
        changed = shape != self._shape
        if not due and not changed:
            return
        self._shape = shape
        packed = self._pack(snapshot)
        for index in due:
            self._due[index] = now + _TIERS[index][0]
            self._tiers[index].append(packed)
        if changed:
            self._changes.append(packed)
        self._stay_small()

    def at(self, when: float) -> EngineSnapshot | None:
        """The newest that is not after `when` (Unix seconds); None before the first."""
        before = [packed for ring in self._rings if (packed := _newest_until(ring, when)) is not None]
        return _unpack(max(before, key=lambda packed: packed.time)) if before else None

    @property
    def since(self) -> float | None:
        """The time of the oldest."""
        return min((ring[0].time for ring in self._rings if ring), default=None)

    @property
    def size_bytes(self) -> int:
        return sum({id(packed): len(packed.body) for ring in self._rings for packed in ring}.values())

    @property
    def _rings(self) -> tuple[deque[_Packed], ...]:
        return (*self._tiers, self._changes)

    def _pack(self, snapshot: EngineSnapshot) -> _Packed:
        body = msgspec.msgpack.encode(msgspec.structs.replace(snapshot, series={}, log=()))
        if self._packed % _REBASE_EVERY == 0:
            self._dictionary = body
        self._packed += 1
        packer = zlib.compressobj(1, zdict=self._dictionary)
        return _Packed(snapshot.time, packer.compress(body) + packer.flush(), self._dictionary)

    def _stay_small(self) -> None:
        if self._packed % 500:
            return
        while self.size_bytes > _LARGEST_BYTES:
            ring = max(self._rings, key=len)
            for _ in range(max(1, len(ring) // 10)):
                ring.popleft()

    def _forget_after(self, now: float) -> None:
        for ring in self._rings:
            while ring and ring[-1].time > now:
                ring.pop()
        self._due = [-math.inf] * len(_TIERS)


def _unpack(packed: _Packed) -> EngineSnapshot:
    unpacker = zlib.decompressobj(zdict=packed.dictionary)
    return msgspec.msgpack.decode(unpacker.decompress(packed.body) + unpacker.flush(), type=EngineSnapshot)


def _newest_until(ring: deque[_Packed], when: float) -> _Packed | None:
    """A few thousand steps at most: nothing against the answer's way over a socket."""
    return next((packed for packed in reversed(ring) if packed.time <= when), None)


def _shape(snapshot: EngineSnapshot) -> object:
    """What an operator who looks for a moment would not want to miss between two others."""
    stream, training = snapshot.stream, snapshot.training
    return (
        stream.state,
        stream.rotations,
        stream.repairing,
        training.state,
        training.resets,
        training.restarts,
        training.last_overflow,
        tuple(alert.key for alert in snapshot.alerts),
        snapshot.trial is None,
    )
