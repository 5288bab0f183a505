"""Suspend and clock jumps, noticed by two clocks that run apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantai_tui.stream.drift import DriftWatch
from quantai_tui.telemetry import SYSTEM_CLOCK


class TwoClocks:
    """Wall and monotonic time, moved by the test. `held_up`: how long each reading of a clock takes, from the next on."""

    def __init__(self) -> None:
        self.mono, self.wall = 100.0, 1_700_000_000.0
        self.held_up: list[float] = []

    def monotonic(self) -> float:
        self._late()
        return self.mono

    def time(self) -> float:
        self._late()
        return self.wall

    def _late(self) -> None:
        self.pass_by(self.held_up.pop(0) if self.held_up else 0.0)

    def pass_by(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)


def test_time_that_passes_is_no_drift_however_long_nobody_looked():
    clock = TwoClocks()
    watch = DriftWatch(clock)
    for seconds in (0.0, 1.0, 86_400.0):
        clock.pass_by(seconds)
        assert watch.check() is None


@pytest.mark.parametrize("jump", [8 * 3600.0, 2.5, -2.5, -3600.0])
def test_a_suspend_or_a_clock_that_was_set_is_told_once_with_its_length(jump):
    clock = TwoClocks()
    watch = DriftWatch(clock)
    clock.wall += jump
    clock.pass_by(1.0)
    assert watch.check() == pytest.approx(jump, abs=1e-3)
    clock.pass_by(1.0)
    assert watch.check() is None


def test_a_clock_that_is_slewed_into_place_is_not_taken_for_a_jump():
    clock = TwoClocks()
    watch = DriftWatch(clock)
    for _ in range(100_000):
        clock.pass_by(1.0)
        clock.wall += 0.0005
        assert watch.check() is None


def test_being_held_up_between_two_readings_is_not_taken_for_a_jump():
    clock = TwoClocks()
    watch = DriftWatch(clock)
    clock.held_up = [0.0, 30.0, 0.0]
    assert watch.check() is None
    clock.held_up = [0.0, 0.0, 30.0]
    assert watch.check() is None
    assert watch.check() is None


@given(jumps=st.lists(st.floats(-1e6, 1e6), max_size=20), tolerance=st.floats(0.1, 100.0))
def test_exactly_the_jumps_above_the_tolerance_are_told(jumps, tolerance):
    clock = TwoClocks()
    watch = DriftWatch(clock, tolerance_s=tolerance)
    for jump in jumps:
        clock.pass_by(1.0)
        clock.wall += jump
        told = watch.check()
        if abs(jump) > tolerance + 1e-3:
            assert told == pytest.approx(jump, abs=1e-3)
        elif abs(jump) < tolerance - 1e-3:
            assert told is None


def test_the_machines_own_clocks_agree():
    watch = DriftWatch(SYSTEM_CLOCK)
    assert watch.check() is None


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_that_makes_no_sense_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        DriftWatch(tolerance_s=tolerance)
