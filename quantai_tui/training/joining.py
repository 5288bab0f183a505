"""How a process becomes one of several ranks, and how the loss of one of the others is noticed and said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from .launcher import ROUND_VARIABLE, STORE_VARIABLE

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
    attempt: int  # how often the agent of this machine has started its ranks anew
    store: str  # where its ranks meet: a folder on one machine, HOST:PORT for several
    round: str  # a new name for every start of the ranks, the same on all machines

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Place | None:
        """None outside of torchrun. Raises ValueError for an environment that only half describes a place."""
        if "TORCHELASTIC_RUN_ID" not in environment:
            return None
        try:
            return cls(
                rank=int(environment["RANK"]),
                world=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                attempt=int(environment["TORCHELASTIC_RESTART_COUNT"]),
                store=environment[STORE_VARIABLE],
                round=environment[ROUND_VARIABLE],
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"torchrun's environment is not whole: {error}; start ranks by quantai_tui.training.node") from error


def _open_store(place: Place, join_s: float) -> Store:
    """A store without entries of earlier starts: ranks hang if they find addresses of dead ranks."""
    limit = timedelta(seconds=join_s)
    if (folder := Path(place.store)).is_absolute():
        store: Store = dist.FileStore(str(folder / f"ranks-{place.round}"))  # type: ignore[attr-defined]
        store.set_timeout(limit)
        return store
    host, _, port = place.store.rpartition(":")
    served_by_agent = dist.TCPStore(host, int(port), is_master=False, timeout=limit)  # type: ignore[attr-defined]
    return PrefixStore(f"ranks-{place.round}", served_by_agent)


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
