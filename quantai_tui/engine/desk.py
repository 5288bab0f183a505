"""The settings desk: the engine alone reads, checks and writes settings; dashboards send text and show what comes back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..link import SaveResult, SettingField, SettingProblem, SettingsForm
from ..settings import (
    ConfigConflict,
    ConfigFile,
    Layers,
    Loaded,
    Settings,
    SettingsProblems,
    as_text,
    default_config_path,
    describe,
    describe_all,
    load,
    names,
    validate,
)

logger = logging.getLogger(__name__)

WORKER_GROUPS = frozenset({"Training", "Scaler"})


def effect_of(name: str) -> str:
    """What a change of this setting does to a running engine, in words."""
    info = describe(name)
    if info.applies == "live":
        return "live now"
    if info.applies == "reconnect":
        return "stream reconnects"
    return "worker takes it over" if info.group in WORKER_GROUPS else "at the next start"


class SettingsDesk:
    """The settings in force, and the file behind them."""

    def __init__(self, config_path: Path | None, layers: Layers) -> None:
        """Loads at once; raises SettingsProblems."""
        self._given_path = config_path
        self._layers = layers
        self.loaded: Loaded = load(config_path, layers=layers)

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @property
    def path(self) -> Path:
        return self._given_path or default_config_path()

    def force(self, values: Mapping[str, str]) -> None:
        """Take what the embedded exchange dictates: its addresses, its certificate authority, its symbols."""
        self._layers = replace(self._layers, forced=dict(values))
        self.loaded = load(self._given_path, layers=self._layers)

    def form(self) -> SettingsForm:
        file = ConfigFile.read(self.path)
        fields = []
        for info in describe_all():
            origin = self.loaded.origins[info.name]
            fields.append(
                SettingField(
                    name=info.name,
                    title=info.title,
                    description=info.description,
                    group=info.group,
                    unit=info.unit,
                    rule=info.rule,
                    kind=info.kind,
                    choices=info.choices,
                    applies=effect_of(info.name),
                    value=as_text(getattr(self.settings, info.name)),
                    default=info.default,
                    source=origin.text,
                    locked=origin.text if origin.locks_file else "",
                )
            )
        return SettingsForm(str(self.path), file.revision, tuple(fields))

    def check(self, values: Mapping[str, str]) -> tuple[SettingProblem, ...]:
        """What would be wrong if these settings were changed and all others stayed."""
        unknown = [SettingProblem(name, "there is no such setting") for name in values if name not in names()]
        if unknown:
            return tuple(unknown)
        merged = {name: getattr(self.settings, name) for name in names()} | dict(values)
        _, problems = validate(merged, {})
        return tuple(SettingProblem(problem.key, problem.rule) for problem in problems)

    def save(self, values: Mapping[str, str], revision: str) -> tuple[SaveResult, frozenset[str]]:
        """Write the changes when all of it is valid; returns the result and the names whose value in force changed."""
        problems = self.check(values)
        if problems:
            return SaveResult(False, problems), frozenset()
        try:
            ConfigFile.read(self.path).save(values, revision)
        except ConfigConflict as conflict:
            return SaveResult(False, conflict_text=conflict.on_disk, proposed_text=conflict.proposed), frozenset()
        except SettingsProblems as error:
            return SaveResult(False, tuple(SettingProblem(p.key, p.rule) for p in error.problems)), frozenset()
        except (OSError, ValueError) as error:
            return SaveResult(False, (SettingProblem("", f"{self.path} was not written: {error}"),)), frozenset()
        before = self.settings
        self.loaded = load(self._given_path, layers=self._layers)
        changed = frozenset(name for name in names() if getattr(before, name) != getattr(self.settings, name))
        for name in sorted(values):
            old, new = as_text(getattr(before, name)), as_text(getattr(self.settings, name))
            logger.info("setting %s: %s -> %s (saved to %s)", name, old, new, self.path)
        return SaveResult(True, applied={name: self._applied(name, changed) for name in values}), changed

    def _applied(self, name: str, changed: frozenset[str]) -> str:
        if name in changed:
            return effect_of(name)
        origin = self.loaded.origins[name]
        return f"saved, but {origin.text} fixes it" if origin.locks_file else "unchanged"
