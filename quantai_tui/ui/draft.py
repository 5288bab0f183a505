"""What has been typed into the settings editor, apart from what the engine has. Nothing typed is lost by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..link.messages import SaveResult, SettingField, SettingProblem, SettingsForm

Edits = dict[str, str | None]
"""Name and text; None takes the setting out of the file."""

_DEFAULT = "default"
"""How the source of a value begins that no file, variable or option gives."""


class Draft:
    """A form as the engine described it, and the edits on top."""

    def __init__(self, form: SettingsForm) -> None:
        self.form = form
        self.problems: dict[str, str] = {}
        self.applied: dict[str, str] = {}
        self.stranded: dict[str, str] = {}
        """Text typed into settings that have since been fixed elsewhere, or are gone: shown, not sent, not thrown away."""
        self._edits: Edits = {}

    @property
    def edits(self) -> Edits:
        """Every field that differs from what the engine has."""
        return dict(self._edits)

    @property
    def unsaved(self) -> dict[str, str]:
        """All that would be lost: name and what was typed, in words."""
        words = {name: "back to its default" if text is None else text for name, text in self._edits.items()}
        return words | self.stranded

    @property
    def wrong(self) -> list[str]:
        """Names of the settings with a problem, in the form's order."""
        return [field.name for field in self.form.fields if field.name in self.problems]

    @property
    def marked(self) -> list[str]:
        """Where work is left: what is wrong, else what is edited."""
        return self.wrong or [field.name for field in self.form.fields if field.name in self.unsaved]

    def field(self, name: str) -> SettingField:
        return next(field for field in self.form.fields if field.name == name)

    def text(self, name: str) -> str:
        field = self.field(name)
        text = self._edits.get(name, field.value)
        return field.default if text is None else text

    def is_reset(self, name: str) -> bool:
        return name in self._edits and self._edits[name] is None

    def type(self, name: str, text: str) -> bool:
        """Take what was typed; returns whether it changed anything. Locked fields take nothing."""
        field = self.field(name)
        if field.locked or self.text(name) == text:
            return False
        if text == field.value:
            del self._edits[name]
        else:
            self._edits[name] = text
        self._touched(name)
        return True

    def undo(self, name: str) -> bool:
        """Take back what was typed into it."""
        if name not in self.unsaved:
            return False
        self._edits.pop(name, None)
        self.stranded.pop(name, None)
        self._touched(name)
        return True

    def reset(self, name: str) -> str:
        """Mark it to be taken out of the file; in words why not, where that would do nothing."""
        field = self.field(name)
        if field.locked:
            return f"{name} is fixed by {field.locked}: change it there"
        if field.source.startswith(_DEFAULT):
            return "" if self.undo(name) else f"{name} stands at its default"
        if self.is_reset(name):
            return f"{name} is marked already; saving takes it out of the file"
        self._edits[name] = None
        self._touched(name)
        return ""

    def cycle(self, name: str) -> bool:
        """The next value of a field that has few: booleans and choices."""
        choices = choices_of(self.field(name))
        if not choices:
            return False
        lowered = [choice.lower() for choice in choices]
        now = self.text(name).lower()
        index = lowered.index(now) + 1 if now in lowered else 0
        return self.type(name, choices[index % len(choices)])

    def judge(self, problems: Iterable[SettingProblem]) -> None:
        """Take the engine's verdict on the edits. It may concern settings that were not typed into, and more than one each."""
        found: dict[str, list[str]] = {}
        for problem in problems:
            found.setdefault(problem.name, []).append(problem.message)
        self.problems = {name: "; ".join(messages) for name, messages in found.items()}

    def saved(self, result: SaveResult, sent: Mapping[str, str | None]) -> None:
        """Take the outcome of a save; an edit goes when it was written as it stands: one typed on since then stays."""
        self.judge(result.problems)
        if result.saved:
            self.applied = dict(result.applied)
            self._edits = {name: text for name, text in self._edits.items() if name not in sent or sent[name] != text}

    def rebase(self, form: SettingsForm) -> None:
        """The engine's settings changed underneath: edits stay on top, those that cannot be made any more as text to be read."""
        self.form = form
        fields = {field.name: field for field in form.fields}
        typed: Edits = {**self.stranded, **self._edits}
        self._edits, self.stranded = {}, {}
        for name, text in typed.items():
            if name not in fields or (fields[name].locked and fields[name].value != text):
                if text is not None:
                    self.stranded[name] = text
            elif text != fields[name].value and not (text is None and fields[name].source.startswith(_DEFAULT)):
                self._edits[name] = text

    def matching(self, wanted: str) -> list[SettingField]:
        """Fields in whose name, title, group or description every word occurs."""
        needles = wanted.lower().split()
        return [
            field
            for field in self.form.fields
            if all(needle in f"{field.name} {field.title} {field.group} {field.description}".lower() for needle in needles)
        ]

    def _touched(self, name: str) -> None:
        self.problems.pop(name, None)
        self.applied.pop(name, None)


def choices_of(field: SettingField) -> tuple[str, ...]:
    """All values of a field that has few; empty for one into which anything may be typed."""
    return ("True", "False") if field.kind == "bool" else field.choices
