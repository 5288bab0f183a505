"""Faults of REST, on which every repair depends: live data goes on, nothing is given up, and no limit is overrun."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from faults_support import Rig, S, rig

from quantai_tui.exchange.budget import Limits

# Two seconds, after which REST is asked about a quiet symbol, and five, the least silence that is suspicious, must last longer
# than a batch on a busy machine.
RATE = 10.0
FAST = Limits(messages_per_s=50)
HOLE = 20
LIMIT_S = 20.0  # time enough for a request to meet it
BAN_S = 15.0  # time enough for a request to meet it, which doubles it


async def missing(rigged: Rig, count: int = HOLE) -> None:
    """Let the stream leave out so many trades."""
    await rigged.inject("hole", count=count)
    await rigged.until(lambda: rigged.faults.in_force("hole") is None, "a hole")
    await rigged.until(lambda: rigged.symbol.missing > 0 or rigged.symbol.repaired == count, "a gap")


async def goes_on_beside_it(rigged: Rig) -> None:
    """The stream delivers and is stored, while something is missing."""
    stored = rigged.symbol.stored
    await rigged.until(lambda: rigged.symbol.stored > stored + 20, "live trades")
    assert (rigged.stream.state, rigged.path, rigged.dials) == (S.LIVE, (), 1)
    assert rigged.symbol.venue_holes == rigged.symbol.unrecoverable == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"kind": "rest-cut"}, "truncated"),
        ({"kind": "rest-status", "code": 503, "retry_after": -1.0}, "503"),
        ({"kind": "rest-stall"}, ""),
        ({"kind": "rest-lag", "behind": 3600.0}, "REST lags behind the stream"),
        ({"kind": "rest-wrong-rows", "how": "foreign"}, ""),
        ({"kind": "rest-wrong-rows", "how": "gap"}, ""),
    ],
    ids=lambda value: value.get("how", value["kind"]) if isinstance(value, dict) else "",
)
async def test_while_no_answer_is_of_use_nothing_is_given_up(tmp_path: Path, fault: dict[str, Any], told: str) -> None:
    async with rig(tmp_path, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject(for_s=36_000.0, **fault)
        await missing(rigged)
        await rigged.until(lambda: rigged.questions >= 1 and told in rigged.snapshot.cause, "what the repair waits for")
        await goes_on_beside_it(rigged)
        # Not in the middle of a question that takes several answers: two wrong ones and a right one may well prove a hole.
        stalled = fault["kind"] == "rest-stall"
        await rigged.until(lambda: stalled or not rigged.snapshot.repairing, "between two questions")
        assert 0 < rigged.snapshot.repair_pending <= HOLE
        await rigged.mend()
        await rigged.recovered(within=30.0 / RATE)
        assert rigged.symbol.repaired == HOLE
        await rigged.nothing_lost()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rest-short", "rows": 3},
        {"kind": "rest-wrong-rows", "how": "backwards"},
        {"kind": "rest-wrong-rows", "how": "late"},
    ],
    ids=lambda fault: fault.get("how", fault["kind"]),
)
async def test_answers_that_are_cut_short_or_wrong_are_made_good_by_asking_again(tmp_path: Path, fault: dict[str, Any]) -> None:
    async with rig(tmp_path, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject(for_s=36_000.0, **fault)
        await missing(rigged)
        await rigged.recovered(within=30.0 / RATE)
        assert (rigged.path, rigged.dials, rigged.symbol.repaired) == ((), 1, HOLE)
        await rigged.mend()
        await rigged.nothing_lost()


async def test_a_limit_that_is_reached_is_respected_to_the_second_and_never_becomes_a_ban(tmp_path: Path) -> None:
    async with rig(tmp_path, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject("rest-limit", retry_after=LIMIT_S, refusals=1, lifetime=3600.0)
        await missing(rigged)
        await rigged.until(lambda: bool(rigged.snapshot.ban_reason), "the limit")
        assert "429" in rigged.snapshot.ban_reason
        refused_at = rigged.server.visits[-1][0]
        left = rigged.snapshot.banned_for_s
        until = rigged.clock.monotonic() + left
        assert 0 < left <= LIMIT_S
        await goes_on_beside_it(rigged)
        await rigged.recovered(within=(LIMIT_S + 30.0) / RATE)
        assert [what for at, what in rigged.server.visits if refused_at < at < until - 0.5] == []
        assert (rigged.dials, rigged.symbol.repaired) == (1, HOLE)
        await rigged.nothing_lost()


async def test_a_ban_that_a_neighbour_brought_upon_this_address_holds_for_dials_as_well(tmp_path: Path) -> None:
    async with rig(tmp_path, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject("rest-limit", retry_after=3600.0, refusals=2, lifetime=BAN_S)
        assert [await asked_by_a_neighbour(rigged) for _ in range(3)] == [429, 429, 418]
        neighbour_at = rigged.server.visits[-1][0]
        await missing(rigged, 3)
        await rigged.until(lambda: "418" in rigged.snapshot.ban_reason, "the ban")
        told_at, what = rigged.server.visits[-1]
        left = rigged.snapshot.banned_for_s
        assert (what.startswith("rest "), told_at > neighbour_at, left > 0) == (True, True, True)
        until = rigged.stream.snapshot().banned_for_s + rigged.clock.monotonic()
        await rigged.mend()
        await rigged.inject("close")
        await rigged.recovered(within=left / RATE)
        assert [at for at, _ in rigged.server.visits if told_at < at < until - 0.5] == []
        assert (rigged.dials, rigged.path[0]) == (2, S.BACKOFF)
        await rigged.nothing_lost(duplicates=None)


async def test_a_ban_pronounced_at_once_is_obeyed(tmp_path: Path) -> None:
    async with rig(tmp_path, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject("ban", lifetime=BAN_S)
        await missing(rigged, 3)
        await rigged.until(lambda: "418" in rigged.snapshot.ban_reason, "the ban")
        visits = len(rigged.server.visits)
        assert "will dial in" in rigged.stream.reconnect_now()
        await rigged.until(lambda: rigged.snapshot.banned_for_s < 5.0, "the ban's last seconds", within=2 * BAN_S / RATE)
        assert len(rigged.server.visits) == visits
        await rigged.recovered(within=2 * BAN_S / RATE)
        await rigged.nothing_lost(duplicates=None)


async def asked_by_a_neighbour(rigged: Rig) -> int:
    """The status that another program behind the same address gets."""
    trusting = ssl.create_default_context(cafile=str(rigged.home.ca_file))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{rigged.config.rest_url}/api/v3/ping", ssl=trusting) as response,
    ):
        return response.status
