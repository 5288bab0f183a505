"""Commands about settings: config show, validate, path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from .options import RunOptions, common_options, fail


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command("show")
@common_options
def config_show(**values: Any) -> None:
    """Every setting: value, default, source, unit and rule."""
    from ..settings import Layers, SettingsProblems, describe_all, load, shown

    options = RunOptions(**values)
    try:
        loaded = load(Path(options.config) if options.config else None, layers=Layers(overrides=options.overrides))
    except SettingsProblems as problems:
        fail(str(problems))
    group = ""
    for info in describe_all():
        if info.group != group:
            group = info.group
            click.secho(f"\n{group}", bold=True)
        value = shown(info.name, getattr(loaded.settings, info.name)) or "(empty)"
        unit = f" {info.unit}" if info.unit else ""
        click.echo(f"  {info.name} = {value}{unit}")
        click.echo(f"      {info.title}: {info.description}")
        click.echo(
            f"      default {info.default or '(empty)'}; rule: {info.rule or 'any'}; from: {loaded.origins[info.name].text}"
        )


@config.command("validate")
@click.argument("file", required=False, type=click.Path())
def config_validate(file: str | None) -> None:
    """Check FILE by itself, or without one all sources as they stand."""
    from ..settings import SettingsProblems, default_config_path, load, validate_file

    keys: tuple[str, ...] = ()
    if file is not None:
        problems = [str(problem) for problem in validate_file(Path(file))]
        if not problems:
            keys = load(Path(file), environment={}, dotenv_path=Path(os.devnull)).settings.KEYS
    else:
        try:
            keys = load().settings.KEYS
            problems = []
        except SettingsProblems as error:
            problems = [str(problem) for problem in error.problems]
    if keys:
        from ..ui.keymap import resolve  # brings Textual, which nothing else here needs

        problems += resolve(keys).problems
    if problems:
        fail("\n".join(problems))
    click.echo(f"{file or default_config_path()}: valid" if file else "all settings are valid")


@config.command("path")
def config_path() -> None:
    """Print where the configuration file lies."""
    from ..settings import default_config_path

    click.echo(default_config_path())
