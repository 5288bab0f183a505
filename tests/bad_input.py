"""Seeded bad input for every command: arguments, files, environment and standard streams."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import socket
import stat
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from account_support import WITHOUT_ACCOUNT, has_namespaces
from every_command import CONSOLE_SCRIPT, TRADES

_MAGIC = b"\x89QREC\r\n\x1a"


@dataclass
class Case:
    """One run of the program, with everything that can be wrong."""

    random: random.Random
    home: Path
    arguments: list[bytes]
    environment: dict[str, bytes]
    closed: tuple[int, ...] = ()
    full_output: bool = False  # standard output is a full device
    no_account: bool = False  # run under a uid without an account and without root's permissions, if possible
    most_s: float | None = None  # interrupted after this time, because it does not end by itself
    notes: list[str] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def config_file(self) -> Path:
        return self.home / "config" / "quantai-tui" / "config.toml"

    def run(self, within: float) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end. Raises subprocess.TimeoutExpired when it hangs."""
        program = CONSOLE_SCRIPT
        if self.closed:
            closing = " ".join(f"{number}>&-" if number else "<&-" for number in self.closed)
            program = ("/bin/sh", "-c", f'exec "$@" {closing}', "sh", *CONSOLE_SCRIPT)
        if self.no_account and has_namespaces():
            program = (*WITHOUT_ACCOUNT, *program)
        if self.most_s is not None:
            program = ("timeout", "--signal=INT", "--preserve-status", f"{self.most_s:g}", *program)
        with Path("/dev/full" if self.full_output else os.devnull).open("wb") as sink:
            return subprocess.run(
                [*program, *self.arguments],
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink if self.full_output else subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=within,
                check=False,
            )


def make_case(seed: int, home: Path, *, cheap: bool = False) -> Case:
    """The case of this seed. `cheap` limits it to commands that start no engine."""
    chance = random.Random(seed)
    environment = {name: os.fsencode(value) for name, value in os.environ.items()}
    # Not the tester's own home, which is used if an XDG folder is unset or unusable. A short path, so that sockets fit.
    own = Path(os.environ["TMPDIR"]) / f"case-{seed}"
    own.mkdir()
    environment |= {"HOME": os.fsencode(own), "XDG_STATE_HOME": os.fsencode(own / "state")}
    environment |= {"TRAIN_AUTOSTART": b"false", "TERM": b"xterm", "COLUMNS": b"80"}
    case = Case(chance, home, [], environment)
    command = chance.choice(_CHEAP if cheap else _CHEAP + _WITH_ENGINE)
    command(case)
    for spoil in chance.sample(_SPOILERS, chance.choice((1, 1, 2))):
        case.notes.append(spoil.__name__)
        spoil(case)
    return case


# Commands, each with plausible arguments


def _config_show(case: Case) -> None:
    case.arguments += [b"config", b"show", *_maybe_set(case)]


def _config_path(case: Case) -> None:
    case.arguments += [b"config", b"path"]


def _config_validate(case: Case) -> None:
    case.arguments += [b"config", b"validate"]
    if case.random.random() < 0.7:
        case.arguments.append(os.fsencode(_bad_file(case, case.work, "other.toml")))


def _ps(case: Case) -> None:
    case.arguments.append(b"ps")


def _about_an_engine(case: Case) -> None:
    case.arguments.append(case.random.choice((b"stop", b"record", b"attach")))
    if case.arguments[0] == b"attach":
        case.arguments.append(b"--plain")
    if case.random.random() < 0.6:
        case.arguments.append(_bad_word(case))


def _import(case: Case) -> None:
    case.arguments += [b"import", os.fsencode(_bad_archive(case)), *_maybe_set(case)]


def _demo(case: Case) -> None:
    case.arguments += [b"demo", b"--headless", b"--for", b"0.5", *_maybe_set(case)]


def _live(case: Case) -> None:
    nowhere = [b"--set", b"EXCHANGE_WS_URL=wss://127.0.0.1:9", b"--set", b"EXCHANGE_REST_URL=https://127.0.0.1:9"]
    case.arguments += [b"--headless", b"--for", b"0.5", *nowhere, *_maybe_set(case)]


