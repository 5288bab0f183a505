"""The screen with the panes: passes the newest view to those that are shown, and keeps frames, zoom and key line in step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.geometry import Size
from textual.layout import Layout
from textual.message import Message
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from ..telemetry import Mode
from .actions import ACTIONS, Action, Handler
from .cells import Pace, Span, width_of
from .layout import DashboardLayout, plan
from .pane import Pane
from .panes import PANES

if TYPE_CHECKING:
    from textual import events

    from .themes import Palette
    from .view import View


class Desk(Widget):
    """Holds the panes and places them."""

    DEFAULT_CSS = "Desk { width: 100%; height: 100%; background: $background; }"

    def __init__(self, *children: Widget) -> None:
        super().__init__(*children)
        self.plan_layout = DashboardLayout()

    @property
    def layout(self) -> Layout:
        return self.plan_layout


class KeyLine(Widget):
    """The most important keys, as many as fit; labels say what a key would do now. Clickable where there is a mouse."""

    DEFAULT_CSS = "KeyLine { height: 1; padding: 0 1; background: $background; }"
    ALLOW_SELECT: ClassVar[bool] = False

    class Pressed(Message):
        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action

    def __init__(self, palette: Palette) -> None:
        super().__init__(id="footer")
        self._palette = palette
        self._labels: dict[str, str] = {}

    def dress(self, palette: Palette) -> None:
        self._palette = palette
        self.refresh()

    def relabel(self, labels: dict[str, str]) -> None:
        if labels != self._labels:
            self._labels = labels
            self.refresh()

    def entries(self, width: int) -> list[tuple[Action, list[Span]]]:
        """The actions that fit into `width`, in the registry's order."""
        shown: list[Action] = []
        offered = [item for item in ACTIONS if item.footer and self._labels.get(item.id) != ""]
        for item in sorted(offered, key=lambda item: item.footer):
            if sum(width_of(self._spans(other)) + 2 for other in [*shown, item]) - 2 <= width:
                shown.append(item)
        return [(item, self._spans(item)) for item in ACTIONS if item in shown]

    def _spans(self, item: Action) -> list[Span]:
        return [(item.key_text, "key"), (f" {self._labels.get(item.id, item.label)}", "muted")]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        spans: list[Span] = []
        for _, entry in self.entries(width) if y == 0 else ():
            spans += [("  ", "text"), *entry] if spans else entry
        spans.append((" " * (width - width_of(spans)), "text"))
        return Strip([Segment(text, self._palette[token]) for text, token in spans])

    def on_click(self, event: events.Click) -> None:
        x = event.x - self.content_offset.x
        for item, entry in self.entries(self.size.width):
            width = width_of(entry)
            if 0 <= x < width:
                self.post_message(self.Pressed(item))
                return
            x -= width + 2


class Dashboard(Screen[None], inherit_bindings=False):
    """All panes on one screen. Its keys are the app's, from the registry alone."""

    DEFAULT_CSS = "Dashboard { background: $background; overflow: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = []
    AUTO_FOCUS = ""

    def __init__(self, palette: Palette, view: View, say: Callable[[str], None]) -> None:
        """`say` puts a line before the operator."""
        super().__init__()
        self._view = view
        self._say = say
        self._panes = {spec.id: Pane(spec, palette) for spec in PANES}
        self._keys = KeyLine(palette)
        self._desk = Desk(*self._panes.values(), self._keys)

    def compose(self) -> ComposeResult:
        yield self._desk

    def handlers(self) -> dict[str, Handler]:
        return {
            "zoom": self._toggle_zoom,
            "step-back": self._step_back,
            "focus-next": lambda: self.step_focus(1),
            "focus-previous": lambda: self.step_focus(-1),
        }

    def _toggle_zoom(self) -> None:
        if self.zoomed:
            self.zoom("")
        elif self.focused is not None and self.focused.id:
            self.zoom(self.focused.id)
        else:
            self._say("zoom: choose a pane first (tab)")

    def _step_back(self) -> None:
        if self.zoomed:
            self.zoom("")
        else:
            self.set_focus(None)

    @property
    def zoomed(self) -> str:
        return self._desk.plan_layout.zoomed

    def pane(self, name: str) -> Pane:
        return self._panes[name]

    def dress(self, palette: Palette) -> None:
        for pane in self._panes.values():
            pane.dress(palette)
        self._keys.dress(palette)

    def show(self, view: View, due: Collection[Pace] = tuple(Pace)) -> None:
        """Hand a view to every pane that is on the screen; rows whose pace is not due stay as they are."""
        self._view = view
        if self._desk.plan_layout.notice != view.broken:
            self._desk.plan_layout.notice = view.broken
            self._rearrange(self.size)
        for pane in self._panes.values():
            pane.show(view, due)
        self._keys.relabel(_labels(view))

    def zoom(self, pane: str) -> None:
        """Give one pane all the room; an empty name brings all of them back."""
        self._desk.plan_layout.zoomed = pane
        self._rearrange(self.size)

    def step_focus(self, step: int) -> None:
        """The next or previous pane in reading order; a zoom moves along."""
        shown = plan(self.size.width, self.size.height).regions
        names = [spec.id for spec in PANES if spec.focusable and spec.id in shown]
        if not names:
            return
        focused = self.focused.id if self.focused is not None else None
        index = names.index(focused) + step if focused in names else (0 if step > 0 else -1)
        name = names[index % len(names)]
        if self.zoomed:
            self.zoom(name)
        self.set_focus(self._panes[name])

    def on_mount(self) -> None:
        self._rearrange(self.size)

    def on_resize(self, event: events.Resize) -> None:
        self._rearrange(event.size)

    def _rearrange(self, size: Size) -> None:
        layout = self._desk.plan_layout
        arrangement = plan(size.width, size.height, layout.zoomed, layout.notice)
        for name, pane in self._panes.items():
            pane.frame(boxed=arrangement.boxed)
            pane.display = name in arrangement.regions
        self._keys.display = "footer" in arrangement.regions
        self._desk.refresh(layout=True)
        self.call_after_refresh(lambda: self.show(self._view))

    def on_key_line_pressed(self, message: KeyLine.Pressed) -> None:
        message.stop()
        self.app.call_later(self.app.run_action, message.action.call)


def _labels(view: View) -> dict[str, str]:
    """What the keys with two meanings would do now; empty for one that would do nothing."""
    if view.snapshot is None:
        return {"keep-settings": "", "undo-trial": ""}
    return {
        **({"break": ""} if view.snapshot.mode is Mode.LIVE else {}),
        **({"keep-settings": "", "undo-trial": ""} if view.snapshot.trial is None else {}),
        "toggle-stream": "connect" if view.stream_is_off else "disconnect",
        "toggle-training": "pause" if view.training_is_on else "train",
    }
