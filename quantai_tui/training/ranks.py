"""What a training loop needs of its fellow processes: one leader, the same data, the same commands at the same step.

The leader, rank 0, is the process that has the engine's socket. It alone reads the store and hears the operator.

What it costs. The bars of an epoch are sent once, as one feature matrix with the samples' order (20,000 bars: 1 MB), and every
rank cuts its own windows from it: sent step by step, windows that overlap would be 12 times as much, and a wait in every step.
Words (commands, settings) are exchanged at a *meeting*, which is a step boundary that all have counted down to, about every
0.1 s: one broadcast of 512 bytes. Reports ride on a meeting once a second. Whether a loss was finite is asked on skipped steps
only: without an overflow it is no input to any decision. All of this goes by gloo between CPUs, so that no GPU waits for it.

A gradient that overflows on one rank is not finite in the sum that DDP hands to all: skipped steps, scales and resets are the
same everywhere without a word.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..telemetry import SYSTEM_CLOCK, Clock
from .joining import LOST_S, Place, RanksLost, broken, join_group
from .messages import RankReport

MEET_EVERY_S = 0.1
REPORT_EVERY_S = 1.0
_MOST_BOUNDARIES = 64  # between two meetings, however short the steps: they may grow long at any time
_FRAME_BYTES = 512
_HEADER = struct.Struct("<QIIB3x")  # number of the meeting, length of the words, boundaries until the next, reports wanted
_IN_FRAME = _FRAME_BYTES - _HEADER.size


class Standing(NamedTuple):
    """What one rank tells of itself; `overflow_count` are the overflows that began in its own gradients."""

    step: int
    overflow_count: int


class Met(NamedTuple):
    """What a meeting has brought: the leader's words, and on the leader the reports of all when they were due."""

    words: bytes
    reports: tuple[RankReport, ...] = ()


