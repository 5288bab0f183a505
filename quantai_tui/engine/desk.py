"""The settings desk: the engine alone reads, checks and writes settings; dashboards send text and show what comes back."""

from __future__ import annotations

import difflib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..link import SaveResult, SettingChange, SettingField, SettingProblem, SettingsForm, SettingsPreview, SettingsText
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
from ..textfile import UnusableFile
from .trials import TrialRecord, put_back, settle_abandoned

logger = logging.getLogger(__name__)

WORKER_GROUPS = frozenset({"Training", "Scaler"})
_READ_AT_START = frozenset({"TRAIN_AUTOSTART", "WARMUP_BARS"})  # of the training's settings, those that the worker never reads
_STREAM, _WORKER = "stream reconnects", "worker takes it over"
_UNDO_DEPTH = 10

Values = Mapping[str, str | None]
"""What to save: texts by name; None takes a setting out of the file, so that its default holds again."""

Outcome = tuple[SaveResult, frozenset[str]]
"""What came of a save, and the names whose value in force it changed."""

_NOTHING: frozenset[str] = frozenset()


def effect_of(name: str) -> str:
    """What a change of this setting does to a running engine, in words."""
    info = describe(name)
    if info.applies == "live":
        return "live now"
    if info.applies == "reconnect":
        return _STREAM
    return _WORKER if info.group in WORKER_GROUPS and name not in _READ_AT_START else "at the next start"


