"""Folders with theme files, read again where they change, and the shelf of all themes that they make together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from ..user_folders import user_folder
from .themes import DEFAULT_THEME, OwnTheme, ThemeError, plain_theme, read_theme

_MOST_FILES = 100
_Stamp = tuple[int, int, int]


def user_themes_folder() -> Path:
    """The folder of the operator's own themes, beside the default configuration file. Raises PlaceError."""
    return user_folder("config") / "themes"


class Found(Struct, frozen=True):
    """What a folder holds: its usable themes by file name, and one line for each file that is not as it should be."""

    themes: tuple[OwnTheme, ...] = ()
    problems: tuple[str, ...] = ()


class _File(Struct, frozen=True):
    stamp: _Stamp
    theme: OwnTheme | None
    problem: str = ""


class ThemeFiles:
    """The theme files of one folder. Of a file that was good and is broken now the last good theme stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}
        self._stamps: dict[str, _Stamp] | None = None
        self._trouble = ""

    def look(self) -> Found | None:
        """What there is, or None when nothing has changed since the last look.

        A file is read once it stands still for a look, so that one that is being written is not called broken; at the first look
        at once. It may wait for a slow disk. Raises nothing: what cannot be read is a problem that is found.
        """
        former, first = self._stamps or {}, self._stamps is None
        stamps, trouble = self._stat_all()
        changed = first or trouble != self._trouble
        self._trouble = trouble
        if stamps is None:
            return self._found() if changed else None
        self._stamps = stamps
        for name in [name for name in self._files if name not in stamps]:
            del self._files[name]
            changed = True
        for name, stamp in stamps.items():
            known = self._files.get(name)
            if (known is None or known.stamp != stamp) and (first or former.get(name) == stamp):
                self._files[name] = self._read(name, stamp, known.theme if known is not None else None)
                changed = True
        return self._found() if changed else None

    def _stat_all(self) -> tuple[dict[str, _Stamp] | None, str]:
        """How each file stands, and what is wrong with the folder; None for the files while it cannot be read."""
        stamps: dict[str, _Stamp] = {}
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".toml")
        except (FileNotFoundError, NotADirectoryError):
            return stamps, ""
        except OSError as error:
            return None, f"{self._folder} cannot be read: {error.strerror or error}"
        for path in paths[:_MOST_FILES]:
            try:
                info = path.stat()
            except OSError:  # a link to nowhere, or gone meanwhile: reading it says which
                stamps[path.name] = (0, 0, 0)
            else:
                stamps[path.name] = (info.st_mtime_ns, info.st_size, info.st_ino)
        over = len(paths) - _MOST_FILES
        return stamps, f"{over} of {len(paths)} files in {self._folder} are left out: too many" if over > 0 else ""

    def _read(self, name: str, stamp: _Stamp, last_good: OwnTheme | None) -> _File:
        try:
            return _File(stamp, read_theme(self._folder / name))
        except ThemeError as error:
            return _File(stamp, last_good, str(error))

    def _found(self) -> Found:
        themes: dict[str, OwnTheme] = {}
        problems = [self._trouble] if self._trouble else []
        for name, file in self._files.items():
            if file.problem:
                problems.append(file.problem)
            if file.theme is None:
                continue
            if file.theme.name in themes:
                problems.append(f"{name}: the name {file.theme.name!r} is taken by another file")
            else:
                themes[file.theme.name] = file.theme
        return Found(tuple(themes.values()), tuple(problems))


class Shelf(Struct, frozen=True):
    """The themes there are: the default one first, then by name, the one without colours at the end."""

    themes: tuple[OwnTheme, ...]

    @classmethod
    def of(cls, shipped: Iterable[OwnTheme], own: Iterable[OwnTheme]) -> Shelf:
        """A theme of the operator's takes the place of a shipped one of the same name."""
        themes = {theme.name: theme for theme in (*shipped, *own)}
        ordered = sorted(themes.values(), key=lambda theme: (theme.name != DEFAULT_THEME, theme.name))
        return cls((*ordered, plain_theme()))

    @property
    def names(self) -> list[str]:
        return [theme.name for theme in self.themes]

    def after(self, name: str) -> str:
        """The next theme's name."""
        names = self.names
        return names[(names.index(name) + 1) % len(names)] if name in names else names[0]
