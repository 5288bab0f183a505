"""The dashboard application: samples the link by a timer, sends commands in workers, and leaves in one of two ways."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

# Read when Textual is imported: an animation over SSH is traffic that says nothing.
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

from rich.text import Text
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.binding import BindingType
from textual.driver import Driver

from ..link.base import EngineLink, LinkState
from ..link.messages import CommandName
from ..telemetry import SYSTEM_CLOCK, Clock
from .actions import ACTIONS, bindings
from .cells import Pace
from .commands import Commands
from .dashboard import Dashboard
from .format import clean, quantity
from .leaving import Departure, Outcome
from .painter import CellMemory
from .themes import PLAIN_THEME, Palette, load_themes, token_defaults, without_no_color
from .view import Status, View, look

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.screen import Screen

    from .terminal import TerminalGuard

log = logging.getLogger(__name__)

_POLL_PERIOD_S = 0.25
_CLOSE_LIMIT_S = 30.0
_STATUS_LASTS_S = {"state-pending": math.inf, "state-failed": 30.0}  # what is under way stays, a refusal can be read
_DASHBOARD_ACTIONS = frozenset(item.method for item in ACTIONS if not item.priority)


class DashboardApp(App[Outcome]):
    """Shows one engine. Its return value says how it was left: "stop" (the engine was told to stop) or "detach".

    `stop_on_quit`: plain `q` and Ctrl-C stop the engine, as they do in demo and replay anyway. `theme`: fixes the theme; without
    it the engine's setting is followed. `stale_after_s`: age from which a snapshot counts as old. `crash_log`: file that gets the
    traceback of a crash; without it the traceback goes to the log.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = list(bindings())
    CSS = "ToastRack { margin-bottom: 1; } Toast { background: $surface; }"

    def __init__(
        self,
        link: EngineLink,
        *,
        clock: Clock = SYSTEM_CLOCK,
        stop_on_quit: bool = False,
        theme: str | None = None,
        themes_folder: Path | None = None,
        stale_after_s: float = 2 * Pace.TEXT.value,
        crash_log: Path | None = None,
        guard: TerminalGuard | None = None,
        driver_class: type[Driver] | None = None,
    ) -> None:
        with without_no_color():
            super().__init__(driver_class=driver_class)
        self.title = "QuantAI"
        self._link = link
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._crash_log = crash_log
        self._guard = guard
        self._started = clock.monotonic()
        self._status = Status()
        self._status_until = math.inf
        self._commands = Commands(link, self.say)
        self._departure = Departure(self, link, self._commands, stop_on_quit=stop_on_quit)
        self._cells = CellMemory()
        self._last_shape: tuple[object, ...] = ()
        self._due = dict.fromkeys(Pace, 0.0)
        self._colorless = bool(os.environ.get("NO_COLOR"))
        self._shelf = load_themes(themes_folder, wanted=theme)
        for item in self._shelf.themes:
            self.register_theme(item)
        self.theme = PLAIN_THEME if self._colorless else self._shelf.choice
        self._engine_theme = ""
        self._theme_is_fixed = self._colorless or theme is not None
        self.palette = self._make_palette()
        self.dashboard = Dashboard(self.palette, self.view())

    def get_default_screen(self) -> Screen[Any]:
        return self.dashboard

    async def on_mount(self) -> None:
        if self._guard is not None:
            self._guard.install(self.hang_up)
        self.theme_changed_signal.subscribe(self, lambda _: self._dress())
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
        if self._shelf.problems:
            self.notify("\n".join(self._shelf.problems), title="Themes", severity="warning", markup=False)
        self.tick()

    def view(self) -> View:
        """The link as it stands now."""
        if self._clock.monotonic() > self._status_until:
            self._status = Status()
        return look(self._link, self._clock, self._started, self._stale_after_s, self._status)

    def tick(self) -> None:
        """Sample the link. Each kind of row follows at its own pace; a change of state reaches all of them at once."""
        self._follow()
        if not self.screen_stack or self.screen is not self.dashboard:  # none is left while the app closes
            return
        view = self.view()
        now = self._clock.monotonic()
        fresh = view.shape != self._last_shape
        due = [pace for pace in Pace if fresh or now >= self._due[pace]]
        for pace in due:
            self._due[pace] = now + pace.value - _POLL_PERIOD_S / 2
        self._last_shape = view.shape
        if due:
            self.dashboard.show(view, due)

    def _follow(self) -> None:
        """What the engine decides about the dashboard: that there is nothing to look at, and the theme of its settings."""
        state, snapshot = self._link.state, self._link.snapshot
        if state is not LinkState.STARTING:
            self._departure.engine_has_started()
        if state is LinkState.FAILED and self._link.exit_code is not None:
            self._departure.engine_has_ended()
        wanted = snapshot.theme if snapshot is not None else ""
        if wanted == self._engine_theme or self._theme_is_fixed:
            return
        self._engine_theme = wanted
        if wanted in self._shelf.names:
            self.theme = wanted
        elif wanted:
            self.say(f"theme: there is no {wanted!r}; there are {', '.join(self._shelf.names)}", "alert-warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The dashboard's keys are its own: on any other screen only the way out works."""
        return self.screen is self.dashboard or action not in _DASHBOARD_ACTIONS

    def say(self, text: str, token: str = "text") -> None:
        """Put one line above the keys, at once."""
        self._status = Status(clean(text), token)
        self._status_until = self._clock.monotonic() + _STATUS_LASTS_S.get(token, 10.0)
        self.tick()

    def _send(self, name: CommandName, word: str, **args: Any) -> None:
        self.run_worker(self._commands.send(name, word, **args), group="commands")

    def action_reconnect(self) -> None:
        self._send(CommandName.RECONNECT, "reconnect")

    def action_toggle_stream(self) -> None:
        if self.view().stream_is_off:
            self._send(CommandName.CONNECT, "connect")
        else:
            self._send(CommandName.DISCONNECT, "disconnect")

    def action_rotate(self) -> None:
        self._send(CommandName.ROTATE, "fresh connection")

    def action_reset_backoff(self) -> None:
        self._send(CommandName.RESET_BACKOFF, "reset backoff")

    def action_break(self) -> None:
        self.run_worker(self._choose_fault(), group="faults", exclusive=True)

    async def _choose_fault(self) -> None:
        """Which faults there are the exchange knows; where there is none to be broken, the engine says why."""
        from .faults import FaultScreen, fault_names

        ack = await self._commands.ask(CommandName.FAULT_LIST)
        names, problem = fault_names(ack)
        if problem:
            self.say(f"break something: {problem}", "state-failed")
            return

        def chosen(kind: str | None) -> None:
            if kind:
                self._send(CommandName.FAULT, kind, kind=kind)
            self.tick()

        self.push_screen(FaultScreen(names), chosen)

    def action_toggle_training(self) -> None:
        if self.view().training_is_on:
            self._send(CommandName.TRAIN_PAUSE, "pause training")
        else:
            self._send(CommandName.TRAIN_START, "start training")

    def action_reset_scaler(self) -> None:
        from .dialogs import ask_reset

        snapshot = self._link.snapshot
        training = snapshot.training if snapshot is not None else None
        if training is None or training.scale is None:
            self.say("reset scale: there is no scale yet", "state-failed")
            return

        def answered(answer: str | None) -> None:
            if answer == "reset":
                self._send(CommandName.SCALER_RESET, "reset scale")
            self.tick()

        self.push_screen(
            ask_reset(quantity(training.scale), quantity(training.scale_cap), quantity(training.scale_floor)), answered
        )

    def action_checkpoint(self) -> None:
        self._send(CommandName.CHECKPOINT, "save checkpoint")

    def action_config(self) -> None:
        from .editor import EditorScreen

        self.push_screen(EditorScreen(self._commands.ask), self._back_from_editor)

    def _back_from_editor(self, said: str | None) -> None:
        self.say(said or "", "text")

    def action_help(self) -> None:
        from .help import HelpScreen

        self.push_screen(HelpScreen(), lambda _: self.tick())

    def action_next_theme(self) -> None:
        if self._colorless:
            self.say("theme: NO_COLOR is set, so no theme is used")
            return
        self.theme = self._shelf.after(self.theme)
        self.say(f"theme: {self.theme}")

    def action_zoom(self) -> None:
        focused = self.focused
        if self.dashboard.zoomed:
            self.dashboard.zoom("")
        elif focused is not None and focused.id:
            self.dashboard.zoom(focused.id)
        else:
            self.say("zoom: choose a pane first (tab)")

    def action_step_back(self) -> None:
        if self.dashboard.zoomed:
            self.dashboard.zoom("")
        else:
            self.screen.set_focus(None)

    def action_focus_next(self) -> None:
        self.dashboard.step_focus(1)

    def action_focus_previous(self) -> None:
        self.dashboard.step_focus(-1)

    def action_redraw(self) -> None:
        self._cells.forget()
        self.refresh(layout=True)

    def action_toggle_mouse(self) -> None:
        switch = getattr(self._driver, "switch_mouse", None)
        if switch is None:
            self.say("mouse: this terminal driver cannot switch it")
        else:
            self.say(f"mouse: {'on' if switch() else 'off'}")

    async def action_quit(self) -> None:
        self._departure.ask()

    def action_interrupt(self) -> None:
        self._departure.interrupt()

    def hang_up(self, reason: str) -> None:
        """The terminal or the system wants us gone."""
        self._departure.hang_up(reason)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Own tokens for themes that do not name them, Textual's built-in ones among them."""
        return token_defaults(self.current_theme.to_color_system().generate())

    def _make_palette(self) -> Palette:
        return Palette(self.get_css_variables(), plain=self.theme == PLAIN_THEME)

    def _dress(self) -> None:
        self.palette = self._make_palette()
        self.dashboard.dress(self.palette)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Textual's outlet to the terminal, with the cells that did not change taken out."""
        if self._running and not self._batch_count and not self.is_headless:
            if isinstance(renderable, ChopsUpdate):
                renderable = self._cells.changes(renderable)
            elif isinstance(renderable, LayoutUpdate):
                self._cells.forget()
        super()._display(screen, renderable)

    def _fatal_error(self) -> None:
        from .crash import report_crash

        self._exit_renderables.append(Text(report_crash(sys.exc_info()[1] or self._exception, self._crash_log)))
        self._close_messages_no_wait()


def run_dashboard(
    link: EngineLink,
    *,
    clock: Clock = SYSTEM_CLOCK,
    stop_on_quit: bool = False,
    mouse: bool | None = None,
    theme: str | None = None,
    crash_log: Path | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> int:
    """Show the dashboard until the operator leaves it; returns the process's exit code.

    0 when left (also by hang-up or signal), 1 when the dashboard failed, 2 when there is no terminal to show it on. `on_outcome`
    is told "stop" or "detach" after the terminal has been restored. `mouse` defaults to on, except over SSH.
    """
    from .terminal import TerminalDriver, TerminalGuard

    if sys.__stdin__ is None or sys.__stderr__ is None or not (sys.__stdin__.isatty() and sys.__stderr__.isatty()):
        print("The dashboard needs a terminal on its input and error output; without one use --headless.", file=sys.stderr)
        return 2
    guard = TerminalGuard()
    app = DashboardApp(
        link,
        clock=clock,
        stop_on_quit=stop_on_quit,
        theme=theme,
        crash_log=crash_log,
        guard=guard,
        driver_class=TerminalDriver,
    )
    guard.remember_terminal()
    try:
        app.run(mouse=not os.environ.get("SSH_CONNECTION") if mouse is None else mouse)
    finally:
        guard.remove()
        guard.let_go()
    if app.return_code:
        return 1
    outcome: Outcome = app.return_value or "detach"
    if on_outcome is not None:
        on_outcome(outcome)
    return 0
