"""A real sshd on loopback with keys that live as long as a test, and logins through it."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from e2e_support import Stage
from e2e_terminal import Terminal, wait_until

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/libexec")
MISSING = [name for name, path in (("sshd", SSHD), ("ssh", shutil.which("ssh")), ("tmux", shutil.which("tmux"))) if not path]

# What a login must know of the test's own home; everything else is as sshd makes it, SSH_CONNECTION among it.
_XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
_PASSED_ON = ("HOME", "PATH", "PYTHONPATH", "TEST_HOME", "TMPDIR", *_XDG)


class Server:
    """An sshd that lets nobody in but the bearer of one key."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage = stage
        self._folder = folder
        self._key = self._make_key("user")
        host = self._make_key("host")
        (folder / "authorized").write_text(self._key.with_suffix(".pub").read_text())
        self._port = _free_port()
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self._port}\n"
            f"HostKey {host}\n"
            f"AuthorizedKeysFile {folder / 'authorized'}\n"
            f"PidFile {folder / 'pid'}\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nPrintMotd no\nLogLevel VERBOSE\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it locks up its unprivileged half; it makes none itself
        self._log = folder / "sshd.log"
        # By its whole path: it starts itself again for each connection.
        command = (str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config"))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: "Server listening" in self._said or self._process.poll() is not None, 20, "an sshd that listens")
        assert self._process.poll() is None, self._said

    @property
    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def login(self, *command: str, columns: int = 80, rows: int = 24, over: ThinLine | None = None) -> Terminal:
        """`ssh -t this-machine COMMAND` in a terminal of its own, `over` a line or directly."""
        told = [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ]
        remote = shlex.join(["env", "-C", str(self._stage.work), "LC_ALL=C.UTF-8", *told, *command])
        ssh = ["ssh", "-tt", "-F", "none", "-i", str(self._key), "-p", str(over.port if over is not None else self._port)]
        ssh += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes"]
        ssh += ["-o", f"UserKnownHostsFile={self._folder / 'known_hosts'}"]
        return self._stage.command(*ssh, f"{getpass.getuser()}@127.0.0.1", remote, columns=columns, rows=rows)

    @contextmanager
    def thin_line(self, bytes_per_s: int) -> Iterator[ThinLine]:
        line = ThinLine(self._port, bytes_per_s)
        try:
            yield line
        finally:
            line.close()

    def _make_key(self, name: str) -> Path:
        path = self._folder / name
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)), check=True)
        return path

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class ThinLine:
    """One connection to the server, through which no more than so many bytes a second come back, once it is made thin.

    As on a real one, what the server sends beyond that fills the buffers on the way.
    """

    def __init__(self, port: int, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._thin = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._far = socket.create_connection(("127.0.0.1", port))
        self._near: socket.socket | None = None
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._there, self._back)]
        self._open = threading.Event()
        for thread in self._threads:
            thread.start()

    def make_thin(self) -> None:
        self._thin.set()

    def _there(self) -> None:
        self._near, _ = self._door.accept()
        self._open.set()
        _copy(self._near, self._far, lambda data: data)

    def _back(self) -> None:
        self._open.wait()
        assert self._near is not None
        _copy(self._far, self._near, self._held_up)

    def _held_up(self, data: bytes) -> bytes:
        if self._thin.is_set():
            time.sleep(len(data) / self._bytes_per_s)
        return data

    def close(self) -> None:
        for end in (self._door, self._far, self._near):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        for thread in self._threads:
            thread.join(10)


def _copy(source: socket.socket, target: socket.socket, each: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        while data := source.recv(256):
            target.sendall(each(data))
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def ssh_server(stage: Stage) -> Iterator[Server]:
    folder = stage.home / "ssh"
    folder.mkdir(mode=0o700)
    server = Server(stage, folder)
    try:
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
