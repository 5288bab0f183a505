"""How the dashboard is left: who is asked, whether the engine is stopped with it, and what a hang-up may do."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

from ..link.base import EngineLink, LinkState
from ..link.messages import CommandName
from ..telemetry import Mode
from .actions import Handler
from .commands import Commands

if TYPE_CHECKING:
    from .app import DashboardApp

log = logging.getLogger(__name__)

Outcome = Literal["stop", "detach"]

_START_LIMIT_S = 30.0
_NO_ENGINE = (LinkState.FAILED, LinkState.REFUSED, LinkState.CLOSED)


class Departure:
    """Ends `app` with "stop" (the engine was told to stop) or "detach". Told of it, an engine that still starts is waited for."""

    def __init__(self, app: DashboardApp, link: EngineLink, commands: Commands, *, stop_on_quit: bool) -> None:
        self._app = app
        self._link = link
        self._commands = commands
        self._stop_on_quit = stop_on_quit
        self._started_up = asyncio.Event()
        self._under_way = False

    def handlers(self) -> dict[str, Handler]:
        return {"quit": self.ask, "stop-engine": self.ask_stop, "interrupt": self.interrupt}

    def engine_has_started(self) -> None:
        """It can be told things now, or has failed: either way it need not be waited for."""
        self._started_up.set()

    def engine_has_ended(self) -> None:
        """There is nothing to look at any more."""
        if not self._under_way:
            self.leave("detach")

    def ask(self) -> None:
        """`q`: where the engine would go on, ask; in demo and replay stop it. Without an engine there is nothing to ask."""
        if self._link.state in _NO_ENGINE:
            self.leave("detach")
        elif self._quit_stops:
            self._stop_and_leave()
        else:
            from .dialogs import ask_quit

            self._app.push_screen(ask_quit(self._app.view()), self._answered)

    def ask_stop(self) -> None:
        """Stop the engine whatever its mode, once the operator has read what that means."""
        if self._link.state in _NO_ENGINE:
            self._app.say(f"stop engine: there is none to stop ({self._link.state.value})", "state-failed")
        elif self._under_way:
            self._app.say("stop engine: it is being stopped already", "state-pending")
        else:
            from .dialogs import ask_stop

            self._app.push_screen(ask_stop(self._app.view()), self._answered)

    def interrupt(self) -> None:
        """Ctrl-C: like `q`, but asks nothing. A second one does not wait for the engine to stop."""
        if self._quit_stops and not self._under_way and self._link.state in (LinkState.STARTING, LinkState.ATTACHED):
            self._stop_and_leave()
        else:
            self.leave("detach")

    def hang_up(self, reason: str) -> None:
        """The terminal or the system wants us gone. Only an interrupt is the operator's own wish."""
        log.info("leaving: %s", reason)
        if reason == "interrupt":
            self.interrupt()
        else:
            self.leave("detach")

    def leave(self, outcome: Outcome) -> None:
        self._under_way = True
        self._app.exit(outcome)

    @property
    def _quit_stops(self) -> bool:
        """A made-up or replayed market is of no use to anybody once its screen is closed."""
        snapshot = self._link.snapshot
        return self._stop_on_quit or (snapshot is not None and snapshot.mode is not Mode.LIVE)

    def _answered(self, answer: str | None) -> None:
        if answer == "stop":
            self._stop_and_leave()
        elif answer == "detach":
            self.leave("detach")
        else:
            self._app.tick()

    def _stop_and_leave(self) -> None:
        if self._under_way:
            return
        self._under_way = True
        self._app.say("stopping the engine …", "state-pending")
        self._app.run_worker(self._stop_engine(), group="commands")

    async def _stop_engine(self) -> None:
        await self._attached_or_not()
        ack = await self._commands.ask(CommandName.STOP)
        if ack.ok or self._link.state in (LinkState.FAILED, LinkState.CLOSED):
            self._app.exit("stop")
            return
        self._under_way = False
        self._app.say(f"stop: not done — {ack.message}", "state-failed")

    async def _attached_or_not(self) -> None:
        """An engine that is still starting cannot be told anything yet, and would go on without anybody looking."""
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await self._started_up.wait()
        except TimeoutError:
            log.warning("the engine was not there within %.0f s", _START_LIMIT_S)
