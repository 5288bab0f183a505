"""Faults of single frames: the unreadable is put away, what comes twice or late is put right, what is left out is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults_support import REDIAL, Rig, on_both_transports, rig

from quantai_tui.stream import FailureKind

K = FailureKind

COUNT = 5
UNREADABLE = ["malformed", "missing-fields", "unknown-event", "bad-utf8", "binary"]


async def happened(rigged: Rig, kind: str, **parameters: Any) -> None:
    """Let it happen, and wait until the exchange has done it."""
    await rigged.inject(kind, **parameters)
    await rigged.until(lambda: rigged.faults.in_force(kind) is None, f"{kind} has happened")


@on_both_transports
@pytest.mark.parametrize("fault", UNREADABLE)
async def test_what_cannot_be_read_is_put_away_and_costs_its_neighbours_nothing(
    tmp_path: Path, transport: str, fault: str
) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await happened(rigged, fault, count=COUNT, every=2)
        await rigged.until(lambda: rigged.snapshot.bad_frames == COUNT, "put away")
        await rigged.recovered()
        assert len(rigged.snapshot.quarantine) == COUNT
        assert all(frame.reason and frame.excerpt.isprintable() for frame in rigged.snapshot.quarantine)
        assert (rigged.path, rigged.dials, rigged.questions) == ((), 1, 0)
        await rigged.nothing_lost()


@pytest.mark.parametrize("fault", UNREADABLE)
async def test_a_trade_in_whose_place_something_unreadable_came_is_fetched(tmp_path: Path, fault: str) -> None:
    async with rig(tmp_path) as rigged:
        await happened(rigged, fault, count=COUNT, every=2, replace=True)
        await rigged.recovered()
        assert (rigged.path, rigged.dials, rigged.symbol.repaired) == ((), 1, COUNT)
        assert rigged.snapshot.bad_frames == COUNT
        await rigged.nothing_lost()


@on_both_transports
@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [("compressed", K.PROTOCOL, "broke the websocket protocol"), ("oversized", K.OVERSIZED, "larger than any")],
)
async def test_a_frame_that_breaks_the_protocol_costs_one_dial_and_no_trade(
    tmp_path: Path, transport: str, fault: str, kind: FailureKind, says: str
) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await happened(rigged, fault)
        await rigged.shown(kind, says)
        await rigged.recovered(within=0.05)
        assert (rigged.path, rigged.dials, rigged.snapshot.bad_frames) == (REDIAL, 2, 0)
        await rigged.nothing_lost()


@on_both_transports
async def test_fragmented_messages_are_whole_again(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await happened(rigged, "fragmented", count=20, pieces=4)
        await rigged.recovered()
        assert (rigged.path, rigged.dials, rigged.snapshot.bad_frames) == ((), 1, 0)
        # A library may hand over a message in pieces a moment after whole ones that came later.
        await rigged.nothing_lost(late=None, duplicates=None)


@on_both_transports
async def test_trades_that_come_again_are_counted_and_dropped(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await happened(rigged, "duplicate", count=COUNT, span=3)
        await rigged.until(lambda: rigged.symbol.duplicates == COUNT, "dropped")
        assert (rigged.path, rigged.dials, rigged.questions) == ((), 1, 0)
        await rigged.nothing_lost(duplicates=COUNT)


@on_both_transports
async def test_trades_that_come_out_of_order_are_put_in_order(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await happened(rigged, "reorder", count=4, span=6)
        await rigged.recovered()
        assert (rigged.path, rigged.dials) == ((), 1)
        assert rigged.symbol.late > 0
        # Of a group that two batches share, a part may be fetched before it comes.
        await rigged.nothing_lost(late=None, duplicates=None)


async def test_trades_that_the_stream_leaves_out_are_fetched_without_a_dial(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await happened(rigged, "hole", count=COUNT, every=3)
        await rigged.recovered()
        assert (rigged.path, rigged.dials, rigged.symbol.repaired) == ((), 1, COUNT)
        assert "ids skipped on a live link" in rigged.symbol.gap_note
        assert "repaired" in rigged.symbol.gap_note
        await rigged.nothing_lost()


async def test_trades_that_the_venue_itself_lacks_are_holes_and_said_to_be(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await happened(rigged, "venue-hole", count=COUNT)
        await rigged.recovered()
        assert (rigged.path, rigged.dials, rigged.symbol.venue_holes) == ((), 1, COUNT)
        assert "the venue has no such trades" in rigged.symbol.gap_note
        await rigged.nothing_lost(holes=COUNT)
