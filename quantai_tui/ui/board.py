"""All panes and the key line in one widget.

Each widget costs Textual a share of every frame and of the start: fourteen of them cost more than what is drawn in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .keyline import KeyLine
from .layout import plan
from .pane import Pane
from .panes import PANES

if TYPE_CHECKING:
    from textual import events

    from .actions import Action
    from .keymap import Keymap
    from .themes import Palette
    from .view import View

FOOTER = "footer"
_AROUND = frozenset({"header", "alerts", "status", "notice", "summary"})


class Board(Widget):
    """Draws the panes where the plan puts them; which one is focused or zoomed it is told."""

    DEFAULT_CSS = "Board { width: 100%; height: 100%; background: $background; }"
    ALLOW_SELECT: ClassVar[bool] = False

    class Failed(Message):
        """Drawing the pane with this title has failed with `error`."""

        def __init__(self, pane: str, error: Exception) -> None:
            super().__init__()
            self.pane = pane
            self.error = error

    class KeyPressed(Message):
        """A key of the key line was clicked."""

        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action

    class PanePressed(Message):
        """A pane was clicked, or the wheel was turned over it by so many rows."""

        def __init__(self, pane: str, rows: int = 0) -> None:
            super().__init__()
            self.pane = pane
            self.rows = rows

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._palette = palette
        self.panes = {spec.id: Pane(spec, self._tell) for spec in PANES}
        self._keys = KeyLine()
        self._regions: dict[str, Region] = {}
        self._across: list[list[str]] = []  # for each row, what stands in it from the left to the right
        self._focused = ""
        self._pressed: Action | str | None = None

    def _tell(self, pane: str, error: Exception) -> None:
        # Made and posted by the board itself: a message of the screen's own making would stop at the screen.
        self.call_later(lambda: self.post_message(self.Failed(pane, error)))

    def arrange_for(self, size: Size, *, zoomed: str, notice: bool, down: bool) -> None:
        """Place everything anew; what is placed elsewhere shows the next view."""
        arrangement = plan(size.width, size.height, zoomed, notice, down)
        self._regions = arrangement.regions
        in_order = sorted(self._regions, key=lambda name: self._regions[name].x)
        self._across = [[name for name in in_order if y in self._regions[name].line_range] for y in range(size.height)]
        for name, pane in self.panes.items():
            pane.place(self._regions.get(name, Region()), boxed=arrangement.boxed, zoomed=name == zoomed)
        self.refresh()

    def has_room_for(self, name: str) -> bool:
        return name in self._regions

    @property
    def focused(self) -> str:
        """The pane that keys act on; empty for none."""
        return self._focused

    @focused.setter
    def focused(self, name: str) -> None:
        self._focused = name
        self._repaint([region for pane in self.panes.values() for region in pane.focus(on=pane.spec.id == name)])

    def show(self, view: View, *, around: bool = False) -> None:
        """Hand a view to every pane that has room. `around`: only to the lines around the panes."""
        changed: list[Region] = []
        for name, pane in self.panes.items():
            if not around or name in _AROUND:
                changed += pane.show(view)
        self._repaint(changed)

    def scroll_pane(self, name: str, rows: Callable[[Pane], int]) -> None:
        pane = self.panes[name]
        self._repaint(pane.scroll(rows(pane)))

    def dress(self, palette: Palette) -> None:
        self._palette = palette
        self.refresh()

    def rekey(self, keymap: Keymap, numbers: dict[str, str]) -> None:
        """The keys from now on, and those that go to panes."""
        self._keys.rekey(keymap)
        for name, number in numbers.items():
            self.panes[name].entitle(number)
        self.refresh()

    def relabel(self, labels: dict[str, str]) -> None:
        if self._keys.relabel(labels) and FOOTER in self._regions:
            self._repaint([self._regions[FOOTER]])

    def _repaint(self, regions: list[Region]) -> None:
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        cells: list[Segment] = []
        for name in self._across[y] if y < len(self._across) else ():
            if name == FOOTER:
                cells += self._keys.line(self._regions[name].width, self._palette)
            else:
                cells += self.panes[name].line(y, self._palette)
        if not cells:
            return Strip.blank(self.size.width, self._palette["text"])
        return Strip(cells, sum(self._regions[name].width for name in self._across[y]))  # told, so that it need not be counted

    def _at(self, event: events.MouseEvent) -> str:
        return next((name for name, region in self._regions.items() if region.contains(event.x, event.y)), "")

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._pressed = self._target(event)

    def on_click(self, event: events.Click) -> None:
        """Pressed and released on the same thing; the whole screen is one widget, so Textual cannot know."""
        target, pressed, self._pressed = self._target(event), self._pressed, None
        if target is None or target != pressed:
            return
        self.post_message(self.PanePressed(target) if isinstance(target, str) else self.KeyPressed(target))

    def _target(self, event: events.MouseEvent) -> Action | str | None:
        """What a click there is meant for: a key's action, or a pane."""
        name = self._at(event)
        if name == FOOTER:
            region = self._regions[name]
            return self._keys.at(event.x - region.x, region.width)
        return name if name and self.panes[name].spec.focusable else None

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1)

    def _wheel(self, event: events.MouseEvent, rows: int) -> None:
        name = self._at(event)
        if name in self.panes and self.panes[name].spec.focusable:
            self.post_message(self.PanePressed(name, rows))
