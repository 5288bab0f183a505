"""How the settings editor draws: rows of a setting in the list, all that is known of one, and the word on what was typed.

Wrong, edited and fixed settings differ by sign and word; colour only helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from textual.content import Content

from ..link.messages import SettingField
from .cells import Row, Span, clip, field, fitted, row, width_of, wrap
from .draft import Draft, choices_of
from .format import clean

NAME_CELLS = 36
_EFFECTS = {"live": "live now", "reconnect": "stream reconnects", "restart": "at the next start"}
_STYLES = {"text": "$foreground", "found": "bold underline $key"}
_BOLD = frozenset({"value", "title", "key", "state-live", "state-pending", "state-backoff", "state-failed"})


def content(rows: Iterable[Row]) -> Content:
    """Rows as a widget takes them. Their text is taken as it is, never as markup."""
    lines = (Content.assemble(*((text, _style(token)) for text, token in one.spans)) for one in rows)
    return Content("\n").join(lines)


def _style(token: str) -> str:
    return _STYLES.get(token) or (f"bold ${token}" if token in _BOLD else f"${token}")


def head(draft: Draft, width: int, trouble: str) -> Row:
    """How much is unsaved and wrong, what hinders, and which file it is all about."""
    unsaved, wrong = len(draft.unsaved), len(draft.problems)
    state: list[Span] = [("nothing edited", "muted")]
    if unsaved:
        state = [(f"{unsaved} unsaved", "state-backoff")]
    if wrong:
        state += [(", ", "text"), (f"{wrong} wrong", "state-failed")]
    hindered: list[Span] = [(f"◆ {clean(trouble)}", "state-backoff")] if trouble else []
    groups: list[list[Span]] = [[("config", "title")], state, hindered]
    room = width - sum(width_of(group) + 2 for group in groups)
    groups.append([(_clip_left(clean(draft.form.path), room), "muted")])
    return fitted(width, *groups)


def _clip_left(text: str, width: int) -> str:
    """The end of a path says more than its beginning."""
    return text if cell_len(text) <= width else f"…{text[len(text) - max(0, width - 1) :]}" if width > 8 else ""


def list_row(item: SettingField, draft: Draft, width: int, wanted: str) -> Row:
    """One setting: its sign, name, value, and where that comes from or what has become of it."""
    sign, said, token = _mark(item, draft)
    name_cells = min(NAME_CELLS, max(20, width - 24))
    room = max(0, width - name_cells - 4)
    left = min(30, room // 2 - 1)
    value = clean(draft.text(item.name))
    shown = f"{value} {item.unit}".strip() if value else "(empty)"
    name = clip(item.name, name_cells)
    spans: list[Span] = [(f" {sign} ", token), *_highlighted(name, wanted, token)]
    spans.append((" " * (name_cells - len(name) + 1), "text"))
    spans.append((f"{clip(shown, left):<{left}} ", "muted" if item.locked else "value"))
    spans.append((clip(said, room - left - 1), "muted" if token == "text" else token))
    return Row(tuple(spans))


def _mark(item: SettingField, draft: Draft) -> tuple[str, str, str]:
    """Sign, word and colour of how it stands with a setting."""
    if item.name in draft.problems:
        return "!", "wrong", "state-failed"
    if item.name in draft.stranded:
        return "!", "typed, cannot be saved", "state-failed"
    if draft.is_reset(item.name):
        return "*", "edited: default", "state-backoff"
    if item.name in draft.edits:
        return "*", "edited", "state-backoff"
    if item.name in draft.applied:
        return "✓", clean(draft.applied[item.name]), "state-live"
    if item.locked:
        return "=", f"fixed: {clean(item.locked)}", "muted"
    return " ", clean(item.source.rsplit("/", 1)[-1]), "text"


def _highlighted(name: str, wanted: str, token: str) -> list[Span]:
    """The name, with the words that were searched for made to stand out."""
    words = [re.escape(word) for word in wanted.split()]
    if not words:
        return [(name, token)]
    parts = re.split(f"({'|'.join(words)})", name, flags=re.IGNORECASE)
    return [(part, "found" if i % 2 else token) for i, part in enumerate(parts) if part]


def about(item: SettingField, draft: Draft, width: int, *, tall: bool) -> list[Row]:
    """All that is known of a setting. `tall`: a line for each fact; otherwise as few lines as it takes."""
    title = fitted(width, [(clean(item.title), "title")], [(item.name, "muted")])
    said = [row((line, "text")) for line in wrap(clean(item.description), width, 6 if tall else 3)]
    facts = _facts(item)
    if tall:
        lines = [title, *said, Row()]
        for label, text in facts:
            parts = wrap(text, width - 10, 4)
            lines += [field(label if not i else "", width, [(part, "text")]) for i, part in enumerate(parts)]
        return [*lines, *_choices(item, draft, width), Row(), *_origin(item, width)]
    spans = [((f"{label} ", "muted"), (text, "text")) for label, text in facts]
    return [title, *said, *_flow(spans, width), *_choices(item, draft, width), *_origin(item, width)]


def _facts(item: SettingField) -> list[tuple[str, str]]:
    """Rule, unit, default, and what a change takes."""
    facts = [("rule", clean(item.rule))] if item.rule and not choices_of(item) else []
    facts += [("unit", clean(item.unit))] if item.unit else []
    facts.append(("default", clean(item.default) or "(empty)"))
    facts.append(("effect", clean(_EFFECTS.get(item.applies, item.applies))))
    return facts


def _choices(item: SettingField, draft: Draft, width: int) -> list[Row]:
    """All the values there are, the one chosen in brackets."""
    now = draft.text(item.name).lower()
    groups = [((f"[{clean(one)}]", "value") if one.lower() == now else (clean(one), "text"),) for one in choices_of(item)]
    return _flow([(("choices ", "muted"), *groups[0]), *groups[1:]], width) if groups else []


def _origin(item: SettingField, width: int) -> list[Row]:
    if item.locked:
        return [row((clip(f"= fixed by {clean(item.locked)}: change it there", width), "state-backoff"))]
    return [row(("from ", "muted"), (clip(clean(item.source), width - 5), "text"))]


def _flow(groups: Sequence[Sequence[Span]], width: int) -> list[Row]:
    """Groups two cells apart, over as many lines as they need."""
    lines: list[list[Span]] = [[]]
    for group in groups:
        if lines[-1] and width_of(lines[-1]) + 2 + width_of(group) > width:
            lines.append([])
        lines[-1] += [("  ", "text"), *group] if lines[-1] else group
    return [Row(tuple(line)) for line in lines]


def verdict(draft: Draft, name: str, note: tuple[str, str], width: int, height: int) -> list[Row]:
    """What is wrong with the setting under the cursor; else what is wrong elsewhere, or what the last key did."""
    if name in draft.problems:
        return _said(f"! {draft.problems[name]}", "state-failed", width, height)
    if name in draft.stranded:
        kept = f"! typed here: {draft.stranded[name]!r}; it cannot be saved any more, u drops it"
        return _said(kept, "state-failed", width, height)
    text, token = note
    if text:
        return _said(text, token, width, height)
    others = [f"{other}: {message}" if other else message for other, message in draft.problems.items()]
    if others:
        more = f" (and {len(others) - 1} more, tab goes there)" if len(others) > 1 else ""
        return _said(f"! {others[0]}{more}", "state-failed", width, height)
    gone = [other for other in draft.stranded if all(item.name != other for item in draft.form.fields)]
    if gone:
        return _said(f"! this engine has no setting {', '.join(gone)}; what was typed is kept", "state-failed", width, height)
    return []


def _said(text: str, token: str, width: int, height: int) -> list[Row]:
    return [row((line, token)) for line in wrap(clean(text), width, height)]
