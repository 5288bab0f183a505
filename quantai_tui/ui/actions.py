"""One registry of what keys do. Bindings, footer, help page and the README's table are all made from it.

The registry says what there is; what an action does is the handler of the same id that a feature brings
(`DashboardApp.actions_handled`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textual.binding import Binding

Handler = Callable[[], None]
"""What an action does. It returns at once; work that takes time goes into a worker of the app."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the operator can do. `footer` is its rank in the key line (0: not there; 1 stays longest)."""

    id: str
    key: str
    label: str
    help: str
    group: str
    footer: int = 0
    show_key: str = ""
    priority: bool = False

    @property
    def key_text(self) -> str:
        return self.show_key or self.key

    @property
    def call(self) -> str:
        """The action as Textual runs it; the app looks its handler up by id."""
        return f"app.do('{self.id}')"


STREAM = "Stream"
TRAINING = "Training"
SCREEN = "Screen"
LEAVING = "Leaving"

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
    Action("next-theme", "t", "theme", "Next theme", SCREEN, 9),
    Action("zoom", "z", "zoom", "Give the focused pane the whole screen, or give it back", SCREEN, 10),
    Action("focus-next", "tab", "next pane", "Focus the next pane", SCREEN),
    Action("focus-previous", "shift+tab", "previous pane", "Focus the pane before", SCREEN),
    Action("step-back", "escape", "back", "Leave the zoomed pane, or the focus", SCREEN, show_key="esc"),
    Action("redraw", "ctrl+l", "redraw", "Paint the whole screen again", SCREEN),
    Action("toggle-mouse", "m", "mouse", "Switch the mouse on or off (off when reached through SSH)", SCREEN),
    Action("help", "question_mark", "help", "Keys, signs and words", SCREEN, 5, show_key="?"),
    Action("quit", "q", "quit", "Leave; asks whether the engine goes on (demo, replay: stops it)", LEAVING, 1),
    Action("interrupt", "ctrl+c", "leave", "Leave without being asked: detach; in demo and replay stop", LEAVING, priority=True),
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


def by_group() -> dict[str, list[Action]]:
    groups: dict[str, list[Action]] = {}
    for item in ACTIONS:
        groups.setdefault(item.group, []).append(item)
    return groups


def markdown_table() -> str:
    """The keys as the README shows them."""
    lines = ["| key | does |", "|---|---|"]
    lines += [f"| `{item.key_text}` | {item.help} |" for item in ACTIONS]
    return "\n".join(lines) + "\n"
