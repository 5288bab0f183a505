"""The help page, made from the registry of actions and the tables of signs and words."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from .actions import action, key_lines
from .editor_keys import help_lines
from .format import words
from .glossary import WORDS
from .keymap import Keymap
from .panes.states import ALERT_SIGNS, STREAM_SIGNS, TRAINING_SIGNS

_Sections = dict[str, list[Content]]

_EDITOR_SIGNS = (
    ("!", "wrong: what and why stands beside the field"),
    ("*", "edited, not saved yet"),
    ("=", "fixed by a variable, an option or .env: it is named, and changed there"),
    ("✓", "saved, and what that did"),
    ("+ - ~", "before saving: new in the file, taken out of it, changed in it"),
)
_HINT = "/ searches  esc leaves"
_HINT_SEARCH = "enter keeps it  esc shows all"


class HelpScreen(Screen[None]):
    """Keys, signs and words on one page that scrolls and can be searched."""

    TITLE = "help"

    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background; }
    HelpScreen > VerticalScroll {
        width: 84; max-width: 100%; height: 1fr; background: $background; border: round $edge-focus; padding: 0 1;
        scrollbar-size-vertical: 1;
        border-title-color: $title; border-title-style: bold; border-subtitle-color: $muted;
    }
    HelpScreen Static { width: 1fr; height: auto; color: $foreground; background: $background; }
    HelpScreen Input {
        display: none; width: 84; max-width: 100%; height: 1; border: none; padding: 0 1; color: $value; background: $panel;
    }
    HelpScreen Input.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", show=False),
        Binding("q", "dismiss", "back", show=False),
        Binding("slash", "search", "search", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def __init__(self, keymap: Keymap | None = None) -> None:
        """`keymap`: the keys in force; the default ones without it."""
        super().__init__()
        self._keymap = keymap or Keymap()

    def sections(self) -> _Sections:
        """The lines of the page under their headings."""
        return _sections(self._keymap)

    def compose(self) -> ComposeResult:
        with VerticalScroll() as page:
            page.border_title = self.TITLE
            page.border_subtitle = _HINT
            yield Static(_text(self.sections()), markup=False)
        yield Input(placeholder="search", compact=True)

    def on_mount(self) -> None:
        for key in self._keymap.keys(action("help")):
            self._bindings.bind(key, "dismiss", show=False)  # what opens the page closes it

    def action_scroll(self, direction: str) -> None:
        page = self.query_one(VerticalScroll)
        if direction == "down":
            page.scroll_down(animate=False)
        else:
            page.scroll_up(animate=False)

    def action_search(self) -> None:
        entry = self.query_one(Input)
        entry.add_class("open")
        entry.focus()
        self.query_one(VerticalScroll).border_subtitle = _HINT_SEARCH

    def on_input_changed(self, message: Input.Changed) -> None:
        self.query_one(Static).update(_text(self.sections(), message.value))
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def on_input_submitted(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_back(self) -> None:
        """One step back: out of the search, then out of the help."""
        entry = self.query_one(Input)
        if not entry.has_class("open"):
            self.dismiss()
            return
        entry.value = ""
        entry.remove_class("open")
        page = self.query_one(VerticalScroll)
        page.border_subtitle = _HINT
        page.focus()


class EditorHelp(HelpScreen):
    """The keys and signs of the settings editor."""

    TITLE = "help: settings editor"

    def sections(self) -> _Sections:
        return {**_editor_keys(), "Signs": [_line(*sign) for sign in _EDITOR_SIGNS]}


def help_text(keymap: Keymap | None = None, wanted: str = "") -> Content:
    """The page's text. With `wanted` only the lines that have it, under their headings."""
    return _text(_sections(keymap or Keymap()), wanted)


def _sections(keymap: Keymap) -> _Sections:
    """Every action of the registry under its group, the editor's keys, every sign, every word."""
    sections = {group: [_line(keys, does) for keys, does in lines] for group, lines in key_lines(keymap.shown).items()}
    sections |= _editor_keys()
    sections["Stream states"] = _signs([(glyph, words(state.value)) for state, (glyph, _) in STREAM_SIGNS.items()])
    sections["Training states"] = _signs([(glyph, words(state.value)) for state, (glyph, _) in TRAINING_SIGNS.items()])
    sections["Alerts"] = _signs([(glyph, words(severity.value)) for severity, (glyph, _) in ALERT_SIGNS.items()])
    sections["Words"] = [_line(word, meaning) for word, meaning in WORDS]
    return sections


def _editor_keys() -> _Sections:
    return {"Settings editor": [_line(shown, meaning) for shown, meaning in help_lines()]}


def _text(sections: _Sections, wanted: str = "") -> Content:
    sought = wanted.lower().strip()
    parts: list[Content] = []
    for heading, lines in sections.items():
        kept = [line for line in lines if sought in line.plain.lower()]
        parts += [Content.assemble((f"{heading}\n", "bold $key")), *kept] if kept else []
    return Content.assemble(*parts).rstrip() if parts else Content(f"nothing in the help has {wanted.strip()!r}")


def _line(term: str, meaning: str) -> Content:
    return Content.assemble((f" {term:<10} ", "bold"), f"{meaning}\n")


def _signs(signs: list[tuple[str, str]]) -> list[Content]:
    rows = [signs[i : i + 4] for i in range(0, len(signs), 4)]
    return [Content(" " + "".join(f"{glyph} {word:<15}" for glyph, word in line).rstrip() + "\n") for line in rows]
