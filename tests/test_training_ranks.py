"""Several ranks in lock-step: real processes, real gloo, real fp16, under torchrun's agent; one of them killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks_child import LONG_WORDS
from ranks_support import WITHIN_S, agent, child, environment, free_port, seen
from torch import nn

from quantai_tui.training.joining import Place, RanksLost, broken, join_group
from quantai_tui.training.ranks import MEET_EVERY_S, REPORT_EVERY_S, Group, Ranks, Solo, Standing

pytestmark = pytest.mark.timeout(400)  # of processes that import torch, on loaded cores

PLACE = {
    "TORCHELASTIC_RUN_ID": "test", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "TORCHELASTIC_RESTART_COUNT": "0",
    "QUANTAI_RANKS_STORE": "/nowhere", "QUANTAI_RANKS_ROUND": "a",
}  # fmt: skip
STANDING = Standing(7, 2)


def in_lock_step(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that must be the same on all ranks is; returns the leader's account."""
    leader = ranks[0]
    assert [rank["rank"] for rank in ranks] == list(range(len(ranks)))
    assert [rank["leader"] for rank in ranks] == [True] + [False] * (len(ranks) - 1)
    for rank in ranks[1:]:
        for name in ("weights", "history", "applied", "scenario", "attempt", "resets", "least", "collected"):
            assert rank[name] == leader[name], (rank["rank"], name)
        assert rank["reports"] == []
    assert leader["least"] == 4.0 - len(ranks)
    assert leader["collected"] == ["r" * (600 * rank) for rank in range(len(ranks))]
    return leader


@pytest.mark.processes
def test_two_ranks_agree_on_overflows_resets_and_commands_and_end_with_equal_weights(tmp_path: Path) -> None:
    scenario = {"steps": 70, "reports": True, "overflow": {"1": [10, 11, 12, 20]}, "bad_loss": {"1": [25]}}
    assert agent(tmp_path, "--nproc", 2, scenario=scenario).wait(WITHIN_S) == 0
    leader = in_lock_step(seen(tmp_path, 2))
    history = leader["history"]
    skipped = [step for step, (_, _, skip) in enumerate(history) if skip]
    assert skipped == [10, 11, 12, 20, 25]
    # After three overflows in a row, by the monitor of each rank for itself, and later by the operator's word.
    assert leader["resets"] == 2
    # A loss that was not finite on rank 1 alone moves no rank's scale and no rank's growth.
    assert history[25][:2] == history[24][:2]
    assert history[20][0] == history[19][0] / 2
    assert [(words, length) for _, words, length in leader["applied"]] == [
        ("reset", 5),
        (LONG_WORDS[:8].decode(), len(LONG_WORDS)),
        ("stop", 4),
    ]
    first = leader["reports"][:2]
    assert [report[0] for report in first] == [0, 1]
    assert first[0][1] != first[1][1]
    assert [report[2] for report in first] == ["cpu", "cpu"]
    assert all(report[3] > 0 for report in leader["reports"][-2:])


@pytest.mark.processes
def test_when_one_of_four_ranks_is_killed_all_start_anew_and_finish_in_lock_step(tmp_path: Path) -> None:
    scenario = {"steps": 40, "overflow": {"2": [20]}, "end": {"rank": 3, "step": 15, "by": "SIGKILL"}}
    assert agent(tmp_path, "--nproc", 4, scenario=scenario).wait(WITHIN_S) == 0
    leader = in_lock_step(seen(tmp_path, 4))
    assert leader["attempt"] == 1
    assert [step for step, (_, _, skip) in enumerate(leader["history"]) if skip] == [20]
    pids = {int(path.read_text()) for path in tmp_path.glob("up.*")}
    assert len(pids) == 8  # two attempts, each of four new processes


