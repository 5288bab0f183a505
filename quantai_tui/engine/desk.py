"""The settings desk: the engine alone reads, checks and writes settings; dashboards send text and show what comes back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..link import SaveResult, SettingField, SettingProblem, SettingsForm
from ..settings import (
    MASK,
    ConfigConflict,
    ConfigFile,
    Layers,
    Loaded,
    Settings,
    SettingsProblems,
    default_config_path,
    describe,
    describe_all,
    load,
    masked,
    names,
    shown,
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
                    value=self._shown(info.name),
                    default=info.default,
                    source=origin.text,
                    locked=origin.text if origin.locks_file else "",
                )
            )
        return SettingsForm(str(self.path), file.revision, tuple(fields))

    def check(self, values: Mapping[str, str]) -> tuple[SettingProblem, ...]:
        """What would be wrong if these settings were changed and all others stayed."""
        return self._tried(self._real_changes(values))[1]

    def save(self, values: Mapping[str, str], revision: str) -> tuple[SaveResult, frozenset[str]]:
        """Write the changes when all of it is valid; returns the result and the names whose value in force changed."""
        changes = self._real_changes(values)
        wanted, problems = self._tried(changes)
        if wanted is None:
            return SaveResult(False, problems), frozenset()
        before = self.loaded
        if changes:
            try:
                file = ConfigFile.read(self.path)
                proposed = file.propose(wanted, changes, revision)
                # What environment, .env and command line make of the new text may be invalid where the text itself is not.
                loaded = load(self._given_path, layers=self._layers, file_text=proposed)
                file.write(proposed)
            except ConfigConflict as conflict:
                texts = masked(conflict.on_disk), masked(conflict.proposed)
                return SaveResult(False, conflict_text=texts[0], proposed_text=texts[1]), frozenset()
            except SettingsProblems as error:
                return SaveResult(
                    False, tuple(SettingProblem(p.key, f"{p.rule} ({p.source})") for p in error.problems)
                ), frozenset()
            except (OSError, ValueError) as error:
                return SaveResult(False, (SettingProblem("", f"{self.path} was not written: {error}"),)), frozenset()
            self.loaded = loaded
        changed = frozenset(name for name in names() if getattr(before.settings, name) != getattr(self.settings, name))
        for name in sorted(changes):
            old, new = shown(name, getattr(before.settings, name)), self._shown(name)
            logger.info("setting %s: %s -> %s (saved to %s)", name, old, new, self.path)
        return SaveResult(True, applied={name: self._applied(name, changed) for name in values}), changed

    def _shown(self, name: str) -> str:
        return shown(name, getattr(self.settings, name))

    def _real_changes(self, values: Mapping[str, str]) -> dict[str, str]:
        """Without the masked texts that came back as they were sent: a secret is never overwritten by its mask."""
        return {
            name: text for name, text in values.items() if MASK not in text or name not in names() or text != self._shown(name)
        }

    def _tried(self, changes: Mapping[str, str]) -> tuple[Settings | None, tuple[SettingProblem, ...]]:
        """The settings in force with these changes, or what is wrong with them."""
        problems = [SettingProblem(name, "there is no such setting") for name in changes if name not in names()]
        problems += [
            SettingProblem(name, f"write user and password in place of {MASK}, or leave the field as it was")
            for name, text in changes.items()
            if f"{MASK}@" in text
        ]
        if problems:
            return None, tuple(problems)
        merged = {name: getattr(self.settings, name) for name in names()} | dict(changes)
        wanted, found = validate(merged, {})
        return wanted, tuple(SettingProblem(problem.key, problem.rule) for problem in found)

    def _applied(self, name: str, changed: frozenset[str]) -> str:
        if name in changed:
            return effect_of(name)
        origin = self.loaded.origins[name]
        return f"saved, but {origin.text} fixes it" if origin.locks_file else "unchanged"
