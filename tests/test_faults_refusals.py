"""Dials that the venue refuses with an HTTP status, or never answers: who waits how long, and who is told what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults_support import FIRST_DIAL, Rig, S, on_both_transports, rig

from quantai_tui.exchange.budget import Limits
from quantai_tui.stream import FailureKind, picows_link, websockets_link

K = FailureKind

RATE = 10.0
MARKET_RATE = 5.0
FAST = Limits(messages_per_s=50)  # what the venue allows a second, in a world that is ten times as fast
REFUSED_ONCE = (S.BACKOFF, S.CONNECTING, S.HANDSHAKING, S.BACKOFF, *FIRST_DIAL)


def times_of_visits(rigged: Rig) -> list[float]:
    return [at for at, _ in rigged.server.visits]


@on_both_transports
@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (403, K.FORBIDDEN, "dial less often"),
        (418, K.BANNED, "until the ban is over"),
        (429, K.RATE_LIMITED, "as long as it asks"),
    ],
)
async def test_a_refusal_that_names_a_time_is_obeyed_to_the_second(
    tmp_path: Path, transport: str, code: int, kind: FailureKind, says: str
) -> None:
    async with rig(tmp_path, transport=transport, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject("http-status", code=code, retry_after=5.0, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(kind, says)
        refused_at = times_of_visits(rigged)[-1]
        assert kind is K.FORBIDDEN or rigged.snapshot.ban_reason
        await rigged.mend()
        await rigged.recovered(within=5.0 / RATE)
        assert [at for at in times_of_visits(rigged) if refused_at < at < refused_at + 5.0] == []
        assert (rigged.path, rigged.dials) == (REFUSED_ONCE, 3)
        await rigged.nothing_lost(duplicates=None)


async def test_a_refusal_by_the_venues_firewall_that_names_no_time_is_left_alone_for_a_minute(tmp_path: Path) -> None:
    async with rig(tmp_path, world_rate=60.0, market_rate=MARKET_RATE, limits=FAST) as rigged:
        await rigged.inject("http-status", code=403, retry_after=-1.0, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(K.FORBIDDEN, "dial less often")
        refused_at = times_of_visits(rigged)[-1]
        await rigged.mend()
        await rigged.recovered(within=1.0)
        later = [at for at in times_of_visits(rigged) if at > refused_at]
        assert later[0] - refused_at >= 60.0 / 60.0 * MARKET_RATE  # visits are dated by the market's clock
        await rigged.nothing_lost(duplicates=None)


async def test_a_fault_of_the_venue_is_tried_again_by_the_backoff(tmp_path: Path) -> None:
    async with rig(tmp_path) as rigged:
        await rigged.inject("http-status", code=503, retry_after=-1.0, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(K.SERVER_ERROR, "nothing to do here")
        await rigged.until(lambda: rigged.dials >= 4, "two dials more")
        await rigged.mend()
        await rigged.recovered(within=1.0)
        assert set(rigged.path[:-4]) == {S.BACKOFF, S.CONNECTING, S.HANDSHAKING}
        assert rigged.path[-4:] == FIRST_DIAL
        assert rigged.snapshot.attempts_total == rigged.dials
        await rigged.nothing_lost()


async def test_a_location_that_is_not_served_any_more_is_probed_at_long_intervals(tmp_path: Path) -> None:
    async with rig(tmp_path, cooldown=0.3) as rigged:
        await rigged.inject("http-status", code=451, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(K.LOCATION, "data-stream.binance.vision")
        await rigged.until(lambda: rigged.stream.state is S.COOLING_DOWN, "a cool-down")
        await rigged.mend()
        await rigged.recovered(within=0.3)
        assert rigged.path == (S.BACKOFF, S.CONNECTING, S.HANDSHAKING, S.COOLING_DOWN, *FIRST_DIAL)
        assert rigged.dials == 3
        await rigged.nothing_lost()


async def test_a_location_that_was_never_served_is_given_up_until_the_operator_acts(tmp_path: Path) -> None:
    async with rig(tmp_path, flowing=False, wrong={"kind": "http-status", "code": 451, "for_s": 600.0}) as rigged:
        await rigged.until(lambda: rigged.stream.state is S.FAILED, "given up")
        await rigged.shown(K.LOCATION, "data-stream.binance.vision")
        assert "data-stream.binance.vision" in rigged.snapshot.cause
        await rigged.mend()
        assert rigged.dials == 1
        rigged.stream.connect()
        await rigged.flowing()
        assert rigged.dials == 2
        await rigged.nothing_lost()


@on_both_transports
@pytest.mark.parametrize("fault", ["upgrade-stall", "stall-upgrade-bytes"])
async def test_an_upgrade_that_is_never_answered_is_given_up_in_time(
    tmp_path: Path, transport: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (websockets_link, picows_link):
        monkeypatch.setattr(module, "UPGRADE_TIMEOUT_S", 0.5)
    async with rig(tmp_path, transport=transport) as rigged:
        await rigged.inject(fault, for_s=600.0)
        await rigged.inject("close")
        await rigged.shown(K.UPGRADE_TIMEOUT, "did not answer the upgrade", within=0.6)
        await rigged.mend()
        await rigged.recovered(within=0.6)
        assert rigged.path[:4] == (S.BACKOFF, S.CONNECTING, S.HANDSHAKING, S.BACKOFF)
        assert rigged.path[-4:] == FIRST_DIAL
        await rigged.nothing_lost()
