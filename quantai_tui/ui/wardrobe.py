"""Which theme is worn: the one asked for, the engine's setting, the one chosen by key; none where NO_COLOR is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .actions import Handler
from .themes import PLAIN_THEME, Palette, load_themes

if TYPE_CHECKING:
    from .app import DashboardApp


class Wardrobe:
    """The themes of one dashboard. `palette` is made anew for each theme."""

    def __init__(self, app: DashboardApp, folder: Path | None, *, wanted: str | None) -> None:
        """Registers the themes with the app and puts one on."""
        self._app = app
        self._colorless = bool(os.environ.get("NO_COLOR"))
        self._shelf = load_themes(folder, wanted=wanted)
        for item in self._shelf.themes:
            app.register_theme(item)
        app.theme = PLAIN_THEME if self._colorless else self._shelf.choice
        self._followed = ""
        self._fixed = self._colorless or wanted is not None
        self._worn = ""
        self._palette = self.palette

    def handlers(self) -> dict[str, Handler]:
        return {"next-theme": self._next}

    @property
    def palette(self) -> Palette:
        if self._worn != self._app.theme:
            self._worn = self._app.theme
            self._palette = Palette(self._app.get_css_variables(), plain=self._worn == PLAIN_THEME)
        return self._palette

    def say_problems(self) -> None:
        if self._shelf.problems:
            self._app.notify("\n".join(self._shelf.problems), title="Themes", severity="warning", markup=False)

    def follow(self, wanted: str) -> None:
        """Wear what the engine's settings say, each time they say something new."""
        if wanted == self._followed or self._fixed:
            return
        self._followed = wanted
        if wanted in self._shelf.names:
            self._app.theme = wanted
        elif wanted:
            self._app.say(f"theme: there is no {wanted!r}; there are {', '.join(self._shelf.names)}", "alert-warning")

    @property
    def names(self) -> list[str]:
        """The themes to choose from."""
        return self._shelf.names

    def wear(self, name: str) -> None:
        """Put one on, until the settings name another."""
        if self._colorless:
            self._app.say("theme: NO_COLOR is set, so no theme is used")
            return
        self._app.theme = name
        self._app.say(f"theme: {name}")

    def _next(self) -> None:
        self.wear(self._shelf.after(self._app.theme))
