"""Keys that the operator has moved: which of them are taken over, and what is wrong with the others.

Textual takes any keymap. The loser of a clash is then out of reach without a word, and a key that tmux or the terminal keeps for
itself never arrives. So all that is checked here, before it is set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from msgspec import Struct, field
from textual.keys import REPLACED_KEYS, Keys, _character_to_key, format_key, key_to_character

from .actions import ACTIONS, Action, action

_SETTING = "KEYS"

TAKEN_ELSEWHERE: dict[str, str] = {
    "ctrl+b": "tmux keeps it for itself",
    "ctrl+s": "it stops the output of many terminals (flow control)",
    "ctrl+q": "it lets the output of many terminals go on (flow control)",
    "ctrl+c": "it always leaves",
    "ctrl+z": "it always stops the dashboard until fg, as it does every program",
    "ctrl+m": "terminals send enter for it",
    "ctrl+j": "terminals send it for enter",
    "ctrl+i": "terminals send tab for it",
    "ctrl+h": "terminals send backspace for it",
    "ctrl+left_square_bracket": "terminals send esc for it",
    "ctrl+space": "terminals send a zero byte for it, which often goes astray",
    "ctrl+at": "terminals send a zero byte for it, which often goes astray",
}
"""Keys that cannot be given to an action, and what becomes of them."""

_NAMED = frozenset(key.value for key in Keys if key.value[0] != "<" and key.value not in ("return", "ctrl-at", "ctrl+@"))
_SPELLINGS = {"esc": "escape", "return": "enter", "pgup": "pageup", "pgdn": "pagedown", "del": "delete"}
_SPELLINGS |= {"←": "left", "→": "right", "↑": "up", "↓": "down"}
_MODIFIERS = frozenset({"ctrl", "shift", "alt", "super", "hyper", "meta"})
_LIFELINES = frozenset({"quit", "help", "palette"})
_CTRL_DIGIT = re.compile(r"ctrl\+(shift\+)?[0-9]")
_RARE_KEY = re.compile(r"(.+\+)?f(1[3-9]|2[0-4])")


class Keymap(Struct, frozen=True):
    """The keys in force. `moved` holds the actions whose key is not the default, by id.

    `problems` says what of the setting is not taken over, `warnings` what is and may not work everywhere; one line each.
    """

    moved: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def keys(self, item: Action) -> tuple[str, ...]:
        """The names of an action's keys."""
        return (self.moved[item.id],) if item.id in self.moved else item.keys

    def shown(self, item: Action) -> str:
        """An action's key as a person reads it."""
        return spelled(self.moved[item.id]) if item.id in self.moved else item.key_text


def resolve(pairs: Sequence[str]) -> Keymap:
    """What comes of `action=key` pairs. A pair that cannot be followed leaves that action its default key, and is told."""
    wanted: dict[str, str] = {}
    problems: list[str] = []
    for pair in pairs:
        identifier, _, text = pair.partition("=")
        key = named(text)
        problem = _obstacle(identifier, text, key) or ("it is there twice" if identifier in wanted else "")
        if problem:
            problems.append(f"{_SETTING}: {pair}: {problem}")
            continue
        wanted[identifier] = key
    problems += _settle(wanted)
    moved = {identifier: key for identifier, key in wanted.items() if (key,) != action(identifier).keys}
    doubts = {identifier: _doubt(key) for identifier, key in moved.items()}
    warnings = [f"{_SETTING}: {name}={spelled(moved[name])} is taken, but {doubt}" for name, doubt in doubts.items() if doubt]
    return Keymap(moved, tuple(problems), tuple(warnings))


def check_defaults(actions: Sequence[Action] = ACTIONS) -> list[str]:
    """What is wrong with the registry's own keys, by the rules that the operator's are held to."""
    found = []
    owners: dict[str, str] = {}
    for item in actions:
        for key in item.keys:
            if named(key) != key:
                found.append(f"{item.id}: {key} is no key's name")
            if key in TAKEN_ELSEWHERE and not item.fixed:
                found.append(f"{item.id}: {key}: {TAKEN_ELSEWHERE[key]}")
            if _doubt(key):
                found.append(f"{item.id}: {key}: {_doubt(key)}")
            if key in owners:
                found.append(f"{item.id}: {key} is {owners[key]}'s")
            owners[key] = item.id
    return found


