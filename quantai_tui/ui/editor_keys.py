"""The keys of the settings editor. Its bindings, its key line, its help and the README's table are all made from this list."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct
from textual.binding import Binding

from .cells import Row, Span, fitted


class Place(Enum):
    """Where a key means something: letters typed into a field are text."""

    LIST = "list"
    TEXT = "text"
    BOTH = "list and text"
    TRIAL = "trial"
    SEARCH = "search"


class Key(Struct, frozen=True):
    """`keys` as Textual names them; `call` is an action of the editor, empty where a widget has the key of itself.

    `rank` is its place in the key line (0: not there; 1 stays longest).
    """

    keys: str
    shown: str
    call: str
    label: str
    help: str
    place: Place = Place.LIST
    rank: int = 0
    priority: bool = False


EDITOR_KEYS: tuple[Key, ...] = (
    Key("enter", "enter", "", "edit", "Type into the setting under the cursor", rank=2),
    Key("space", "space", "cycle", "next choice", "Next value of a setting that has few", rank=8),
    Key("ctrl+u", "ctrl+u", "", "clear", "Empty the field", Place.TEXT, 3),
    Key("enter,escape", "enter esc", "", "list", "Back to the list; what was typed stays", Place.TEXT, 1),
    Key("u", "u", "undo", "as it was", "Take back what was typed into this setting", rank=9),
    Key("D,delete", "D", "reset", "default", "Take the setting out of the file, so that its default counts", rank=10),
    Key("tab", "tab", "jump(1)", "next marked", "Next wrong setting, or next edited one when none is wrong", Place.BOTH, 6, True),
    Key("shift+tab", "shift+tab", "jump(-1)", "", "The one before", Place.BOTH, 0, True),
    Key("slash", "/", "search", "search", "Show the settings that have all these words", rank=5),
    Key("enter", "enter", "", "to the list", "To what was found", Place.SEARCH, 1),
    Key("escape", "esc", "", "all settings", "End the search", Place.SEARCH, 2),
    Key("w", "w", "save", "save", "Show what would change, then save", rank=3),
    Key(
        "f2,ctrl+s",
        "F2",
        "save",
        "save",
        "The same, also while typing (ctrl+s: where it comes through)",
        Place.BOTH,
        4,
        True,
    ),
    Key("U", "U", "undo_save", "undo save", "Undo the newest save that is not undone yet", rank=11),
    Key("e", "e", "raw", "raw file", "The file itself in $VISUAL, $EDITOR or vi", rank=7),
    Key("r", "r", "reread", "", "Ask the engine again; edits stay on top"),
    Key("y", "y", "keep", "keep", "Keep settings on trial", Place.TRIAL, 2),
    Key("n", "n", "undo_trial", "undo", "Undo settings on trial", Place.TRIAL, 3),
    Key("question_mark,f1", "?", "help", "help", "These keys", rank=6),
    Key("escape,q", "esc", "leave", "back", "One step back; unsaved edits are asked about", rank=1),
)
_OF_THE_LIST = frozenset({Place.LIST, Place.BOTH})
_WHERE = {Place.TEXT: "while typing", Place.SEARCH: "in the search", Place.TRIAL: "while there are"}


def bindings() -> list[Binding]:
    return [Binding(key.keys, key.call, key.label, show=False, priority=key.priority) for key in EDITOR_KEYS if key.call]


def key_line(place: Place, width: int, *, trial: bool = False) -> Row:
    """The most important keys of a place, as many as fit, in the order of the list."""
    shown: list[Key] = []
    for key in sorted(_offered(place, trial=trial), key=lambda key: key.rank):
        if sum(len(other.shown) + len(other.label) + 3 for other in [*shown, key]) - 2 <= width:
            shown.append(key)
    return fitted(width, *([*_spans(key)] for key in EDITOR_KEYS if key in shown))


def _offered(place: Place, *, trial: bool) -> list[Key]:
    wanted: set[Place] = {place} if place is Place.SEARCH else {place, Place.BOTH}
    if trial and place is Place.LIST:
        wanted.add(Place.TRIAL)
    offered = [key for key in EDITOR_KEYS if key.rank and key.label and key.place in wanted]
    both_save = place is Place.LIST and len([key for key in offered if key.call == "save"]) > 1
    return [key for key in offered if not (both_save and key.place is Place.BOTH and key.call == "save")]


def _spans(key: Key) -> Sequence[Span]:
    return ((key.shown, "key"), (f" {key.label}", "muted"))


def help_lines() -> list[tuple[str, str]]:
    """Key and what it does, for a help page."""
    return [(_all_shown(key), _with_place(key)) for key in EDITOR_KEYS]


def markdown_table() -> str:
    """The keys as the README shows them."""
    lines = ["| key | does |", "|---|---|"]
    lines += [f"| `{shown}` | {help} |" for shown, help in help_lines()]
    return "\n".join(lines) + "\n"


def _all_shown(key: Key) -> str:
    return {"F2": "F2 ctrl+s", "?": "? F1", "D": "D del"}.get(key.shown, key.shown)


def _with_place(key: Key) -> str:
    return key.help if key.place in _OF_THE_LIST else f"{key.help} ({_WHERE[key.place]})"
