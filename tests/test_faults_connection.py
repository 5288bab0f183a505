"""Faults of whole connections: closed, dropped, announced or aged out by the venue, and what the stream makes of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faults_support import FIRST_DIAL, REDIAL, S, on_both_transports, rig

from quantai_tui.stream import FailureKind, Phase, StreamConfig
from quantai_tui.stream.tls import tls_context
from quantai_tui.stream.transport import Link, Receiver
from quantai_tui.stream.transports import ConfiguredTransport

K = FailureKind

RATE = 60.0  # five minutes in five seconds
FIVE_MINUTES_S = 300.0
MARKET_RATE = 5.0
LONG_S = 20.0  # far more than a rotation takes on a machine that has other things to do


@on_both_transports
@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [(1000, K.CLOSED, "in good order"), (1008, K.POLICY, "breach of a rule"), (1012, K.CLOSED, "in good order")],
)
async def test_a_close_frame_is_followed_by_one_dial_and_what_was_missed_is_fetched(
    tmp_path: Path, transport: str, code: int, kind: FailureKind, says: str
) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject("close", code=code, reason="by order of the test")
        await rigged.shown(kind, says)
        await rigged.recovered(within=0.05)
        assert rigged.path == REDIAL
        assert (rigged.dials, rigged.snapshot.attempts_total, rigged.snapshot.reconnects) == (2, 2, 1)
        await rigged.nothing_lost()


@pytest.mark.parametrize(("transport", "after"), [("websockets", 0.0), ("picows", 0.05)])
async def test_five_minutes_of_accepting_and_dropping_cost_at_most_twenty_dials(
    tmp_path: Path, transport: str, after: float
) -> None:
    as_shipped = {"initial_delay": 1.0, "max_delay": 60.0, "stable_after": 10.0, "jitter": 0.1}
    async with rig(tmp_path, transport=transport, world_rate=RATE, market_rate=MARKET_RATE, **as_shipped) as rigged:
        before, began = rigged.dials, rigged.clock.monotonic()
        await rigged.inject("flap", after=after, for_s=3600.0)
        await rigged.shown(K.RESET, "will be fetched")
        over = began + FIVE_MINUTES_S * MARKET_RATE / RATE
        await rigged.until(lambda: rigged.clock.monotonic() >= over, "five minutes", within=FIVE_MINUTES_S / RATE)
        assert rigged.dials - before <= 20
        await rigged.until(lambda: rigged.dials - before >= 5, "five dials", within=2 * 60.0 / RATE)
        await rigged.mend()
        await rigged.recovered(within=60.0 / RATE)
        # In so fast a world REST is asked about quiet symbols every few ms, and may be ahead of the stream.
        await rigged.nothing_lost(duplicates=None)


@on_both_transports
async def test_pings_that_nobody_answers_end_a_link_on_which_data_flows(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport, ping_interval=0.1, pong_timeout=0.6) as rigged:
        await rigged.inject("pongs-withheld", connections="open")
        await rigged.shown(K.PONG_TIMEOUT, "dead although nobody closed it", within=0.7)
        await rigged.recovered(within=0.05)
        assert (rigged.path, rigged.dials) == (REDIAL, 2)
        await rigged.nothing_lost()


async def test_data_that_waits_and_then_comes_all_at_once_is_no_outage(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await rigged.inject("hold", for_s=0.5)
        await rigged.faults.until_over("hold")
        await rigged.recovered()
        assert (rigged.path, rigged.dials, rigged.questions) == ((), 1, 0)
        await rigged.nothing_lost()


@on_both_transports
async def test_a_connection_is_replaced_before_the_venue_ends_it_for_its_age(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport, rotate_after=0.4) as rigged:
        await rigged.inject("lifetime", lifetime=LONG_S)
        # One may have been under way or over before: the next one comes a second later, or two.
        await rigged.until(lambda: rigged.path[-2:] == (S.ROTATING, S.LIVE), "a rotation", within=0.4 + 2.0)
        await rigged.recovered()
        assert set(rigged.path) == {S.ROTATING, S.LIVE}
        assert rigged.snapshot.rotations >= 1
        assert (rigged.questions, rigged.snapshot.last_error, rigged.snapshot.reconnects) == (0, None, 0)
        await rigged.nothing_lost()


@on_both_transports
async def test_a_connection_that_the_venue_ends_for_its_age_is_dialled_again(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject("lifetime", lifetime=0.05)
        await rigged.shown(K.CLOSED, "in good order", of="1001")
        await rigged.mend()
        await rigged.recovered(within=1.0)
        assert rigged.path[:1] == (S.BACKOFF,)
        assert rigged.path[-4:] == FIRST_DIAL
        await rigged.nothing_lost()


class RawForm:
    """A transport whose connections ask for events in the raw form instead of the combined one."""

    name = "raw form"

    def __init__(self, config: StreamConfig) -> None:
        self._inner = ConfiguredTransport(lambda: tls_context(config.ca_file))

    async def dial(self, config: StreamConfig, receiver: Receiver, on_phase: Callable[[Phase], None]) -> Link:
        link = await self._inner.dial(config, receiver, on_phase)
        await link.send('{"method":"SET_PROPERTY","params":["combined",false],"id":9999}')
        return link


@on_both_transports
@pytest.mark.parametrize("form", ["combined", "raw"])
async def test_an_announced_shutdown_is_left_before_it_comes(tmp_path: Path, transport: str, form: str) -> None:
    async with rig(tmp_path, transport=transport, wrap=RawForm if form == "raw" else None) as rigged:
        await rigged.inject("server-shutdown", lead=LONG_S)
        await rigged.until(lambda: rigged.snapshot.rotations == 1, "a rotation")
        assert "shuts down" in rigged.snapshot.cause
        await rigged.recovered()
        assert rigged.path == (S.ROTATING, S.LIVE)
        assert (rigged.dials, rigged.questions, rigged.snapshot.last_error) == (2, 0, None)
        await rigged.nothing_lost()


async def test_a_shutdown_that_follows_its_announcement_at_once_is_an_outage_like_any_other(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await rigged.inject("server-shutdown", lead=0.0)
        await rigged.recovered(within=0.05)
        await rigged.shown(K.SERVER_SHUTDOWN, "announced a restart")
        await rigged.nothing_lost()


async def test_a_venue_that_allows_one_connection_alone_makes_rotation_wait_and_costs_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await rigged.inject("connection-cap", count=1)
        rigged.stream.rotate()
        await rigged.until(lambda: rigged.path == (S.ROTATING, S.LIVE), "back on the first connection")
        assert "present connection" in rigged.snapshot.cause
        await rigged.mend()
        rigged.stream.rotate()
        await rigged.until(lambda: rigged.snapshot.rotations == 1, "a rotation")
        assert rigged.questions == 0
        await rigged.nothing_lost()


@on_both_transports
async def test_a_link_that_ends_before_its_successor_is_there_is_an_outage_of_that_moment(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject("stall-tls")
        await rigged.inject("server-shutdown", lead=LONG_S)
        await rigged.until(lambda: rigged.path == (S.ROTATING,), "a second connection is dialled")
        await rigged.inject("close", code=1001)
        await rigged.shown(K.SERVER_SHUTDOWN, "announced a restart")
        await rigged.mend()
        await rigged.recovered()
        assert rigged.snapshot.rotations == 0
        await rigged.nothing_lost()
