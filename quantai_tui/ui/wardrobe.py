"""Which theme is worn: the one asked for, the engine's setting, the one chosen by key; none where NO_COLOR is set."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from textual.app import App

from ..link.messages import Ack, CommandName, SaveResult, SettingsForm
from .actions import Handler
from .cells import clip
from .format import clean
from .theme_files import Found, Shelf, ThemeFiles, user_themes_folder
from .themes import PLAIN_THEME, SIXTEEN_THEME, Palette, themes_folder

if TYPE_CHECKING:
    from textual.theme import Theme

    from .app import DashboardApp

_LOOK_PERIOD_S = 0.8  # a changed file is read at the second look: within 2 s
_MOST_TOLD = 6
_LONGEST_TOLD = 200
_SETTING = "THEME"


class Wardrobe:
    """The themes of one dashboard. `palette` is made anew for each theme."""

    def __init__(
        self,
        app: DashboardApp,
        folder: Path | None,
        *,
        wanted: str | None,
        ask: Callable[..., Awaitable[Ack]],
        few_colors: bool = False,
    ) -> None:
        """Registers the themes with the app and puts one on: `wanted`, else one that suits a terminal of `few_colors`.

        `ask` sends a command to the engine.
        """
        self._app = app
        self._ask = ask
        self._colorless = bool(os.environ.get("NO_COLOR"))
        folder = folder or themes_folder()
        shipped = ThemeFiles(folder).look() or Found()
        self._shipped = shipped.themes
        self._own_files = ThemeFiles(user_themes_folder())
        own = self._own_files.look() or Found()
        self._shelf = Shelf.of(self._shipped, own.themes)
        for item in self._shelf.themes:
            app.register_theme(item)
        names = self._shelf.names
        self._told: frozenset[str] = frozenset()
        self._problems = [*shipped.problems, *own.problems]
        if names == [PLAIN_THEME]:
            self._problems.append(f"no theme in {folder}: plain terminal colours are used")
        if wanted and wanted not in names:
            self._problems.append(f"there is no theme {wanted!r}; there are {', '.join(names)}")
        first = SIXTEEN_THEME if few_colors and SIXTEEN_THEME in names else names[0]
        self._chosen = PLAIN_THEME if self._colorless else wanted if wanted in names else first
        app.theme = self._chosen
        self._previewing = False
        self._looking = False
        self._followed = ""
        self._awaited = ""
        self._gone = ""
        self._fixed = self._colorless or wanted is not None
        self._worn: Theme | None = None
        self._palette = self.palette

    def handlers(self) -> dict[str, Handler]:
        return {"pick-theme": self._pick, "next-theme": self._next}

    @property
    def palette(self) -> Palette:
        if self._worn is not self._app.current_theme:
            self._worn = self._app.current_theme
            self._palette = Palette(self._app.get_css_variables(), plain=self._worn.name == PLAIN_THEME)
        return self._palette

    @property
    def names(self) -> list[str]:
        """The themes to choose from."""
        return self._shelf.names

    def begin(self) -> None:
        """After the first frame: say what is wrong with theme files, and look after the operator's own from now on."""
        self._tell(self._problems)
        self._told = frozenset(self._problems)
        self._app.set_interval(_LOOK_PERIOD_S, self.look_again)

    def look_again(self) -> None:
        """Read the operator's own themes again where they have changed; a look that is not over yet is not doubled."""
        if not self._looking:
            self._looking = True
            self._app.run_worker(self._look(), group="themes")

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._own_files.look)
        finally:
            self._looking = False
        if found is not None:
            self._restock(found)

    def _restock(self, found: Found) -> None:
        self._shelf = Shelf.of(self._shipped, found.themes)
        for item in self._shelf.themes:
            if self._app.get_theme(item.name) != item:
                self._app.register_theme(item)
                if item.name == self._app.theme:
                    self._app.mutate_reactive(App.theme)
        self._tell(problem for problem in found.problems if problem not in self._told)
        self._told = frozenset(found.problems)
        if self._awaited in self.names:
            self._put_on(self._awaited)
        if self._chosen in self.names:
            self._gone = ""
        elif self._gone != self._chosen:
            self._gone = self._chosen
            self._app.say(f"theme: the file of {self._gone!r} is gone; it stays on until another is chosen", "alert-warning")

    def _tell(self, problems: Iterable[str]) -> None:
        lines = [clip(clean(problem), _LONGEST_TOLD) for problem in problems]
        if len(lines) > _MOST_TOLD:
            lines[_MOST_TOLD:] = [f"and {len(lines) - _MOST_TOLD} more"]
        if lines:
            self._app.notify("\n".join(lines), title="Themes", severity="warning", markup=False)

    def follow(self, wanted: str) -> None:
        """Wear what the engine's settings say, each time they say something new."""
        if wanted == self._followed or self._fixed:
            return
        self._followed = wanted
        if wanted in self.names:
            self._put_on(wanted)
        elif wanted:
            self._awaited = wanted
            self._app.say(f"theme: there is no {wanted!r}; there are {', '.join(self.names)}", "alert-warning")

    def wear(self, name: str) -> None:
        """Put one on, until the settings name another."""
        if self._colorless:
            self._app.say("theme: NO_COLOR is set, so no theme is used")
            return
        self._put_on(name)
        self._app.say(f"theme: {name}, until you leave; {_SETTING} in the settings makes it last")

    def _put_on(self, name: str) -> None:
        self._chosen = name
        self._awaited = self._gone = ""
        if not self._previewing:
            self._app.theme = name

    def _next(self) -> None:
        self.wear(self._shelf.after(self._app.theme))

    def _pick(self) -> None:
        from .theme_picker import ThemePicker

        if self._colorless:
            self._app.say("theme: NO_COLOR is set, so no theme is used")
            return
        saved: list[str] = []

        def kept(name: str | None) -> None:
            self._previewing = False
            if name and name in saved:
                self._put_on(name)
                self._app.say(f"theme: {name}; saving …", "state-pending")
                self._app.run_worker(self._save(name), group="commands")
            elif name:
                self.wear(name)
            else:
                self._app.theme = self._chosen
                self._app.tick()

        self._previewing = True
        self._app.push_screen(ThemePicker(self._shelf.themes, self._chosen, preview=self._preview, save=saved.append), kept)

    def _preview(self, name: str) -> None:
        if self._previewing and self._app.get_theme(name) is not None:
            self._app.theme = name

    async def _save(self, name: str) -> None:
        """Write it into the engine's settings; what stands in the way is said, and the theme stays on all the same."""
        why_not = await self._why_not_saved(name)
        if why_not:
            self._app.say(f"theme: {name} is on, but not saved: {why_not}", "state-failed")
        else:
            self._app.say(f"theme: {name}, saved as {_SETTING} in the settings", "state-live")

    async def _why_not_saved(self, name: str) -> str:
        ack = await self._ask(CommandName.SETTINGS_DESCRIBE)
        if not ack.ok:
            return ack.message
        try:
            form = msgspec.convert(ack.data, SettingsForm)
            locked = next((item.locked for item in form.fields if item.name == _SETTING), "")
            if locked:
                return f"{_SETTING} is fixed by {locked}"
            ack = await self._ask(CommandName.SETTINGS_SAVE, values={_SETTING: name}, revision=form.revision)
            if ack.data is None:
                return "" if ack.ok else ack.message
            result = msgspec.convert(ack.data, SaveResult)
        except msgspec.ValidationError as error:
            return f"the engine's answer cannot be read: {error}"
        if result.saved:
            return ""
        return "; ".join(problem.message for problem in result.problems) or ack.message or "the file was changed meanwhile"
