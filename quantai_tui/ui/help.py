"""The help page, made from the registry of actions and the tables of signs."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from .actions import by_group
from .editor_keys import help_lines
from .format import words
from .panes.states import ALERT_SIGNS, STREAM_SIGNS, TRAINING_SIGNS

_WORDS = (
    ("whole", "every trade id up to the last one is stored"),
    ("missing", "ids that exist and have not arrived; they are fetched again"),
    ("whole to", "the id up to which nothing is missing; training reads no further"),
    ("silent", "acknowledged by the venue, which then sends nothing of it"),
    ("bad", "messages that were not understood; z on connection shows them"),
    ("dials left", "new connections that the venue's limit still allows"),
    ("headroom", "octaves that the scale may rise before the largest recent gradient overflows"),
    ("underflow", "share of gradient elements that are too small for fp16 at this scale"),
    ("maj", "accuracy of always saying what is most frequent (majority)"),
    ("pers", "accuracy of saying that the last move goes on (persistence)"),
    ("logit", "accuracy of a logistic regression on the same windows (logistic)"),
    ("p", "chance that the lead over the best of them is luck; below 0.05 it counts"),
    ("ece", "expected calibration error: how far the stated probabilities are off"),
    ("by itself", "training has paused because resets did not help; space goes on"),
    ("▶ gpu", "our training runs on it; ecc: its uncorrected memory errors"),
    ("◆ rank", "it holds the others up: each step waits for the slowest"),
    ("STALE", "nothing new from the engine for so long; old numbers are grey"),
    ("–", "not known yet"),  # noqa: RUF001 (the sign that the panes show)
)


class HelpScreen(Screen[None]):
    """Keys, signs and words on one scrollable page."""

    TITLE = "help"

    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background; }
    HelpScreen > VerticalScroll {
        width: 84; max-width: 100%; height: 100%; background: $background; border: round $edge-focus; padding: 0 1;
        scrollbar-size-vertical: 1;
        border-title-color: $title; border-title-style: bold; border-subtitle-color: $muted;
    }
    HelpScreen Static { width: 1fr; height: auto; color: $foreground; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "back", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll() as page:
            page.border_title = self.TITLE
            page.border_subtitle = "esc leaves"
            yield Static(self.text(), markup=False)

    def text(self) -> Content:
        return help_text()

    def action_scroll(self, direction: str) -> None:
        page = self.query_one(VerticalScroll)
        if direction == "down":
            page.scroll_down(animate=False)
        else:
            page.scroll_up(animate=False)


class EditorHelp(HelpScreen):
    """The keys and signs of the settings editor."""

    TITLE = "help: settings editor"

    def text(self) -> Content:
        return Content.assemble(*_editor_lines(), _heading("Signs"), *(_line(*sign) for sign in _EDITOR_SIGNS)).rstrip()


_EDITOR_SIGNS = (
    ("!", "wrong: what and why stands beside the field"),
    ("*", "edited, not saved yet"),
    ("=", "fixed by a variable, an option or .env: it is named, and changed there"),
    ("✓", "saved, and what that did"),
    ("+ - ~", "before saving: new in the file, taken out of it, changed in it"),
)


def _editor_lines() -> list[Content]:
    return [_heading("Settings editor"), *(_line(shown, meaning) for shown, meaning in help_lines())]


def help_text() -> Content:
    """The page's text. Every action of the registry is on it, under its group."""
    parts: list[Content | str] = []
    for group, items in by_group().items():
        parts.append(_heading(group))
        parts += [_line(item.key_text, item.help) for item in items]
    parts += _editor_lines()
    parts.append(_heading("Stream states"))
    parts.append(_signs([(glyph, words(state.value)) for state, (glyph, _) in STREAM_SIGNS.items()]))
    parts.append(_heading("Training states"))
    parts.append(_signs([(glyph, words(state.value)) for state, (glyph, _) in TRAINING_SIGNS.items()]))
    parts.append(_heading("Alerts"))
    parts.append(_signs([(glyph, words(severity.value)) for severity, (glyph, _) in ALERT_SIGNS.items()]))
    parts.append(_heading("Words"))
    parts += [_line(word, meaning) for word, meaning in _WORDS]
    return Content.assemble(*parts).rstrip()


def _heading(text: str) -> Content:
    return Content.assemble((f"{text}\n", "bold $key"))


def _line(term: str, meaning: str) -> Content:
    return Content.assemble((f"  {term:<10}", "bold"), f"{meaning}\n")


def _signs(signs: list[tuple[str, str]]) -> Content:
    rows = [signs[i : i + 4] for i in range(0, len(signs), 4)]
    return Content("".join("  " + "".join(f"{glyph} {word:<15}" for glyph, word in line).rstrip() + "\n" for line in rows))
