"""One registry of what keys do. Bindings, key line, palette, help page and the README's table are all made from it.

The registry says what there is; what an action does is the handler of the same id that a feature brings
(`DashboardApp.actions_handled`). Where the operator wants other keys, `keymap` works them out.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from textual.binding import Binding

from ..link.messages import CommandName

Handler = Callable[[], None]
"""What an action does. It returns at once; work that takes time goes into a worker of the app."""


class Action(Struct, frozen=True):
    """One thing the operator can do. `footer` is its rank in the key line (0: not there; 1 stays longest).

    Neighbours of one `family` share a line in the help and the README as long as none of them has moved. The key of a `fixed` one
    cannot be moved.
    """

    id: str
    key: str
    label: str
    help: str
    group: str
    footer: int = 0
    show_key: str = ""
    priority: bool = False
    family: str = ""
    fixed: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its keys, where nothing was moved."""
        return tuple(self.key.split(","))

    @property
    def key_text(self) -> str:
        """Its key as it is shown, where nothing was moved."""
        return self.show_key or self.key

    @property
    def commands(self) -> tuple[CommandName, ...]:
        """What it may send to the engine: one of these, as the state has it; empty for an action on the screen alone."""
        if self.group == TIME:
            return (CommandName.MOMENT, CommandName.HISTORY)
        return _COMMANDS.get(self.id, ())

    @property
    def call(self) -> str:
        """The action as Textual runs it; the app looks its handler up by id."""
        return f"app.do('{self.id}')"


STREAM = "Stream"
TRAINING = "Training"
SCREEN = "Screen"
PANES = "Panes"
TIME = "Time"
LEAVING = "Leaving"

_COMMANDS = {
    "reconnect": (CommandName.RECONNECT,),
    "toggle-stream": (CommandName.DISCONNECT, CommandName.CONNECT),
    "rotate": (CommandName.ROTATE,),
    "reset-backoff": (CommandName.RESET_BACKOFF,),
    "break": (CommandName.FAULT_LIST, CommandName.FAULT),
    "toggle-training": (CommandName.TRAIN_PAUSE, CommandName.TRAIN_START),
    "reset-scaler": (CommandName.SCALER_RESET,),
    "checkpoint": (CommandName.CHECKPOINT,),
    "config": (CommandName.SETTINGS_DESCRIBE,),
    "ack-alerts": (CommandName.ALERT_ACK,),
    "keep-settings": (CommandName.SETTINGS_CONFIRM,),
    "undo-trial": (CommandName.SETTINGS_ROLLBACK,),
    "quit": (CommandName.STOP,),
    "stop-engine": (CommandName.STOP,),
    "interrupt": (CommandName.STOP,),
}

PANE_KEYS: dict[str, str] = {
    "1": "connection",
    "2": "heartbeat",
    "3": "backoff",
    "4": "market",
    "5": "training",
    "6": "scale",
    "7": "overflow",
    "8": "reconnects",
    "9": "log",
    "0": "alerts",
}
"""The panes by the key that goes to each; they keep their numbers at every size."""

_FAMILIES = {"panes": "1-9, 0"}  # what stands for the keys of all its members
_GO_TO = "Go to the pane of that number; zoomed where it has no room"

