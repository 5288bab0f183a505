"""The keys in force: the defaults with what the operator has moved, and the two pages that list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .actions import Handler
from .keymap import Keymap, resolve

if TYPE_CHECKING:
    from .app import DashboardApp
    from .wardrobe import Wardrobe


class Keyboard:
    """Follows the engine's setting KEYS."""

    def __init__(self, app: DashboardApp, wardrobe: Wardrobe) -> None:
        self._app = app
        self._wardrobe = wardrobe
        self._followed: tuple[str, ...] = ()
        self.keymap = Keymap()

    def handlers(self) -> dict[str, Handler]:
        return {"help": self._open_help, "palette": self._open_palette}

    def follow(self, pairs: tuple[str, ...]) -> None:
        """Take over what the settings say, each time they say something new; what cannot be followed is said."""
        if pairs == self._followed:
            return
        self._followed = pairs
        self.keymap = resolve(pairs)
        self._app.set_keymap(self.keymap.moved)
        self._app.dashboard.rekey(self.keymap)
        said = [*self.keymap.problems, *self.keymap.warnings]
        if said:
            self._app.notify("\n".join(said), title="Keys", severity="warning", markup=False, timeout=20)

    def _open_help(self) -> None:
        from .help import HelpScreen

        self._app.push_screen(HelpScreen(self.keymap), lambda _: self._app.tick())

    def _open_palette(self) -> None:
        from .palette import THEME, palette

        def chosen(choice: str | None) -> None:
            self._app.tick()
            if choice and choice.startswith(THEME):
                self._wardrobe.wear(choice.removeprefix(THEME))
            elif choice:
                self._app.action_do(choice)

        self._app.push_screen(palette(self._app.view(), self.keymap, self._wardrobe.names), chosen)
