"""Saving from the settings editor: what would change is shown first, and what came of it is said for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..link.messages import CommandName, SaveResult, SettingsPreview
from .commands import answered
from .conflict import ConflictScreen
from .preview import PreviewScreen
from .raw import Command
from .trial import Trials

if TYPE_CHECKING:
    from .editor import EditorScreen


class Saving:
    """One save or undo at a time. `outcome` is one line on the last one that was written."""

    def __init__(self, editor: EditorScreen, command: Command, trials: Trials) -> None:
        self._editor = editor
        self._command = command
        self._trials = trials
        self.outcome = ""
        self.busy = False

    async def save(self) -> bool:
        """Preview, and when that is agreed to, have the engine write the edits; returns whether it did."""
        draft = self._editor.draft
        if draft is None or self.busy:
            return False
        edits = draft.edits
        if not edits:
            self._editor.say("nothing to save", "muted")
            return False
        self.busy = True
        try:
            if not await self._agreed(edits):
                return False
            self._editor.say("saving …", "state-pending")
            ack = await self._command(CommandName.SETTINGS_SAVE, values=edits, revision=draft.form.revision)
            result, why = answered(ack, SaveResult)
            if result is None:
                self._editor.say(f"not saved: {why}", "state-failed")
                return False
            return await self.take(result, edits, ack.message)
        finally:
            self.busy = False

    async def _agreed(self, edits: Mapping[str, str | None]) -> bool:
        draft = self._editor.draft
        assert draft is not None
        preview, why = answered(await self._command(CommandName.SETTINGS_PREVIEW, values=edits), SettingsPreview)
        if preview is None:
            self._editor.say(f"not saved: {why}", "state-failed")
            return False
        if preview.problems:
            self._refuse(SaveResult(False, preview.problems), edits, "")
            return False
        screen = PreviewScreen(preview, draft.form, edits)
        agreed: bool = await self._editor.app.push_screen_wait(screen)
        if not agreed:
            self._editor.say("not saved; your edits are kept", "state-backoff")
        return agreed

    async def undo(self) -> None:
        """Undo the newest save that is not undone yet; edits on the screen stay on top."""
        if self.busy:
            return
        self.busy = True
        try:
            ack = await self._command(CommandName.SETTINGS_UNDO)
        finally:
            self.busy = False
        result, why = answered(ack, SaveResult)
        if result is None:
            self._editor.say(f"nothing undone: {why}", "state-failed")
        else:
            await self.take(result, {}, ack.message, "undone")

    async def take(self, result: SaveResult, sent: Mapping[str, str | None], message: str = "", done: str = "saved") -> bool:
        """Show what the engine made of a save; returns whether it was written."""
        draft = self._editor.draft
        if not result.saved or draft is None:
            self._refuse(result, sent, message)
            return False
        self._editor.take_typed()
        draft.saved(result, sent)
        self._editor.show_value()
        self._trials.began(result)
        said = ", ".join(f"{name} {what}" for name, what in result.applied.items())
        self.outcome = f"settings {done}: {said or message or 'nothing in force changed'}"
        await self._editor.describe()
        trial = "; on trial, y keeps them, n undoes them" if result.trial_id else ""
        self._editor.say(self.outcome + trial, "state-live")
        self._editor.refresh_lines()
        return True

    def _refuse(self, result: SaveResult, sent: Mapping[str, str | None], message: str) -> None:
        editor, draft = self._editor, self._editor.draft
        if draft is not None:
            draft.saved(result, sent)
        if result.conflict_text or result.proposed_text:
            editor.app.push_screen(ConflictScreen(result.conflict_text, result.proposed_text), self._conflict_answered)
        elif result.problems:
            names = [problem.name or problem.message for problem in result.problems]
            editor.say(f"not saved: {len(names)} to correct ({', '.join(names)})", "state-failed")
            if draft is not None and draft.wrong:
                editor.go_to(draft.wrong[0])
        else:
            editor.say(f"not saved: {message or 'the engine gave no reason'}", "state-failed")
        editor.refresh_lines()

    def _conflict_answered(self, answer: str | None) -> None:
        if answer == "reload":
            self._editor.work(self._reload, "editor")
        else:
            self._editor.say("not saved: the file has changed on disk; your edits are kept", "state-backoff")

    async def _reload(self) -> None:
        if await self._editor.describe() and self._editor.draft is not None:
            count = len(self._editor.draft.edits)
            self._editor.say(f"read again; {count} of your edits are kept on top, w saves them", "state-pending")