def named(text: str) -> str:
    """The name by which Textual knows a key written as itself, by its name or in a usual short form; "" for what is no key."""
    head, plus, last = text[:-1].rpartition("+")
    last += text[-1:]
    modifiers = sorted(head.lower().split("+")) if plus else []
    if len(last) > 1 or last in _SPELLINGS:
        last = _SPELLINGS.get(last.lower(), last.lower())
        character = None if last in _NAMED else key_to_character(REPLACED_KEYS.get(last, last))
        if character is not None and character.isascii() and character.isprintable():
            last = _character_to_key(character)
        elif last not in _NAMED:
            return ""
    elif last.isalnum() or (last.isascii() and last.isprintable() and last.strip()):
        last = _character_to_key(last.lower() if "ctrl" in modifiers else last)
    else:
        return ""
    fits = set(modifiers) <= _MODIFIERS and len(set(modifiers)) == len(modifiers)
    key = "+".join([*modifiers, last])
    if modifiers == ["shift"] and key not in _NAMED:
        return ""  # a terminal sends the character that shift makes of it
    return key if fits else ""


def spelled(key: str) -> str:
    """A key's name as it is shown: `?`, `esc`, `ctrl+r`."""
    *modifiers, last = key.split("+")
    return "+".join([*modifiers, format_key(REPLACED_KEYS.get(last, last)) if last not in ("enter", "backspace") else last])


def _doubt(key: str) -> str:
    """Why a key may not arrive from every terminal; empty when it does."""
    if key == "ctrl+a":
        return "screen keeps it for itself, and so does a tmux that is set up like it"
    if _CTRL_DIGIT.fullmatch(key):
        return "most terminals send the digit alone, or nothing"
    if _RARE_KEY.fullmatch(key):
        return "few keyboards have it"
    if key.startswith("alt+"):
        return "many terminals and desktops use alt themselves"
    return "few terminals send it, and fewer through SSH" if "+" in key and key not in _NAMED else ""


def _obstacle(identifier: str, text: str, key: str) -> str:
    """Why an action cannot have a key, whoever else wants it; empty when it can."""
    known = [item.id for item in ACTIONS]
    if identifier not in known:
        near = difflib.get_close_matches(identifier, known, 1, 0.5)
        return f"there is no action {identifier!r}" + (f"; is it {near[0]}?" if near else "; the palette names them")
    if action(identifier).fixed:
        return f"{identifier} keeps {action(identifier).key_text}, so that there is always a way out"
    if not key:
        if text.lower().startswith("shift+") and len(text) == len("shift+x"):
            return f"terminals send a character for it; write {text[-1].upper()}"
        near = difflib.get_close_matches(text.lower(), sorted(_NAMED), 1, 0.6)
        return f"there is no key {text!r}" + (f"; is it {near[0]}?" if near else "; as in R, f5, ctrl+r, question_mark")
    if key in TAKEN_ELSEWHERE:
        return f"{TAKEN_ELSEWHERE[key]}; {identifier} keeps {action(identifier).key_text}, choose another"
    if identifier in _LIFELINES and _doubt(key):
        return f"{_doubt(key)}, and {identifier} must be in reach everywhere; it keeps {action(identifier).key_text}"
    return ""


def _settle(wanted: dict[str, str]) -> list[str]:
    """Take out of `wanted` what clashes, until each key does one thing. A key stays with who has it; then the first wins."""
    problems = []
    while (clash := _clash(wanted)) is not None:
        loser, owner = clash
        key = spelled(wanted.pop(loser))
        problems.append(
            f"{_SETTING}: {loser}={key}: {key} is {owner}'s; {loser} keeps {action(loser).key_text}. "
            f"Give {owner} another key too, or choose a free one"
        )
    return problems


def _clash(wanted: dict[str, str]) -> tuple[str, str] | None:
    """An action that wants a key which is another's, and that other."""
    owners = {key: item.id for item in ACTIONS if item.id not in wanted for key in item.keys}
    for identifier, key in wanted.items():
        if owners.setdefault(key, identifier) != identifier:
            return identifier, owners[key]
    return None