def _replay(case: Case) -> None:
    case.arguments += [b"replay", b"--headless", b"--for", b"5", os.fsencode(_bad_archive(case))]


def _serve(case: Case) -> None:
    case.arguments.append(b"serve")
    case.arguments += case.random.choice(([b"demo"], [b"replay", os.fsencode(_bad_archive(case))], []))
    case.arguments += _maybe_set(case)
    case.most_s = 5.0


def _plain(case: Case) -> None:
    case.arguments += [b"demo", b"--plain", *_maybe_set(case)]
    case.most_s = 10.0


_CHEAP = (_config_show, _config_path, _config_validate, _config_validate, _ps, _about_an_engine, _import, _import)
_WITH_ENGINE = (_demo, _live, _replay, _replay, _serve, _plain)


# Faults of the surroundings


def _bad_config(case: Case) -> None:
    case.config_file.parent.mkdir(parents=True, exist_ok=True)
    _bad_file(case, case.config_file.parent, "config.toml")


def _bad_dotenv(case: Case) -> None:
    _bad_file(case, case.work, ".env")


def _bad_folder(case: Case) -> None:
    """One of the configured folders is not a folder, or belongs to another user."""
    variable = case.random.choice(("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR", "HOME", "DATA_DIR"))
    path = case.home / f"spoiled-{variable}"
    kind = case.random.randrange(8)
    value = os.fsencode(path)
    if kind == 0:
        path.write_text("a file")
    elif kind == 1:
        value = b"relative/path"
    elif kind == 2:
        path.mkdir()
        path.chmod(0o000)
        case.no_account = True
    elif kind == 3:
        path.symlink_to(path)
    elif kind == 4:
        value += b"/\xff\xfe"
    elif kind == 5:
        value = b"/" + b"x" * 300 + b"/" + b"y" * 3000
    elif kind == 6:
        value = b"/dev/null/below"
    else:
        value = b""
    case.environment[variable] = value


def _bad_variable(case: Case) -> None:
    name = case.random.choice(
        (
            "WS_PING_INTERVAL",
            "SYMBOLS",
            "LOG_LEVEL",
            "THEME",
            "KEYS",
            "PROXY_URL",
            "TRAIN_DEVICE",
            "BACKFILL_START",
            "TZ",
            "COLUMNS",
        )
    )
    case.environment[name] = _bad_word(case)


def _no_home(case: Case) -> None:
    if not has_namespaces():
        return  # an account has a home of its own
    case.no_account = True
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "LOGNAME", "USER"):
        case.environment.pop(name, None)


def _odd_locale(case: Case) -> None:
    case.environment["LC_ALL"] = case.random.choice((b"C", b"POSIX", b"en_US.ISO-8859-1", b"xx_YY.UTF-9", b"\xff"))
    case.environment["PYTHONIOENCODING"] = case.random.choice((b"ascii", b"latin-1", b"utf-16"))


def _closed_streams(case: Case) -> None:
    case.closed = case.random.choice(((0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)))


def _full_device(case: Case) -> None:
    case.full_output = True


def _unknown_user(case: Case) -> None:
    if not has_namespaces():
        return
    case.no_account = True
    case.environment["HOME"] = case.random.choice((b"", b"/nonexistent", b"relative"))


def _bad_argument(case: Case) -> None:
    case.arguments.insert(case.random.randrange(len(case.arguments) + 1), _bad_word(case))


_SPOILERS: tuple[Callable[[Case], None], ...] = (
    _bad_config,
    _bad_dotenv,
    _bad_folder,
    _bad_folder,
    _bad_variable,
    _no_home,
    _odd_locale,
    _closed_streams,
    _full_device,
    _unknown_user,
    _bad_argument,
)


# Words and files


def _bad_word(case: Case) -> bytes:
    chance = case.random
    return chance.choice(
        (
            b"\xff\xfe\x80",
            b"\x1b]0;PWNED\x07",
            b"",
            b" ",
            b"-" + b"-" * chance.randrange(3),
            b"x" * chance.choice((5_000, 100_000)),
            "\u202etxt.\uff11".encode(),
            b"nan",
            b"-inf",
            b"1e999",
            b"9" * 5000,
            b"../../../../etc/passwd",
            b"a\nb\r\nc",
            b"%s%n{0}{x}$HOME`id`",
            bytes(chance.randrange(1, 256) for _ in range(chance.randrange(1, 60))),
        )
    )


