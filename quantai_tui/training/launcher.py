"""How a worker is started: as one process, or as many under torchrun's agent. Free of torch.

An agent is `python -m quantai_tui.training.node`: torchrun itself, with what its command line cannot say. It meets the agents of
other machines at the rendezvous, starts one process a rank, and starts all of them anew when one dies.

One machine needs only `nproc`: its ranks meet in a file of a private folder, and no port is open. For more, the engine's
machine hosts the rendezvous at `rdzv_endpoint`, an address of its own that the others can reach, and on each of the others an
operator leaves running

    python -m quantai_tui.training.node --rdzv-endpoint HOST:PORT --nnodes N

which gets everything else (model, data, settings) from the engine's machine. Anyone who can connect to that port can run code as
the user on all of these machines, because torch unpickles what it receives: use a trusted network only.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
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
STORE_VARIABLE = "QUANTAI_RANKS_STORE"  # where the ranks meet: a folder, or HOST:PORT
ROUND_VARIABLE = "QUANTAI_RANKS_ROUND"  # a new name for every start of the ranks
RENDEZVOUS = "quantai"  # our backend's name for torchrun

MAX_RESTARTS = 3  # of the ranks by their agent; past that the agent fails, and its supervisor's own back-off begins
JOIN_S = 600  # an agent waits so long for the other machines
_RANKS_LEAVE_S = 1  # after SIGTERM; with the agent's own end under the 3 s in which a worker must be gone
# torch makes this folder even where nothing is compiled, by default in /tmp under a name that another user can take first.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_ALONE = "127.0.0.1"
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class Launch(NamedTuple):
    """A command, its environment, and the seconds that it may stay silent beyond a plain worker's start."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    extra_grace_s: float


class Meeting(NamedTuple):
    """Where and how the agents of one run meet."""

    endpoint: str  # HOST:PORT; empty on one machine
    nodes: int
    run_id: str
    host: bool
    folder: Path = Path()  # on one machine: private to the user and this agent


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
    inherited.setdefault(CACHE_VARIABLE, str(Path(config.store_path).with_name("torch")))  # in the engine's private folder
    if config.nproc == 1 and config.nnodes == 1:
        return Launch(tuple(python_command(WORKER, "--socket", str(socket_path), python=python)), inherited, 0.0)
    arguments = python_command(NODE, "--parent", str(os.getpid()), "--socket", str(socket_path), python=python)
    arguments += ["--nproc", str(config.nproc), "--nnodes", str(config.nnodes)]
    if config.nnodes > 1:
        arguments += ["--rdzv-endpoint", config.rdzv_endpoint]
    return Launch(tuple(arguments), inherited, JOIN_S if config.nnodes > 1 else 0.0)


def meeting(endpoint: str, nodes: int, *, host: bool, folder: Path | None = None) -> Meeting:
    """Raises ValueError for several machines without an endpoint, and for one machine without a folder."""
    if nodes > 1:
        # One name for every run: an operator elsewhere need not know which. Two runs cannot share a port anyway.
        if ":" not in endpoint:
            raise ValueError(f"--rdzv-endpoint must be HOST:PORT of the engine's machine, got {endpoint!r}")
        return Meeting(endpoint, nodes, "quantai", host)
    if folder is None:
        raise ValueError(f"--nnodes must be the number of machines of the run, the engine's included: 2 or more, got {nodes}")
    return Meeting("", 1, f"quantai-{secrets.token_hex(4)}", host=True, folder=folder)


def ranks_folder(socket_path: Path) -> Path:
    """Make the private, empty folder in which the ranks of the worker with this socket meet. Its agent deletes it.

    A killed agent leaves it behind. It is unused then, because only one agent at a time has this socket.
    Raises OSError.
    """
    folder = socket_path.absolute().with_name(f"{socket_path.name}.ranks")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def torchrun_arguments(place: Meeting, nproc: int, worker: tuple[str, ...]) -> list[str]:
    """torchrun's command line for `nproc` ranks here, each running `worker` (a module and its arguments)."""
    return [
        *("--nnodes", str(place.nodes), "--nproc-per-node", str(nproc)),
        *("--rdzv-backend", RENDEZVOUS, "--rdzv-endpoint", place.endpoint, "--rdzv-id", place.run_id),
        *("--local-addr", local_address(place.endpoint) if place.endpoint else _ALONE),
        *("--max-restarts", str(MAX_RESTARTS), "--shutdown-timeout", str(_RANKS_LEAVE_S)),
        *("--log-dir", os.devnull),  # else each start leaves a folder in /tmp; the ranks write to the agent's stderr
        *("--module", *worker),
    ]


def rank_environment(place: Meeting, nproc: int) -> dict[str, str]:
    """What an agent and its ranks need in their environment beyond what they have; what an operator has set wins."""
    alone = not place.endpoint
    interface = _LOOPBACK if alone else _interface_of(local_address(place.endpoint))
    # Without this, gloo and NCCL listen at the address of the host's name. On Debian that is 127.0.1.1, which no other machine
    # reaches; elsewhere it is an address that others reach, which the ranks of one machine do not need.
    interfaces = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
    wished = {"OMP_NUM_THREADS": str(threads_per_rank(nproc)), **({} if alone else interfaces)}
    return {name: value for name, value in wished.items() if name not in os.environ} | {
        **(interfaces if alone else {}),  # an interface set for other runs would open ports to the network
        AGENT_VARIABLE: str(os.getpid()),
        STORE_VARIABLE: place.endpoint or str(place.folder),
        "PYTHONSAFEPATH": "1",  # torchrun starts its ranks without -P
        # Otherwise torchrun starts a TCP store that listens on every interface. Our ranks use the store of `rendezvous`.
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


def listen(endpoint: str) -> socket.socket:
    """On the engine's machine: a socket that listens at `endpoint` only. Raises OSError, naming the endpoint."""
    host, _, port = endpoint.rpartition(":")
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        _refuse_useless(host, str(address[0]))
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the previous agent may have ended just before
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        if listening is not None:
            listening.close()
        raise OSError(
            f"cannot listen at the rendezvous {endpoint}: {error}; "
            "TRAIN_RDZV_ENDPOINT must be an address of this machine that the others can reach, with a free port"
        ) from error
    return listening


def _refuse_useless(host: str, address: str) -> None:
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_unspecified:
        raise OSError(f"{host} stands for every address of this machine, which would open the port to every network")
    if found.is_loopback and host not in (address, "localhost"):
        raise OSError(f"on this machine {host} is {address}, which no other machine reaches")


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
