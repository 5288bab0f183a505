"""The line in which the log's filter is typed, in place of the status line."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from .log_filter import FORMS, LogFilter


class FilterLine(Input):
    """Filters as one types. A text that is no filter leaves the last good one in force, and says why it is none."""

    DEFAULT_CSS = """
    FilterLine, FilterLine:focus { height: 1; border: none; padding: 0 1; color: $value; background: $panel; }
    FilterLine.wrong, FilterLine.wrong:focus { color: $state-failed; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "clear_and_close", "clear", show=False)]

    class ChangedTo(Message):
        """The filter in force; None: all lines."""

        def __init__(self, chosen: LogFilter | None) -> None:
            super().__init__()
            self.chosen = chosen

    class Closed(Message):
        """Typing is over. `problem`: why the text is no filter."""

        def __init__(self, problem: str) -> None:
            super().__init__()
            self.problem = problem

    def __init__(self) -> None:
        super().__init__(id="filter", placeholder=f"filter the log: {FORMS}", compact=True, select_on_focus=False)
        self.display = False
        self.problem = ""

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        self._judge(message.value)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self.post_message(self.Closed(self.problem))

    def action_clear_and_close(self) -> None:
        self.value = ""
        self._judge("")
        self.post_message(self.Closed(""))

    def _judge(self, text: str) -> None:
        try:
            chosen = LogFilter.parse(text)
        except ValueError as error:
            self.problem = str(error)
        else:
            self.problem = ""
            self.post_message(self.ChangedTo(chosen))
        self.set_class(bool(self.problem), "wrong")
        self.border_subtitle = self.problem
