"""Warm start: recent history over REST, so that training begins within seconds and not after hours of listening."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..market.store import TradeStore
from ..market.trades import INTERVALS, Bar
from ..stream import Phase, ResilientStream, classify
from ..telemetry import Clock

logger = logging.getLogger(__name__)

_RETRY_S = (2.0, 5.0, 15.0, 60.0)
_SEAM_BARS = 5


async def warm_start(
    stream: Callable[[], ResilientStream], store: TradeStore, symbol: str, interval: str, bars: int, clock: Clock
) -> None:
    """Fetch `bars` closed klines of `symbol` into the store, and once more the newest few when the interval in which listening
    began has closed: its own trades are incomplete, so only the venue's kline can fill it. Retries until it succeeds."""
    if bars == 0:
        return
    seconds = INTERVALS[interval]
    fetched = await _fetch(stream, symbol, interval, bars, clock)
    await store.put_klines(symbol, fetched)
    logger.info("warm start: %d bars of %s %s fetched", len(fetched), symbol, interval)
    await clock.sleep(seconds - clock.time() % seconds + 2.0)
    await store.put_klines(symbol, await _fetch(stream, symbol, interval, _SEAM_BARS, clock))


async def _fetch(stream: Callable[[], ResilientStream], symbol: str, interval: str, bars: int, clock: Clock) -> list[Bar]:
    attempt = 0
    while True:
        try:
            return await stream().warm_klines(symbol, interval, bars)
        except Exception as error:
            # History is a help, not a condition: whatever went wrong is named, and asked for again later.
            wait = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
            reason = classify(error, Phase.REST).message
            logger.warning("warm start: no history of %s yet (%s); asking again in %.0f s", symbol, reason, wait, exc_info=error)
            attempt += 1
            await clock.sleep(wait)