def _maybe_set(case: Case) -> list[bytes]:
    chance = case.random
    if chance.random() < 0.5:
        return []
    name = chance.choice((b"WS_PING_INTERVAL", b"SYMBOLS", b"DATA_DIR", b"KEYS", b"STORE_RETENTION_DAYS", b"NO_SUCH_NAME"))
    return [b"--set", name + chance.choice((b"=", b"==", b"")) + _bad_word(case)]


def _contents(chance: random.Random) -> bytes:
    good = b'LOG_LEVEL = "INFO"\nWS_PING_INTERVAL = 5\n'
    return chance.choice(
        (
            good.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + good,
            b"[" * 1000,
            b"x = " + b"[" * 5000 + b"]" * 5000,
            b"x = " + b"{a=" * 3000,
            b"\0" * 100,
            good + b"\0\0",
            bytes(chance.randrange(256) for _ in range(400)),
            b"LOG_LEVEL = 1979-05-27T07:32:00Z\n",
            b"WS_PING_INTERVAL = " + b"9" * 5000 + b"\n",
            b"WS_PING_INTERVAL = 1_0\nWS_PING_INTERVAL = 2\n",
            b"WS_PING_INTERVAL=${WS_PING_INTERVAL}\n",
            b'THEME = "' + b"\\u001b" * 10 + b'"\n',
            b"K=" + b"v" * 3_000_000 + b"\n",
            b"\n" * 1_000_000 + good,
            b"".join(b"WS_NAME_%d=1\n" % number for number in range(20_000)),
            b"LOG_LEVEL = 'caf\xe9'\n",
        )
    )


def _bad_file(case: Case, folder: Path, name: str) -> Path:
    """A file, or something else in its place."""
    chance = case.random
    path = folder / name
    kind = chance.randrange(10)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path)
    elif kind == 3:
        path.symlink_to(chance.choice(("/dev/zero", "/dev/full", "/nonexistent", "/proc/self/mem")))
    elif kind == 4 and len(os.fsencode(path)) < 100:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.write_bytes(_contents(chance))
        if kind == 5:
            path.chmod(stat.S_IWUSR)
            case.no_account = True
    return path


def _bad_archive(case: Case) -> Path:
    """A Binance file or a recording that is damaged, hostile or of another kind."""
    chance = case.random
    name = chance.choice(
        ("ETHUSDT-aggTrades-2019-10-11", "BTCUSDT_240628-aggTrades-2024-06-01", "noname", "\udcff-aggTrades-2019-10-11")
    )
    suffix = chance.choice((".csv", ".csv.gz", ".zip", ".qrec", ".CSV", ""))
    path = case.work / f"{name}{suffix}"
    text = TRADES.encode()
    if chance.random() < 0.5:
        lines = text.splitlines(keepends=True)
        at = chance.randrange(len(lines))
        lines[at] = chance.choice(
            (b"\n", b",,,\n", b"\xff\xfe\n", b"1_0,0,0\n", lines[at][::-1], b"9" * 300_000 + b"\n", b"\0\n")
        )
        text = b"".join(lines)
    packed = chance.choice((_zip, gzip.compress, lzma.compress, bz2.compress, bytes, _recording))(text)
    if chance.random() < 0.4:
        packed = packed[: chance.randrange(len(packed))]
    if chance.random() < 0.3 and packed:
        at = chance.randrange(len(packed))
        packed = packed[:at] + bytes([packed[at] ^ (1 << chance.randrange(8))]) + packed[at + 1 :]
    if chance.random() < 0.15:
        return _bad_file(case, case.work, path.name)
    path.write_bytes(packed)
    return path


def _zip(text: bytes) -> bytes:
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA if len(text) % 2 else zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._a.csv", b"\0")
        archive.writestr("ETHUSDT-aggTrades-2019-10-11.csv", text)
    return out.getvalue()


def _recording(text: bytes) -> bytes:
    return _MAGIC + b"\x00\x01\x00\x00\x00\x10" + text
