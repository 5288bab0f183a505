"""Commands about settings: config show, validate, path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..output import say
from .options import RunOptions, common_options, fail, tell_warnings


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
        fail(*map(str, problems.problems))
    tell_warnings(loaded.warnings)
    group = ""
    for info in describe_all():
        if info.group != group:
            group = info.group
            say("")
            say(group, bold=True)
        value = shown(info.name, getattr(loaded.settings, info.name)) or "(empty)"
        unit = f" {info.unit}" if info.unit else ""
        say(
            f"  {info.name} = {value}{unit}",
            f"      {info.title}: {info.description}",
            f"      default {info.default or '(empty)'}; rule: {info.rule or 'any'}; from: {loaded.origins[info.name].text}",
        )


@config.command("validate")
@click.argument("file", required=False, type=click.Path())
def config_validate(file: str | None) -> None:
    """Check FILE by itself, or without one all sources as they stand."""
    from ..settings import SettingsProblems, load, load_file

    try:
        loaded = load() if file is None else load_file(Path(file))
    except SettingsProblems as error:
        fail(*map(str, error.problems))
    tell_warnings(loaded.warnings)
    if loaded.settings.KEYS:
        from ..ui.keymap import resolve  # brings Textual, which nothing else here needs

        problems = resolve(loaded.settings.KEYS).problems
        if problems and loaded.origins["KEYS"].shared:
            tell_warnings(problems)
        elif problems:
            fail(*problems)
    say(f"{file}: valid" if file else "all settings are valid")


@config.command("path")
def config_path() -> None:
    """Print where the configuration file lies."""
    from ..settings import default_config_path

    say(str(default_config_path()))
