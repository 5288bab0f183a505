"""When a replay is over."""

from __future__ import annotations

from ..telemetry import EngineSnapshot


def is_finished(snapshot: EngineSnapshot, *, trains: bool, symbol: str, interval_s: int) -> bool:
    """Whether all that is played is stored, and one epoch, where one is wanted, has seen the last whole bar of `symbol`."""
    if snapshot.replay_progress is None or snapshot.replay_progress < 1.0 or snapshot.store.queued:
        return False
    if not trains:
        return True
    trained_to = snapshot.training.data_through_time
    known = snapshot.stream.symbols.get(symbol)  # a dashboard may ask before the stream has loaded its symbols
    last = known.last_trade_time if known is not None else None
    if last is None or trained_to is None or snapshot.training.epochs_done < 1:
        return False
    return trained_to >= last - 2 * interval_s
