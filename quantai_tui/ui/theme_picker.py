"""The list of themes. The whole screen wears the one under the cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList

from .cells import clip
from .chooser import Choice, Chooser
from .format import clean
from .themes import PLAIN_THEME, OwnTheme

_SAMPLE = (
    (" ● ", "state-live"),
    ("◆ ", "state-backoff"),
    ("✗ ", "state-failed"),
    ("■ ", "alert-critical"),
    ("▂▃▅", "spark-rtt"),
    ("▆▅▃", "spark-loss"),
    ("▂▅▇", "spark-scale"),
    (" ", "text"),
)
_SAMPLE_CELLS = sum(len(text) for text, _ in _SAMPLE)


class ThemePicker(Chooser):
    """Dismisses with the name of the theme to keep, with an empty text when the former one is to come back.

    It stands in a corner, away from where toasts appear, and lets the dashboard behind it be seen in the theme's own colours.
    """

    DEFAULT_CSS = """
    ThemePicker { align: left bottom; background: transparent; }
    ThemePicker > Vertical { width: 58; max-width: 100%; height: auto; max-height: 80%; }
    ThemePicker > Vertical { border-subtitle-color: $muted; }
    ThemePicker OptionList { height: auto; }
    ThemePicker #about { height: 1; }
    ThemePicker #keys { height: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f2,ctrl+s", "save", "save", show=False, priority=True)]

    def __init__(
        self, themes: Sequence[OwnTheme], worn: str, *, preview: Callable[[str], None], save: Callable[[str], None]
    ) -> None:
        """`preview` is told each theme that the cursor comes to, `save` the one to be written into the settings."""
        choices = [Choice(theme.name, theme.name, theme.about, about=_told(theme)) for theme in themes]
        super().__init__("theme", choices, does="keeps it", nothing="no theme has all these words", start=worn)
        self._themes = {theme.name: theme for theme in themes}
        self._preview = preview
        self._save = save
        self._name_cells = max(len(clip(theme.name, 16)) for theme in themes)

    def on_mount(self) -> None:
        """The screen below is repainted for the theme alone: its numbers are those of the moment at which the list opened."""
        self.query_one(Vertical).border_subtitle = "the numbers stand still meanwhile"

    def hint(self) -> str:
        return "enter keeps it here  F2 saves it as the setting THEME\nesc takes it back  ↑ ↓ look  type to filter"

    def line(self, choice: Choice, width: int) -> Content:
        name = clip(clean(choice.name), self._name_cells)
        room = max(0, width - self._name_cells - _SAMPLE_CELLS - 3)
        return Content.assemble(
            (f"{name:<{self._name_cells}} ", "bold"),
            *_sample(self._themes[choice.id]),
            f" {clip(clean(choice.text), room)}",
        )

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Beside what the list itself does then."""
        if message.option.id:
            self._preview(message.option.id)

    def action_save(self) -> None:
        if self.chosen:
            self._save(self.chosen)
            self.dismiss(self.chosen)


def _told(theme: OwnTheme) -> str:
    kind = "dark" if theme.dark else "light"
    return f"{theme.name}: {theme.about or 'a theme of your own'}" + ("" if theme.ansi else f" ({kind})")


def _sample(theme: OwnTheme) -> list[tuple[str, str]]:
    """Its signs and charts in its own colours on its own ground."""
    if theme.name == PLAIN_THEME:
        return [(text, "") for text, _ in _SAMPLE]
    colors = {**theme.variables, "text": theme.foreground or ""}
    return [(text, f"{colors[token]} on {theme.background}") for text, token in _SAMPLE]
