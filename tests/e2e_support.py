"""Real programs for the end-to-end tests: a stage that knows each process of a test, and an engine seen without a screen.

A test's processes are found by their environment: whatever a program started, and whoever adopted it since, still names the
test's own home there. So an orphan is seen, and the stage ends it even when the test has failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pytest
from e2e_terminal import POLL_S, Terminal, wait_until

from quantai_tui.engine.registry import Entry, running
from quantai_tui.link import LinkState, SocketLink
from quantai_tui.telemetry import EngineSnapshot

PROGRAM = (sys.executable, "-m", "quantai_tui")
SPARKS = frozenset("▁▂▃▄▅▆▇█")

LINUX_ONLY = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc, which is not here")


Program = TypeVar("Program", Terminal, "subprocess.Popen[bytes]")


class Process(NamedTuple):
    pid: int
    role: str  # "engine", "exchange", "worker" or "program"
    command: str


def _role(arguments: list[str]) -> str:
    if "quantai_tui.exchange" in arguments:
        return "exchange"
    if "quantai_tui.training.worker" in arguments:
        return "worker"
    return "engine" if "serve" in arguments else "program"


class Stage:
    """One test's home, and everything that runs in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "work"
        self._mark = f"TEST_HOME={home}".encode()
        self._closers: list[Callable[[], object]] = []

    # Starting programs

    def terminal(self, *arguments: str, columns: int = 80, rows: int = 24, term: str = "xterm-256color") -> Terminal:
        """`quantai-tui ARGUMENTS` in a terminal of its own."""
        return self.command(*PROGRAM, *arguments, columns=columns, rows=rows, term=term)

    def command(self, *command: str, columns: int = 80, rows: int = 24, term: str = "xterm-256color") -> Terminal:
        """Any program in a terminal of its own."""
        environment = {**os.environ, "TERM": term, "LC_ALL": "C.UTF-8"}
        for name in ("NO_COLOR", "COLORTERM", "SSH_CONNECTION", "TMUX"):
            environment.pop(name, None)
        return self.owns(Terminal(command, columns, rows, environment))

    def owns(self, program: Program) -> Program:
        """End `program` with the stage at the latest."""

        def end() -> None:
            if isinstance(program, Terminal):
                program.close()
                return
            if program.poll() is None:
                program.kill()
            program.wait()

        self._closers.append(end)
        return program

    def run(self, *arguments: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`quantai-tui ARGUMENTS` without a terminal, to its end."""
        return subprocess.run(
            (*PROGRAM, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within, check=False
        )

    def start(self, *arguments: str, log: str = "output") -> subprocess.Popen[bytes]:
        """The same in the background; what it says goes to the file `log` in the working folder, errors to `log`.err."""
        with self._open(log) as output, self._open(f"{log}.err") as errors:
            process = subprocess.Popen((*PROGRAM, *arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        return self.owns(process)

    def venue(self, seed: int) -> dict[str, Any]:
        """A synthetic exchange that no engine owns, as a far venue would be; returns what it says when it is ready."""
        command = (sys.executable, "-m", "quantai_tui.exchange", "--folder", str(self.work / "venue"), "--seed", str(seed))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            process.communicate(timeout=10)

        self._closers.append(end)
        ready: dict[str, Any] = json.loads(process.stdout.readline())
        return ready

    def _open(self, name: str) -> IO[bytes]:
        return (self.work / name).open("wb")

    # What runs

    def processes(self, role: str | None = None) -> list[Process]:
        """The living processes of this test, its own Python not among them."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                if self._mark not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:  # it has ended while we looked
                continue
            if state not in "ZX" and (role is None or role == _role(arguments)):
                found.append(Process(int(folder.name), _role(arguments), " ".join(arguments).strip()))
        return found

    def kept_waiting_s(self) -> float:
        """How long the process that got a core least has stood ready and got none: on a machine of its own it would not have."""
        waited = [0.0]
        for process in self.processes():
            try:
                waited.append(int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9)
            except OSError:  # it has ended, or the kernel does not count
                continue
        return max(waited)

    def pid(self, role: str, within: float = 40.0) -> int:
        """The one process of this role, as soon as it is there."""
        found: list[Process] = []

        def alone() -> bool:
            # Of a process that starts another one there are two until the second has its own command line.
            found[:] = self.processes(role)
            return len(found) == 1

        wait_until(alone, within, lambda: f"one process: {role}; there are {found}")
        return found[0].pid

    def entry(self, within: float = 40.0) -> Entry:
        """The one running engine as the registry knows it."""
        entries: list[Entry] = wait_until(running, within, "an engine in the registry")
        assert len(entries) == 1, entries
        return entries[0]

    def wait_quiet(self, within: float = 20.0) -> None:
        """No process of this test runs any more."""
        wait_until(lambda: not self.processes(), within, lambda: f"an empty stage; there are {self.processes()}")

    def assert_nothing_left(self, within: float = 20.0) -> None:
        """No process, no socket, no entry in the registry, no write-ahead log."""
        self.wait_quiet(within)
        left = [
            path
            for folder in ("state", "data")
            for path in (self.home / folder).rglob("*")
            if path.is_socket() or path.name.endswith(("-wal", "-shm", ".tmp")) or path.parent.name == "run"
        ]
        assert not left, f"left behind: {', '.join(map(str, left))}"

    # What is stored

    def folder(self, name: str) -> Path:
        return self.home / "data" / "quantai-tui" / name

    def store(self, name: str) -> Path:
        return self.folder(name) / "market.sqlite3"

    def stored_ids(self, name: str) -> list[int]:
        """The trade ids in the store of an engine that has stopped, in order."""
        # immutable: otherwise looking at it would leave a write-ahead log behind.
        connection = sqlite3.connect(f"{self.store(name).as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            return [row[0] for row in connection.execute("SELECT id FROM trades ORDER BY id")]
        finally:
            connection.close()

    def log_of(self, name: str) -> str:
        """What an engine has logged so far; empty before its first line."""
        log = self.folder(name) / "engine.log"
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """End everything that was started, whatever state it is in."""
        for end in reversed(self._closers):
            end()
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(POLL_S)


def says_live(line: str) -> bool:
    """Whether a line of `--plain` says that the stream is live: it became so, or was so at the first look."""
    return "stream: live" in line or "stream live" in line


@pytest.fixture
def stage(own_home: Path) -> Iterator[Stage]:
    built = Stage(own_home)
    try:
        yield built
    finally:
        built.close()


# The engine as a dashboard sees it, without a screen


def watch(entry: Entry, enough: Callable[[EngineSnapshot], object], within: float = 30.0) -> EngineSnapshot:
    """The first snapshot of a running engine for which `enough` holds."""

    async def look(link: SocketLink) -> EngineSnapshot:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            # An engine answers before its stream has read where it stands: until then it knows of no symbol.
            if link.snapshot is not None and link.snapshot.stream.symbols and enough(link.snapshot):
                return link.snapshot
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"not within {within:g} s; the last snapshot: {link.snapshot}")

    return asyncio.run(_attached(entry, look))


def sample(entry: Entry, for_s: float) -> list[EngineSnapshot]:
    """The snapshots that a running engine sends over so many seconds."""

    async def collect(link: SocketLink) -> list[EngineSnapshot]:
        seen: list[EngineSnapshot] = []
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:
            assert link.state is not LinkState.LOST, f"the engine's connection broke: {link.detail}"
            if link.snapshot is not None and (not seen or link.snapshot is not seen[-1]):
                seen.append(link.snapshot)
            await asyncio.sleep(POLL_S)
        return seen

    return asyncio.run(_attached(entry, collect))


async def _attached(entry: Entry, act: Callable[[SocketLink], Any]) -> Any:
    async def find() -> Path:
        return Path(entry.socket)

    link = SocketLink(find, client="a test")
    await link.start()
    try:
        async with asyncio.timeout(30):
            while link.state is not LinkState.ATTACHED:
                await asyncio.sleep(POLL_S)
        return await act(link)
    finally:
        await link.close()
