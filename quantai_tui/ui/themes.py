"""Themes are data: TOML files with colours and domain tokens, checked when loaded. A broken file is named and skipped."""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

from ..textfile import UnusableFile, parse_toml, read_text

DEFAULT_THEME = "harbor"
SIXTEEN_THEME = "sixteen"
PLAIN_THEME = "plain"

_BASES = ("background", "surface", "panel", "foreground", "primary", "secondary", "accent", "success", "warning", "error")


class Token(NamedTuple):
    base: str
    use: str


TOKENS: dict[str, Token] = {
    "muted": Token("secondary", "labels and all that steps back"),
    "edge": Token("secondary", "frames"),
    "edge-focus": Token("primary", "the frame of the focused pane, of lists and dialogs"),
    "title": Token("foreground", "titles of panes"),
    "value": Token("foreground", "the numbers that matter most"),
    "key": Token("primary", "keys that can be pressed"),
    "state-live": Token("success", "live, training, done"),
    "state-pending": Token("primary", "under way: dialling, repairing, a command that was sent"),
    "state-backoff": Token("warning", "waiting for the next attempt"),
    "state-failed": Token("error", "failed, refused"),
    "state-idle": Token("secondary", "off or paused"),
    "stale": Token("secondary", "numbers that are old"),
    "alert-info": Token("primary", "alerts: worth knowing, and advice"),
    "alert-warning": Token("warning", "alerts: wants attention"),
    "alert-critical": Token("error", "alerts: wants it now"),
    "scale-cap": Token("warning", "cap and floor of the scale"),
    "overflow": Token("error", "steps that overflowed"),
    "cursor": Token("accent", "the time cursor in charts"),
    "past": Token("accent", "the mark that a moment of the past is shown"),
    "frozen": Token("primary", "the mark that the screen is held still"),
    "trial": Token("warning", "settings on trial, until confirmed or undone"),
    "diff-add": Token("success", "lines that a save would add"),
    "diff-remove": Token("error", "lines that it would take away"),
    "spark-rtt": Token("primary", "chart of round trips"),
    "spark-trades": Token("success", "chart of trades a second"),
    "spark-loss": Token("accent", "chart of the loss"),
    "spark-scale": Token("success", "chart of the gradient scale"),
}
"""Every token a pane may use besides `text`: the base colour that stands in where a theme does not name it, and its use."""

_MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9-]+")
_BOLD = frozenset(
    {
        "value",
        "title",
        "key",
        "state-live",
        "state-pending",
        "state-backoff",
        "state-failed",
        "alert-critical",
        "past",
        "frozen",
        "trial",
    }
)
_DIM_WITHOUT_COLOR = frozenset({"muted", "edge", "state-idle", "stale"})
_PLAIN_REVERSE = frozenset({"state-failed", "alert-critical", "cursor", "past"})


class ThemeError(ValueError):
    """A theme file that cannot be used: which file, which key, what would be right."""


@dataclass
class OwnTheme(Theme):
    """A theme of a file; `about` says in a few words whom it is for."""

    about: str = ""


def themes_folder() -> Path:
    """Inside a wheel the themes are packed into the package; in a checkout they lie beside it."""
    package = Path(__file__).resolve().parent.parent
    packed = package / "_themes"
    return packed if packed.is_dir() else package.parent / "themes"


