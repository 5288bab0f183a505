"""What an engine does by the clock beside its work: statistics into the log, and trades deleted that are kept long enough."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..market.store import TradeStore
from ..telemetry import Clock, EngineSnapshot
from .desk import SettingsDesk
from .vitals import statistics

logger = logging.getLogger(__name__)

_STATISTICS_EVERY_S = 60.0
_PRUNE_EVERY_S = 3600.0


async def keep_house(desk: SettingsDesk, store: TradeStore, snapshot: Callable[[], EngineSnapshot], clock: Clock) -> None:
    """Goes on until it is cancelled."""
    last_prune = clock.monotonic()
    while True:
        await clock.sleep(_STATISTICS_EVERY_S)
        logger.info("statistics: %s", statistics(snapshot()))
        if desk.settings.STORE_RETENTION_DAYS == 0:
            store.keep_all()
        elif clock.monotonic() - last_prune >= _PRUNE_EVERY_S:
            last_prune = clock.monotonic()
            await store.prune(int(desk.settings.STORE_RETENTION_DAYS * 86_400 * 1_000_000))
