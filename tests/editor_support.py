"""An engine's settings desk as a link that answers: previews, saves on trial, undoes, and hands out the file's text."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from textual.pilot import Pilot
from ui_support import FakeLink, FrozenClock, engine_snapshot, screen_text, settings_form, until

from quantai_tui.link.messages import (
    Ack,
    CommandName,
    SaveResult,
    SettingChange,
    SettingProblem,
    SettingsPreview,
    SettingsText,
)
from quantai_tui.telemetry import TrialSnapshot
from quantai_tui.ui.app import DashboardApp

WORDS = {"live": "live now", "reconnect": "stream reconnects", "restart": "at the next start"}


@dataclass
class SettingsLink(FakeLink):
    """Answers every settings command; `text` is the file. What touches the stream is on trial for 30 s."""

    text: str = "# mine\nWS_PING_INTERVAL = 30.0\n"
    writes: list[str] = field(default_factory=list)
    undone: bool = False

    async def command(self, name: CommandName, **args: Any) -> Ack:
        answers: dict[CommandName, Callable[[dict[str, Any]], Ack]] = {
            CommandName.SETTINGS_PREVIEW: self._preview,
            CommandName.SETTINGS_TEXT: lambda _: Ack(1, True, data=msgspec.to_builtins(self._file())),
            CommandName.SETTINGS_WRITE: self._write,
            CommandName.SETTINGS_UNDO: self._undo,
        }
        if name in answers and name not in self.answers:
            self.commands.append((name, args))
            return answers[name](args)
        return await super().command(name, **args)

    def problems(self, values: dict[str, Any]) -> list[SettingProblem]:
        return super().problems({name: text for name, text in values.items() if text is not None})

    def save(self, values: dict[str, Any]) -> SaveResult:
        defaults = {item.name: item.default for item in self.form.fields}
        result = super().save({name: defaults[name] if text is None else text for name, text in values.items()})
        if result.saved and "stream reconnects" in result.applied.values():
            return msgspec.structs.replace(result, trial_id=7, trial_s=30.0)
        return result

    def stand_trial(self, left_s: float, *names: str) -> None:
        assert self.snapshot is not None
        trial = TrialSnapshot(7, left_s, names) if names else None
        self.snapshot = msgspec.structs.replace(self.snapshot, trial=trial)

    def _file(self) -> SettingsText:
        return SettingsText(self.form.path, self.text, self.form.revision)

    def _preview(self, args: dict[str, Any]) -> Ack:
        values = args["values"]
        fields = {item.name: item for item in self.form.fields}
        changes = tuple(
            SettingChange(name, fields[name].value, fields[name].default if text is None else text, WORDS[fields[name].applies])
            for name, text in values.items()
        )
        diff = ("  # mine", *itertools.chain.from_iterable((f"- {c.name} = {c.old}", f"+ {c.name} = {c.new}") for c in changes))
        on_trial = any(fields[name].applies == "reconnect" for name in values)
        problems = tuple(self.problems(values))
        return Ack(1, True, data=msgspec.to_builtins(SettingsPreview(problems, () if problems else changes, diff, on_trial)))

    def _write(self, args: dict[str, Any]) -> Ack:
        self.writes.append(args["text"])
        if "= wrong" in args["text"]:
            bad = SaveResult(False, (SettingProblem("WS_PING_INTERVAL", "'wrong' breaks the rule > 0 (line 2)"),))
            return Ack(1, False, "not written", data=msgspec.to_builtins(bad))
        self.text = args["text"]
        return Ack(1, True, data=msgspec.to_builtins(SaveResult(True, applied={"WS_PING_INTERVAL": "live now"})))

    def _undo(self, args: dict[str, Any]) -> Ack:
        if self.undone:
            return Ack(1, False, "there is no save to undo")
        self.undone = True
        return Ack(1, True, data=msgspec.to_builtins(SaveResult(True, applied={"WS_PING_INTERVAL": "live now"})))


def link_to(**answers: Ack) -> SettingsLink:
    return SettingsLink(engine_snapshot(), answers={CommandName[name]: ack for name, ack in answers.items()})


@asynccontextmanager
async def editor(link: FakeLink, size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[DashboardApp, Pilot[Any]]]:
    app = DashboardApp(link, clock=FrozenClock())
    async with app.run_test(size=size) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: "WS_PING_INTERVAL" in screen_text(app) or "did not describe" in screen_text(app))
        yield app, pilot


async def go_to(pilot: Pilot[Any], name: str) -> None:
    """From the list's first setting down to this one."""
    names = [item.name for item in settings_form().fields]
    await pilot.press("home", *["down"] * names.index(name))
    await until(pilot, lambda: pilot.app.screen._current == name)


async def type_into(pilot: Pilot[Any], row: int, text: str) -> None:
    """Go `row` settings down from the first, and type over its value."""
    name = settings_form().fields[row].name
    await go_to(pilot, name)
    await pilot.press("enter")
    await until(pilot, lambda: focused(pilot) == "value")
    await pilot.press("ctrl+u", *(_key(char) for char in text))
    await until(pilot, lambda: pilot.app.screen.draft.text(name) == text)


async def save(pilot: Pilot[Any]) -> None:
    """Look at what would change, and agree."""
    await pilot.press("ctrl+s")
    await until(pilot, lambda: "Save?" in screen_text(pilot.app))
    await pilot.press("enter")


def focused(pilot: Pilot[Any]) -> str | None:
    return pilot.app.focused.id if pilot.app.focused is not None else None


def _key(char: str) -> str:
    return {"-": "minus", ".": "full_stop"}.get(char, char)