@pytest.mark.processes
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_whose_fellow_ends_or_hangs_says_so_and_leaves(tmp_path: Path, by: signal.Signals) -> None:
    here = {**PLACE, "WORLD_SIZE": "2", "QUANTAI_RANKS_STORE": str(tmp_path)}
    places = [{**here, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    scenario = json.dumps({"steps": 1_000_000, "end": {"rank": 1, "step": 12, "by": by.name}})
    arguments = ("rank", "--out", tmp_path, "--lead", "--lost-s", 5, "--scenario", scenario)
    both = [child(*arguments, env=environment(**place)) for place in places]
    try:
        assert both[0].wait(WITHIN_S) == 1
        (said,) = tmp_path.glob("lost.0.0.*")
        assert "another process of this training has ended or does not answer" in said.read_text()
    finally:
        both[1].kill()
        both[1].wait()


# One rank is a group too: what needs no second process is tested without.


class Hand:
    """A clock that is moved by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def alone(hand: Hand, tmp_path: Path) -> Iterator[Group]:
    place = Place.of({**PLACE, "QUANTAI_RANKS_STORE": str(tmp_path)})
    assert place is not None
    group = Group(place, lead=True, clock=hand)  # type: ignore[arg-type]
    yield group
    group.leave()
    assert not dist.is_initialized()


@pytest.mark.parametrize("step_s", [0.0001, 0.004, 0.03, 0.7])
def test_meetings_follow_each_other_fast_enough_for_an_operator_whatever_a_step_takes(
    alone: Group, hand: Hand, step_s: float
) -> None:
    at = []
    for _ in range(1000):
        hand.now += step_s
        if alone.meets():
            alone.meet(b"", STANDING)
            at.append(hand.now)
    apart = [later - sooner for sooner, later in pairwise(at)]
    assert max(apart) <= max(MEET_EVERY_S, step_s) + 1e-6
    # And no oftener than that is worth: once in 64 steps, or as seldom as 0.1 s allows.
    assert apart[-1] >= min(64 * step_s, MEET_EVERY_S) - step_s


def test_steps_that_grow_ten_times_as_long_keep_a_command_waiting_for_a_second_at_most(alone: Group, hand: Hand) -> None:
    for _ in range(500):
        hand.now += 0.002
        if alone.meets():
            alone.meet(b"", STANDING)
    last, worst = hand.now, 0.0
    for _ in range(500):
        hand.now += 0.02
        if alone.meets():
            worst = max(worst, hand.now - last)
            last = hand.now
            alone.meet(b"", STANDING)
    assert worst <= 1.0 + 0.02


def test_reports_come_once_a_second_and_not_before_the_ranks_know_each_other(alone: Group, hand: Hand) -> None:
    hand.now += 10
    assert alone.meet(b"", STANDING).reports == ()
    alone.wrap(nn.Linear(1, 1), torch.device("cpu"))
    (report,) = alone.meet(b"", STANDING).reports
    assert (report.rank, report.pid, report.device, report.step, report.step_ms, report.overflow_count) == (
        0, os.getpid(), "cpu", 7, None, 2
    )  # fmt: skip
    hand.now += REPORT_EVERY_S * 0.9
    assert alone.meet(b"", STANDING).reports == ()
    hand.now += REPORT_EVERY_S * 0.2
    assert len(alone.meet(b"", STANDING).reports) == 1


@pytest.mark.parametrize("length", [0, 1, 492, 493, 1_000_000])
def test_words_of_any_length_arrive_whole(alone: Group, length: int) -> None:
    words = bytes(index % 251 for index in range(length))
    assert alone.meet(words, STANDING).words == words
    assert alone.tell(words) == words


def test_tensors_of_any_kind_and_shape_are_shared(alone: Group) -> None:
    given = [torch.randn(3, 4), torch.arange(5), torch.tensor(2.5, dtype=torch.float64), torch.empty(0, 7), torch.randn(4, 6).T]
    for sent, received in zip(given, alone.share(given), strict=True):
        assert sent.dtype == received.dtype
        assert torch.equal(sent, received)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [7, 32, 33])
def test_the_parts_of_all_ranks_make_up_the_batch_and_their_weighted_mean_is_its_mean(
    alone: Group, world: int, count: int
) -> None:
    losses = torch.randn(count, dtype=torch.float64)
    alone.world = world
    taken, mean = [], 0.0
    for rank in range(world):
        alone.rank = rank
        part = alone.part(count)
        taken += range(count)[part]
        mean += float(losses[part].mean()) * alone.weight(count) / world
    assert taken == list(range(count))
    assert mean == pytest.approx(float(losses.mean()))
    alone.rank, alone.world = 0, 1


def test_a_batch_with_fewer_samples_than_ranks_is_refused(alone: Group) -> None:
    alone.world = 5
    with pytest.raises(ValueError, match="4 samples cannot be shared by 5 processes: choose a batch size"):
        alone.part(4)
    alone.world = 1


def test_a_single_process_asks_nobody() -> None:
    ranks: Ranks = Solo()
    model, data = nn.Linear(1, 1), torch.ones(2)
    assert ranks.leader
    assert ranks.meets()
    assert ranks.meet(b"words", STANDING) == (b"words", ())
    assert ranks.tell(b"words") == b"words"
    assert ranks.share([data])[0] is data
    assert ranks.any(True)
    assert not ranks.any(False)
    assert ranks.least(2.0) == 2.0
    assert ranks.collect(b"words") == [b"words"]
    assert ranks.part(5) == slice(0, 5)
    assert ranks.weight(5) == 1.0
    assert ranks.device("auto") == "auto"
    assert ranks.wrap(model, torch.device("cpu")) is model
    ranks.leave()


def test_outside_of_torchrun_there_is_no_place() -> None:
    assert Place.of({"RANK": "0"}) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WORLD_SIZE": "two"}, "torchrun's environment is not whole: .*two"),
        ({"QUANTAI_RANKS_STORE": None}, "torchrun's environment is not whole: .*start ranks by quantai_tui.training.node"),
    ],
)
def test_a_place_that_cannot_work_is_refused_in_words(changes: dict[str, str | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Place.of({name: value for name, value in {**PLACE, **changes}.items() if value is not None})


@pytest.mark.parametrize("machines", [1, 2])
def test_when_nobody_else_comes_the_group_is_given_up_in_words(tmp_path: Path, machines: int) -> None:
    store = str(tmp_path) if machines == 1 else f"127.0.0.1:{free_port()}"
    place = Place.of({**PLACE, "RANK": "1", "WORLD_SIZE": "2", "QUANTAI_RANKS_STORE": store})
    assert place is not None
    with pytest.raises(RanksLost, match="the 2 processes of this training have not met within 1 s"):
        join_group(place, lead=False, join_s=1.0)


def test_restarted_ranks_see_no_entries_of_the_previous_start(tmp_path: Path) -> None:
    for name in ("first", "second"):
        place = Place.of({**PLACE, "QUANTAI_RANKS_STORE": str(tmp_path), "QUANTAI_RANKS_ROUND": name})
        assert place is not None
        # The leader of the first start has left its name; in the same store this one would be a second leader.
        assert join_group(place._replace(rank=0 if name == "first" else 1, world=1), lead=True) == (0, 1)
        dist.destroy_process_group()


def test_an_error_that_has_nothing_to_do_with_other_ranks_passes_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised, broken("in a step"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not isinstance(raised.value, RanksLost)
