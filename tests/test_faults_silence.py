"""Links that are up and bring nothing, or not everything, and links that bring more than can be taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults_support import REDIAL, SYMBOL, SYMBOLS, Rig, S, on_both_transports, rig

from quantai_tui.exchange.budget import Limits
from quantai_tui.stream import FailureKind
from quantai_tui.stream.liveness import ENOUGH_S

K = FailureKind

# The usual silence of a symbol is known after a minute: one that lasts five seconds. Two seconds, after which REST is asked
# about a quiet symbol, must last longer than a batch.
RATE = 12.0
FAST = Limits(messages_per_s=60)
OTHER = SYMBOLS[1]
USUAL_S = 6.0  # half a second: a busy machine is not to be suspected three times as soon as that


async def known(rigged: Rig) -> None:
    """Until the stream knows how long each symbol is usually silent: so long, once in a minute."""
    longest = 600.0
    await rigged.inject("hold", for_s=USUAL_S)
    await rigged.faults.until_over("hold")
    await rigged.until(
        lambda: all((one.silence_limit_s or longest) < longest for one in rigged.snapshot.symbols.values()),
        "limits of silence",
        within=2 * ENOUGH_S / RATE,
    )


@on_both_transports
async def test_a_stall_with_live_pongs_is_found_in_seconds_and_left_for_a_second_connection(
    tmp_path: Path, transport: str
) -> None:
    async with rig(tmp_path, transport=transport, world_rate=RATE, limits=FAST, ping_interval=5.0) as rigged:
        await known(rigged)
        limit = max(one.silence_limit_s or 0.0 for one in rigged.snapshot.symbols.values())
        dials, probes = rigged.dials, rigged.snapshot.probes
        await rigged.inject("stall", connections="open", for_s=3600.0)
        await rigged.until(lambda: S.STALLED in rigged.path, "a suspicion", within=limit / RATE)
        await rigged.recovered(within=5.0 / RATE)
        assert rigged.path == (S.STALLED, S.LIVE)
        assert (rigged.dials - dials, rigged.snapshot.probes - probes, rigged.snapshot.reconnects) == (1, 1, 0)
        assert "the link had stalled" in rigged.symbol.gap_note
        assert rigged.snapshot.rtt_ms.missed == 0
        await rigged.mend()
        await rigged.nothing_lost(duplicates=None)


async def test_one_symbol_that_falls_silent_while_others_go_on_is_missed(tmp_path: Path) -> None:
    async with rig(tmp_path, symbols=SYMBOLS, world_rate=RATE, limits=FAST) as rigged:
        await known(rigged)
        dials, probes = rigged.dials, rigged.snapshot.probes
        await rigged.inject("silent-symbol", symbol=OTHER, connections="open", for_s=3600.0)
        limit = rigged.snapshot.symbols[OTHER].silence_limit_s or 0.0
        await rigged.until(lambda: S.STALLED in rigged.path, "a suspicion", within=limit / RATE)
        assert OTHER in rigged.snapshot.cause
        await rigged.recovered(within=5.0 / RATE)
        assert rigged.path == (S.STALLED, S.LIVE)
        assert (rigged.dials - dials, rigged.snapshot.probes - probes) == (1, 1)
        assert rigged.snapshot.symbols[SYMBOL].repaired == 0
        await rigged.mend()
        await rigged.nothing_lost(duplicates=None)


@pytest.mark.soak
async def test_symbol_missing_on_all_connections_is_silent_and_fetched(tmp_path: Path) -> None:
    async with rig(tmp_path, symbols=SYMBOLS, world_rate=RATE, limits=FAST) as rigged:
        await known(rigged)
        limit = rigged.snapshot.symbols[OTHER].silence_limit_s or 0.0
        await rigged.inject("silent-symbol", symbol=OTHER, connections="all", for_s=3600.0)
        silent = lambda: rigged.snapshot.symbols[OTHER].subscription == "silent"  # noqa: E731
        await rigged.until(silent, "it is called silent", within=(limit + 30.0) / RATE)
        goal = rigged.now()[OTHER]
        await rigged.until(
            lambda: (rigged.snapshot.symbols[OTHER].complete_through_id or 0) >= goal, "its late trades", within=35.0 / RATE
        )
        assert (rigged.snapshot.symbols[OTHER].silence_limit_s or 0.0) < 2 * limit, "its silence is not excused"
        assert rigged.snapshot.symbols[SYMBOL].subscription == "acknowledged"
        await rigged.mend()
        await rigged.until(lambda: not silent(), "it trades on the stream again", within=1.0)
        await rigged.nothing_lost(duplicates=None)


async def test_silence_everywhere_ends_the_connection_after_the_message_timeout(tmp_path: Path) -> None:
    patience = {"message_warning_timeout": 10.0, "message_timeout": 40.0}
    async with rig(tmp_path, world_rate=RATE, limits=FAST, **patience) as rigged:
        await rigged.inject("stall", for_s=3600.0)
        await rigged.until(lambda: S.STALLED in rigged.path, "a suspicion", within=10.0 / RATE)
        await rigged.shown(K.DATA_STALL, "WS_MESSAGE_TIMEOUT", within=40.0 / RATE)
        await rigged.mend()
        await rigged.recovered(within=1.0)
        assert rigged.snapshot.probes >= 1
        await rigged.nothing_lost(duplicates=None)


async def test_a_subscription_that_the_venue_has_forgotten_is_asked_for_again_on_the_same_connection(tmp_path: Path) -> None:
    async with rig(tmp_path, symbols=SYMBOLS, world_rate=RATE, limits=FAST) as rigged:
        await known(rigged)
        await rigged.inject("lost-subscription", symbol=OTHER)
        await rigged.until(lambda: rigged.snapshot.symbols[OTHER].repaired > 0, "a gap that is filled", within=60.0 / RATE)
        await rigged.recovered(within=60.0 / RATE)
        assert rigged.snapshot.symbols[OTHER].subscription == "acknowledged"
        assert set(rigged.path) <= {S.STALLED, S.LIVE}
        assert rigged.snapshot.last_error is None
        await rigged.nothing_lost(duplicates=None)


async def test_a_subscription_that_the_venue_still_lists_and_does_not_serve_is_left_for_a_second_connection(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, symbols=SYMBOLS, world_rate=RATE, limits=FAST) as rigged:
        await known(rigged)
        dials = rigged.dials
        await rigged.inject("lost-subscription", symbol=OTHER, listed=True)
        await rigged.until(lambda: S.STALLED in rigged.path, "a suspicion", within=60.0 / RATE)
        await rigged.recovered(within=10.0 / RATE)
        assert (rigged.path, rigged.dials - dials) == ((S.STALLED, S.LIVE), 1)
        await rigged.nothing_lost(duplicates=None)


async def test_a_subscription_that_is_acknowledged_and_never_served_is_said_so_and_fetched(tmp_path: Path) -> None:
    async with rig(tmp_path, symbols=SYMBOLS, world_rate=RATE, limits=FAST) as rigged:
        await rigged.inject("lost-subscription", symbol=OTHER, listed=True, for_s=3600.0)
        await rigged.inject("close")
        await rigged.until(lambda: rigged.snapshot.symbols[OTHER].subscription == "silent", "silent", within=10.0 / RATE)
        assert "the symbol or the address is wrong" in rigged.snapshot.symbols[OTHER].subscription_note
        goal = rigged.now()[OTHER]
        # Fetched every half minute, however long the subscription is silent.
        await rigged.until(
            lambda: (rigged.snapshot.symbols[OTHER].complete_through_id or 0) >= goal, "its late trades", within=31.0 / RATE
        )
        assert rigged.snapshot.symbols[SYMBOL].subscription == "acknowledged"
        await rigged.inject("clear")
        rigged.stream.reconnect_now()
        await rigged.recovered()
        await rigged.nothing_lost(duplicates=None)


@on_both_transports
async def test_fifty_thousand_trades_a_second_are_all_stored(tmp_path: Path, transport: str) -> None:
    async with rig(tmp_path, transport=transport, market_rate=1.0, flowing=False) as rigged:
        await rigged.flowing(1)
        await rigged.inject("burst", rate=50_000.0, for_s=1.0)
        await rigged.faults.until_over("burst")
        await rigged.recovered(within=10.0)
        assert rigged.symbol.stored > 45_000
        assert rigged.stream.queued < 25_000
        await rigged.nothing_lost(duplicates=None, late=None)


async def test_a_store_that_does_not_keep_up_costs_the_link_and_no_trade(tmp_path: Path) -> None:
    async with rig(tmp_path, market_rate=1.0, buffer_trades=100, overload_after=3.0) as rigged:
        before = rigged.now()[SYMBOL]
        await rigged.inject("burst", rate=1000.0, for_s=30.0)
        rigged.sink.room.clear()
        await rigged.shown(K.OVERLOAD, "too slow to read", within=4.0)
        # One batch in hand and one that waits, each with what a single read of the socket has brought beyond the limit.
        assert rigged.stream.queued <= 2 * 100 + 1000
        assert rigged.now()[SYMBOL] - before > 1500
        await rigged.mend()
        rigged.sink.room.set()
        await rigged.recovered(within=0.1)
        assert (rigged.path, rigged.dials) == (REDIAL, 2)
        await rigged.nothing_lost(duplicates=None)
