"""The screen with the panes: passes the newest view to those that are shown, and keeps frames, zoom and key line in step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.geometry import Size
from textual.layout import Layout
from textual.screen import Screen
from textual.widget import Widget

from .actions import PANE_KEYS, Handler, action
from .cells import Pace
from .keyline import KeyLine
from .keymap import Keymap
from .layout import MIN_HEIGHT, MIN_WIDTH, DashboardLayout, plan
from .pane import Pane
from .panes import PANES
from .possible import labels_now

if TYPE_CHECKING:
    from textual import events

    from .filter_line import FilterLine
    from .themes import Palette
    from .view import View


_AROUND = frozenset({"header", "alerts", "status", "notice", "summary"})


class Desk(Widget):
    """Holds the panes and places them."""

    DEFAULT_CSS = "Desk { width: 100%; height: 100%; background: $background; }"

    def __init__(self, *children: Widget) -> None:
        super().__init__(*children)
        self.plan_layout = DashboardLayout()

    @property
    def layout(self) -> Layout:
        return self.plan_layout


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
        self.rekey(Keymap())
        self._filter: FilterLine | None = None  # made when it is asked for: the first frame must not wait for text fields
        self._before_filter: Widget | None = None
        self._desk = Desk(*self._panes.values(), self._keys)

    def compose(self) -> ComposeResult:
        yield self._desk

    def handlers(self) -> dict[str, Handler]:
        return {
            "zoom": self._toggle_zoom,
            "focus-next": lambda: self.step_focus(1),
            "focus-previous": lambda: self.step_focus(-1),
            "scroll-up": lambda: self._scroll(lambda pane: -1),
            "scroll-down": lambda: self._scroll(lambda pane: 1),
            "scroll-page-up": lambda: self._scroll(lambda pane: -pane.scroll_page),
            "scroll-page-down": lambda: self._scroll(lambda pane: pane.scroll_page),
            **{f"pane-{name}": partial(self.go_to, name) for name in PANE_KEYS.values()},
        }

    def rekey(self, keymap: Keymap) -> None:
        """Name the keys that are in force from now on."""
        self._keys.rekey(keymap)
        for name in PANE_KEYS.values():
            self._panes[name].number(keymap.shown(action(f"pane-{name}")))

    def _scroll(self, rows: Callable[[Pane], int]) -> None:
        name = self.zoomed or (self.focused.id if self.focused is not None else None)
        if name in self._panes:
            self._panes[name].scroll(rows(self._panes[name]))
        else:
            self._say("scroll: choose a pane first (tab)")

    def _toggle_zoom(self) -> None:
        if self.zoomed:
            self.zoom("")
        elif self.focused is not None and self.focused.id:
            self.zoom(self.focused.id)
        else:
            self._say("zoom: choose a pane first (tab)")

    def step_back(self) -> None:
        """Leave the zoom, or the focus."""
        if self.zoomed:
            self.zoom("")
        else:
            self.set_focus(None)
            self._say("back: no pane is zoomed or focused")

    @property
    def filtering(self) -> bool:
        """Whether the log's filter is being typed."""
        return self._filter is not None and bool(self._filter.display)

    def open_filter(self) -> None:
        """Type the log's filter in place of the status line."""
        if "status" not in plan(self.size.width, self.size.height, self.zoomed, self._desk.plan_layout.notice).regions:
            self._say("filter: this window has no room for the log")
            return
        if self._filter is None:
            from .filter_line import FilterLine

            self._filter = FilterLine()
            self._desk.mount(self._filter)
        self._before_filter = self.focused
        self._show_filter(self._filter, shown=True)
        self.set_focus(self._filter)

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        if self._filter is not None:
            self._show_filter(self._filter, shown=False)
        self.set_focus(self._before_filter)
        if message.problem:
            self._say(f"filter: {message.problem}; the last good one stays")

    def _show_filter(self, line: FilterLine, *, shown: bool) -> None:
        line.display = shown
        self._panes["status"].display = not shown
        self._lay_out()

    @property
    def zoomed(self) -> str:
        return self._desk.plan_layout.zoomed

    def pane(self, name: str) -> Pane:
        return self._panes[name]

    def dress(self, palette: Palette) -> None:
        for pane in self._panes.values():
            pane.dress(palette)
        self._keys.dress(palette)

    def show(self, view: View, due: Collection[Pace] = tuple(Pace), *, around: bool = False, present: View | None = None) -> None:
        """Hand a view to every pane that is on the screen; rows whose pace is not due stay as they are.

        `around`: only to the lines around the panes, which tell the states, the alerts and what a key did. `present`: how things
        stand now, where the view is of another time: keys act now.
        """
        self._view = view
        layout = self._desk.plan_layout
        if (layout.notice, layout.down) != (view.broken, view.stream_is_down):
            layout.notice, layout.down = view.broken, view.stream_is_down
            self._rearrange(self.size)
        for name, pane in self._panes.items():
            if not around or name in _AROUND:
                pane.show(view, due)
        self._keys.relabel(labels_now(present or view))

    def zoom(self, pane: str) -> None:
        """Give one pane all the room; an empty name brings all of them back."""
        self._desk.plan_layout.zoomed = pane
        self._rearrange(self.size)

    def step_focus(self, step: int) -> None:
        """The next or previous pane in reading order; a zoom moves along."""
        shown = plan(self.size.width, self.size.height).regions
        names = [spec.id for spec in PANES if spec.focusable and spec.id in shown]
        if not names:
            self._say_too_small()
            return
        focused = self.focused.id if self.focused is not None else None
        index = names.index(focused) + step if focused in names else (0 if step > 0 else -1)
        name = names[index % len(names)]
        if self.zoomed:
            self.zoom(name)
        self.set_focus(self._panes[name])
        if not self._panes[name].border_title and not self.zoomed:
            self._say(f"{name}: z shows them all")  # a pane without a frame does not show that it is focused

    def go_to(self, name: str) -> None:
        """Focus a pane. One without a frame to be seen in, and one that has no room, takes the screen; a zoom moves along."""
        arrangement = plan(self.size.width, self.size.height, notice=self._desk.plan_layout.notice)
        if self._desk.plan_layout.notice:
            self._say(f"{name}: there is no engine, so there is nothing to show")
        elif "summary" in arrangement.regions:
            self._say_too_small()
        elif self.zoomed or name not in arrangement.regions or not self._panes[name].border_title:
            self.zoom(name)
            self.call_after_refresh(self.set_focus, self._panes[name])
        else:
            self.set_focus(self._panes[name])

    def _say_too_small(self) -> None:
        self._say(f"panes: they need a window of {MIN_WIDTH}x{MIN_HEIGHT}")

    def on_mount(self) -> None:
        self._rearrange(self.size)

    def on_resize(self, event: events.Resize) -> None:
        self._rearrange(event.size)

    def _rearrange(self, size: Size) -> None:
        layout = self._desk.plan_layout
        arrangement = plan(size.width, size.height, layout.zoomed, layout.notice, layout.down)
        for name, pane in self._panes.items():
            pane.frame(boxed=arrangement.boxed)
            pane.zoom(on=name == layout.zoomed)
            pane.display = name in arrangement.regions and not (name == "status" and self.filtering)
        self._keys.display = "footer" in arrangement.regions
        self._lay_out()
        self.call_after_refresh(lambda: self.show(self._view))

    def _lay_out(self) -> None:
        # A child asks: what the desk asks for itself Textual answers from its cache, and the panes stay where they were.
        self._keys.refresh(layout=True)

    def on_key_line_pressed(self, message: KeyLine.Pressed) -> None:
        message.stop()
        self.app.call_later(self.app.run_action, message.action.call)
