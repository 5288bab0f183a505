"""Settings on trial: how long they have left, the two keys that decide, and what became of them.

The engine undoes them by itself unless somebody says to keep them: the countdown is its own, and any dashboard may decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..link.base import EngineLink
from ..link.messages import CommandName, SaveResult, SettingsForm
from ..telemetry import Clock, TrialSnapshot
from .actions import Handler
from .cells import Span, clip
from .commands import Commands, answered
from .format import clean, countdown

if TYPE_CHECKING:
    from .app import DashboardApp

_NEARLY_OVER_S = 3.0  # snapshots come once or twice a second; one or two may be missed

Say = Callable[[str, str], None]


class _Watched(Struct, frozen=True):
    """A trial whose end is waited for: the time it had left when last seen, the values under trial, where they are known."""

    id: int
    names: tuple[str, ...]
    left_s: float
    values: dict[str, str]


class Trials:
    """What stands on trial at the engine behind `link`, from its snapshots and from the saves made here.

    `say` puts a line before the operator; a screen that covers the dashboard may take it over, and `ended` is called when a trial
    is over, however that came.
    """

    def __init__(self, app: DashboardApp, link: EngineLink, commands: Commands, clock: Clock) -> None:
        self._app = app
        self._link = link
        self._commands = commands
        self._clock = clock
        self._own: TrialSnapshot | None = None
        self._own_deadline = 0.0
        self._over = 0
        self._watched: _Watched | None = None
        self._asking = False
        self.say: Say = app.say
        self.ended: Callable[[], None] = lambda: None

    def handlers(self) -> dict[str, Handler]:
        return {"keep-settings": self.keep, "undo-trial": self.undo}

    @property
    def standing(self) -> TrialSnapshot | None:
        """What is on trial, and the seconds left now: an old snapshot's countdown has gone on."""
        snapshot = self._link.snapshot
        told = snapshot.trial if snapshot is not None else None
        if told is not None and told.id != self._over and (self._own is None or told.id >= self._own.id):
            return TrialSnapshot(told.id, max(0.0, told.left_s - (self._link.snapshot_age_s or 0.0)), told.names)
        left = self._own_deadline - self._clock.monotonic()
        if self._own is not None and left > 0:
            return TrialSnapshot(self._own.id, left, self._own.names)
        return None

    def began(self, result: SaveResult) -> None:
        """A save made here is on trial: it is shown before a snapshot says so."""
        if result.trial_id:
            self._own = TrialSnapshot(result.trial_id, result.trial_s, tuple(result.applied))
            self._own_deadline = self._clock.monotonic() + result.trial_s

    def follow(self) -> None:
        """Look at the newest snapshot: has a trial begun or ended?"""
        snapshot = self._link.snapshot
        if snapshot is None:
            return
        told = snapshot.trial
        if told is not None and self._own is not None and told.id >= self._own.id:
            self._own = None  # from here on the engine's word counts
        watched = self._watched
        if told is not None and told.id != self._over and (watched is None or watched.id != told.id):
            self._watched = _Watched(told.id, told.names, told.left_s, {})
            self._app.run_worker(self._note_values(told), group="trial-values", exclusive=True)
        elif watched is not None and told is not None and watched.id == told.id:
            self._watched = replace(watched, left_s=told.left_s)
        elif watched is not None and (told is None or told.id != watched.id):
            self._watched = None
            if watched.id != self._over:
                self._app.run_worker(self._tell_end(watched), group="trial-end")

    def keep(self) -> None:
        self._decide(CommandName.SETTINGS_CONFIRM, "keep settings", "kept")

    def undo(self) -> None:
        self._decide(CommandName.SETTINGS_ROLLBACK, "undo settings", "undone")

    def _decide(self, name: CommandName, word: str, done: str) -> None:
        trial = self.standing
        if trial is None:
            self.say("nothing is on trial", "muted")
        elif self._asking:
            self.say(f"{word}: still waiting for the engine's answer", "state-pending")
        else:
            self._asking = True
            self.say(f"{word}: sent", "state-pending")
            self._app.run_worker(self._send(name, word, done, trial), group="trial")

    async def _send(self, name: CommandName, word: str, done: str, trial: TrialSnapshot) -> None:
        try:
            ack = await self._commands.ask(name, save=trial.id)
        finally:
            self._asking = False
        if not ack.ok:
            self.say(f"{word}: not done — {ack.message or 'the engine gave no reason'}", "state-failed")
            return
        self._over = trial.id
        self._own = None
        self.say(f"settings {done}: {ack.message or _listed(trial.names)}", "state-live")
        self.ended()

    async def _note_values(self, trial: TrialSnapshot) -> None:
        values = await self._values(trial.names)
        if self._watched is not None and self._watched.id == trial.id:
            self._watched = replace(self._watched, values=values)

    async def _tell_end(self, watched: _Watched) -> None:
        """Over without a word from here: whether the values stand tells whether it was kept or undone."""
        now = await self._values(watched.names)
        names = _listed(watched.names)
        if not now or not watched.values:
            self.say(f"the trial of {names} is over", "state-backoff")
        elif now == watched.values:
            self.say(f"settings kept, by another dashboard: {names}", "state-live")
        else:
            back = ", ".join(f"{name} is {value} again" for name, value in now.items() if value != watched.values.get(name))
            cause = "nobody kept them in time" if watched.left_s < _NEARLY_OVER_S else "from elsewhere, or by the engine's end"
            self.say(f"settings undone, {cause}: {back}", "state-backoff")
        self.ended()

    async def _values(self, names: tuple[str, ...]) -> dict[str, str]:
        """The values in force; nothing where the engine does not answer."""
        form, _ = answered(await self._commands.ask(CommandName.SETTINGS_DESCRIBE), SettingsForm)
        return {item.name: item.value for item in form.fields if item.name in names} if form is not None else {}


def trial_spans(trial: TrialSnapshot, width: int, *, stale: bool = False) -> list[Span]:
    """One line, in at most `width` cells: what is on trial, the keys that decide, and the time left by the engine's clock."""
    left = "no link: the engine decides" if stale else f"{countdown(trial.left_s)} left"
    tail: list[Span] = [("  ", "text"), ("y", "key"), (" keeps  ", "muted"), ("n", "key"), (" undoes  ", "muted")]
    tail.append((left, "state-backoff"))
    room = width - sum(len(text) for text, _ in tail)
    head = "◆ settings on trial: " if room > 45 else "◆ on trial: "
    return [(head, "state-backoff"), (clip(clean(_listed(trial.names)), max(0, room - len(head))), "text"), *tail]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"
