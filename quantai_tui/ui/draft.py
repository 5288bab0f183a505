"""What has been typed into the settings editor, apart from what the engine has. Nothing typed is lost by itself."""

from __future__ import annotations

from collections.abc import Iterable

from ..link.messages import SaveResult, SettingField, SettingProblem, SettingsForm


class Draft:
    """A form as the engine described it, and the edits on top."""

    def __init__(self, form: SettingsForm) -> None:
        self.form = form
        self.problems: dict[str, str] = {}
        self.applied: dict[str, str] = {}
        self._edits: dict[str, str] = {}

    @property
    def edits(self) -> dict[str, str]:
        """Name and text of every field that differs from what the engine has."""
        return dict(self._edits)

    def field(self, name: str) -> SettingField:
        return next(field for field in self.form.fields if field.name == name)

    def text(self, name: str) -> str:
        return self._edits.get(name, self.field(name).value)

    def type(self, name: str, text: str) -> bool:
        """Take what was typed; returns whether it changed anything. Locked fields take nothing."""
        field = self.field(name)
        if field.locked or self.text(name) == text:
            return False
        if text == field.value:
            del self._edits[name]
        else:
            self._edits[name] = text
        self.problems.pop(name, None)
        self.applied.pop(name, None)
        return True

    def undo(self, name: str) -> bool:
        return self.type(name, self.field(name).value)

    def cycle(self, name: str) -> bool:
        """The next value of a field that has few: booleans and choices."""
        field = self.field(name)
        choices = ("True", "False") if field.kind == "bool" else field.choices
        if not choices:
            return False
        lowered = [choice.lower() for choice in choices]
        now = self.text(name).lower()
        index = lowered.index(now) + 1 if now in lowered else 0
        return self.type(name, choices[index % len(choices)])

    def judge(self, problems: Iterable[SettingProblem]) -> None:
        """Take the engine's verdict on the edits."""
        self.problems = {problem.name: problem.message for problem in problems}

    def saved(self, result: SaveResult) -> None:
        """Take the outcome of a save; edits stay unless they were written."""
        self.judge(result.problems)
        if result.saved:
            self.applied = dict(result.applied)
            self._edits.clear()

    def rebase(self, form: SettingsForm) -> None:
        """The engine's settings changed underneath: keep the edits that still are edits and still may be made."""
        self.form = form
        fields = {field.name: field for field in form.fields}
        self._edits = {
            name: text
            for name, text in self._edits.items()
            if name in fields and not fields[name].locked and fields[name].value != text
        }

    def matching(self, wanted: str) -> list[SettingField]:
        """Fields in whose name, title, group or description every word occurs."""
        needles = wanted.lower().split()
        return [
            field
            for field in self.form.fields
            if all(needle in f"{field.name} {field.title} {field.group} {field.description}".lower() for needle in needles)
        ]
