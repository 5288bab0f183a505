"""What the commands take and how they fail: options that several share, and one message with one exit code."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from msgspec import Struct

from ..arguments import typed_number
from ..output import say
from ..python_child import python_command

if TYPE_CHECKING:
    from ..engine.source import Source

EXIT_BAD_INPUT = 2


def fail(message: str, *more: str, exit_code: int = EXIT_BAD_INPUT) -> NoReturn:
    """Exit with a message on standard error; each argument is one line."""
    say(f"quantai-tui: {message}", *more, err=True)
    raise SystemExit(exit_code)


def tell_warnings(warnings: Iterable[object]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        say(f"quantai-tui: warning: {warning}", err=True)


class Number(click.FloatRange):
    """A finite number within a range, written in plain digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(_typed(self, value, param, ctx), param, ctx)


class WholeNumber(click.IntRange):
    """A whole number within a range, written in plain digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        _typed(self, value, param, ctx)
        return super().convert(value, param, ctx)


def _typed(kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return typed_number(value)
    except ValueError as error:
        kind.fail(str(error), param, ctx)


class RunOptions(Struct, frozen=True):
    """What all ways to run have in common."""

    config: str | None = None
    overrides: tuple[str, ...] = ()
    fresh: bool = False
    in_process: bool = False
    headless: bool = False
    plain: bool = False
    as_json: bool = False
    for_s: float | None = None
    exit_on_failure: bool | None = None

    @property
    def asks_for_its_own(self) -> bool:
        """Whether an engine that runs already could not be what was asked for."""
        return self.fresh or bool(self.overrides) or self.config is not None

    def serve_arguments(self) -> list[str]:
        """Leave out the overrides: they may hold a password, and every user can read a command line."""
        arguments = []
        if self.config is not None:
            arguments.append(f"--config={self.config}")
        if self.fresh:
            arguments.append("--fresh")
        return arguments


class Wanted(Struct, frozen=True):
    """A source of data as the command line names it; becomes a Source in the process that runs the engine."""

    mode: str
    file: str = ""
    seed: int = 7
    speed: str = "max"
    faults: str = ""

    def serve_arguments(self) -> list[str]:
        arguments = [self.mode, f"--seed={self.seed}", f"--speed={self.speed}"]
        arguments += [f"--faults={self.faults}"] if self.faults else []
        return [*arguments, "--", self.file] if self.file else arguments

    def source(self) -> Source:
        """Reads a replayed file whole, for its fingerprint. Raises StartError."""
        from ..engine import source as sources

        if self.mode == "demo":
            script = ["--faults", str(Path(self.faults).resolve())] if self.faults else []
            return sources.demo(self.seed, self._exchange("--seed", str(self.seed), "--breakable", *script))
        if self.mode == "replay":
            from ..engine.starting import StartError
            from ..market.archive import ArchiveError, file_fingerprint
            from ..stream.recording_file import SUFFIX, is_recording

            file = Path(self.file).resolve()
            try:
                fingerprint = file_fingerprint(file)
            except ArchiveError as error:
                raise StartError(str(error)) from error
            if is_recording(file):
                return sources.recording(file, fingerprint, self.speed)
            if file.suffix == SUFFIX:
                raise StartError(f"{self.file}: is not a recording; make one with 'quantai-tui record'")
            command = self._exchange("--file", str(Path(self.file).resolve()), "--speed", self.speed)
            return sources.replay(Path(self.file).name, fingerprint, self.speed, command)
        return sources.live()

    @staticmethod
    def _exchange(*what: str) -> Callable[[Path, tuple[str, ...]], list[str]]:
        def command(folder: Path, symbols: tuple[str, ...]) -> list[str]:
            played = ["--symbols", ",".join(symbols)] if what[0] == "--seed" else []
            return python_command("quantai_tui.exchange", "--folder", str(folder), *what, *played)

        return command


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --set."""
    for option in (
        click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Override one setting; may be repeated."),
        click.option("--config", metavar="FILE", help="Read this configuration file instead of the usual one."),
    ):
        function = option(function)
    return function


def check_faults(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """A fault script is read before anything is started: one message that names file, entry, key and remedy."""
    if value is None:
        return ""
    from ..exchange.script import ScriptError, load_script

    try:
        load_script(Path(value))
    except ScriptError as error:
        fail(f"{error}; {error.remedy}")
    return value


faults_option = click.option(
    "--faults",
    callback=check_faults,
    metavar="FILE",
    help="Play this fault script (TOML) on the embedded exchange, counted from the first subscription.",
)

fresh_option = click.option("--fresh", is_flag=True, help="Delete what an earlier run of this name has stored, and begin anew.")


plain_option = click.option(
    "--plain", is_flag=True, help="No screen but lines of text, for screen readers and logs; orders are typed as words."
)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--exit-on-failure/--no-exit-on-failure",
            default=None,
            help="End when the retries are used up (default with --headless), or cool down and probe on.",
        ),
        click.option("--for", "for_s", type=Number(min=0, min_open=True), metavar="SECONDS", help="End after this time."),
        click.option("--json", "as_json", is_flag=True, help="With --headless: one JSON snapshot a line."),
        click.option("--headless", is_flag=True, help="No dashboard: a status line every second."),
        plain_option,
        fresh_option,
        click.option("--in-process", is_flag=True, help="Run the engine inside the dashboard's process; it ends with it."),
    ):
        function = option(function)
    return common_options(function)


def take_options(values: dict[str, Any]) -> RunOptions:
    options = RunOptions(**values)
    if options.as_json and not options.headless:
        raise click.UsageError("--json goes with --headless")
    if options.for_s is not None and not options.headless:
        raise click.UsageError("--for goes with --headless")
    if options.plain and options.headless:
        raise click.UsageError("--plain and --headless exclude each other: --plain tells of an engine in a process of its own")
    if options.in_process and options.headless:
        raise click.UsageError(
            "--in-process and --headless exclude each other: --headless runs the engine in its own process anyway"
        )
    return options


def check_speed(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value in {None, "max"}:
        return value
    try:
        speed = typed_number(value or "")
    except ValueError:
        speed = -1.0
    if not 0 < speed <= 1_000_000:
        raise click.BadParameter("must be a number above 0, or max")
    return value


def need_file(file: str) -> None:
    """End with a message unless this is a file that may be opened."""
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116 - an empty name is no file here, and the working folder for pathlib
    except FileNotFoundError:
        fail(f"{file}: there is no such file")
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}")
    if not stat.S_ISREG(mode):
        fail(f"{file}: is not a file; give a recording, or one of Binance's aggTrades files (.csv, .csv.gz, .zip)")
