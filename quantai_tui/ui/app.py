"""The dashboard application: samples the link by a timer, sends commands in workers, and leaves in one of two ways."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace

# Read when Textual is imported: an animation over SSH is traffic that says nothing.
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

from rich.text import Text
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.binding import BindingType
from textual.driver import Driver
from textual.worker import WorkerFailed

from ..link.base import EngineLink, LinkState
from ..telemetry import SYSTEM_CLOCK, Clock
from .actions import ACTIONS, STREAM, TRAINING, Handler, action, bindings
from .cells import Pace
from .commands import Commands
from .dashboard import Dashboard
from .format import clean
from .governor import KEEPS_UP_S, FreeLine, Governor, Line, Part
from .keyboard import Keyboard
from .leaving import Departure, Outcome
from .log_filter import LogFilter, LogMemory
from .notices import Notices
from .painter import CellMemory
from .steering import Steering
from .themes import token_defaults, without_no_color
from .timeline import Timeline
from .trial import Trials
from .trouble import Troubles
from .view import Status, View, look
from .wardrobe import Wardrobe

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual import events
    from textual.screen import Screen

    from .board import Board
    from .filter_line import FilterLine
    from .terminal import TerminalGuard

log = logging.getLogger(__name__)

_POLL_PERIOD_S = 0.25
_CLOSE_LIMIT_S = 30.0
_STATUS_LASTS_S = {"state-pending": math.inf, "state-failed": 30.0}  # what is under way stays, a refusal can be read
_ABOUT_THE_PRESENT = frozenset({STREAM, TRAINING})  # what they do happens now: nobody should look at then meanwhile
_EVERYWHERE = frozenset(item.id for item in ACTIONS if item.priority)


class DashboardApp(App[Outcome], inherit_bindings=False):
    """Shows one engine. Its return value says how it was left: "stop" (the engine was told to stop) or "detach".

    `stop_on_quit`: plain `q` and Ctrl-C stop the engine, as they do in demo and replay anyway. `theme`: fixes the theme; without
    it the engine's setting is followed. `few_colors`: begin with the theme of the terminal's own sixteen. `stale_after_s`: age
    from which a snapshot counts as old. `crash_log`: file that gets the traceback of a crash; without it the traceback goes to
    the log. `panes_floor_s`: the least time between two paintings of the panes; keys and what they do are shown at once whatever
    it is. `line`: the way to the terminal, by default the driver's.

    Textual's own keys, a quit without a word on ctrl+q among them, are left out: those of the registry are all there are.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = list(bindings())
    CSS = """
    ToastRack { margin-bottom: 1; }
    Toast { background: $surface; }
    * {
        scrollbar-color: $edge; scrollbar-color-hover: $edge; scrollbar-color-active: $edge-focus;
        scrollbar-background: $background; scrollbar-background-hover: $background; scrollbar-background-active: $background;
    }
    """

    def __init__(
        self,
        link: EngineLink,
        *,
        clock: Clock = SYSTEM_CLOCK,
        stop_on_quit: bool = False,
        theme: str | None = None,
        themes_folder: Path | None = None,
        few_colors: bool = False,
        stale_after_s: float = 2 * Pace.TEXT.value,
        crash_log: Path | None = None,
        guard: TerminalGuard | None = None,
        driver_class: type[Driver] | None = None,
        panes_floor_s: float = 0.0,
        line: Line | None = None,
    ) -> None:
        with without_no_color():
            super().__init__(driver_class=driver_class)
        self.title = "QuantAI"
        self._link = link
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._crash_log = crash_log
        self._troubles = Troubles(self, crash_log)
        self._guard = guard
        self._started = clock.monotonic()
        self._status = Status()
        self._status_until = math.inf
        self._commands = Commands(link, self.say)
        self._steering = Steering(self, link, self._commands)
        self._trials = Trials(self, link, self._commands, clock)
        self._departure = Departure(self, link, self._commands, stop_on_quit=stop_on_quit)
        self._cells = CellMemory()
        self._owes_frame = False
        self._governor = Governor(clock, floor_s=panes_floor_s)
        self._line = line
        self._last_shape: tuple[object, ...] = ()
        self._panes_missed_shape = False
        self._due = dict.fromkeys(Pace, 0.0)
        self._notices = Notices(self, self._commands, clock)
        self._engine_log = LogMemory()
        self._log_filter: LogFilter | None = None
        self._wardrobe = Wardrobe(self, themes_folder, wanted=theme, ask=self._commands.ask, few_colors=few_colors)
        self._keyboard = Keyboard(self, self._wardrobe)
        self.dashboard = Dashboard(self._wardrobe.palette, self.view(), self.say)
        self._timeline = Timeline(self, self._commands.ask, clock)
        self._handlers = self._table()

    def _table(self) -> dict[str, Handler]:
        """What each action of the registry does. Every feature brings its own."""
        return {
            **self._steering.handlers(),
            **self._trials.handlers(),
            **self._wardrobe.handlers(),
            **self._keyboard.handlers(),
            **self._departure.handlers(),
            **self.dashboard.handlers(),
            **self._timeline.handlers(),
            **self._notices.handlers(),
            "filter-log": self.dashboard.open_filter,
            "step-back": self._step_back,
            "config": self._open_config,
            "redraw": self._redraw,
            "toggle-mouse": self._toggle_mouse,
            "suspend": self._suspend,
        }

    @property
    def actions_handled(self) -> frozenset[str]:
        return frozenset(self._handlers)

    def get_default_screen(self) -> Screen[Any]:
        return self.dashboard

    async def on_mount(self) -> None:
        if self._guard is not None:
            self._guard.install(self.hang_up)
        self.theme_changed_signal.subscribe(self, lambda _: self.dashboard.dress(self._wardrobe.palette))
        self.app_resume_signal.subscribe(self, lambda _: self._come_back())
        self.set_interval(_POLL_PERIOD_S, self.tick)
        self.call_after_refresh(self._begin)

    async def on_unmount(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await self._link.close()
        except TimeoutError:
            log.warning("the link did not close within %.0f s", _CLOSE_LIMIT_S)

    async def _begin(self) -> None:
        """After the first frame: attach, and say what was wrong with theme files."""
        self.run_worker(self._link.start(), group="link")
        self._wardrobe.begin()
        self.tick()
        if self._guard is not None:  # the process is ours: what its start has made stays for days, and need not be looked through
            gc.freeze()

    def view(self) -> View:
        """The link as it stands now."""
        if self._clock.monotonic() > self._status_until:
            self._status = Status()
        now = look(self._link, self._clock, self._started, self._stale_after_s, self._status)
        return replace(
            now, log=self._engine_log.lines, log_filter=self._log_filter, over=self._notices.over, line=self._governor.words
        )

    def tick(self) -> None:
        """Sample the link. Each kind of row follows at its own pace; a change of state reaches all of them at once.

        On a slow line the governor allows less: first fewer paintings of the panes, then only the lines around them.
        """
        self._follow()
        self.line.ask_again()
        if self._governor.observe(self.line.lag_s):
            self._redraw()
        if not self.screen_stack or self.screen is not self.dashboard:  # none is left while the app closes
            return
        present = self.view()
        view = self._timeline.shown(present)
        fresh = view.shape != self._last_shape
        self._last_shape = view.shape
        self._panes_missed_shape |= fresh
        if self._governor.may_paint(Part.PANES):
            everything = self._panes_missed_shape or bool(self._governor.level)
            self._panes_missed_shape = False
            if due := self._due_paces(everything):
                self.dashboard.show(view, frozenset(due), present=present)
        elif fresh or self._governor.may_paint(Part.STATES):
            self.dashboard.show(view, around=True, present=present)

    def _due_paces(self, everything: bool) -> list[Pace]:
        now = self._clock.monotonic()
        due = [pace for pace in Pace if everything or now >= self._due[pace]]
        for pace in due:
            self._due[pace] = now + pace.value - _POLL_PERIOD_S / 2
        return due

    @property
    def line(self) -> Line:
        """The way to the terminal."""
        if self._line is None and self._driver is not None:
            self._line = self._driver if isinstance(self._driver, Line) else FreeLine()
        return self._line or FreeLine()

    def _follow(self) -> None:
        """What the engine decides about the dashboard: that there is nothing to look at, and what its settings say."""
        state, snapshot = self._link.state, self._link.snapshot
        self._trials.follow()
        if state is not LinkState.STARTING:
            self._departure.engine_has_started()
        if state is LinkState.FAILED and self._link.exit_code is not None:
            self._departure.engine_has_ended()
        self._wardrobe.follow(snapshot.theme if snapshot is not None else "")
        self._keyboard.follow(snapshot.keys if snapshot is not None else ())
        if snapshot is not None:
            self._notices.hear(snapshot)
            self._engine_log.take(snapshot.log)

    def write_aside(self, text: str) -> None:
        """To the terminal, beside what is painted; not while the terminal is lent to another program."""
        if self._driver is not None and not self._batch_count:
            self._driver.write(text)

    def on_app_focus(self) -> None:
        self._notices.focus(here=True)

    def on_app_blur(self) -> None:
        self._notices.focus(here=False)

    def on_filter_line_changed_to(self, message: FilterLine.ChangedTo) -> None:
        self._log_filter = message.chosen
        self.tick()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The dashboard's keys are its own: on any other screen only the way out works."""
        return action != "do" or self.screen is self.dashboard or parameters[0] in _EVERYWHERE

    def say(self, text: str, token: str = "text") -> None:
        """Put one line above the keys, at once."""
        self._status = Status(clean(text), token)
        self._status_until = self._clock.monotonic() + _STATUS_LASTS_S.get(token, 10.0)
        self.tick()

    def action_do(self, name: str) -> None:
        """Every key, click and palette entry ends here. One that fails is told, and takes nothing else with it."""
        try:
            if action(name).group in _ABOUT_THE_PRESENT:
                self._timeline.leave_the_past(action(name).label)
            self._handlers[name]()
        except Exception as error:  # noqa: BLE001 - shown and kept by what takes it
            self._troubles.take(error, f"'{action(name).label}'")

    def on_board_failed(self, message: Board.Failed) -> None:
        self._troubles.take(message.error, f"drawing the pane '{message.pane}'")

    def _handle_exception(self, error: Exception) -> None:
        """Textual ends the app for everything. Work that runs beside it may fail alone; a widget that has failed is dead."""
        if isinstance(error, WorkerFailed) and self.is_running:
            self._troubles.take(error.error, "a command or a question to the engine")
        else:
            super()._handle_exception(error)

    def _open_config(self) -> None:
        from .editor import EditorScreen

        self.push_screen(EditorScreen(self._commands.ask, self._link, self._trials), self._back_from_editor)

    def _back_from_editor(self, said: str | None) -> None:
        self.say(said or "", "text")

    def _step_back(self) -> None:
        if self._timeline.past and not self.dashboard.zoomed:
            self._timeline.go_live()
        else:
            self.dashboard.step_back()

    def _redraw(self) -> None:
        self._cells.forget()
        self.refresh(layout=True)
        self.say("redraw: all of the screen has been painted again")

    def _toggle_mouse(self) -> None:
        switch = getattr(self._driver, "switch_mouse", None)
        if switch is None:
            self.say("mouse: this terminal driver cannot switch it")
        else:
            self.say(f"mouse: {'on' if switch() else 'off'}")

    def _suspend(self) -> None:
        if not getattr(self._driver, "has_shell", False):
            self.say("there is no shell here that could bring a stopped dashboard back")
        elif self._driver is not None:
            os.kill(0, signal.SIGTSTP)  # to the whole job: whatever started this program waits for it

    def _come_back(self) -> None:
        """The terminal is ours again, and anything may stand on it."""
        self._redraw()
        self.tick()

    def on_resize(self, event: events.Resize) -> None:
        """What a terminal makes of its cells when its size changes is its own business; that holds for one that came back too."""
        self._cells.forget()
        if self.screen_stack:
            self.screen.refresh()

    def hang_up(self, reason: str) -> None:
        """The terminal or the system wants us gone."""
        self._departure.hang_up(reason)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Own tokens for themes that do not name them, Textual's built-in ones among them."""
        return token_defaults(self.current_theme.to_color_system().generate())

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Textual's outlet to the terminal, with the cells that did not change taken out.

        While the terminal has not taken the frames before, a frame is left out as a whole, and owed.
        """
        if renderable is not None and self._running and not self._batch_count and not self.is_headless:
            if self.line.lag_s >= KEEPS_UP_S:
                renderable = None
                self._owe_frame()
            elif isinstance(renderable, ChopsUpdate | LayoutUpdate):
                renderable = self._cells.changes(renderable)
        super()._display(screen, renderable)

    def _owe_frame(self) -> None:
        if not self._owes_frame:
            self._owes_frame = True
            self.line.when_free(self._pay_frame)

    def _pay_frame(self) -> None:
        self._owes_frame = False
        if self.screen_stack:
            self.screen.refresh()

    def _fatal_error(self) -> None:
        from .crash import report_crash

        self._exit_renderables.append(Text(report_crash(sys.exc_info()[1] or self._exception, self._crash_log)))
        self._close_messages_no_wait()
