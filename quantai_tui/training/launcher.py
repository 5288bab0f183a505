"""How a worker is started: as one process, or as many under torchrun's agent. Free of torch.

An agent is `python -m quantai_tui.training.node`: torchrun itself, with what its command line cannot say. It meets the agents of
other machines at the rendezvous, starts one process a rank, and starts all of them anew when one dies.

One machine needs nothing but `nproc`. For more, the engine's machine hosts the rendezvous at `rdzv_endpoint`, an address of its
own that the others can reach, and on each of the others an operator leaves running

    python -m quantai_tui.training.node --rdzv-endpoint HOST:PORT --nnodes N

which gets everything else (model, data, settings) from the engine's machine. Whoever reaches that port can take part in the
training: it belongs on a network that is trusted.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..python_child import PYTHON, python_command, python_environment
from .config import WorkerConfig
from .messages import TOKEN_VARIABLE

WORKER, NODE = "quantai_tui.training.worker", "quantai_tui.training.node"
AGENT_VARIABLE = "QUANTAI_AGENT_PID"  # what a rank must not outlive

MAX_RESTARTS = 3  # of the ranks by their agent; past that the agent fails, and its supervisor's own back-off begins
JOIN_S = 600  # an agent waits so long for the other machines
_RANKS_LEAVE_S = 1  # after SIGTERM; with the agent's own end under the 3 s in which a worker must be gone
_ALONE = "127.0.0.1"


class Launch(NamedTuple):
    """A command, its environment, and the seconds that it may stay silent beyond a plain worker's start."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    extra_grace_s: float


class Meeting(NamedTuple):
    """Where and how the agents of one run meet."""

    endpoint: str
    nodes: int
    run_id: str
    host: bool


def launch(
    config: WorkerConfig,
    *,
    python: str = PYTHON,
    socket_path: Path,
    token: str,
    environment: Mapping[str, str] = os.environ,
) -> Launch:
    """The command under which the engine, which is this process, starts a worker as `config` wants it."""
    inherited = {**python_environment(environment, python=python), TOKEN_VARIABLE: token}
    if config.nproc == 1 and config.nnodes == 1:
        return Launch(tuple(python_command(WORKER, "--socket", str(socket_path), python=python)), inherited, 0.0)
    arguments = python_command(NODE, "--parent", str(os.getpid()), "--socket", str(socket_path), python=python)
    arguments += ["--nproc", str(config.nproc), "--nnodes", str(config.nnodes)]
    if config.nnodes > 1:
        arguments += ["--rdzv-endpoint", config.rdzv_endpoint]
    return Launch(tuple(arguments), inherited, JOIN_S if config.nnodes > 1 else 0.0)


def meeting(endpoint: str, nodes: int, *, host: bool) -> Meeting:
    """Raises ValueError where several machines are told no place to meet."""
    if nodes > 1:
        # One name for every run: an operator elsewhere need not know which. Two runs cannot share a port anyway.
        if ":" not in endpoint:
            raise ValueError(f"--rdzv-endpoint must be HOST:PORT of the engine's machine, got {endpoint!r}")
        return Meeting(endpoint, nodes, "quantai", host)
    return Meeting(f"{_ALONE}:0", 1, f"quantai-{secrets.token_hex(4)}", host=True)


def torchrun_arguments(place: Meeting, nproc: int, worker: tuple[str, ...]) -> list[str]:
    """torchrun's command line for `nproc` ranks here, each running `worker` (a module and its arguments)."""
    # Who hosts is said, not guessed from host names: behind a second address or a container's name a guess goes wrong.
    conf = f"is_host={int(place.host)},join_timeout={JOIN_S}"
    return [
        *("--nnodes", str(place.nodes), "--nproc-per-node", str(nproc)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", place.endpoint, "--rdzv-id", place.run_id, "--rdzv-conf", conf),
        *("--local-addr", local_address(place.endpoint)),
        *("--max-restarts", str(MAX_RESTARTS), "--shutdown-timeout", str(_RANKS_LEAVE_S)),
        *("--log-dir", os.devnull),  # else each start leaves a folder in /tmp; the ranks write to the agent's stderr
        *("--module", *worker),
    ]


def rank_environment(place: Meeting, nproc: int) -> dict[str, str]:
    """What an agent and its ranks need in their environment beyond what they have; what an operator has set wins."""
    interface = _interface_of(local_address(place.endpoint))
    wished = {"OMP_NUM_THREADS": str(threads_per_rank(nproc))}
    if interface:
        # Gloo else listens where the host's name points to, on Debian 127.0.1.1: no other machine gets there.
        wished |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    return {name: value for name, value in wished.items() if name not in os.environ} | {
        AGENT_VARIABLE: str(os.getpid()),
        "PYTHONSAFEPATH": "1",  # torchrun starts its ranks without -P
        # A store of its own for every start of the ranks. In a shared one they meet the addresses of those that have died, and an
        # agent that comes back waits for an address that nobody publishes twice (dynamic_rendezvous.py, next_rendezvous).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def threads_per_rank(nproc: int) -> int:
    """One core stays with the engine; the ranks of a machine share the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores - 1) // nproc)


def local_address(endpoint: str) -> str:
    """The address of this machine on the way to `endpoint`: what others can call back, whatever this machine's name resolves to.

    Raises OSError, naming the endpoint, where there is no way.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port) or 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # of a datagram socket: nothing is sent
            found: str = probe.getsockname()[0]
            return found
    except OSError as error:
        raise OSError(f"no way from this machine to the rendezvous {endpoint}: {error}") from error


def _interface_of(address: str) -> str:
    """The name of the network interface with this IPv4 address; empty where that cannot be told."""
    if sys.platform != "linux" or ":" in address:
        return ""
    import fcntl

    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), siocgifaddr, name.encode().ljust(256, b"\0"))
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address or (address.startswith("127.") and name == "lo"):
                return name
    return ""
