"""The settings as a list to move in: groups, one line for each setting, only those lines drawn again that changed."""

from __future__ import annotations

from textual.widgets.option_list import Option

from ..link.messages import SettingField
from .cells import Row, row
from .draft import Draft
from .fields import content, list_row
from .format import clean
from .options import Options


class FieldList(Options):
    """Knows what it shows; what the settings are is the draft's."""

    def __init__(self) -> None:
        super().__init__(id="fields", markup=False)
        self._rows: dict[str, Row] = {}

    def fill(self, draft: Draft, wanted: str, current: str) -> bool:
        """All that have the wanted words; the cursor stays on its setting. Returns whether there is any."""
        self.clear_options()
        self._rows.clear()
        group = ""
        for item in draft.matching(wanted):
            if item.group != group:
                group = item.group
                self.add_option(Option(content([row((f" {clean(group)}", "title"))]), disabled=True))
            self._rows[item.name] = self._row(item, draft, wanted)
            self.add_option(Option(content([self._rows[item.name]]), id=item.name))
        if self._rows:
            self.go_to(current if current in self._rows else next(iter(self._rows)))
        return bool(self._rows)

    def redraw(self, draft: Draft, wanted: str) -> None:
        """After an edit or an answer."""
        for name, before in self._rows.items():
            now = self._row(draft.field(name), draft, wanted)
            if now != before:
                self._rows[name] = now
                self.replace_option_prompt(name, content([now]))

    def shows(self, name: str) -> bool:
        return name in self._rows

    def go_to(self, name: str) -> None:
        self.highlighted = self.get_option_index(name)

    def _row(self, item: SettingField, draft: Draft, wanted: str) -> Row:
        return list_row(item, draft, max(50, (self.size.width or self.app.size.width) - 1), wanted)
