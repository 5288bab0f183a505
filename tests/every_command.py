"""A table of every way to run the program, and a hostile home to run each of them in.

The home is hostile in four ways: its working folder holds modules with the names of libraries, its folder names and a
script's name hold terminal escape sequences, its settings hold a password, and listening sockets are checked during a run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec
from e2e_support import Process, Stage
from e2e_terminal import Terminal, wait_until
from sockets_support import Listener, listeners_of

from quantai_tui.cli import cli
from quantai_tui.engine.registry import running

# Starts like the console script: without the working folder on the path.
CONSOLE_SCRIPT = (sys.executable, "-P", "-c", "from quantai_tui.__main__ import main; main()")

SECRET = "s3cr3t-w0rd"
PROXY = f"http://joe:{SECRET}@127.0.0.1:9"
ESCAPE = "\x1b]0;PWNED\x07"
C1_ESCAPE = "\x9b31mPWNED"
BAD_WORD = f"{ESCAPE}http://joe:{SECRET}@h"

# Names that a library or the program imports; each file records its execution.
HOSTILE_MODULES = (
    "aiohttp",
    "click",
    "decimal",
    "json",
    "msgspec",
    "queue",
    "random",
    "sitecustomize",
    "ssl",
    "textual",
    "torch",
)
# An in-process dashboard and a demo with training start the whole program on two busy cores.
WITHIN_S = 60.0
_AT_A_SCREEN_S = 40.0

TRADES = "".join(
    f"{number},0.0{number % 7 + 1},1.0,{number},{number},{1_570_752_000_000 + 500 * number},True,True\n"
    for number in range(1, 601)
)


@dataclass
class Outcome:
    """The results of one run, for the checks."""

    code: int | None = None
    output: bytes = b""  # standard output and error
    commands: set[str] = field(default_factory=set)  # command lines of its child processes
    listening: set[Listener] = field(default_factory=set)


class HostileHome:
    """One test's stage in hostile form; see the module."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.work = stage.home / f"work {ESCAPE}{C1_ESCAPE}"
        self.work.mkdir()
        self.marker = stage.home / "code-was-run"
        self._venues: set[int] = set()
        for name in HOSTILE_MODULES:
            (self.work / f"{name}.py").write_text(f"open({str(self.marker)!r}, 'a').write({name!r} + '\\n')\n")
        data = stage.home / f"data {ESCAPE}{C1_ESCAPE}"
        data.mkdir()
        self.environment = {
            **os.environ,
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "XDG_DATA_HOME": str(data),
            "PROXY_URL": PROXY,
            "TRAIN_AUTOSTART": "false",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("NO_COLOR", "COLORTERM", "SSH_CONNECTION", "TMUX", "PYTHONSAFEPATH"):
            self.environment.pop(name, None)

    def archive(self) -> str:
        """A small Binance file with a hostile name."""
        path = self.work / f"ETHUSDT-aggTrades-2019-10-11{ESCAPE}.csv"
        path.write_text(TRADES)
        return str(path)

    def recording(self) -> str:
        """A recording in which every text is hostile."""
        from quantai_tui.stream import recording_events as events

        path = self.work / f"outage{ESCAPE}.qrec"
        config = {"symbols": [ESCAPE, C1_ESCAPE], "url": f"wss://joe:{SECRET}@h{ESCAPE}/ws"}
        write_recording(
            path,
            events.Dialled(0.0, 1, msgspec.Raw(msgspec.msgpack.encode(config))),
            events.PhaseBegan(0.1, 1, ESCAPE),
            events.Received(0.2, 1, ESCAPE.encode()),
        )
        return str(path)

    def bad_config(self) -> str:
        """A configuration file with escape sequences and a password in names, values and tables."""
        path = self.work / f"bad{ESCAPE}.toml"
        escaped = ESCAPE.replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
        path.write_text(
            f'"{escaped}" = "{escaped}"\nLOG_LEVEL = "{escaped}"\nHTTP_PROXY_ = "joe:{SECRET}@h:1"\n'
            f'SYMBOLS = ["{escaped}"]\n[PROXY_URL]\nx = "joe:{SECRET}"\n'
        )
        return str(path)

    def live_venue(self) -> list[str]:
        """Options that point a live engine to a venue of this test."""
        venue = self.stage.venue(seed=3)
        self._venues = {process.pid for process in self.stage.processes("exchange")}
        names = {"EXCHANGE_WS_URL": "ws_url", "EXCHANGE_REST_URL": "rest_url", "EXCHANGE_CA_FILE": "ca_file"}
        return [f"--set={name}={venue[key]}" for name, key in names.items()]

    def engine(self) -> None:
        """Start a background engine, for the commands that need one."""
        self.start("serve", "demo")
        wait_until(running, WITHIN_S, "an engine in the registry")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return self.stage.owns(
            subprocess.Popen(
                (*CONSOLE_SCRIPT, *arguments),
                cwd=self.work,
                env=self.environment,
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", subprocess.DEVNULL),
                stderr=subprocess.STDOUT,
                **options,
            )
        )

    def terminal(self, *arguments: str) -> Terminal:
        with contextlib.chdir(self.work):
            return self.stage.owns(Terminal((*CONSOLE_SCRIPT, *arguments), 120, 40, self.environment))

    def wait_quiet(self) -> None:
        """Wait until no process of a command runs."""
        left: list[Process] = []

        def none_left() -> bool:
            left[:] = [process for process in self.stage.processes() if process.pid not in self._venues]
            return not left

        wait_until(none_left, 20, lambda: f"the end of {left}")

    @contextlib.contextmanager
    def watched(self, outcome: Outcome, own: Callable[[], int | None]) -> Iterator[None]:
        """Collect the command lines and listening sockets of all processes of this home during the block.

        `own` is the process whose command line the user typed, which is not checked.
        """
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.05):
                processes = self.stage.processes()
                # Compare the text: until exec, a child has the command line of its parent.
                typed = {process.command for process in processes if process.pid == own()}
                outcome.commands |= {process.command for process in processes} - typed
                for process in processes:
                    outcome.listening.update(listeners_of(process.pid))

        with ThreadPoolExecutor(1) as watcher:
            watching = watcher.submit(look)
            try:
                yield
            finally:
                done.set()
            watching.result()  # a look that failed would let every check pass


