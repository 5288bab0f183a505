"""Go to a time: one line to type a moment of the past in, judged while it is typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from .format import date_and_time, zone
from .when import FORMS, parse_moment


class MomentDialog(ModalScreen[float | None]):
    """Dismisses with the Unix time that was typed, or None."""

    DEFAULT_CSS = """
    MomentDialog { align: center middle; background: $background 60%; }
    MomentDialog > Vertical {
        width: 66; max-width: 96%; height: auto; background: $surface; border: round $edge-focus; padding: 0 1;
        border-title-color: $title; border-title-style: bold;
    }
    MomentDialog Static { height: auto; color: $foreground; background: $surface; }
    MomentDialog Input { height: 1; border: none; padding: 0; color: $value; background: $panel; }
    MomentDialog #forms { color: $muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", show=False)]

    def __init__(self, now: Callable[[], float], since: Callable[[], float | None]) -> None:
        """`since`: where the engine's memory begins, as far as that is known by now."""
        super().__init__()
        self._now = now
        self._since = since

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "go to a time"
            yield Static(f"{FORMS}; {zone(self._now())}", id="forms", markup=False)
            yield Input(compact=True)
            yield Static("", id="verdict", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._tell_begin()
        self.set_interval(0.25, self._tell_begin)

    def _tell_begin(self) -> None:
        since = self._since()
        if since is not None and not self.query_one(Input).value:
            self._say(f"the engine's memory begins at {date_and_time(since)}", "$muted")

    def on_input_changed(self, message: Input.Changed) -> None:
        self._judge(message.value)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        at = self._judge(message.value)
        if at is not None:
            self.dismiss(at)

    def _judge(self, text: str) -> float | None:
        if not text.strip():
            self._say("", "$muted")
            return None
        try:
            at = parse_moment(text, self._now())
        except ValueError as error:
            self._say(f"! {error}", "$state-failed")
            return None
        since = self._since()
        early = since is not None and at < since
        self._say(date_and_time(at) + ("; the engine remembers nothing so old" if early else ""), "$value")
        return at

    def _say(self, text: str, style: str) -> None:
        self.query_one("#verdict", Static).update(Content.assemble((text or " ", style)))

    def action_leave(self) -> None:
        self.dismiss(None)
