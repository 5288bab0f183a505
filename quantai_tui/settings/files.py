"""Saving a configuration file safely: comments and order stay, the write is atomic, and nobody's edit is overwritten unseen."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit
import tomlkit.exceptions

from .catalogue import describe
from .sources import Gathered, SettingsProblems, gather_toml_text, validate


class ConfigConflict(Exception):
    """The file changed on disk since it was read. `on_disk` is what stands there, `proposed` what would have been written."""

    def __init__(self, path: Path, on_disk: str, proposed: str) -> None:
        super().__init__(f"{path} was changed by somebody else since it was read; nothing was written")
        self.on_disk = on_disk
        self.proposed = proposed


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file as it was read: its text, and a fingerprint to tell a later change by."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read it; a file that is not there counts as empty. Raises OSError and UnicodeDecodeError."""
        try:
            return cls(path, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path, "")

    @property
    def revision(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def edited(self, values: Mapping[str, str]) -> str:
        """The text with these settings set, everything else untouched. Raises ValueError when the file is not TOML."""
        try:
            document = tomlkit.parse(self.text)
        except tomlkit.exceptions.TOMLKitError as error:
            raise ValueError(f"{self.path} is not valid TOML: {error}") from error
        for name, text in values.items():
            document[name] = _toml_value(name, text)
        return tomlkit.dumps(document)

    def save(self, values: Mapping[str, str], revision: str) -> ConfigFile:
        """Write these settings over the file read at `revision`; the former text stays beside it as `.bak`.

        Raises ConfigConflict when the file is no longer the one that was read, SettingsProblems when the result would not be
        valid, ValueError when the file is not TOML, OSError when it cannot be written. In each case nothing was changed.
        """
        proposed = self.edited(values)
        if self.revision != revision:
            raise ConfigConflict(self.path, self.text, proposed)
        gathered = Gathered()
        gather_toml_text(gathered, self.path, proposed)
        _, problems = validate(gathered.values, gathered.origins)
        if gathered.problems or problems:
            raise SettingsProblems([*gathered.problems, *problems])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.text:
            _write_atomically(self.path.with_suffix(self.path.suffix + ".bak"), self.text)
        _write_atomically(self.path, proposed)
        return ConfigFile(self.path, proposed)


def _toml_value(name: str, text: str) -> bool | int | float | str:
    kind = describe(name).kind
    if kind == "bool":
        return text.strip().lower() in {"true", "1", "yes", "on", "t", "y"}
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    return text


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
