"""Rendezvous of a run's agents: a file on one machine, one TCP store on the engine's machine for several. Loads torch.

torch unpickles the data of a rendezvous, so anyone who can write there runs code as the user. torchrun's own rendezvous listens
on every interface, and so does the store of its ranks. On one machine our store does not listen at all, because every
local user can reach loopback. For several machines one store listens, at the endpoint's address only, and serves
agents and ranks.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta

from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

from .launcher import JOIN_S, RENDEZVOUS, ROUND_VARIABLE, Meeting, listen

_ANSWER_S = 60  # of the store; a remote agent waits this long for the engine's machine to listen
_KEEP_ALIVE_S = 5
_KEEP_ALIVE_ALONE_S = 86_400  # on one machine no agent waits for keep-alives, and each one makes the file grow
_ROUND_KEY = "quantai_round"


class _Rendezvous(DynamicRendezvousHandler):
    """torch's rendezvous of agents, which also gives every start of the ranks a new name, the same on all machines."""

    def get_backend(self) -> str:
        return RENDEZVOUS

    def next_rendezvous(self) -> RendezvousInfo:
        met = super().next_rendezvous()
        if met.rank == 0:
            met.store.set(_ROUND_KEY, secrets.token_hex(8))
        os.environ[ROUND_VARIABLE] = met.store.get(_ROUND_KEY).decode()  # the ranks inherit it
        return met


def offer(place: Meeting) -> None:
    """Register `place` with torchrun in this process under the name RENDEZVOUS. Call once per process.

    Raises OSError when this machine hosts the rendezvous and cannot listen there.
    """
    listener = listen(place.endpoint) if place.endpoint and place.host else None

    def handler(parameters: RendezvousParameters) -> DynamicRendezvousHandler:
        store = _store_of(place, listener)
        made: _Rendezvous = _Rendezvous.from_backend(
            parameters.run_id,
            store,
            C10dRendezvousBackend(store, parameters.run_id),
            parameters.min_nodes,
            parameters.max_nodes,
            parameters.local_addr,
            RendezvousTimeout(join=timedelta(seconds=JOIN_S)),
            keep_alive_interval=_KEEP_ALIVE_S if place.endpoint else _KEEP_ALIVE_ALONE_S,
        )
        return made

    rendezvous_handler_registry.register(RENDEZVOUS, handler)


def _store_of(place: Meeting, listener: socket.socket | None) -> Store:
    """Raises RendezvousConnectionError."""
    if not place.endpoint:
        return FileStore(str(place.folder / "agents"))
    host, _, port = place.endpoint.rpartition(":")
    try:
        store: Store = TCPStore(
            host,
            int(port),
            is_master=listener is not None,
            timeout=timedelta(seconds=_ANSWER_S),
            wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )
        return store
    except (RuntimeError, ValueError) as error:
        raise RendezvousConnectionError(str(error)) from error
