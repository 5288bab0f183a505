"""How a process becomes one of several ranks, and how the loss of one of the others is noticed and said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

JOIN_S = 90.0  # the ranks of a slow machine are still importing torch
LOST_S = 30.0  # a rank that has gone is noticed at once, by its connection; one that hangs, or whose cable is cut, after so long

_LEADER_KEY = "leader"
# What torch says of a broken connection or a wait in vain is a bare RuntimeError, as is much else.
_SIGNS = (
    "gloo",
    "nccl",
    "tcpstore",
    "connection closed by peer",
    "connection reset by peer",
    "timed out",
    "timeout",
    "broken pipe",
)


class RanksLost(ConnectionError):
    """A fellow process has ended or does not answer: this one cannot go on alone, and leaves so that all are started anew."""


@contextlib.contextmanager
def broken(where: str) -> Iterator[None]:
    """Turn what torch raises when a fellow rank is lost into RanksLost, saying `where`; anything else passes as it is."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, dist.DistError) and not any(sign in text.lower() for sign in _SIGNS):
            raise
        raise RanksLost(
            f"another process of this training has ended or does not answer ({where}): {_first_line(text)}"
        ) from error


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")[:300]


class Place(NamedTuple):
    """Where torchrun has put this process. Its `rank` is not yet ours: it orders machines by address, not by who leads."""

    rank: int
    world: int
    local_rank: int
    machines: int
    attempt: int  # how often the agent of this machine has started its ranks anew
    store: tuple[str, int]
    shared_store: bool  # the store is the agent's own, and outlives the ranks

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Place | None:
        """None outside of torchrun. Raises ValueError for an environment that only half describes a place."""
        if "TORCHELASTIC_RUN_ID" not in environment:
            return None
        try:
            place = cls(
                rank=int(environment["RANK"]),
                world=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                machines=int(environment["GROUP_WORLD_SIZE"]),
                attempt=int(environment["TORCHELASTIC_RESTART_COUNT"]),
                store=(environment["MASTER_ADDR"], int(environment["MASTER_PORT"])),
                shared_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"torchrun's environment is not whole: {error}; start ranks by quantai_tui.training.node") from error
        if place.shared_store and place.machines > 1:
            # Each agent counts its own attempts, so that no prefix would be the same on all machines.
            raise ValueError(
                "a store that several agents share keeps the addresses of ranks that have died: set "
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on every machine, or start ranks by quantai_tui.training.node, which does"
            )
        return place


def _open_store(place: Place, join_s: float) -> Store:
    host, port = place.store
    serve = place.rank == 0 and not place.shared_store
    limit = timedelta(seconds=join_s)
    store = dist.TCPStore(host, port, place.world, serve, limit, wait_for_workers=False)  # type: ignore[attr-defined]
    # A part of its own for every attempt: ranks that meet the addresses of the attempt before hang. Agents of several machines
    # each count attempts of their own, and there every attempt has a store of its own.
    return PrefixStore(f"attempt_{place.attempt if place.machines == 1 else 0}", store)


def _elect(store: Store, place: Place, lead: bool) -> int:
    """The torchrun rank of the one process that leads. Raises ValueError when there are two."""
    if lead:
        elected = int(store.compare_set(_LEADER_KEY, "", str(place.rank)))
        if elected != place.rank:
            raise ValueError("two engines have met in one training: only one of them may lead; give each a rendezvous of its own")
        return elected
    return int(store.get(_LEADER_KEY))


def join_group(place: Place, *, lead: bool, join_s: float = JOIN_S, lost_s: float = LOST_S) -> tuple[int, int]:
    """Make this process one of torch's default (gloo) group; returns its rank, where the leader is 0, and the world's size.

    Raises RanksLost when the others have not come within `join_s` seconds, ValueError for two leaders.
    """
    try:
        store = _open_store(place, join_s)
        rank = (place.rank - _elect(store, place, lead)) % place.world
        store.set_timeout(timedelta(seconds=join_s))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=place.world, timeout=timedelta(seconds=lost_s))
    except (RuntimeError, dist.DistError) as error:
        text = _first_line(str(error))
        raise RanksLost(f"the {place.world} processes of this training have not met within {join_s:g} s: {text}") from error
    return rank, place.world