@dataclass(frozen=True, slots=True)
class _Save:
    """A save as it can be undone: the file's text before and after, the settings in force before."""

    before: str | None
    after: str
    in_force: Loaded


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that are in force for now."""

    id: int
    names: tuple[str, ...]
    limit_s: float
    save: _Save
    record: TrialRecord


class SettingsDesk:
    """The settings in force, the file behind them, the saves that can be undone, and the one that may be on trial.

    Not to be used by two threads at once; the calls that write wait for the disk.
    """

    def __init__(self, config_path: Path | None, layers: Layers) -> None:
        """Loads at once, and first undoes a trial whose engine was killed (`settled` says so); raises SettingsProblems."""
        self._given_path = config_path
        self._layers = layers
        self.settled = settle_abandoned(self.path)
        self.loaded: Loaded = load(config_path, layers=layers)
        self.trial: Trial | None = None
        self._ids = itertools.count(1)
        self._saves: deque[_Save] = deque(maxlen=_UNDO_DEPTH)

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @property
    def path(self) -> Path:
        return self._given_path or default_config_path()

    def log_warnings(self) -> None:
        """Log what was left out of the settings in force."""
        for warning in self.loaded.warnings:
            logger.warning("settings: %s", warning)

    def force(self, values: Mapping[str, str]) -> None:
        """Take what the embedded exchange dictates: its addresses, its certificate authority, its symbols."""
        self._layers = replace(self._layers, forced=dict(values))
        self.loaded = load(self._given_path, layers=self._layers)

    # What is

    def form(self) -> SettingsForm:
        """Raises UnusableFile."""
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

    def text(self) -> SettingsText:
        """Return the unmasked file: only its owner can open the socket.

        Raises UnusableFile.
        """
        file = ConfigFile.read(self.path)
        return SettingsText(str(self.path), file.text, file.revision)

    # What would be

    def check(self, values: Values) -> tuple[SettingProblem, ...]:
        """What would be wrong if these settings were changed and all others stayed."""
        return self._tried(self._real_changes(values))[1]

    def preview(self, values: Values) -> SettingsPreview:
        """What saving these would do; nothing is written."""
        changes = self._real_changes(values)
        wanted, problems = self._tried(changes)
        if wanted is None:
            return SettingsPreview(problems)
        try:
            file = ConfigFile.read(self.path)
            proposed = _proposed(file, wanted, changes, file.revision)
            loaded = load(self._given_path, layers=self._layers, file_text=proposed)
        except SettingsProblems as error:
            return SettingsPreview(_told(error))
        except (OSError, ValueError) as error:
            return SettingsPreview((SettingProblem("", f"{self.path} cannot be used: {error}"),))
        effects = tuple(
            SettingChange(name, self._shown(name), shown(name, getattr(loaded.settings, name)), effect_of(name))
            for name in names()
            if getattr(loaded.settings, name) != getattr(self.settings, name)
        )
        return SettingsPreview((), effects, _diff(file.text, proposed), self._needs_trial(change.name for change in effects))

    # Saving

    def save(self, values: Values, revision: str) -> Outcome:
        """Write the changes when all of it is valid."""
        changes = self._real_changes(values)
        wanted, problems = self._tried(changes)
        if wanted is None:
            return SaveResult(False, problems), _NOTHING
        if not changes:
            return SaveResult(True, applied={name: self._applied(name, _NOTHING) for name in values}), _NOTHING
        return self._write(lambda file: _proposed(file, wanted, changes, revision), tuple(values), "saved")

    def write(self, text: str, revision: str) -> Outcome:
        """Replace the whole text of the file, when it is valid by itself and with all other sources."""

        def propose(file: ConfigFile) -> str:
            if file.revision != revision:
                raise ConfigConflict(file.path, file.text, text)
            return text

        return self._write(propose, (), "written")

    def undo(self) -> Outcome:
        """Undo the newest save that is not undone yet. What comes back was in force before, so it is not put on trial."""
        if self.trial is not None:
            return self.roll_back()
        if not self._saves:
            return _refused("there is no save to undo"), _NOTHING
        save = self._saves[-1]
        try:
            file = ConfigFile.read(self.path)
        except UnusableFile as error:
            return _refused(f"nothing was undone: {error}"), _NOTHING
        if file.text != save.after:
            result = SaveResult(False, conflict_text=masked(file.text), proposed_text=masked(save.before or ""))
            return result, _NOTHING
        result, changed = self._restore(file, save, "undone")
        if result.saved:
            self._saves.pop()
        return result, changed

    def confirm(self) -> None:
        """Keep what is on trial. Raises OSError when the record of the trial cannot be removed."""
        if self.trial is not None:
            self.trial.record.remove()
            _log("settings confirmed: %s", ", ".join(self.trial.names))
            self.trial = None

    def roll_back(self) -> Outcome:
        """Put back what stood before the trial. A file that was edited meanwhile stays; only the values in force go back."""
        trial = self.trial
        if trial is None:
            return _refused("nothing is on trial"), _NOTHING
        try:
            file = ConfigFile.read(self.path)
        except UnusableFile as error:
            logger.warning("%s", error)  # so it cannot be the text that the trial wrote
            file = None
        if file is not None and file.text == trial.save.after:
            result, changed = self._restore(file, trial.save, "undone, since nobody confirmed it")
            if not result.saved:
                return result, changed
        else:
            changed = self._take(trial.save.in_force, "undone; the file was edited meanwhile and stays as it is")
            result = SaveResult(True, applied=dict.fromkeys(changed, "undone in force; the file was edited meanwhile and stays"))
        trial.record.remove()
        self.trial = None
        if self._saves and self._saves[-1] is trial.save:
            self._saves.pop()
        return result, changed

    def close(self) -> None:
        """The engine ends: what nobody has confirmed must not come into force at the next start."""
        if self.trial is not None:
            self.roll_back()

    def _write(self, propose: Callable[[ConfigFile], str], asked: tuple[str, ...], how: str) -> Outcome:
        if self.trial is not None:
            return _refused("settings are on trial: keep them or undo them first"), _NOTHING
        record: TrialRecord | None = None
        try:
            file = ConfigFile.read(self.path)
            proposed = propose(file)
            # What environment, .env and command line make of the new text may be invalid where the text itself is not.
            loaded = load(self._given_path, layers=self._layers, file_text=proposed)
            before = file.text if self.path.exists() else None
            limit_s, touched = self.settings.CONFIG_CONFIRM_S, self._changes_to(loaded)
            if self._needs_trial(touched):
                record = TrialRecord(self.path, before, proposed)
            file.write(proposed)
        except ConfigConflict as conflict:
            texts = masked(conflict.on_disk), masked(conflict.proposed)
            return SaveResult(False, conflict_text=texts[0], proposed_text=texts[1]), _NOTHING
        except SettingsProblems as error:
            return SaveResult(False, _told(error)), _NOTHING
        except (OSError, ValueError) as error:
            if record is not None:
                record.remove()
            return SaveResult(False, (SettingProblem("", f"{self.path} was not written: {error}"),)), _NOTHING
        save = _Save(before, proposed, self.loaded)
        changed = self._take(loaded, f"{how} to {self.path}")
        self._saves.append(save)
        applied = {name: self._applied(name, changed) for name in (asked or changed)}
        if record is None:
            return SaveResult(True, applied=applied), changed
        self.trial = Trial(next(self._ids), tuple(sorted(changed)), limit_s, save, record)
        return SaveResult(True, applied=applied, trial_id=self.trial.id, trial_s=limit_s), changed

    def _restore(self, file: ConfigFile, save: _Save, how: str) -> Outcome:
        try:
            loaded = load(self._given_path, layers=self._layers, file_text=save.before or "")
            put_back(file, save.before)
        except SettingsProblems as error:
            return SaveResult(False, _told(error)), _NOTHING
        except OSError as error:
            return SaveResult(False, (SettingProblem("", f"{self.path} was not written: {error}"),)), _NOTHING
        changed = self._take(loaded, how)
        return SaveResult(True, applied={name: self._applied(name, changed) for name in changed}), changed

    def _take(self, loaded: Loaded, how: str) -> frozenset[str]:
        """Bring other settings into force, and each change into the log."""
        changed = self._changes_to(loaded)
        before, self.loaded = self.loaded, loaded
        for name in sorted(changed):
            old, new = shown(name, getattr(before.settings, name)), self._shown(name)
            _log("setting %s: %s -> %s (%s)", name, old, new, how)
        return changed

    def _changes_to(self, loaded: Loaded) -> frozenset[str]:
        return frozenset(name for name in names() if getattr(loaded.settings, name) != getattr(self.settings, name))

    def _needs_trial(self, changed: Iterable[str]) -> bool:
        touched = {effect_of(name) for name in changed}
        return self.settings.CONFIG_CONFIRM_S > 0 and not touched.isdisjoint({_STREAM, _WORKER})

    def _shown(self, name: str) -> str:
        return shown(name, getattr(self.settings, name))

    def _real_changes(self, values: Values) -> dict[str, str | None]:
        """Without the masked texts that came back as they were sent: a secret is never overwritten by its mask."""
        return {
            name: text
            for name, text in values.items()
            if text is None or MASK not in text or name not in names() or text != self._shown(name)
        }

    def _tried(self, changes: Values) -> tuple[Settings | None, tuple[SettingProblem, ...]]:
        """The settings in force with these changes, or what is wrong with them."""
        problems = [SettingProblem(name, "there is no such setting") for name in changes if name not in names()]
        problems += [
            SettingProblem(name, f"write user and password in place of {MASK}, or leave the field as it was")
            for name, text in changes.items()
            if text is not None and f"{MASK}@" in text
        ]
        if problems:
            return None, tuple(problems)
        wishes = {name: describe(name).default if text is None else text for name, text in changes.items()}
        wanted, found = validate({name: getattr(self.settings, name) for name in names()} | wishes, {})
        return wanted, tuple(SettingProblem(problem.key, problem.rule) for problem in found)

    def _applied(self, name: str, changed: frozenset[str]) -> str:
        if name in changed:
            return effect_of(name)
        origin = self.loaded.origins[name]
        return f"saved, but {origin.text} fixes it" if origin.locks_file else "unchanged"


def _log(text: str, *args: object) -> None:
    """An edit is in the log whatever LOG_LEVEL says."""
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, args, None))


def _proposed(file: ConfigFile, wanted: Settings, changes: Values, revision: str) -> str:
    kept = [name for name, text in changes.items() if text is not None]
    return file.propose(wanted, kept, revision, removed=[name for name in changes if name not in kept])


def _told(error: SettingsProblems) -> tuple[SettingProblem, ...]:
    return tuple(SettingProblem(problem.key, f"{problem.rule} ({problem.source})") for problem in error.problems)


def _refused(why: str) -> SaveResult:
    return SaveResult(False, (SettingProblem("", why),))


def _diff(before: str, after: str) -> tuple[str, ...]:
    """Lines with their letter, three of them around each change; secrets masked."""
    old, new = masked(before).splitlines(), masked(after).splitlines()
    lines = list(difflib.unified_diff(old, new, n=3, lineterm=""))[3:]
    return tuple("  …" if line.startswith("@@") else f"{line[:1]} {line[1:]}" for line in lines)
