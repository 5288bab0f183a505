"""The listening TCP and UDP sockets of a process tree, read from /proc (Linux)."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from pathlib import Path
from typing import NamedTuple

_LISTEN, _UNCONNECTED = "0A", "07"  # include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE, which an unconnected UDP socket is in
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class Listener(NamedTuple):
    """A socket that anyone can send to: a listening TCP socket, or a UDP socket without a peer."""

    pid: int
    protocol: str  # "tcp" or "udp"
    address: str
    port: int

    @property
    def on_loopback(self) -> bool:
        found = ipaddress.ip_address(self.address)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


def process_tree(root: int) -> list[int]:
    """`root` and its running descendants, the oldest first."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root] if root in parents else []
    for pid in found:  # grows during iteration
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def listeners(root: int) -> list[Listener]:
    """The listening sockets of process `root` and its descendants."""
    return sorted({each for pid in process_tree(root) for each in listeners_of(pid)})


def listeners_of(pid: int) -> list[Listener]:
    """The listening sockets of one process alone."""
    inodes = set()
    try:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                match = _SOCKET.fullmatch(str(handle.readlink()))
            except FileNotFoundError:  # the descriptor was closed
                continue
            if match:
                inodes.add(match[1])
        tables = [(name, Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]) for name in ("tcp", "tcp6", "udp", "udp6")]
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return []
    found = []
    for name, lines in tables:
        for fields in map(str.split, lines):
            local, state, inode = fields[1], fields[3], fields[9]
            if inode in inodes and state == (_LISTEN if name.startswith("tcp") else _UNCONNECTED):
                host, _, port = local.partition(":")
                found.append(Listener(pid, name[:3], _address(host), int(port, 16)))
    return found


def _address(text: str) -> str:
    """Decode an address, which the kernel writes as 32-bit words in its own byte order."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
