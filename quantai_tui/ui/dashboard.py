"""The screen with the panes: which of them is focused or has all the room, what is typed over them, what their keys do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from .actions import PANE_KEYS, Handler, action
from .board import Board
from .cells import Pace
from .keymap import Keymap
from .layout import MIN_HEIGHT, MIN_WIDTH, plan
from .pane import Pane
from .panes import PANES
from .possible import labels_now
from .view import ALL_PACES

if TYPE_CHECKING:
    from textual import events
    from textual.geometry import Size

    from .filter_line import FilterLine
    from .themes import Palette
    from .view import View


class Dashboard(Screen[None], inherit_bindings=False):
    """All panes on one screen. Its keys are the app's, from the registry alone."""

    DEFAULT_CSS = """
    Dashboard { background: $background; overflow: hidden; layers: panes typing; }
    Dashboard FilterLine { layer: typing; dock: bottom; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = []
    AUTO_FOCUS = ""

    def __init__(self, palette: Palette, view: View, say: Callable[[str], None]) -> None:
        """`say` puts a line before the operator."""
        super().__init__()
        self._view = view
        self._say = say
        self._board = Board(palette)
        self.rekey(Keymap())
        self._zoomed = ""
        self._filter: FilterLine | None = None  # made when it is asked for: the first frame must not wait for text fields

    def compose(self) -> ComposeResult:
        yield self._board

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
        self._board.rekey(keymap, {name: keymap.shown(action(f"pane-{name}")) for name in PANE_KEYS.values()})

    def _scroll(self, rows: Callable[[Pane], int]) -> None:
        name = self.zoomed or self.focused_pane
        if name:
            self._board.scroll_pane(name, rows)
        else:
            self._say("scroll: choose a pane first (tab)")

    def _toggle_zoom(self) -> None:
        if self.zoomed:
            self.zoom("")
        elif self.focused_pane:
            self.zoom(self.focused_pane)
        else:
            self._say("zoom: choose a pane first (tab)")

    def step_back(self) -> None:
        """Leave the zoom, or the focus."""
        if self.zoomed:
            self.zoom("")
        else:
            self._board.focused = ""
            self._say("back: no pane is zoomed or focused")

    @property
    def filtering(self) -> bool:
        """Whether the log's filter is being typed."""
        return self._filter is not None and bool(self._filter.display)

    def open_filter(self) -> None:
        """Type the log's filter in place of the status line."""
        if not self._board.has_room_for("status"):
            self._say("filter: this window has no room for the log")
            return
        if self._filter is None:
            from .filter_line import FilterLine

            self._filter = FilterLine()
            self.mount(self._filter)
        self._filter.display = True
        self.set_focus(self._filter)

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        if self._filter is not None:
            self._filter.display = False
        self.set_focus(None)
        if message.problem:
            self._say(f"filter: {message.problem}; the last good one stays")

    @property
    def zoomed(self) -> str:
        return self._zoomed

    @property
    def focused_pane(self) -> str:
        """The pane that keys act on; empty for none, and while the one that was chosen has no room."""
        return self._board.focused if self._board.has_room_for(self._board.focused) else ""

    def pane(self, name: str) -> Pane:
        return self._board.panes[name]

    def dress(self, palette: Palette) -> None:
        self._board.dress(palette)

    def show(self, view: View, due: frozenset[Pace] = ALL_PACES, *, around: bool = False, present: View | None = None) -> None:
        """Hand a view to every pane that is on the screen; rows whose pace is not due stay as they are.

        `around`: only to the lines around the panes, which tell the states, the alerts and what a key did. `present`: how things
        stand now, where the view is of another time: keys act now.
        """
        before, self._view = self._view, view
        if (before.broken, before.stream_is_down) != (view.broken, view.stream_is_down):
            self._rearrange()
        self._board.show(replace(view, due=due), around=around)
        self._board.relabel(labels_now(present or view))

    def zoom(self, pane: str) -> None:
        """Give one pane all the room; an empty name brings all of them back."""
        self._zoomed = pane
        self._rearrange()

    def step_focus(self, step: int) -> None:
        """The next or previous pane in reading order; a zoom moves along."""
        shown = plan(self.size.width, self.size.height).regions
        names = [spec.id for spec in PANES if spec.focusable and spec.id in shown]
        if not names:
            self._say_too_small()
            return
        focused = self.focused_pane
        index = names.index(focused) + step if focused in names else (0 if step > 0 else -1)
        name = names[index % len(names)]
        if self.zoomed:
            self.zoom(name)
        self._board.focused = name
        if not self.pane(name).framed and not self.zoomed:
            self._say(f"{name}: z shows them all")  # a pane without a frame does not show that it is focused
        elif focused and not self.pane(focused).framed:
            self._say("")  # what was said of the pane before is not true any more

    def go_to(self, name: str) -> None:
        """Focus a pane. One without a frame to be seen in, and one that has no room, takes the screen; a zoom moves along."""
        regions = plan(self.size.width, self.size.height, notice=self._view.broken).regions
        if self._view.broken:
            self._say(f"{name}: there is no engine, so there is nothing to show")
            return
        if "summary" in regions:
            self._say_too_small()
            return
        if self.zoomed or name not in regions or not self.pane(name).framed:
            self.zoom(name)
        self._board.focused = name

    def _say_too_small(self) -> None:
        self._say(f"panes: they need a window of {MIN_WIDTH}x{MIN_HEIGHT}")

    def on_mount(self) -> None:
        self._rearrange(self.app.size)

    def on_resize(self, event: events.Resize) -> None:
        self._rearrange(event.size)

    def _rearrange(self, size: Size | None = None) -> None:
        view = self._view
        self._board.arrange_for(size or self.size, zoomed=self._zoomed, notice=view.broken, down=view.stream_is_down)
        self._board.show(view)

    def on_board_key_pressed(self, message: Board.KeyPressed) -> None:
        message.stop()
        self.app.call_later(self.app.run_action, message.action.call)

    def on_board_pane_pressed(self, message: Board.PanePressed) -> None:
        message.stop()
        self._board.focused = message.pane
        if message.rows:
            self._board.scroll_pane(message.pane, lambda pane: message.rows)
