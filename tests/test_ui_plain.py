"""The dashboard for ears: what is said when, and what a typed word does."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import msgspec
import pytest
from e2e_support import LINUX_ONLY, PROGRAM, Stage, says_live, stage
from ui_support import (
    NOW,
    FakeLink,
    FrozenClock,
    alert,
    backoff_snapshot,
    engine_snapshot,
    live,
    stream_snapshot,
    training_snapshot,
)

from quantai_tui.link.base import LinkState
from quantai_tui.link.messages import Ack, CommandName
from quantai_tui.telemetry import (
    CheckpointSnapshot,
    EngineSnapshot,
    Mode,
    OverflowSnapshot,
    StateChangeSnapshot,
    StreamState,
    TrainingState,
    TrialSnapshot,
)
from quantai_tui.ui.narration import changes, summary
from quantai_tui.ui.plain import PlainView

__all__ = ["stage"]  # a fixture


def said(before: EngineSnapshot, after: EngineSnapshot) -> list[str]:
    """Without their times."""
    return [line.split(" ", 1)[1] for line in changes(before, after)]


def with_stream(**values: object) -> EngineSnapshot:
    return engine_snapshot(stream=stream_snapshot(**values))


def test_nothing_is_said_when_only_numbers_move() -> None:
    before = engine_snapshot()
    after = engine_snapshot(stream=stream_snapshot(messages=9_999_999, uptime_s=9_000.0), training=training_snapshot(loss=0.5))
    assert changes(before, after) == []


def test_the_first_lines_say_where_everything_stands() -> None:
    text = "\n".join(changes(None, engine_snapshot(alerts=(alert("scale at its cap"),))))
    assert "stream live, 812 messages per second, round trip 24 ms" in text
    assert "ETHUSDT 3512.31, whole to 1823123112" in text
    assert "training under way, epoch 12, step 11,340, loss 0.6812, scale 65,536, overflow in 0.4 % of steps" in text
    assert "alert, warning: scale at its cap; " in text


def test_every_change_of_state_between_two_looks_is_said_once_though_their_times_tremble() -> None:
    steps = [StreamState.LIVE, StreamState.BACKOFF, StreamState.CONNECTING, StreamState.LIVE]
    every = tuple(StateChangeSnapshot(NOW + i, state, f"cause {i}") for i, state in enumerate(steps))
    trembling = tuple(msgspec.structs.replace(change, time=change.time + 1e-6) for change in every)
    before, after = with_stream(changes=every[:1]), with_stream(changes=trembling)
    assert said(before, after) == ["stream: backoff, cause 1", "stream: connecting, cause 2", "stream: live, cause 3"]
    assert said(with_stream(changes=every), after) == []
    # The list is a ring: its oldest has gone meanwhile.
    assert said(with_stream(changes=every[:3]), with_stream(changes=trembling[1:])) == ["stream: live, cause 3"]


def test_a_backoff_says_attempt_wait_cause_and_advice() -> None:
    (line, *_) = [line for line in said(engine_snapshot(), backoff_snapshot()) if line.startswith("stream")]
    assert re.match(r"stream: backoff, attempt 2 of 10, next in \d+ s.*Check the network", line)


def test_missing_trades_and_their_repair_are_said() -> None:
    whole = engine_snapshot()
    symbol = whole.stream.symbols["ETHUSDT"]
    torn = with_stream(symbols={"ETHUSDT": msgspec.structs.replace(symbol, missing=132)})
    assert said(whole, torn) == ["ETHUSDT: 132 trades missing, they are fetched again"]
    (line,) = said(torn, whole)
    assert line.startswith("ETHUSDT: whole to 1823123112: 132 ids missed")
    lost = with_stream(symbols={"ETHUSDT": msgspec.structs.replace(symbol, unrecoverable=7)})
    assert said(whole, lost) == ["ETHUSDT: 7 trades lost for good"]


def test_what_happens_to_training_is_said() -> None:
    before = engine_snapshot()
    after = engine_snapshot(
        training=training_snapshot(
            state=TrainingState.PAUSED,
            paused_because="three resets did not help: lower the learning rate",
            resets=(before.training.resets or 0) + 1,
            scale=32_768.0,
            last_overflow=OverflowSnapshot(NOW, 812, "scale", ("head.weight",), "the scale is too high"),
            checkpoint=CheckpointSnapshot("here", 810, NOW),
        )
    )
    assert set(said(before, after)) >= {
        "training: paused, three resets did not help: lower the learning rate",
        "training: overflow at step 812: the scale is too high; first in head.weight",
        "training: saved checkpoint of step 810",
    }
    assert any("scale reset from 65,536 to 32,768" in line for line in said(before, after))


def test_alerts_come_and_go_and_a_trial_of_settings_is_told() -> None:
    quiet = engine_snapshot(alerts=())
    loud = engine_snapshot(alerts=(alert("no message for 601 s"),))
    assert [line.partition(";")[0] for line in said(quiet, loud)] == ["alert, warning: no message for 601 s"]
    assert said(loud, quiet) == ["alert over: no message for 601 s"]
    trial = msgspec.structs.replace(quiet, trial=TrialSnapshot(3, 30.0, ("WS_PING_INTERVAL",)))
    assert said(quiet, trial) == ["settings on trial, undone in 30 s unless kept: WS_PING_INTERVAL"]
    assert said(trial, quiet) == ["settings no longer on trial"]


def test_outside_text_cannot_break_out_of_its_line() -> None:
    (line,) = said(engine_snapshot(), engine_snapshot(training=training_snapshot(last_event="one\ntwo \x1b[31m")))
    assert line == "training: one two [31m"
    assert all("\n" not in text for text in summary(engine_snapshot()))


class Listener:
    """A plain view, what it has said, and a clock that stands still."""

    def __init__(self, link: FakeLink, **options: bool) -> None:
        self.lines: list[str] = []
        self.clock = FrozenClock()
        self.link = link
        self.view = PlainView(link, self.lines.append, clock=self.clock, **options)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def answered(self, wanted: str) -> None:
        async with asyncio.timeout(30):
            while wanted not in self.text:
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("word", "command"),
    [("reconnect", CommandName.RECONNECT), ("pause", CommandName.TRAIN_PAUSE), ("ack", CommandName.ALERT_ACK)],
)
async def test_a_typed_word_sends_its_command_and_the_answer_is_said(word: str, command: CommandName) -> None:
    link = live()
    link.answers[command] = Ack(1, True, "as you wish")
    listener = Listener(link)
    listener.view.look()
    listener.view.hear(f" {word.upper()} ")
    await listener.answered(f"{word}: done — as you wish")
    assert link.sent == [command]


async def test_a_reset_is_done_only_after_a_yes() -> None:
    link = live()
    listener = Listener(link)
    listener.view.look()
    listener.view.hear("reset")
    assert "clamp(init/2, floor, cap)" in listener.text
    listener.view.hear("no")
    assert "reset: not done" in listener.text
    assert link.sent == []
    listener.view.hear("reset")
    listener.view.hear("yes")
    await listener.answered("reset: done")
    assert link.sent == [CommandName.SCALER_RESET]


async def test_a_word_that_is_none_is_answered_with_those_there_are() -> None:
    listener = Listener(live())
    listener.view.hear("rconnect")
    assert "'rconnect' is not a word known here" in listener.text
    assert "reconnect: dial now" in listener.text


async def test_news_that_stop_are_said_to_be_old_and_silence_is_broken_now_and_then() -> None:
    listener = Listener(live())
    listener.view.look()
    listener.link.snapshot_age_s = 6.0
    listener.view.look()
    assert "no news from the engine for 6 s: what was said is old" in listener.text
    listener.link.snapshot_age_s = 0.1
    listener.view.look()
    assert listener.lines[-1].endswith("news again")
    listener.clock.advance(301)
    listener.view.look()
    assert "stream live" in listener.lines[-1]


async def test_leaving_a_live_engine_leaves_it_running_and_a_failed_one_ends_the_telling() -> None:
    link = live()
    link.snapshot = msgspec.structs.replace(engine_snapshot(), mode=Mode.LIVE)
    listener = Listener(link)
    running = asyncio.ensure_future(listener.view.run())
    await listener.answered("stream live")
    listener.view.hear("quit")
    assert await running == "detach"
    assert CommandName.STOP not in link.sent

    link = live()
    link.state, link.detail = LinkState.FAILED, "the engine has ended"
    listener = Listener(link)
    assert await listener.view.run() == "detach"
    assert "engine link: failed: the engine has ended" in listener.text


async def test_quitting_a_starting_demo_stops_it_once_it_runs() -> None:
    link = live()
    link.state = LinkState.STARTING
    listener = Listener(link, stop_on_quit=True)
    running = asyncio.ensure_future(listener.view.run())
    listener.view.hear("quit")
    await listener.answered("as soon as the engine has started")
    assert (link.sent, running.done()) == ([], False)

    link.state = LinkState.ATTACHED
    assert await running == "stop"
    assert link.sent == [CommandName.STOP]


async def test_a_second_quit_does_not_wait_for_the_start() -> None:
    link = live()
    link.state = LinkState.STARTING
    listener = Listener(link, stop_on_quit=True)
    running = asyncio.ensure_future(listener.view.run())
    listener.view.hear("quit")
    listener.view.hear("quit")
    assert await running == "detach"
    assert link.sent == []


@LINUX_ONLY
@pytest.mark.timeout(120)
def test_the_demo_is_told_in_lines_obeys_words_and_leaves_nothing_behind(stage: Stage) -> None:
    command = (*PROGRAM, "demo", "--plain", "--set", "TRAIN_AUTOSTART=false")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    heard: list[str] = []
    try:
        for line in process.stdout:
            heard.append(line)
            if says_live(line) and not any("rotate: sent" in old for old in heard):
                process.stdin.write("rotate\n")
                process.stdin.flush()
            if "rotate: done" in line:
                process.stdin.write("quit\n")
                process.stdin.flush()
    finally:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stop: sent" in heard[-1] or "stop: sent" in "".join(heard)
    assert "\x1b" not in "".join(heard)
    stage.assert_nothing_left()


def test_telling_loads_no_textual() -> None:
    code = "import sys, quantai_tui.ui.plain; sys.exit('textual' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), check=False).returncode == 0
