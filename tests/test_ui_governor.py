"""How a slow terminal is spared, in virtual time: the levels, what each lets through, and how trust comes back."""

from __future__ import annotations

import pytest
from ui_support import FrozenClock, dashboard, engine_snapshot, live, screen_text, stream_snapshot, until

from quantai_tui.ui.governor import Governor, Level, Part


def observed(governor: Governor, clock: FrozenClock, lag_s: float, for_s: float) -> list[bool]:
    """The same lag in every quarter of a second for so long."""
    anew = []
    for _ in range(int(for_s * 4)):
        clock.advance(0.25)
        anew.append(governor.observe(lag_s))
    return anew


def test_a_line_that_keeps_up_is_not_held_back_and_says_nothing() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    assert not any(observed(governor, clock, 0.02, 60))
    assert governor.level is Level.FULL
    assert governor.words == ""
    assert all(governor.may_paint(part) for part in Part for _ in range(5))


def test_a_slow_line_gets_its_panes_every_four_seconds_and_says_so() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    governor.observe(1.0)
    assert governor.words == "slow line: panes every 4 s"
    painted = 0
    for _ in range(40):  # ten seconds, in which the line keeps up
        clock.advance(0.25)
        governor.observe(0.0)
        painted += governor.may_paint(Part.PANES)
    assert painted in (2, 3)


def test_nothing_is_added_to_what_a_slow_line_has_not_taken_yet() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    governor.observe(1.0)
    clock.advance(4)
    governor.observe(0.5)
    assert not governor.may_paint(Part.PANES)
    assert not governor.may_paint(Part.STATES)


def test_a_very_slow_line_gets_states_and_alerts_only_and_a_stalled_one_nothing() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    governor.observe(4.0)
    clock.advance(4)
    governor.observe(0.0)
    assert governor.level is Level.SPARSE
    assert "only states and alerts" in governor.words
    assert governor.may_paint(Part.STATES)
    assert not governor.may_paint(Part.PANES)
    governor.observe(12.0)
    assert governor.level is Level.STALLED
    clock.advance(60)
    assert not governor.may_paint(Part.STATES)


def test_a_terminal_that_takes_again_is_painted_anew_once() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    governor.observe(30.0)
    assert observed(governor, clock, 0.0, 2).count(True) == 1
    assert governor.level is Level.SPARSE


def test_trust_comes_back_level_by_level_and_later_after_it_was_disappointed() -> None:
    clock = FrozenClock()
    governor = Governor(clock)
    governor.observe(4.0)
    observed(governor, clock, 0.0, 13)
    assert governor.level is Level.SLOW
    observed(governor, clock, 0.0, 13)
    assert governor.level is Level.FULL
    governor.observe(1.0)  # too soon trusted
    observed(governor, clock, 0.0, 13)
    assert governor.level is Level.SLOW
    observed(governor, clock, 0.0, 13)
    assert governor.level is Level.FULL


@pytest.mark.parametrize(("ticks_per_s", "most"), [(4, 20), (50, 20)])
def test_over_ssh_the_panes_are_painted_at_most_four_times_a_second(ticks_per_s: int, most: int) -> None:
    clock = FrozenClock()
    governor = Governor(clock, floor_s=0.25)
    painted = 0
    for _ in range(5 * ticks_per_s):
        clock.advance(1 / ticks_per_s)
        governor.observe(0.0)
        painted += governor.may_paint(Part.PANES)
        assert governor.may_paint(Part.STATES)
    assert most - 4 <= painted <= most + 1


class SlowLine:
    """A line whose lag a test sets."""

    lag_s = 0.0

    def ask_again(self) -> None: ...

    def when_free(self, call: object) -> None:
        pass


async def test_on_a_slow_line_the_numbers_stand_still_while_a_change_of_state_and_what_a_key_did_are_shown() -> None:
    line = SlowLine()
    link = live()
    async with dashboard(link, line=line) as (app, pilot, clock):
        line.lag_s = 5.0
        app.tick()
        await until(pilot, lambda: "very slow line: only states and alerts" in screen_text(app))
        line.lag_s = 0.0
        rows = app.dashboard.pane("connection").rows[:]
        link.snapshot = engine_snapshot(stream=stream_snapshot(messages_per_s=5.0))
        clock.advance(4)
        app.tick()
        assert app.dashboard.pane("connection").rows == rows
        app.say("reconnect: sent")
        await until(pilot, lambda: "reconnect: sent" in screen_text(app))
        assert app.dashboard.pane("connection").rows == rows
        for _ in range(120):
            clock.advance(0.25)
            app.tick()
        await until(pilot, lambda: "slow line" not in screen_text(app))
        assert app.dashboard.pane("connection").rows != rows