def read_theme(path: Path) -> OwnTheme:
    """One theme file, of at most 64 KiB.

    Colours have the form `#rrggbb`; with `ansi = true` they are names of the terminal's own (`ansi_default`, `ansi_red`,
    `ansi_bright_red`). Raises ThemeError for anything else.
    """
    try:
        data = parse_toml(read_text(path, _MAX_BYTES))
    except FileNotFoundError as error:
        raise ThemeError(f"{path.name}: there is no such file") from error
    except UnusableFile as error:
        raise ThemeError(f"{path.name}: {error}") from error
    _known_keys(path, "", data, ("name", "about", "dark", "ansi", "colors", "tokens"))
    name, dark, ansi, about = data.get("name"), data.get("dark"), data.get("ansi", False), data.get("about", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ThemeError(f"{path.name}: name must be one word of small letters, digits and hyphens, got {name!r}")
    if name == PLAIN_THEME:
        raise ThemeError(f"{path.name}: the name {PLAIN_THEME!r} is kept for the theme without colours")
    if not isinstance(about, str):
        raise ThemeError(f"{path.name}: about must be text, got {about!r}")
    if not isinstance(dark, bool):
        raise ThemeError(f"{path.name}: dark must be true or false, got {dark!r}")
    if not isinstance(ansi, bool):
        raise ThemeError(f"{path.name}: ansi must be true or false, got {ansi!r}")
    colors = _colors(path, "colors", data.get("colors", {}), _BASES, ansi=ansi)
    missing = [base for base in _BASES if base not in colors]
    if missing:
        raise ThemeError(f"{path.name}: [colors] lacks {', '.join(missing)}")
    tokens = _colors(path, "tokens", data.get("tokens", {}), tuple(TOKENS), ansi=ansi)
    grounds = {f"ansi-{base}": colors[base] for base in ("background", "foreground")} if ansi else {}
    variables = {**token_defaults(colors), **tokens, **_widget_colors(colors), **grounds}
    return _theme(name, colors, variables, dark=dark, ansi=ansi, about=about)


def few_colors(environ: Mapping[str, str]) -> bool:
    """Whether no more than sixteen colours will be sent to the terminal that `environ` describes."""
    console = Console(file=io.StringIO(), force_terminal=True, _environ=environ)
    return console.color_system in (None, "standard", "windows")


def token_defaults(colors: Mapping[str, str]) -> dict[str, str]:
    return {name: colors[token.base] for name, token in TOKENS.items()}


def markdown_table() -> str:
    """The tokens as the README shows them."""
    lines = ["| token | is used for | without it |", "|---|---|---|"]
    lines += [f"| `{name}` | {token.use} | `{token.base}` |" for name, token in TOKENS.items()]
    return "\n".join(lines)


def plain_theme() -> OwnTheme:
    """The terminal's own colours and no others: what a non-empty NO_COLOR asks for."""
    default = "ansi_default"
    variables = dict.fromkeys(TOKENS, default) | {
        "ansi-background": default,
        "ansi-foreground": default,
        "border": default,
        "border-blurred": default,
        "block-cursor-foreground": default,
        "block-cursor-background": default,
        "block-cursor-text-style": "reverse",
        "input-cursor-foreground": default,
        "input-cursor-background": default,
        "input-cursor-text-style": "reverse",
        "input-selection-foreground": default,
        "input-selection-background": default,
    }
    return _theme(PLAIN_THEME, dict.fromkeys(_BASES, default), variables, ansi=True, about="no colours at all")


def _theme(
    name: str, colors: Mapping[str, str], variables: dict[str, str], *, dark: bool = True, ansi: bool = False, about: str = ""
) -> OwnTheme:
    theme = OwnTheme(name=name, primary=colors["primary"], dark=dark, ansi=ansi, variables=variables, about=about)
    for base in _BASES:
        setattr(theme, base, colors[base])
    return theme


@contextmanager
def without_no_color() -> Iterator[None]:
    """Hide it from Textual, which counts even an empty one and answers with grey true colour; ours is the plain theme."""
    kept = os.environ.pop("NO_COLOR", None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ["NO_COLOR"] = kept


_AREA_STRENGTH = 0.45
_DEFAULT_COLOR = -1  # what Textual calls the terminal's own foreground


class Palette:
    """Theme tokens as drawing styles, made once per theme.

    Each `spark-*` token and `overflow` has a quiet `-area` shade; `title-focus` is the title in the frame of the focused pane.
    """

    def __init__(self, variables: Mapping[str, str], *, plain: bool) -> None:
        ground = Color.parse(variables["background"])
        self._styles: dict[str, Style] = {}
        for token in ("text", *TOKENS):
            color = Color.parse(variables["foreground" if token == "text" else token])
            style = Style(color=color.rich_color, bgcolor=ground.rich_color, bold=token in _BOLD or None)
            if color.ansi == _DEFAULT_COLOR and token in _DIM_WITHOUT_COLOR:
                style += Style(dim=True)
            if plain and token in _PLAIN_REVERSE:
                style += Style(reverse=True)
            self._styles[token] = style
            shade = color if plain or color.ansi is not None else ground.blend(color, _AREA_STRENGTH)
            self._styles[f"{token}-area"] = Style(
                color=shade.rich_color, bgcolor=ground.rich_color, dim=plain or color.ansi is not None or None
            )
        self._styles["title-focus"] = self._styles["edge-focus"] + Style(bold=True)

    def __getitem__(self, token: str) -> Style:
        return self._styles[token]


def _widget_colors(colors: Mapping[str, str]) -> dict[str, str]:
    """Textual's own widgets, drawn without their default tints so that text keeps its contrast."""
    return {
        "border": colors["primary"],
        "border-blurred": colors["secondary"],
        "block-cursor-foreground": colors["background"],
        "block-cursor-background": colors["primary"],
        "block-cursor-text-style": "none",
        "input-cursor-background": colors["foreground"],
        "input-cursor-foreground": colors["background"],
    }


def _known_keys(path: Path, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ThemeError(f"{path.name}: unknown key {where}{key!r}{hint}")


def _colors(path: Path, section: str, table: Any, known: tuple[str, ...], *, ansi: bool) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ThemeError(f"{path.name}: [{section}] must be a table")
    _known_keys(path, f"[{section}] ", table, known)
    for key, value in table.items():
        try:
            valid = isinstance(value, str) and value.startswith("ansi_" if ansi else "#") and Color.parse(value).a == 1
        except ColorParseError:
            valid = False
        if not valid:
            raise ThemeError(
                f"{path.name}: [{section}] {key} must be a colour like {'ansi_red' if ansi else '#6db5d8'!r}, got {value!r}"
            )
    return dict(table)