class Ranks(Protocol):
    """All ranks call these methods in the same order (all but `part`, `weight` and `device` wait for the others).

    A method that waits raises RanksLost when a fellow rank has ended or does not answer.
    """

    rank: int
    world: int

    @property
    def leader(self) -> bool: ...

    def tell(self, words: bytes) -> bytes:
        """The leader's words, of any length: a config, a checkpoint."""
        ...

    def meets(self) -> bool:
        """Whether to `meet` at this step boundary. Called once at each."""
        ...

    def meet(self, words: bytes, standing: Standing) -> Met:
        """Give everyone the leader's words. Also called where nothing is counted: while paused or waiting, by the leader's clock,
        at least every half second, since a leader that is silent for LOST_S is taken for lost.
        """
        ...

    def share(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The leader's tensors, which are on the CPU; what the others give is ignored."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank."""
        ...

    def least(self, value: float) -> float:
        """The smallest of all ranks' values."""
        ...

    def collect(self, words: bytes) -> list[bytes]:
        """The words of all ranks, in their order."""
        ...

    def part(self, count: int) -> slice:
        """Which of `count` samples are this rank's. Raises ValueError when there are fewer samples than ranks."""
        ...

    def weight(self, count: int) -> float:
        """What this rank's mean loss is multiplied by, so that DDP's mean over ranks is the mean over all `count` samples."""
        ...

    def device(self, wanted: str) -> str:
        """The torch device of this rank where the config says `wanted`."""
        ...

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Bring all ranks to the leader's weights, and average gradients from now on. Once."""
        ...

    def leave(self) -> None: ...


class Solo:
    """One process: nobody to ask."""

    rank, world, leader = 0, 1, True

    def tell(self, words: bytes) -> bytes:
        return words

    def meets(self) -> bool:
        return True

    def meet(self, words: bytes, standing: Standing) -> Met:
        return Met(words)

    def share(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def any(self, flag: bool) -> bool:
        return flag

    def least(self, value: float) -> float:
        return value

    def collect(self, words: bytes) -> list[bytes]:
        return [words]

    def part(self, count: int) -> slice:
        return slice(0, count)

    def weight(self, count: int) -> float:
        return 1.0

    def device(self, wanted: str) -> str:
        return wanted

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        return model

    def leave(self) -> None:
        """Nobody is left behind."""


class Group:
    """The ranks of torch.distributed. The constructor joins them: see `join_group` for what it raises. Not thread-safe."""

    def __init__(self, place: Place, *, lead: bool, clock: Clock = SYSTEM_CLOCK, lost_s: float = LOST_S) -> None:
        self.rank, self.world = join_group(place, lead=lead, lost_s=lost_s)
        self._place = place
        self._clock = clock
        self._lost = timedelta(seconds=lost_s)
        self._cards: list[_Card] = []
        self._parallel: DistributedDataParallel | None = None
        self._meetings = 0
        self._left = 0  # boundaries until the next meeting
        self._counted = 0  # boundaries since the last one
        self._met_at = self._reported_at = clock.monotonic()

    @property
    def leader(self) -> bool:
        return self.rank == 0

    # Words

    def meets(self) -> bool:
        self._counted += 1
        self._left -= 1
        return self._left <= 0

    def meet(self, words: bytes, standing: Standing) -> Met:
        frame = _frame()
        if self.leader:
            header = _HEADER.pack(self._meetings, len(words), self._boundaries_ahead(), self._report_due())
            frame = _frame(header + (words if len(words) <= _IN_FRAME else b""))
        with broken("at a meeting"):
            dist.broadcast(frame, 0)
        received = _bytes_of(frame)
        number, length, self._left, report = _HEADER.unpack_from(received)
        if number != self._meetings:
            raise RanksLost(f"rank {self.rank} is at meeting {self._meetings}, the leader at {number}: is their code the same?")
        self._meetings += 1
        self._counted = 0
        words = received[_HEADER.size : _HEADER.size + length] if length <= _IN_FRAME else self.tell(words)
        return Met(words, self._gather(standing) if report else ())

    def tell(self, words: bytes) -> bytes:
        length = torch.tensor(len(words))
        with broken("while the leader told something"):
            dist.broadcast(length, 0)
            if not int(length):
                return b""
            told = _tensor_of(words) if self.leader else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(told, 0)
        return _bytes_of(told)

    def _boundaries_ahead(self) -> int:
        """How many steps fit into MEET_EVERY_S, as the last ones went."""
        now = self._clock.monotonic()
        each = (now - self._met_at) / self._counted if self._counted else MEET_EVERY_S
        self._met_at = now
        return max(1, min(_MOST_BOUNDARIES, int(MEET_EVERY_S / max(each, 1e-6))))

    # Reports

    def _report_due(self) -> bool:
        now = self._clock.monotonic()
        if not self._cards or now - self._reported_at < REPORT_EVERY_S:
            return False
        self._reported_at = now
        return True

    def _introduce(self, device: torch.device) -> None:
        """What does not change about a rank, told once."""
        card = _Card(socket.gethostname(), os.getpid(), str(device))
        self._cards = [msgspec.msgpack.decode(words, type=_Card) for words in self.collect(msgspec.msgpack.encode(card))]

    def _own_step_ms(self) -> float:
        """What the last step measured by DDP took without the wait for other ranks; it measures one in a hundred. NaN before."""
        if self._parallel is None:
            return math.nan
        times: dict[str, int] = self._parallel._get_ddp_logging_data()  # type: ignore[no-untyped-call]
        nanoseconds = times.get("forward_compute_time", 0) + times.get("backward_compute_time", 0)
        return nanoseconds / 1e6 if nanoseconds > 0 else math.nan

    def _gather(self, standing: Standing) -> tuple[RankReport, ...]:
        mine = torch.tensor((standing.step, self._own_step_ms(), standing.overflow_count), dtype=torch.float64)
        everyones = [torch.empty_like(mine) for _ in range(self.world)] if self.leader else None
        with broken("while reports were gathered"):
            dist.gather(mine, everyones, dst=0)
        reports = []
        for rank, (card, numbers) in enumerate(zip(self._cards, everyones or (), strict=False)):
            step, milliseconds, overflows = numbers.tolist()
            known = None if math.isnan(milliseconds) else milliseconds
            reports.append(RankReport(rank, card.host, card.pid, card.device, int(step), known, int(overflows)))
        return tuple(reports)

    # Data and gradients

    def share(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        kinds = [(str(each.dtype).removeprefix("torch."), tuple(each.shape)) for each in tensors] if self.leader else []
        told = msgspec.msgpack.decode(self.tell(msgspec.msgpack.encode(kinds)), type=list[tuple[str, tuple[int, ...]]])
        shared = []
        with broken("while data was shared"):
            for index, (dtype, shape) in enumerate(told):
                tensor = tensors[index].contiguous() if self.leader else torch.empty(shape, dtype=getattr(torch, dtype))
                dist.broadcast(tensor, 0)
                shared.append(tensor)
        return shared

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag), dtype=torch.uint8)
        with broken("while the ranks agreed"):
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def least(self, value: float) -> float:
        values = torch.tensor(value, dtype=torch.float64)
        with broken("while the ranks agreed"):
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return float(values)

    def collect(self, words: bytes) -> list[bytes]:
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.world)]
        with broken("while words were collected"):
            dist.all_gather(lengths, torch.tensor(len(words)))
            longest = max(map(int, lengths))
            if not longest:
                return [b""] * self.world
            mine = _tensor_of(words.ljust(longest, b"\0"))
            received = [torch.empty_like(mine) for _ in range(self.world)]
            dist.all_gather(received, mine)
        return [_bytes_of(each)[: int(length)] for each, length in zip(received, lengths, strict=True)]

    def part(self, count: int) -> slice:
        if count < self.world:
            raise ValueError(f"{count} samples cannot be shared by {self.world} processes: choose a batch size of at least that")
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def weight(self, count: int) -> float:
        part = self.part(count)
        return float((part.stop - part.start) * self.world / count)

    def device(self, wanted: str) -> str:
        usable = torch.cuda.device_count() if wanted in ("auto", "cuda") and torch.cuda.is_available() else 0
        if not usable:
            return wanted
        if self._place.local_rank >= usable:
            raise ValueError(f"process {self._place.local_rank} of this machine has no GPU: it has {usable}; lower TRAIN_NPROC")
        return f"cuda:{self._place.local_rank}"

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        self._introduce(device)
        with broken("while the leader's weights were shared"):
            if device.type == "cuda":
                torch.cuda.set_device(device)
                gradients = dist.new_group(backend="nccl", timeout=self._lost)
                self._parallel = DistributedDataParallel(model, device_ids=[device], process_group=gradients)
            else:
                self._parallel = DistributedDataParallel(model)
        return self._parallel

    def leave(self) -> None:
        """Idempotent. Fellow ranks that still wait for this one raise RanksLost."""
        if dist.is_initialized():
            dist.destroy_process_group()


class _Card(msgspec.Struct, array_like=True):
    host: str
    pid: int
    device: str


def _tensor_of(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _frame(data: bytes = b"") -> Tensor:
    return _tensor_of(data.ljust(_FRAME_BYTES, b"\0"))


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