def write_recording(path: Path, *events: Any) -> None:
    """Write a recording of these events in one block, without the program's recorder."""
    import struct
    import zlib

    from quantai_tui.stream.recording_file import MAGIC, VERSION, Block, Header

    header = msgspec.msgpack.encode(Header(started=1_700_000_000.0))
    body = zlib.compress(msgspec.msgpack.encode(Block(at=0.3, wall=1_700_000_000.0, events=list(events))))
    with path.open("wb") as out:
        out.write(struct.pack(">8sHI", MAGIC, VERSION, len(header)) + header)
        out.write(struct.pack(">II", len(body), zlib.crc32(body)) + body)


Arguments = Callable[[HostileHome], list[str]]


@dataclass(frozen=True)
class Use:
    """One way to run one command. `arguments` come after the command's own words.

    `screen`: it draws on a terminal; each pair is a text to wait for and the key to type then.
    """

    label: str
    command: str  # as typed, "" for the program alone
    arguments: Arguments = lambda home: []
    codes: tuple[int, ...] = (0,)
    engine: bool = False
    typed: bytes | None = None  # to standard input, once an engine accepts commands
    ends: bool = True  # by itself; otherwise by SIGTERM once the engine runs
    screen: tuple[tuple[str, str], ...] | None = None


def _fixed(*arguments: str) -> Arguments:
    return lambda home: list(arguments)


_WITH_SECRET = ("--set", f"PROXY_URL={PROXY}")
_BRIEF = ("--headless", "--for", "1.5")

