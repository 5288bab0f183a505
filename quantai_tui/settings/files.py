"""Saving a configuration file safely: comments and order stay, the write is atomic, and nobody's edit is overwritten unseen."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tomlkit
import tomlkit.exceptions

from ..private_files import make_folders
from ..textfile import UnusableFile, read_text
from .catalogue import as_text
from .model import Settings
from .sources import MOST_CONFIG_BYTES, check_text


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
        """Read the file; a missing one counts as empty. Raises UnusableFile, which names it."""
        try:
            return cls(path, read_text(path, MOST_CONFIG_BYTES))
        except UnusableFile as error:
            raise UnusableFile(f"{path} {error}") from error
        except FileNotFoundError:
            return cls(path, "")

    @property
    def revision(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def propose(self, settings: Settings, changed: Iterable[str], revision: str, *, removed: Iterable[str] = ()) -> str:
        """The text with the `changed` names set as in `settings` and the `removed` ones taken out; nothing is written yet.

        Raises ConfigConflict when this is no longer the file that was read at `revision`, SettingsProblems when the new text
        would not be valid by itself, ValueError when the file is not TOML.
        """
        try:
            document = tomlkit.parse(self.text)
        except (tomlkit.exceptions.TOMLKitError, RecursionError) as error:
            raise ValueError(f"{self.path} is not valid TOML: {error}") from error
        for name in changed:
            value = getattr(settings, name)
            document[name] = as_text(value) if isinstance(value, tuple) else value
        for name in removed:
            if name in document:
                document.remove(name)
        proposed = tomlkit.dumps(document)
        if self.revision != revision:
            raise ConfigConflict(self.path, self.text, proposed)
        check_text(self.path, proposed)
        return proposed

    def remove(self) -> None:
        """Take the file away, where there was none before. Raises OSError."""
        target_of(self.path).unlink(missing_ok=True)

    def write(self, text: str) -> ConfigFile:
        """Replace the file's text; the former one stays beside it as `.bak`. A link stays a link: its target is written.

        Both keep the file's permissions; a new file is for its owner alone, since it may hold a proxy's password. Raises
        OSError when it cannot be written; then the file is as it was.
        """
        target = target_of(self.path)
        make_folders(target.parent)
        try:
            mode = stat.S_IMODE(target.stat().st_mode)
        except FileNotFoundError:
            mode = stat.S_IRUSR | stat.S_IWUSR
        if self.text:
            write_atomically(target.with_suffix(target.suffix + ".bak"), self.text, mode)
        write_atomically(target, text, mode)
        return ConfigFile(self.path, text)


def target_of(path: Path) -> Path:
    """Resolve all links of a path; in a circle of links, one of them."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises for a circle


def write_atomically(path: Path, text: str, mode: int) -> None:
    """Beside it, to the disk, then in its place; raises OSError, and then nothing has changed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            os.fchmod(stream.fileno(), mode)
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
