"""The commands, thin: each wires rooms together and turns what went wrong into one message and an exit code."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..user_folders import PlaceError
from . import configuration, engines, importing, recording
from .options import RunOptions, Wanted, WholeNumber, check_speed, fail, faults_option, need_file, run_options, take_options
from .running import run


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quantai-tui")
@run_options
@click.pass_context
def cli(context: click.Context, /, **values: Any) -> None:
    """Mission control for training on a live market.

    Without a command: listen to live Binance as configured, train on it, and show both. Try 'quantai-tui demo' first.
    """
    options = take_options(values)
    if context.invoked_subcommand is None:
        run(Wanted("live"), options)
    elif options != RunOptions():
        raise click.UsageError(f"options come after the command: quantai-tui {context.invoked_subcommand} [OPTIONS]")


@cli.command()
@click.option("--seed", type=WholeNumber(0, 2**31 - 1), default=7, show_default=True, help="Seed of the synthetic market.")
@faults_option
@run_options
def demo(seed: int, faults: str, **values: Any) -> None:
    """Run on the embedded exchange with a synthetic market.

    The exchange can be broken on purpose: f on the dashboard lists how, and --faults plays a script.
    """
    run(Wanted("demo", seed=seed, faults=faults), take_options(values))


@cli.command()
@click.argument("file", type=click.Path())
@click.option("--speed", callback=check_speed, metavar="N|max", help="N times as fast as it was; headless: max, otherwise 60.")
@run_options
def replay(file: str, speed: str | None, **values: Any) -> None:
    """Replay a recording (.qrec), or on the embedded exchange one of Binance's public aggTrades files (.csv, .csv.gz, .zip)."""
    options = take_options(values)
    need_file(file)
    run(Wanted("replay", file=file, speed=speed or ("max" if options.headless else "60")), options)


for command in (
    engines.serve,
    engines.attach,
    engines.ps,
    engines.stop,
    recording.record,
    importing.import_files,
    configuration.config,
):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    try:
        cli(prog_name="quantai-tui")
    except PlaceError as error:
        fail(str(error))
