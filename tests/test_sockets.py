"""Listening sockets are found in /proc, with their process and address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from sockets_support import Listener, listeners

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("everywhere", [True, False])
def test_own_listening_sockets_are_listed(family: socket.AddressFamily, everywhere: bool) -> None:
    loopback, anywhere = ("127.0.0.1", "0.0.0.0") if family == socket.AF_INET else ("::1", "::")
    address = anywhere if everywhere else loopback
    with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind((address, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        udp.bind((address, 0))
        port = tcp.getsockname()[1]
        assert ("tcp", port) not in {(each.protocol, each.port) for each in listeners(os.getpid())}, "it does not listen yet"
        tcp.listen()
        found = listeners(os.getpid())
        assert Listener(os.getpid(), "tcp", address, port) in found
        assert Listener(os.getpid(), "udp", address, udp.getsockname()[1]) in found
        assert {each.on_loopback for each in found if each.port == port} == {not everywhere}


def test_listening_sockets_of_grandchildren_are_listed() -> None:
    inner = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        port = int(child.stdout.readline())
        (found,) = listeners(child.pid)
        assert (found.protocol, found.address, found.port) == ("tcp", "127.0.0.1", port)
        assert found.pid != child.pid
        child.stdin.close()
