"""Warm start: recent history over REST, so that training begins within seconds and not after hours of listening."""

from __future__ import annotations

import logging

from ..market.store import TradeStore
from ..market.trades import INTERVALS, Bar
from ..stream import Phase, ResilientStream, classify
from ..telemetry import Clock

logger = logging.getLogger(__name__)

_RETRY_S = (1.0, 2.0, 5.0)  # a REST outage may be short; the gate waits out bans
_LOOK_AGAIN_S = 1.0
_AFTER_CLOSE_S = 2.0  # the venue's own kline of an interval is final a moment after it has closed
_SPARE_BARS = 5


async def warm_start(stream: ResilientStream, store: TradeStore, symbol: str, interval: str, bars: int, clock: Clock) -> None:
    """Fetch `bars` closed klines of `symbol` into the store, then close the seam to the trades.

    The interval in which listening began holds only a part of its trades, so the venue's kline has to fill it. Listening may
    begin late (a venue that is down, a quiet symbol): the second fetch waits for it, and reaches back to where the first ended.
    """
    if bars == 0:
        return
    fetched = await _fetch(stream, symbol, interval, bars, clock)
    await store.put_klines(symbol, fetched)
    logger.info("warm start: %d bars of %s %s fetched", len(fetched), symbol, interval)
    seconds = INTERVALS[interval]
    while (begun_us := (await store.position(symbol)).begin_time_us) is None:
        await clock.sleep(_LOOK_AGAIN_S)
    closes = (begun_us // 1_000_000 // seconds + 1) * seconds
    await clock.sleep(max(0.0, closes + _AFTER_CLOSE_S - clock.time()))
    last = fetched[-1].open_time_us // 1_000_000 if fetched else int(clock.time()) - bars * seconds
    missing = max(0, int(clock.time()) - last) // seconds + _SPARE_BARS
    await store.put_klines(symbol, await _fetch(stream, symbol, interval, min(missing, max(bars, _SPARE_BARS)), clock))


async def _fetch(stream: ResilientStream, symbol: str, interval: str, bars: int, clock: Clock) -> list[Bar]:
    attempt = 0
    while True:
        try:
            return await stream.warm_klines(symbol, interval, bars)
        except Exception as error:
            # History is a help, not a condition: whatever went wrong is named, and asked for again later.
            wait = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
            reason = classify(error, Phase.REST).message
            logger.warning("warm start: no history of %s yet (%s); asking again in %.0f s", symbol, reason, wait, exc_info=error)
            attempt += 1
            await clock.sleep(wait)
