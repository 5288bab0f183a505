"""What a save would do, before it is done: the changes with what each takes, and the lines of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from ..link.messages import SettingChange, SettingsForm, SettingsPreview
from .cells import Row, Span, clip, row, wrap
from .fields import NAME_CELLS, content
from .format import clean

_AROUND = 2  # unchanged lines shown beside a changed one
_SIGNS = {"+": "state-live", "-": "state-failed", "~": "state-backoff"}
_KEYS: tuple[Span, ...] = (
    *(("enter", "key"), (" save   ", "text")),
    *(("esc", "key"), (" back, nothing is saved   ", "text")),
    *(("↑ ↓", "key"), (" scroll", "text")),
)


class PreviewScreen(Screen[bool]):
    """Dismisses with whether to save."""

    DEFAULT_CSS = """
    PreviewScreen { background: $background; layout: vertical; }
    PreviewScreen Static { padding: 0 1; color: $foreground; background: $background; }
    PreviewScreen .line { height: 1; }
    PreviewScreen VerticalScroll { height: 1fr; border: round $edge; background: $background; scrollbar-size-vertical: 1; }
    PreviewScreen VerticalScroll:focus { border: round $edge-focus; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "answer(True)", "save", show=False, priority=True),
        Binding("escape,q", "answer(False)", "back", show=False),
    ]

    def __init__(self, preview: SettingsPreview, form: SettingsForm, edits: Mapping[str, str | None]) -> None:
        super().__init__()
        self._preview = preview
        self._form = form
        self._edits = edits

    def compose(self) -> ComposeResult:
        count = len(self._preview.changes)
        head = row(
            ("Save? ", "title"),
            (f"{count} {'change' if count == 1 else 'changes'}", "state-backoff"),
            (f"  {clean(self._form.path)}", "muted"),
        )
        yield Static(content([head]), classes="line", markup=False)
        yield VerticalScroll(Static("", id="changes", markup=False))
        yield Static(content([row(*_KEYS)]), classes="line", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        rows = preview_rows(self._preview, self._form, self._edits, max(20, self.size.width - 6))
        self.query_one("#changes", Static).update(content(rows))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


def preview_rows(preview: SettingsPreview, form: SettingsForm, edits: Mapping[str, str | None], width: int) -> list[Row]:
    """The page: changes first, then what is on trial, then the file."""
    rows: list[Row] = []
    for change in preview.changes:
        rows += _change(change, _sign(change, form, edits), width)
    if preview.on_trial:
        promise = "◆ on trial: undone by itself unless you keep it (y) in time; a countdown shows how long you have"
        rows += [Row(), *(row((line, "state-backoff")) for line in wrap(promise, width, 3))]
    rows += [Row(), row(("the file", "title"))]
    return rows + [_file_line(line, width) for line in hunks(preview.diff)]


def _sign(change: SettingChange, form: SettingsForm, edits: Mapping[str, str | None]) -> str:
    """New in the file, out of it, or changed in it."""
    if change.name in edits and edits[change.name] is None:
        return "-"
    source = next((item.source for item in form.fields if item.name == change.name), "")
    return "+" if source.startswith("default") else "~"


def _change(change: SettingChange, sign: str, width: int) -> list[Row]:
    """One line where it fits: sign, name, old and new, effect; otherwise the effect and the values below the name."""
    old, new = clean(change.old) or "(empty)", clean(change.new) or "(empty)"
    name = f"{sign} {clean(change.name):<{NAME_CELLS}} "
    values, effect = f"{old} → {new}", clean(change.effect)
    if len(name) + len(values) + 2 + len(effect) <= width:
        pad = " " * max(2, 30 - len(values)) if width >= len(name) + 30 + len(effect) else "  "
        return [row((name, _SIGNS[sign]), (values, "value"), (pad, "text"), (effect, "state-pending"))]
    return [
        row((name.rstrip(), _SIGNS[sign]), ("  ", "text"), (clip(effect, width - len(name.rstrip()) - 2), "state-pending")),
        *(row((f"    {line}", "value")) for line in wrap(values, width - 4, 4)),
    ]


def hunks(diff: tuple[str, ...]) -> list[str]:
    """The changed lines and a little around them; what is left out is said."""
    wanted = {near for i, line in enumerate(diff) if line[:1] in "+-" for near in range(i - _AROUND, i + _AROUND + 1)}
    shown: list[str] = []
    left_out = 0
    for i, line in enumerate(diff):
        if i in wanted:
            shown += [f"  … {left_out} lines as they are"] if left_out else []
            shown.append(line)
            left_out = 0
        else:
            left_out += 1
    return shown + ([f"  … {left_out} lines as they are"] if left_out else [])


def _file_line(line: str, width: int) -> Row:
    return row((clip(clean(line), width), _SIGNS.get(line[:1], "muted")))