ACTIONS: tuple[Action, ...] = (
    Action("reconnect", "r", "reconnect", "Reconnect now: skip the wait, or drop the line and dial again", STREAM, 2),
    Action("toggle-stream", "d", "disconnect", "Disconnect the stream, or connect it again", STREAM, 3),
    Action("rotate", "o", "fresh link", "Replace the connection by a fresh one, without a break", STREAM, 11),
    Action("reset-backoff", "b", "reset backoff", "Forget the failed attempts; a stream that waits dials at once", STREAM),
    Action("break", "f", "break it", "Break something: choose a fault (demo and replay)", STREAM, 8),
    Action("toggle-training", "space", "train", "Start or pause the training worker", TRAINING, 4),
    Action("reset-scaler", "R", "reset", "Set the scale to clamp(init/2, floor, cap), after asking", TRAINING, 7),
    Action("checkpoint", "s", "save checkpoint", "Have the training worker save a checkpoint now", TRAINING),
    Action("config", "c", "config", "Read and change the engine's settings", SCREEN, 6),
    Action("keep-settings", "y", "keep", "Keep the settings on trial, which else are undone by themselves", SCREEN, 1),
    Action("undo-trial", "n", "undo", "Undo the settings that are on trial, now", SCREEN, 1),
    Action("pick-theme", "t", "theme", "Choose a theme: the screen wears each one while you look", SCREEN, 9),
    Action("next-theme", "T", "next theme", "Next theme", SCREEN),
    *(Action(f"pane-{pane}", key, f"pane: {pane}", _GO_TO, PANES, family="panes") for key, pane in PANE_KEYS.items()),
    Action("zoom", "z", "zoom", "Give the focused pane the whole screen, or give it back", PANES, 10),
    Action("focus-next", "tab", "next pane", "Focus the next pane", PANES),
    Action("focus-previous", "shift+tab", "previous pane", "Focus the pane before", PANES),
    Action("step-back", "escape", "back", "Leave the zoomed pane, or the focus", PANES, show_key="esc"),
    Action("scroll-up", "up", "up", "Scroll the focused or zoomed pane up", PANES),
    Action("scroll-down", "down", "down", "Scroll it down; its title says which rows of how many are shown", PANES),
    Action("scroll-page-up", "pageup", "page up", "Scroll it up by a page", PANES),
    Action("scroll-page-down", "pagedown", "page down", "Scroll it down by a page", PANES),
    Action("ack-alerts", "a", "alerts seen", "Acknowledge all alerts that stand", SCREEN),
    Action("filter-log", "slash", "filter log", "Filter the log: words, !without, /regex/, >=warning", SCREEN, show_key="/"),
    Action("cursor-left", "left", "back in time", "Time cursor back: every pane shows that moment", TIME, show_key="←"),
    Action("cursor-right", "right", "on in time", "Time cursor on", TIME, show_key="→"),
    Action("cursor-left-far", "shift+left", "far back", "Time cursor back by a tenth of the charts", TIME, show_key="shift+←"),
    Action("cursor-right-far", "shift+right", "far on", "Time cursor on by a tenth of the charts", TIME, show_key="shift+→"),
    Action("cursor-home", "home", "live", "Back to the present", TIME),
    Action("go-to-time", "g", "go to time", "Move the time cursor to a time, as in 03:12 or -90m", TIME),
    Action("span-wider", "minus", "longer charts", "Charts over a longer time, up to three days", TIME, show_key="-"),
    Action("span-narrower", "plus", "shorter charts", "Charts over a shorter time", TIME, show_key="+"),
    Action("freeze", "p", "freeze", "Hold the screen still, or let it go on", TIME),
    Action("redraw", "ctrl+l", "redraw", "Paint the whole screen again", SCREEN),
    Action("toggle-mouse", "m", "mouse", "Switch the mouse on or off (off when reached through SSH)", SCREEN),
    Action("palette", "colon,ctrl+p", "palette", "All actions, panes and themes, to be found by typing", SCREEN, show_key=":"),
    Action("suspend", "ctrl+z", "stop", "Stop, and give the shell its terminal until `fg`", SCREEN, fixed=True),
    Action("help", "question_mark", "help", "Keys, signs and words", SCREEN, 5, show_key="?"),
    Action("quit", "q", "quit", "Leave; asks whether the engine goes on (demo, replay: stops it)", LEAVING, 1),
    Action("stop-engine", "Q", "stop engine", "Stop the engine and leave, after asking", LEAVING),
    Action(
        "interrupt",
        "ctrl+c",
        "leave",
        "Leave without being asked: detach; in demo and replay stop",
        LEAVING,
        priority=True,
        fixed=True,
    ),
)


def action(identifier: str) -> Action:
    return next(item for item in ACTIONS if item.id == identifier)


def bindings() -> list[Binding]:
    """With ids, so that a keymap can move them."""
    return [
        Binding(
            item.key,
            item.call,
            item.label,
            show=item.footer > 0,
            key_display=item.key_text,
            priority=item.priority,
            id=item.id,
        )
        for item in ACTIONS
    ]


def key_lines(shown: Callable[[Action], str] = lambda item: item.key_text) -> dict[str, list[tuple[str, str]]]:
    """By group, what a page of keys says: the keys as `shown`, and what they do."""
    groups: dict[str, list[tuple[str, str]]] = {}
    moved = {item.family for item in ACTIONS if shown(item) != item.key_text}
    told: set[str] = set()
    for item in ACTIONS:
        lines = groups.setdefault(item.group, [])
        if not item.family:
            lines.append((shown(item), item.help))
        elif item.family in moved:
            lines.append((shown(item), item.label))
        elif item.family not in told:
            told.add(item.family)
            lines.append((_FAMILIES[item.family], item.help))
    return groups


def markdown_table() -> str:
    """The keys as the README shows them."""
    lines = ["| key | does |", "|---|---|"]
    lines += [f"| `{keys}` | {does} |" for group in key_lines().values() for keys, does in group]
    return "\n".join(lines) + "\n"
