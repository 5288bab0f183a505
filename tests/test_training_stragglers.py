"""Which of several ranks is said to hold the others up."""

from __future__ import annotations

import pytest

from quantai_tui.telemetry import SYSTEM_CLOCK
from quantai_tui.training.messages import RankReport, Ranks
from quantai_tui.training.view import TrainingView


@pytest.mark.parametrize(
    ("times", "slow"),
    [
        ((20.0, 20.5, 19.0, 21.0), []),
        ((20.0, 41.0), [1]),
        ((20.0, 29.0), []),
        ((41.0, 20.0, 20.0), [0]),
        ((20.0, 20.0, 45.0, 50.0), [2, 3]),
        ((None, 20.0, 41.0), [2]),
        ((None, 41.0), []),
        ((41.0,), []),
        ((None, None), []),
        ((), []),
    ],
)
def test_a_rank_over_one_and_a_half_times_the_median_is_a_straggler(times: tuple[float | None, ...], slow: list[int]) -> None:
    view = TrainingView(SYSTEM_CLOCK)
    view.take_ranks(Ranks(tuple(RankReport(rank, "here", rank, "cpu", 5, ms, 0) for rank, ms in enumerate(times))))
    ranks = view.snapshot("ETHUSDT", ()).ranks
    assert [rank.rank for rank in ranks if rank.straggler] == slow
    assert [rank.step_ms for rank in ranks] == list(times)
