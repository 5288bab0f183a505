"""Questions with a few answers, each on its own key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ..telemetry import Mode, TrainingState
from .cells import clip
from .format import clean
from .options import Options

if TYPE_CHECKING:
    from .view import View


class Answer(Struct, frozen=True):
    id: str
    key: str
    text: str


class Question(ModalScreen[str]):
    """Asks, and dismisses with the id of the answer; escape is the last one, which changes nothing."""

    DEFAULT_CSS = """
    Question { align: center middle; background: $background 60%; }
    Question > Vertical {
        width: 64; max-width: 96%; height: auto; max-height: 96%; background: $surface; border: round $edge-focus; padding: 1 2;
        border-title-color: $title; border-title-style: bold;
    }
    Question Static { height: auto; color: $foreground; background: $surface; margin-bottom: 1; }
    Question OptionList, Question OptionList:focus {
        height: auto; background: $surface; background-tint: $surface 0%; border: none; padding: 0;
    }
    Question OptionList:focus > .option-list--option-highlighted { color: $value; background: $panel; text-style: none; }
    Question OptionList:ansi:focus > .option-list--option-highlighted { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", show=False)]

    def __init__(self, title: str, text: str, answers: tuple[Answer, ...], *, preferred: str = "") -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._answers = answers
        self._preferred = preferred or answers[0].id

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title).plain
            yield Static(Content(self._text), markup=False)
            yield Options(
                *(
                    Option(Content.assemble((f"{answer.key:>5}  ", "bold"), answer.text), id=answer.id)
                    for answer in self._answers
                ),
                markup=False,
            )

    def on_mount(self) -> None:
        for answer in self._answers:
            if answer.key != "esc":
                self._bindings.bind(answer.key, f"answer({answer.id!r})", show=False)
        options = self.query_one(OptionList)
        options.highlighted = next(i for i, answer in enumerate(self._answers) if answer.id == self._preferred)
        options.focus()

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(message.option.id)

    def action_answer(self, identifier: str) -> None:
        self.dismiss(identifier)

    def action_cancel(self) -> None:
        self.dismiss(self._answers[-1].id)


def ask_quit(view: View) -> Question:
    return Question(
        "Leave",
        f"The engine {clean(view.name) or '(no name yet)'} runs on its own: it goes on receiving and training without this "
        f"screen.\n\nStopped, it does neither. {_stopping(view)}",
        (
            Answer("detach", "l", "leave it running"),
            Answer("stop", "s", "stop it"),
            Answer("cancel", "esc", "cancel"),
        ),
    )


def ask_stop(view: View) -> Question:
    return Question(
        "Stop the engine",
        f"The engine {clean(view.name) or '(no name yet)'} will end, and this screen with it. {_stopping(view)}",
        (Answer("stop", "y", "stop it"), Answer("cancel", "esc", "cancel")),
        preferred="cancel",
    )


def _stopping(view: View) -> str:
    """What stopping the engine will do, and what it will not lose."""
    snapshot = view.snapshot
    if snapshot is None:
        return "It has not said yet what it is doing."
    step = snapshot.training.step
    trains = view.training_is_on or snapshot.training.state is TrainingState.PAUSED
    training = f"Training is at step {step:,}: a checkpoint is written first." if trains and step else "No training is under way."
    if snapshot.mode is not Mode.LIVE:
        return f"{training} The stream stops, and the embedded exchange with it."
    return f"{training} The stream stops; trades meanwhile are fetched on the next start, as far back as BACKFILL_MAX_AGE_H."


def ask_reset(scale: str, cap: str, floor: str) -> Question:
    return Question(
        "Reset the gradient scale",
        "This will set the scale to clamp(init/2, floor, cap): half of the initial scale, not below the floor, "
        "not above the cap. It may raise a collapsed scale. The growth tracker starts again at zero.\n\n"
        f"scale now {scale}    floor {floor}    cap {cap}",
        (Answer("reset", "y", "reset it"), Answer("cancel", "esc", "cancel")),
        preferred="cancel",
    )


_NAMED = 8


def ask_discard(losses: Sequence[str]) -> Question:
    """`losses`: a line for each edit that would be thrown away."""
    noun = "edit is" if len(losses) == 1 else "edits are"
    named = [clip(clean(line), 56) for line in losses[:_NAMED]]
    named += [f"and {len(losses) - _NAMED} more"] if len(losses) > _NAMED else []
    return Question(
        "Unsaved settings",
        "\n".join([f"{len(losses)} {noun} not saved:", *named]),
        (
            Answer("save", "s", "save and leave"),
            Answer("discard", "d", "throw them away and leave"),
            Answer("stay", "esc", "go on editing"),
        ),
        preferred="stay",
    )
