"""The palette: every action by its words, whether or not its key is known, and the themes by name."""

from __future__ import annotations

from collections.abc import Sequence

from .actions import ACTIONS
from .chooser import Choice, Chooser
from .keymap import Keymap
from .possible import hindrance, labels_now
from .view import View

THEME = "theme: "


def palette(view: View, keymap: Keymap, themes: Sequence[str]) -> Chooser:
    """Dismisses with an action's id, or with `THEME` and a theme's name. What cannot be done now says why."""
    labels = labels_now(view)
    choices = []
    for item in ACTIONS:
        if item.id == "palette":
            continue
        why_not = hindrance(item, view)
        text = f"not now: {why_not} ({item.help[0].lower()}{item.help[1:]})" if why_not else item.help
        about = f"{text}; its name in KEYS: {item.id}"
        label = labels.get(item.id) or item.label
        choices.append(Choice(item.id, label, text, keymap.shown(item), bool(why_not), about))
    choices += [Choice(f"{THEME}{name}", f"{THEME}{name}", "Wear this theme until the settings name another") for name in themes]
    return Chooser("palette", choices, does="does it", nothing="no action has all these words")
