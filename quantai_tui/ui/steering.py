"""The keys that steer the engine: each sends a command, asks first where something would be lost, and says what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..link.base import EngineLink
from ..link.messages import CommandName
from .actions import Handler
from .commands import Commands
from .format import quantity

if TYPE_CHECKING:
    from .app import DashboardApp


class Steering:
    """Stream and training, as the operator moves them."""

    def __init__(self, app: DashboardApp, link: EngineLink, commands: Commands) -> None:
        self._app = app
        self._link = link
        self._commands = commands

    def handlers(self) -> dict[str, Handler]:
        return {
            "reconnect": lambda: self._send(CommandName.RECONNECT, "reconnect"),
            "toggle-stream": self._toggle_stream,
            "rotate": lambda: self._send(CommandName.ROTATE, "fresh connection"),
            "reset-backoff": lambda: self._send(CommandName.RESET_BACKOFF, "reset backoff"),
            "break": lambda: self._work(self._choose_fault(), "faults"),
            "toggle-training": self._toggle_training,
            "reset-scaler": self._reset_scaler,
            "checkpoint": lambda: self._send(CommandName.CHECKPOINT, "save checkpoint"),
        }

    def _work(self, work: Any, group: str) -> None:
        self._app.run_worker(work, group=group, exclusive=True)

    def _send(self, name: CommandName, word: str, **args: Any) -> None:
        self._app.run_worker(self._commands.send(name, word, **args), group="commands")

    def _toggle_stream(self) -> None:
        if self._app.view().stream_is_off:
            self._send(CommandName.CONNECT, "connect")
        else:
            self._send(CommandName.DISCONNECT, "disconnect")

    async def _choose_fault(self) -> None:
        """Which faults there are the exchange knows; where there is none to be broken, the engine says why."""
        from .faults import choose_fault, fault_names

        ack = await self._commands.ask(CommandName.FAULT_LIST)
        names, problem = fault_names(ack)
        if problem:
            self._app.say(f"break something: {problem}", "state-failed")
            return

        def chosen(kind: str | None) -> None:
            if kind:
                self._send(CommandName.FAULT, kind, kind=kind)
            self._app.tick()

        self._app.push_screen(choose_fault(names), chosen)

    def _toggle_training(self) -> None:
        if self._app.view().training_is_on:
            self._send(CommandName.TRAIN_PAUSE, "pause training")
        else:
            self._send(CommandName.TRAIN_START, "start training")

    def _reset_scaler(self) -> None:
        from .dialogs import ask_reset

        snapshot = self._link.snapshot
        training = snapshot.training if snapshot is not None else None
        if training is None or training.scale is None:
            self._app.say("reset scale: there is no scale yet", "state-failed")
            return

        def answered(answer: str | None) -> None:
            if answer == "reset":
                self._send(CommandName.SCALER_RESET, "reset scale")
            self._app.tick()

        asked = ask_reset(quantity(training.scale), quantity(training.scale_cap), quantity(training.scale_floor))
        self._app.push_screen(asked, answered)