USES = (
    Use("live, headless", "", lambda home: [*_BRIEF, *home.live_venue(), *_WITH_SECRET]),
    Use(
        "live, dashboard",
        "",
        lambda home: [*home.live_venue(), *_WITH_SECRET],
        screen=(("live market", "q"), ("leave it running", "s")),
    ),
    Use("live, bad option", "", _fixed("--set", f"{ESCAPE}=joe:{SECRET}@h", "--headless"), codes=(2,)),
    Use("demo, headless", "demo", _fixed(*_BRIEF, *_WITH_SECRET)),
    Use("demo, headless JSON", "demo", _fixed(*_BRIEF, "--json", *_WITH_SECRET)),
    Use("demo, dashboard", "demo", _fixed(*_WITH_SECRET), screen=(("● LIVE", "q"),)),
    Use("demo, in process", "demo", _fixed("--in-process", *_WITH_SECRET), screen=(("● LIVE", "q"),)),
    Use("demo, plain", "demo", _fixed("--plain", *_WITH_SECRET), typed=f"help\n{ESCAPE}\nquit\n".encode()),
    Use("demo, bad configuration", "demo", lambda home: ["--config", home.bad_config(), "--headless"], codes=(2,)),
    Use("demo, bad fault script", "demo", lambda home: ["--faults", home.bad_config(), "--headless"], codes=(2,)),
    Use("demo, unknown option", "demo", _fixed(f"--{BAD_WORD}"), codes=(2,)),
    Use("replay, archive", "replay", lambda home: [home.archive(), "--headless", *_WITH_SECRET]),
    Use("replay, hostile recording", "replay", lambda home: [home.recording(), "--headless", *_WITH_SECRET], codes=(0, 2)),
    Use("replay, missing file", "replay", _fixed(f"{BAD_WORD}.csv", "--headless"), codes=(2,)),
    Use("serve, demo", "serve", _fixed("demo", *_WITH_SECRET), ends=False),
    Use("serve, live", "serve", lambda home: ["live", *home.live_venue(), *_WITH_SECRET], ends=False),
    Use("serve, bad mode", "serve", _fixed(BAD_WORD), codes=(2,)),
    Use("attach, plain", "attach", _fixed("--plain"), engine=True, typed=b"help\nquit\n"),
    Use("attach, dashboard", "attach", engine=True, screen=(("● LIVE", "q"),)),
    Use("attach, unknown name", "attach", _fixed(BAD_WORD, "--plain"), codes=(2,)),
    Use("ps", "ps", engine=True),
    Use("ps, bad argument", "ps", _fixed(BAD_WORD), codes=(2,)),
    Use("stop", "stop", engine=True),
    Use("stop, unknown name", "stop", _fixed(BAD_WORD), codes=(2,)),
    Use("record", "record", engine=True),
    Use("record, unknown name", "record", _fixed(BAD_WORD), codes=(2,)),
    Use("import", "import", lambda home: [home.archive(), *_WITH_SECRET]),
    Use("import, bad file", "import", lambda home: [home.bad_config(), "--symbol", BAD_WORD], codes=(2,)),
    Use("config show", "config show", _fixed(*_WITH_SECRET)),
    Use("config show, bad option", "config show", _fixed("--set", f"HTTP_PROXY_=joe:{SECRET}@h:1", "--set", ESCAPE), codes=(2,)),
    Use("config validate", "config validate"),
    Use("config validate, bad file", "config validate", lambda home: [home.bad_config()], codes=(2,)),
    Use("config path", "config path"),
    Use("config path, bad argument", "config path", _fixed(BAD_WORD), codes=(2,)),
)


def commands(group: click.Command = cli, prefix: str = "") -> Iterator[str]:
    """Every command of the program as typed; "" is the program without a command."""
    if not isinstance(group, click.Group) or group.invoke_without_command:
        yield prefix
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, f"{prefix} {name}".strip())


def carry_out(use: Use, home: HostileHome) -> Outcome:
    """Run a use to its end."""
    if use.engine:
        home.engine()
    words = [*use.command.split(), *use.arguments(home)]
    outcome = Outcome()
    if use.screen is not None:
        _at_a_screen(use.screen, home, words, outcome)
    else:
        _through_pipes(use, home, words, outcome)
    if use.engine:
        _end_engines(home)
    return outcome


def _through_pipes(use: Use, home: HostileHome, words: list[str], outcome: Outcome) -> None:
    process = home.start(*words, stdin=subprocess.PIPE if use.typed else subprocess.DEVNULL, stdout=subprocess.PIPE)
    with home.watched(outcome, lambda: process.pid):
        if use.typed or not use.ends:
            wait_until(lambda: running() or process.poll() is not None, WITHIN_S, "a running engine")
        if not use.ends:
            process.terminate()
        outcome.output = process.communicate(use.typed, timeout=WITHIN_S)[0]
    outcome.code = process.returncode


def _at_a_screen(keys: tuple[tuple[str, str], ...], home: HostileHome, words: list[str], outcome: Outcome) -> None:
    terminal = home.terminal(*words)
    with home.watched(outcome, lambda: terminal.pid):
        for text, key in keys:
            terminal.wait_for(text, _AT_A_SCREEN_S)
            terminal.press(key)
        outcome.code = terminal.wait_exit(WITHIN_S)
    outcome.output = terminal.raw


def _end_engines(home: HostileHome) -> None:
    for entry in running():
        subprocess.run(
            (*CONSOLE_SCRIPT, "stop", entry.name), cwd=home.stage.home, env=home.environment, check=False, timeout=WITHIN_S
        )
